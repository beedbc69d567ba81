#include "coordinator/cluster/cluster_manager.h"

#include <algorithm>
#include <map>
#include <optional>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "base/log.h"
#include "coordinator/cluster/last_placement.h"
#include "coordinator/cluster/load_failures.h"
#include "coordinator/cluster/placement.h"
#include "coordinator/cluster/replica.h"
#include "coordinator/cluster/replica_slots.h"
#include "coordinator/cluster/status_report.h"

namespace renga::cluster {
namespace {

// How often the manager looks around when nobody wakes it.
constexpr absl::Duration kTick = absl::Milliseconds(100);
// After a break the members get a moment to be noticed as lost: a broken stream is seen before
// the broken connection it belongs to.
constexpr absl::Duration kSettle = absl::Milliseconds(300);
// A plan without the links' times is better than none.
constexpr absl::Duration kLongestSurvey = absl::Seconds(5);
// A pipeline that breaks sooner than this was never good: the next one waits longer.
constexpr absl::Duration kShortLife = absl::Seconds(5);
constexpr absl::Duration kLongestSettle = absl::Seconds(30);

// What a plan is made from, as far as it may change.
using Identities = std::vector<std::tuple<std::string, uint64_t, int64_t>>;
Identities Identify(const std::vector<Member>& members) {
  Identities identities;
  for (const Member& member : members) {
    identities.emplace_back(member.id, member.incarnation, member.offer.memory_bytes);
  }
  return identities;
}

// More replicas than this are never planned.
size_t MostReplicas(const partition::PlanRequest& request) {
  return static_cast<size_t>(
      std::min(request.max_replicas, std::max(request.min_replicas, request.max_sequences)));
}

}  // namespace

class ClusterManager::Impl {
 public:
  explicit Impl(Options options);
  ~Impl();

  absl::StatusOr<std::shared_ptr<Pipeline>> CurrentPipeline() const;
  std::vector<PipelineSource*> Sources() const;
  ClusterStatus Status() const;
  absl::Status WaitUntilReady(absl::Duration timeout, const std::function<bool()>& cancelled) const;

 private:
  // Wakes the manager's thread. Outlives the manager where a pipeline does.
  class Wake {
   public:
    void Signal() {
      absl::MutexLock lock(&mutex_);
      set_ = true;
    }
    void Wait(absl::Duration timeout) {
      absl::MutexLock lock(&mutex_);
      mutex_.AwaitWithTimeout(absl::Condition(&set_), timeout);
      set_ = false;
    }

   private:
    absl::Mutex mutex_;
    bool set_ ABSL_GUARDED_BY(mutex_) = false;
  };

  class Source : public PipelineSource {
   public:
    Source(const Impl* manager, size_t slot) : manager_(manager), slot_(slot) {}
    absl::StatusOr<std::shared_ptr<Pipeline>> CurrentPipeline() override {
      return manager_->PipelineOf(slot_);
    }

   private:
    const Impl* const manager_;
    const size_t slot_;
  };

  absl::Duration Now() const { return options_.membership->Now(); }
  absl::StatusOr<std::shared_ptr<Pipeline>> PipelineOf(size_t slot) const;
  void Run();
  void LookAround();
  void LookAfter(size_t slot, const std::vector<Member>& members);
  void End(ReplicaSlot& slot, const Replica::End& end);

  // While there is room for one more replica.
  void TryToPlan(const std::vector<Member>& members);
  std::optional<std::string> ReasonToWait(const std::vector<Member>& members) const;
  bool WaitsForLinks();
  absl::StatusOr<std::vector<Placement>> Place(const std::vector<Member>& candidates) const;
  void StartLoading(Placement placement, const std::vector<Member>& members);
  uint64_t NextEpoch(const std::vector<Member>& members);

  void RecallPlacement();
  void RememberPlacement(size_t slot);
  void WritePlacement() const;
  void WaitFor(const std::string& reason, const absl::Status& refusal);
  ClusterState State() const;
  std::string Sentence() const;
  // Shows others what the thread knows.
  void Publish();
  void TellChange();
  std::string ModelName() const;

  const Options options_;
  const std::shared_ptr<Wake> wake_ = std::make_shared<Wake>();
  std::vector<std::unique_ptr<Source>> sources_;  // by slot
  int listener_ = 0;

  // The thread's own.
  ReplicaSlots slots_;
  LoadFailures failures_;
  LastPlacement last_;   // what stood last, maybe before a restart
  std::string trouble_;  // why a replica is missing, beyond what the planner says
  std::string waiting_;  // for what, with the trouble
  absl::Status refused_;
  bool ever_ready_ = false;
  absl::Duration not_before_;                   // the next plan
  std::optional<absl::Duration> survey_began_;  // that a plan waits for
  absl::Duration settle_ = kSettle;
  uint64_t last_epoch_ = 0;
  std::optional<Identities> refused_for_;
  std::map<std::string, std::string> left_out_;
  absl::Duration told_at_ = -absl::InfiniteDuration();
  bool changed_ = true;

  mutable absl::Mutex mutex_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  ClusterView view_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::shared_ptr<PipelineImpl>> pipelines_ ABSL_GUARDED_BY(mutex_);  // by slot
  bool complete_ ABSL_GUARDED_BY(mutex_) = false;  // all replicas of the plan are ready
  // Why the cluster cannot become ready with the workers that are there; OK while that is open.
  absl::Status refusal_ ABSL_GUARDED_BY(mutex_);
  std::thread thread_;  // last: it uses the rest
};

ClusterManager::Impl::Impl(Options options)
    : options_(std::move(options)), slots_(MostReplicas(options_.request)) {
  for (size_t slot = 0; slot < slots_.size(); ++slot) {
    sources_.push_back(std::make_unique<Source>(this, slot));
  }
  waiting_ = "waiting for workers";
  RecallPlacement();
  Publish();
  listener_ = options_.membership->AddListener([wake = wake_] { wake->Signal(); });
  thread_ = std::thread([this] { Run(); });
}

ClusterManager::Impl::~Impl() {
  options_.membership->RemoveListener(listener_);
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  wake_->Signal();
  thread_.join();
}

void ClusterManager::Impl::Run() {
  while (true) {
    {
      absl::MutexLock lock(&mutex_);
      if (stopping_) break;
    }
    LookAround();
    Publish();
    TellChange();
    wake_->Wait(kTick);
  }
  slots_.Clear();
}

void ClusterManager::Impl::LookAround() {
  const std::vector<Member> members = options_.membership->Members();
  if (TakeConfirmedSpeeds(members, last_)) WritePlacement();
  for (size_t slot = 0; slot < slots_.size(); ++slot) {
    if (slots_[slot].replica != nullptr) LookAfter(slot, members);
  }
  if (slots_.planned() < slots_.size()) TryToPlan(members);
}

void ClusterManager::Impl::LookAfter(size_t index, const std::vector<Member>& members) {
  ReplicaSlot& slot = slots_[index];
  Replica& replica = *slot.replica;
  const bool was_ready = replica.pipeline() != nullptr;
  const std::optional<Replica::End> end = replica.LookAround(members, Now());
  changed_ = replica.TakeProgress() || changed_;
  if (end.has_value()) return End(slot, *end);
  if (was_ready || replica.pipeline() == nullptr) return;
  for (const PlacedWorker& placed : slot.last->workers) failures_.Forgive(placed.member.id);
  RememberPlacement(index);
  trouble_.clear();
  waiting_.clear();
  ever_ready_ = true;
}

void ClusterManager::Impl::End(ReplicaSlot& slot, const Replica::End& end) {
  const bool was_ready = slot.replica->pipeline() != nullptr;
  trouble_ = std::string(end.why.message());
  slot.ended_at = Now();
  if (was_ready) {
    const bool short_life = slot.ended_at - slot.replica->ready_at() < kShortLife;
    settle_ = short_life ? std::min(2 * settle_, kLongestSettle) : kSettle;
    not_before_ = slot.ended_at + settle_;
  } else if (!end.expected) {
    RENGA_LOG(WARNING) << trouble_;
  }
  if (end.failed.has_value()) failures_.Add(*end.failed, trouble_, Now());
  slot.replica = nullptr;
  waiting_ = trouble_;
  refused_ = absl::OkStatus();
  refused_for_.reset();
}

std::optional<std::string> ClusterManager::Impl::ReasonToWait(
    const std::vector<Member>& members) const {
  const auto alive = std::count_if(members.begin(), members.end(),
                                   [](const Member& member) { return member.alive; });
  if (!ever_ready_ && alive < options_.expected_workers) {
    return absl::StrCat("waiting for workers: ", alive, " of ", options_.expected_workers,
                        " have joined");
  }
  if (const Member* awaited = slots_.Awaited(members, Now(), options_.rejoin_grace)) {
    return absl::StrCat("waiting for worker ", DescribeWorker(*awaited), " to come back");
  }
  if (alive == 0) return "waiting for workers: there are none";
  return std::nullopt;
}

bool ClusterManager::Impl::WaitsForLinks() {
  if (options_.links == nullptr || options_.links->Complete()) {
    survey_began_.reset();
    return false;
  }
  if (!survey_began_.has_value()) survey_began_ = Now();
  return Now() < *survey_began_ + kLongestSurvey;
}

// Nothing is to be done before `reason` is over.
void ClusterManager::Impl::WaitFor(const std::string& reason, const absl::Status& refusal) {
  waiting_ = trouble_.empty() ? reason : absl::StrCat(trouble_, "; ", reason);
  refused_ = refusal.ok() ? refusal : absl::Status(refusal.code(), waiting_);
}

void ClusterManager::Impl::TryToPlan(const std::vector<Member>& members) {
  if (const std::optional<std::string> reason = ReasonToWait(members)) {
    refused_for_.reset();
    return WaitFor(*reason, absl::OkStatus());
  }
  if (Now() < not_before_) return;
  std::vector<Member> candidates = slots_.Unplaced(members);
  std::erase_if(candidates,
                [&](const Member& member) { return failures_.LeavesOut(member, Now()); });
  if (refused_for_ == Identify(candidates)) return;
  if (WaitsForLinks()) {
    refused_for_.reset();
    return WaitFor("measuring the links between the workers", absl::OkStatus());
  }
  absl::StatusOr<std::vector<Placement>> placements =
      candidates.empty() ? absl::UnavailableError("no worker is left that can be asked")
                         : Place(candidates);
  left_out_ = failures_.Reasons(members, Now());
  if (!placements.ok()) {
    refused_for_ = Identify(candidates);
    WaitFor(std::string(placements.status().message()), placements.status());
    RENGA_LOG(INFO) << "no plan: " << waiting_;
    return;
  }
  for (Placement& placement : *placements) StartLoading(std::move(placement), members);
}

absl::StatusOr<std::vector<Placement>> ClusterManager::Impl::Place(
    const std::vector<Member>& candidates) const {
  const std::vector<LinkProfile> links =
      options_.links != nullptr ? options_.links->Links() : std::vector<LinkProfile>();
  partition::PlanRequest request = options_.request;
  const auto there = static_cast<int64_t>(slots_.planned());
  const int64_t missing = static_cast<int64_t>(slots_.size()) - there;
  const bool first = there == 0 && !ever_ready_;
  // The first time there must be as many as were asked for. Later, some are better than none.
  int64_t least = request.min_replicas;
  if (!first && least > 1) {
    request.sequence_shares = least;
    least = missing;
  } else if (there > 0) {
    request.sequence_shares = there + 1;
  }
  request.max_replicas = missing;
  absl::StatusOr<std::vector<Placement>> placements;
  do {
    request.min_replicas = least;
    placements = PlaceModel(*options_.store, candidates, request, last_, links);
  } while (!placements.ok() && !first && --least > 0);
  return placements;
}

uint64_t ClusterManager::Impl::NextEpoch(const std::vector<Member>& members) {
  // Grows over restarts too, and beyond what any worker has seen should the clock have gone back.
  uint64_t epoch = static_cast<uint64_t>(std::max<int64_t>(1, absl::ToUnixMillis(absl::Now())));
  epoch = std::max(epoch, last_epoch_ + 1);
  for (const Member& member : members) {
    epoch = std::max({epoch, member.resident_epoch + 1, member.last_heartbeat.epoch + 1});
  }
  last_epoch_ = epoch;
  return epoch;
}

void ClusterManager::Impl::StartLoading(Placement placement, const std::vector<Member>& members) {
  ReplicaSlot* const slot = slots_.FirstFree();
  if (slot == nullptr) return;
  placement.holders = HoldersAmong(members, last_);
  slot->last = std::make_shared<const Placement>(std::move(placement));
  slot->replica =
      std::make_unique<Replica>(Replica::Options{.store = options_.store,
                                                 .dialer = options_.dialer,
                                                 .step_deadline = options_.step_deadline,
                                                 .load_stall_limit = options_.load_stall_limit,
                                                 .wake = [wake = wake_] { wake->Signal(); }},
                                slot->last, NextEpoch(members), Now());
  refused_for_.reset();
  refused_ = absl::OkStatus();
}

// Neither recalling nor remembering may fail: at worst, weights are shipped again.
void ClusterManager::Impl::RecallPlacement() {
  if (options_.last_placement_file.empty()) return;
  absl::StatusOr<LastPlacement> last = ReadLastPlacement(options_.last_placement_file);
  if (last.ok()) {
    last_ = *std::move(last);
  } else if (!absl::IsNotFound(last.status())) {
    RENGA_LOG(WARNING) << last.status().message();
  }
}

void ClusterManager::Impl::RememberPlacement(size_t slot) {
  const auto number = static_cast<int64_t>(slot);
  const LastPlacement now = Remember(*slots_[slot].last, number);
  std::erase_if(last_, [&](const LastShard& shard) {
    return shard.replica == number ||
           std::any_of(now.begin(), now.end(), [&](const LastShard& other) {
             return other.worker_id == shard.worker_id || other.worker_name == shard.worker_name;
           });
  });
  last_.insert(last_.end(), now.begin(), now.end());
  WritePlacement();
}

void ClusterManager::Impl::WritePlacement() const {
  if (options_.last_placement_file.empty()) return;
  const absl::Status written = WriteLastPlacement(options_.last_placement_file, last_);
  if (!written.ok()) {
    RENGA_LOG(WARNING) << written.message();
  }
}

std::string ClusterManager::Impl::ModelName() const {
  const model::ModelConfig& config = options_.store->model().config;
  return config.name.empty() ? config.architecture : config.name;
}

ClusterState ClusterManager::Impl::State() const {
  if (slots_.ready() > 0) return ClusterState::kReady;
  if (slots_.loading() > 0) return ClusterState::kLoading;
  return ever_ready_ ? ClusterState::kBroken : ClusterState::kWaiting;
}

std::string ClusterManager::Impl::Sentence() const {
  std::string sentence = slots_.Sentence(ModelName());
  if (sentence.empty()) return waiting_;
  if (slots_.loading() == 0 && !trouble_.empty()) {
    absl::StrAppend(&sentence, "; a replica is missing: ", waiting_);
  }
  return sentence;
}

void ClusterManager::Impl::Publish() {
  ClusterView view{
      .state = State(), .sentence = Sentence(), .replicas = slots_.Views(), .left_out = left_out_};
  std::vector<std::shared_ptr<PipelineImpl>> pipelines;
  for (size_t slot = 0; slot < slots_.size(); ++slot) {
    pipelines.push_back(slots_[slot].ready() ? slots_[slot].replica->pipeline() : nullptr);
  }
  const bool loading = slots_.loading() > 0;
  const auto ready = static_cast<int64_t>(slots_.ready());
  absl::MutexLock lock(&mutex_);
  if (view.state != view_.state || view.sentence != view_.sentence) {
    RENGA_LOG(INFO) << ClusterStateName(view.state) << ": " << view.sentence;
    changed_ = true;
    if (view.state != view_.state) told_at_ = -absl::InfiniteDuration();
  }
  // What stood there ends without the lock.
  std::swap(view_, view);
  std::swap(pipelines_, pipelines);
  complete_ = !loading && ready > 0 && ready >= options_.request.min_replicas;
  refusal_ = loading ? absl::OkStatus() : refused_;
}

void ClusterManager::Impl::TellChange() {
  if (!options_.on_change || !changed_ || Now() - told_at_ < kTick) return;
  changed_ = false;
  told_at_ = Now();
  options_.on_change(Status());
}

std::vector<PipelineSource*> ClusterManager::Impl::Sources() const {
  std::vector<PipelineSource*> sources;
  for (const auto& source : sources_) sources.push_back(source.get());
  return sources;
}

absl::StatusOr<std::shared_ptr<Pipeline>> ClusterManager::Impl::PipelineOf(size_t slot) const {
  absl::MutexLock lock(&mutex_);
  if (pipelines_[slot] == nullptr) return absl::UnavailableError(view_.sentence);
  const absl::Status status = pipelines_[slot]->status();
  if (!status.ok()) return absl::UnavailableError(status.message());
  return std::shared_ptr<Pipeline>(pipelines_[slot]);
}

absl::StatusOr<std::shared_ptr<Pipeline>> ClusterManager::Impl::CurrentPipeline() const {
  absl::Status status;
  for (size_t slot = 0; slot < sources_.size(); ++slot) {
    auto pipeline = PipelineOf(slot);
    if (pipeline.ok()) return pipeline;
    status.Update(pipeline.status());
  }
  return status;
}

ClusterStatus ClusterManager::Impl::Status() const {
  ClusterView view;
  {
    absl::MutexLock lock(&mutex_);
    view = view_;
  }
  for (ReplicaView& replica : view.replicas) {
    if (replica.pipeline != nullptr) replica.times = replica.pipeline->times();
  }
  ClusterStatus status = MakeStatus(view, *options_.store, options_.membership->Members(), Now());
  if (options_.links != nullptr) status.links = options_.links->Links();
  return status;
}

absl::Status ClusterManager::Impl::WaitUntilReady(absl::Duration timeout,
                                                  const std::function<bool()>& cancelled) const {
  const absl::Duration deadline = Now() + timeout;
  absl::MutexLock lock(&mutex_);
  while (!complete_) {
    if (options_.expected_workers > 0 && !refusal_.ok()) return refusal_;
    if (Now() >= deadline) return absl::DeadlineExceededError(view_.sentence);
    mutex_.AwaitWithTimeout(absl::Condition(&complete_), kTick);
    mutex_.Unlock();
    const bool stop = cancelled && cancelled();
    mutex_.Lock();
    if (stop) return absl::CancelledError("interrupted while the model was loading");
  }
  return absl::OkStatus();
}

ClusterManager::ClusterManager(Options options)
    : impl_(std::make_unique<Impl>(std::move(options))) {}
ClusterManager::~ClusterManager() = default;
absl::StatusOr<std::shared_ptr<Pipeline>> ClusterManager::CurrentPipeline() {
  return impl_->CurrentPipeline();
}
std::vector<PipelineSource*> ClusterManager::Sources() const { return impl_->Sources(); }
ClusterStatus ClusterManager::Status() const { return impl_->Status(); }
absl::Status ClusterManager::WaitUntilReady(absl::Duration timeout,
                                            const std::function<bool()>& cancelled) {
  return impl_->WaitUntilReady(timeout, cancelled);
}

}  // namespace renga::cluster
