#include "partition/replica_search.h"

#include <algorithm>
#include <cstddef>
#include <limits>
#include <set>
#include <string>

#include "partition/cost_model.h"
#include "partition/planner.h"
#include "partition/replicas.h"
#include "partition/shard_costs.h"

namespace renga::partition {
namespace {

constexpr double kRounding = 1e-9;
// DivideNearby is content with this part of what no division can beat.
constexpr double kGoodEnough = 0.98;
// And makes no more plans than this.
constexpr int64_t kMostPlans = 150;

// The links among some workers, by their places in `members`.
LinkTable LinksAmong(const LinkTable& links, const std::vector<int>& members) {
  std::map<int, int> place = {{kCoordinator, kCoordinator}};
  for (const int member : members) place.emplace(member, static_cast<int>(place.size()) - 1);
  LinkTable among{.default_link = links.default_link, .pairs = {}};
  for (const LinkTable::Pair& pair : links.pairs) {
    const auto from = place.find(pair.from);
    const auto to = place.find(pair.to);
    if (from == place.end() || to == place.end()) continue;
    among.pairs.push_back({from->second, to->second, pair.link});
  }
  return among;
}

// A plan of `members` alone as one that speaks of `count` workers.
void NameWorkers(const std::vector<int>& members, size_t count, Plan& plan) {
  for (StagePlan& stage : plan.stages) {
    for (StageMember& member : stage.members) member.worker = members[member.worker];
  }
  for (HeadPlan& head : plan.heads) head.worker = members[head.worker];
  if (plan.embedding_worker != kCoordinator) {
    plan.embedding_worker = members[plan.embedding_worker];
  }
  std::vector<WorkerPlan> all(count);
  for (size_t i = 0; i < members.size(); ++i) all[members[i]] = std::move(plan.workers[i]);
  plan.workers = std::move(all);
}

// Sets of workers as numbers: counts are the digits, of bases count + 1.
class SetNumbers {
 public:
  explicit SetNumbers(const MachineKinds& kinds) {
    for (int kind = 0; kind < kinds.count(); ++kind) {
      bases_.push_back(static_cast<int>(kinds.WorkersOf(kind).size()) + 1);
      count_ *= bases_.back();
    }
  }
  int count() const { return count_; }
  KindCounts CountsOf(int number) const {
    KindCounts counts;
    for (const int base : bases_) {
      counts.push_back(number % base);
      number /= base;
    }
    return counts;
  }
  // Then the number of what is left is the difference of the numbers.
  bool IsPart(int part, int whole) const {
    for (const int base : bases_) {
      if (part % base > whole % base) return false;
      part /= base;
      whole /= base;
    }
    return true;
  }

 private:
  std::vector<int> bases_;
  int count_ = 1;
};

// The best of `replicas` sets out of each set, one replica more with each round.
struct Choice {
  std::optional<ReplicaWorth> worth;
  int last = 0;  // the set of the last replica
};

std::vector<Choice> OneReplicaMore(const std::vector<Choice>& before, const SetNumbers& sets,
                                   const std::vector<ReplicaWorth>& worths) {
  std::vector<Choice> after(before.size());
  for (int whole = 0; whole < sets.count(); ++whole) {
    for (int last = 1; last <= whole; ++last) {
      if (worths[last].steps_per_second <= 0 || !sets.IsPart(last, whole)) continue;
      const std::optional<ReplicaWorth>& others = before[whole - last].worth;
      if (!others.has_value()) continue;
      const ReplicaWorth worth = *others + worths[last];
      Choice& choice = after[whole];
      if (!choice.worth || worth.BetterThan(*choice.worth)) choice = {worth, last};
    }
  }
  return after;
}

// Hill climbing over divisions. The last group is of those in no replica.
class Climber {
 public:
  Climber(SetPlanner& sets, int64_t replicas) : sets_(sets), replicas_(replicas) {
    const MachineKinds& kinds = sets.kinds();
    groups_.assign(replicas + 1, KindCounts(kinds.count(), 0));
    std::vector<int> order;
    for (int worker = 0; worker < std::ssize(sets.workers()); ++worker) order.push_back(worker);
    const auto memory = [&](int worker) { return sets.workers()[worker].memory_bytes; };
    std::stable_sort(order.begin(), order.end(),
                     [&](int a, int b) { return memory(a) > memory(b); });
    std::vector<int64_t> sums(replicas);
    for (const int worker : order) {
      const auto least = std::min_element(sums.begin(), sums.end());
      *least += memory(worker);
      ++groups_[least - sums.begin()][kinds.KindOf(worker)];
    }
  }

  std::optional<Division> Run() {
    const int64_t last_plan = sets_.planned() + kMostPlans;
    Value value = ValueNow();
    while (!Done(value) && sets_.planned() < last_plan && Improve(last_plan, value)) {
    }
    if (value.fitting < replicas_) return std::nullopt;
    return Division{{groups_.begin(), groups_.end() - 1}, value.worth};
  }

 private:
  struct Value {
    int64_t fitting = 0;  // replicas
    ReplicaWorth worth;
    bool BetterThan(const Value& other) const {
      return fitting != other.fitting ? fitting > other.fitting : worth.BetterThan(other.worth);
    }
  };

  Value ValueNow() {
    Value value;
    for (int64_t i = 0; i < replicas_; ++i) {
      const ReplicaWorth worth = sets_.WorthOf(groups_[i], replicas_);
      value.fitting += worth.steps_per_second > 0 ? 1 : 0;
      value.worth = value.worth + worth;
    }
    return value;
  }

  bool Done(const Value& value) const {
    return value.fitting == replicas_ &&
           value.worth.steps_per_second >= kGoodEnough * sets_.Bound();
  }

  // Moves a worker, or exchanges two, where that is better.
  bool Improve(int64_t last_plan, Value& value) {
    const int kinds = sets_.kinds().count();
    for (size_t from = 0; from < groups_.size(); ++from) {
      for (size_t to = 0; to < groups_.size(); ++to) {
        for (int kind = 0; from != to && kind < kinds; ++kind) {
          // Back: nobody, or a worker of another kind.
          for (int back = -1; back < kinds; ++back) {
            if (sets_.planned() >= last_plan) return false;
            if (back != kind && TryMove(from, to, kind, back, value)) return true;
          }
        }
      }
    }
    return false;
  }

  bool TryMove(size_t from, size_t to, int kind, int back, Value& value) {
    if (groups_[from][kind] == 0 || (back >= 0 && groups_[to][back] == 0)) return false;
    const auto move = [&](int sign) {
      groups_[from][kind] -= sign;
      groups_[to][kind] += sign;
      if (back < 0) return;
      groups_[to][back] -= sign;
      groups_[from][back] += sign;
    };
    move(1);
    const Value moved = ValueNow();
    if (moved.BetterThan(value)) {
      value = moved;
      return true;
    }
    move(-1);
    return false;
  }

  SetPlanner& sets_;
  const int64_t replicas_;
  std::vector<KindCounts> groups_;
};

}  // namespace

bool ReplicaWorth::BetterThan(const ReplicaWorth& other) const {
  const double margin = kRounding * other.steps_per_second;
  if (steps_per_second > other.steps_per_second + margin) return true;
  return steps_per_second >= other.steps_per_second - margin &&
         stream_ms < other.stream_ms * (1 - kRounding);
}

SetPlanner::SetPlanner(const model::Model& model, const model::ModelFootprint& footprint,
                       const std::vector<WorkerProfile>& workers, PlanRequest request)
    : model_(model),
      footprint_(footprint),
      workers_(workers),
      request_(std::move(request)),
      kinds_(workers, request_.links) {
  for (const model::LayerWeightBytes& layer : footprint.layers) model_bytes_ += layer.total();
  model_bytes_ += footprint.head_row_bytes * model.config.vocab_size;
}

std::optional<Plan> SetPlanner::PlanOf(const std::vector<int>& members, int64_t replicas) const {
  std::vector<WorkerProfile> profiles;
  std::set<std::string> ids;
  for (const int member : members) {
    profiles.push_back(workers_[member]);
    ids.insert(workers_[member].id);
  }
  PlanRequest request = ShareOfRequest(request_, replicas);
  request.links = LinksAmong(request_.links, members);
  std::erase_if(request.previous,
                [&](const PreviousShard& shard) { return !ids.contains(shard.worker_id); });
  std::optional<Plan> plan = FindPlan(model_, footprint_, profiles, request);
  if (plan) NameWorkers(members, workers_.size(), *plan);
  return plan;
}

ReplicaWorth SetPlanner::WorthOf(const KindCounts& counts, int64_t replicas) {
  std::vector<int> members;
  int64_t memory = 0;
  for (int kind = 0; kind < kinds_.count(); ++kind) {
    const std::vector<int>& all = kinds_.WorkersOf(kind);
    members.insert(members.end(), all.begin(), all.begin() + counts[kind]);
    memory += counts[kind] * kinds_.ProfileOf(kind).memory_bytes;
  }
  // Most sets are refused by this alone.
  if (members.empty() || (!request_.lazy && memory < model_bytes_)) return {};
  std::sort(members.begin(), members.end());
  const int64_t sequences = ShareOfRequest(request_, replicas).max_sequences;
  const auto [entry, is_new] = worths_.try_emplace({sequences, counts});
  if (is_new) {
    const std::optional<Plan> plan = PlanOf(members, replicas);
    if (plan) entry->second = {1e3 / plan->slowest_ms, plan->stream_ms};
  }
  return entry->second;
}

double SetPlanner::Bound() const {
  const ShardCosts bytes(model_, footprint_, LimitsOf(request_));
  const CostModel costs(bytes, kinds_, request_);
  const model::ShardSpec whole = {.layers = {0, bytes.layer_count()},
                                  .head_rows = {0, bytes.vocab_size()}};
  double bound = 0;
  for (size_t i = 0; i < workers_.size(); ++i) {
    if (workers_[i].memory_bytes < bytes.SmallestLayerBytes() &&
        bytes.HeadRowCapacity(workers_[i], {}) == 0) {
      continue;
    }
    bound += 1e3 / costs.WorkerMs(static_cast<int>(i), whole);
  }
  return bound;
}

int64_t SetPlanner::SetCount() const {
  int64_t count = 1;
  for (int kind = 0; kind < kinds_.count(); ++kind) {
    const auto base = static_cast<int64_t>(kinds_.WorkersOf(kind).size()) + 1;
    if (count > std::numeric_limits<int64_t>::max() / base) {
      return std::numeric_limits<int64_t>::max();
    }
    count *= base;
  }
  return count;
}

std::optional<Division> DivideExactly(SetPlanner& sets, int64_t replicas) {
  const SetNumbers numbers(sets.kinds());
  std::vector<ReplicaWorth> worths(numbers.count());
  for (int set = 1; set < numbers.count(); ++set) {
    worths[set] = sets.WorthOf(numbers.CountsOf(set), replicas);
  }
  std::vector<std::vector<Choice>> rounds = {
      std::vector<Choice>(numbers.count(), Choice{.worth = ReplicaWorth()})};
  for (int64_t i = 0; i < replicas; ++i) {
    rounds.push_back(OneReplicaMore(rounds.back(), numbers, worths));
  }
  int left = numbers.count() - 1;
  const std::optional<ReplicaWorth> best = rounds.back()[left].worth;
  if (!best.has_value()) return std::nullopt;
  Division division{.replicas = {}, .worth = *best};
  for (int64_t i = replicas; i > 0; --i) {
    const int last = rounds[i][left].last;
    division.replicas.push_back(numbers.CountsOf(last));
    left -= last;
  }
  return division;
}

std::optional<Division> DivideNearby(SetPlanner& sets, int64_t replicas) {
  return Climber(sets, replicas).Run();
}

}  // namespace renga::partition
