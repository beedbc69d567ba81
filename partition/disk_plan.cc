#include "partition/disk_plan.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>

#include "absl/strings/str_format.h"
#include "base/byte_size.h"
#include "model/residency_plan.h"
#include "partition/plan_search.h"

namespace renga::partition {
namespace {

// Of the time that the disks take, relative.
constexpr double kPrecision = 0.01;
constexpr double kEver = std::numeric_limits<double>::infinity();

double DiskSpeed(const WorkerProfile& worker) {
  return worker.disk_bytes_per_second > 0 ? worker.disk_bytes_per_second
                                          : kAssumedDiskBytesPerSecond;
}

// Workers of one machine are taken to have one disk.
bool ShareDisk(const WorkerProfile& a, const WorkerProfile& b) {
  return &a == &b || (!a.machine.empty() && a.machine == b.machine);
}

// What it gets when all of them with room that share it read at the same time.
double DiskShare(const std::vector<WorkerProfile>& workers, const std::vector<bool>& has_room,
                 size_t worker) {
  double sharers = 0;
  for (size_t i = 0; i < workers.size(); ++i) {
    if (i == worker || (has_room[i] && ShareDisk(workers[i], workers[worker]))) ++sharers;
  }
  return DiskSpeed(workers[worker]) / sharers;
}

// About the most that one call of a layer multiplies by: queries, keys and values, or both inputs
// of the gate, or what cannot be cut. The worker knows exactly.
int64_t LargestCallBytes(const model::ModelFootprint& footprint) {
  int64_t largest = 0;
  for (const model::LayerWeightBytes& layer : footprint.layers) {
    largest = std::max({largest, layer.uncut, layer.query_heads / 2 + layer.kv_heads,
                        (layer.feed_forward * 2 + 2) / 3});
  }
  return largest;
}

// How a worker reads what it does not hold.
struct Reading {
  // What it needs in memory for that: buffers, or the place in which a damaged expert is packed.
  int64_t ring_bytes = 0;
  // What it needs so that it works at all.
  int64_t least_bytes = 0;
  // Of what is not in memory, the part that a token reads: all, or of experts those that it uses.
  double share = 1;
  const ExpertHits* hits = nullptr;  // of experts, where that was measured
  // Nothing is read before its turn: nobody knows which experts it will be.
  bool ahead = true;
};
Reading ReadingOf(const ShardCosts& bytes, const PlanRequest& request) {
  const model::ModelConfig& config = bytes.config();
  if (!config.has_experts()) {
    const int64_t ring = model::RingBytes(LargestCallBytes(bytes.footprint()));
    return {.ring_bytes = ring, .least_bytes = ring};
  }
  int64_t expert = 0;
  for (const model::LayerWeightBytes& layer : bytes.footprint().layers) {
    expert = std::max(expert, (layer.experts + config.n_experts - 1) / config.n_experts);
  }
  return {.ring_bytes = expert,
          .least_bytes = (config.n_experts_used + 1) * expert,
          .share = config.ExpertShare(),
          .hits = request.expert_hits.get(),
          .ahead = false};
}

// What a token reads from disk when `on_disk` of `all` bytes that may be read are not in memory.
double ReadBytes(const Reading& reading, double on_disk, double all) {
  if (reading.hits == nullptr) return on_disk * reading.share;
  return all * reading.share * MissedChoices(reading.hits, 1 - on_disk / all);
}

// How much may be on disk beside `memory` so that a token reads so many bytes; at most `most`. What
// else lies in that memory is small beside experts.
double OnDisk(const Reading& reading, double read, double memory, double most) {
  if (reading.hits == nullptr) return read / reading.share;
  double low = 0;
  double high = most;
  while (high - low > kPrecision * kPrecision * most) {
    const double middle = (low + high) / 2;
    (ReadBytes(reading, middle, memory + middle) > read ? high : low) = middle;
  }
  return high;
}

// What of a shard has to stay in memory, and what may be read again and again: layers, or only
// their experts, where there are any.
struct ShardParts {
  int64_t resident = 0;
  int64_t layers = 0;
};
ShardParts PartsOf(const ShardCosts& bytes, const model::ShardSpec& spec) {
  ShardParts parts;
  for (int64_t layer = spec.layers.begin; layer < spec.layers.end; ++layer) {
    const model::LayerWeightBytes& whole = bytes.footprint().layers[static_cast<size_t>(layer)];
    if (bytes.config().has_experts()) {
      parts.layers += whole.experts;
      continue;
    }
    parts.layers += spec.slice.has_value() ? model::SliceBytes(whole, bytes.config(), *spec.slice)
                                           : whole.total();
  }
  parts.resident = bytes.Bytes(spec).total() - parts.layers;
  return parts;
}

std::vector<WorkerProfile> Stretch(const std::vector<WorkerProfile>& workers,
                                   const std::vector<bool>& has_room, const Reading& reading,
                                   double seconds, int64_t whole) {
  std::vector<WorkerProfile> stretched = workers;
  for (size_t i = 0; i < workers.size(); ++i) {
    if (!has_room[i]) continue;
    const double disk_bytes = seconds * DiskShare(workers, has_room, i);
    const double on_disk = OnDisk(reading, disk_bytes, static_cast<double>(workers[i].memory_bytes),
                                  static_cast<double>(whole + reading.ring_bytes));
    stretched[i].memory_bytes += static_cast<int64_t>(on_disk) - reading.ring_bytes;
  }
  return stretched;
}

// The workers whose parts that must stay in memory are larger than what they offer.
std::vector<size_t> Overfull(const ShardCosts& bytes, const std::vector<WorkerProfile>& workers,
                             const Candidate& candidate, int64_t least_bytes) {
  const std::vector<model::ShardSpec> specs = SpecsOf(candidate, workers.size());
  std::vector<size_t> overfull;
  for (size_t i = 0; i < workers.size(); ++i) {
    if (specs[i] == model::ShardSpec{} || bytes.Fits(workers[i], specs[i])) continue;
    const int64_t resident = PartsOf(bytes, specs[i]).resident + least_bytes;
    if (specs[i].layers.empty() || resident > workers[i].memory_bytes) overfull.push_back(i);
  }
  return overfull;
}

// How long `worker`'s disk reads for those of `members` that share it, which begin with `ahead`
// bytes each.
double ReadMs(const Plan& plan, const std::vector<WorkerProfile>& workers,
              const std::vector<StageMember>& members, const WorkerProfile& worker, int64_t ahead) {
  int64_t bytes = 0;
  for (const StageMember& member : members) {
    if (!ShareDisk(workers[member.worker], worker)) continue;
    bytes += std::max<int64_t>(0, plan.workers[member.worker].streamed_bytes - ahead);
  }
  return static_cast<double>(bytes) / DiskSpeed(worker) * 1e3;
}

// How long the slowest disk of a stage reads that may fill the members' buffers for `others_ms`
// before.
double StageReadMs(const Plan& plan, const std::vector<WorkerProfile>& workers,
                   const StagePlan& stage, int64_t ring_bytes, double others_ms) {
  double slowest = 0;
  for (const StageMember& member : stage.members) {
    if (plan.workers[member.worker].streamed_bytes == 0) continue;
    const WorkerProfile& worker = workers[member.worker];
    slowest = std::max({slowest, ReadMs(plan, workers, stage.members, worker, ring_bytes),
                        ReadMs(plan, workers, stage.members, worker, 0) - others_ms});
  }
  return slowest;
}

// Each stage reads while it computes, and fills its buffers while the others do, if it can read
// ahead at all.
void AddWaiting(const std::vector<WorkerProfile>& workers, const Reading& reading, Plan& plan) {
  const int64_t ring_bytes = reading.ring_bytes;
  for (size_t s = 0; s < plan.stages.size() && !reading.ahead; ++s) {
    plan.times.stages[s].disk = StageReadMs(plan, workers, plan.stages[s], 0, 0);
  }
  if (!reading.ahead) return;
  const auto wait = [&](size_t stage, double others_ms) {
    StageTimes& times = plan.times.stages[stage];
    times.disk =
        std::max(0.0, StageReadMs(plan, workers, plan.stages[stage], ring_bytes, others_ms) -
                          times.compute - times.sums);
  };
  // With full buffers at first, then with what the others' time fills of them.
  for (size_t s = 0; s < plan.stages.size(); ++s) wait(s, kEver);
  const double whole = plan.times.stream();
  for (size_t s = 0; s < plan.stages.size(); ++s) {
    const StageTimes& times = plan.times.stages[s];
    wait(s, whole - times.compute - times.sums - times.disk);
  }
}

// No token takes less than a disk reads for it, and stages may share one.
void AddSharedDisks(const std::vector<WorkerProfile>& workers, Plan& plan) {
  std::vector<StageMember> readers;
  for (const StagePlan& stage : plan.stages) {
    readers.insert(readers.end(), stage.members.begin(), stage.members.end());
  }
  for (size_t s = 0; s < plan.stages.size(); ++s) {
    for (const StageMember& member : plan.stages[s].members) {
      if (plan.workers[member.worker].streamed_bytes == 0) continue;
      const double busy = ReadMs(plan, workers, readers, workers[member.worker], 0);
      plan.times.slowest = std::max(plan.times.slowest, busy);
      plan.times.stages[s].disk += std::max(0.0, busy - plan.times.stream());
    }
  }
}

// In bytes for a token, of the workers that do not hold all of their experts.
struct ExpertReads {
  double expected = 0;
  double if_alike = 0;
  double chosen = 0;
};
std::string ExpertsNote(const ExpertReads& reads, bool measured) {
  if (!measured) {
    return "which experts a token uses is not known: all are taken to be used alike; where some "
           "are used more, fewer are read (`renga regions` measures it, --regions tells it)";
  }
  return absl::StrFormat(
      "by the usage that `renga regions` has measured a token misses %.0f %% of the experts that "
      "it "
      "chooses; if all were used alike, %.0f %%",
      100 * reads.expected / reads.chosen, 100 * reads.if_alike / reads.chosen);
}

}  // namespace

std::optional<std::vector<WorkerProfile>> StretchByDisks(const ShardCosts& bytes,
                                                         const std::vector<WorkerProfile>& workers,
                                                         const PlanRequest& request) {
  const Reading reading = ReadingOf(bytes, request);
  const int64_t ring_bytes = reading.ring_bytes;
  std::vector<bool> has_room;
  for (const WorkerProfile& worker : workers) {
    has_room.push_back(worker.streams && worker.memory_bytes > ring_bytes);
  }
  double slowest_disk = 0;
  for (size_t i = 0; i < workers.size(); ++i) {
    slowest_disk = std::max(slowest_disk, 1 / DiskShare(workers, has_room, i));
  }
  const int64_t whole =
      bytes.Bytes({.layers = {0, bytes.layer_count()}, .head_rows = {0, bytes.vocab_size()}})
          .total();
  const double longest = slowest_disk * static_cast<double>(whole + ring_bytes);
  // Each round gives up on workers that turn out too small for their part.
  for (size_t round = 0; round <= workers.size(); ++round) {
    const auto fits = [&](double seconds) {
      const std::vector<WorkerProfile> stretched =
          Stretch(workers, has_room, reading, seconds, whole);
      return PlanSearch(bytes, stretched, request).Fits();
    };
    if (!fits(longest)) return std::nullopt;
    double low = 0;
    double high = longest;
    while (high - low > kPrecision * high) {
      const double middle = (low + high) / 2;
      (fits(middle) ? high : low) = middle;
    }
    std::vector<WorkerProfile> stretched = Stretch(workers, has_room, reading, high, whole);
    const std::optional<Candidate> candidate = PlanSearch(bytes, stretched, request).Run();
    if (!candidate) return std::nullopt;
    const std::vector<size_t> overfull = Overfull(bytes, workers, *candidate, reading.least_bytes);
    if (overfull.empty()) return stretched;
    for (const size_t worker : overfull) has_room[worker] = false;
  }
  return std::nullopt;
}

void AddDisks(const ShardCosts& bytes, const std::vector<WorkerProfile>& workers,
              const PlanRequest& request, Plan& plan) {
  const Reading reading = ReadingOf(bytes, request);
  ExpertReads reads;
  for (size_t i = 0; i < workers.size(); ++i) {
    WorkerPlan& worker = plan.workers[i];
    const int64_t missing = worker.bytes.total() - workers[i].memory_bytes;
    if (worker.idle() || missing <= 0) continue;
    const int64_t all = PartsOf(bytes, worker.spec).layers;
    const int64_t on_disk = std::min(missing + reading.ring_bytes, all);
    const double read = ReadBytes(reading, static_cast<double>(on_disk), static_cast<double>(all));
    worker.streamed_bytes = static_cast<int64_t>(read);
    worker.by_measured_usage = reading.hits != nullptr;
    worker.bytes.weights += reading.ring_bytes - on_disk;
    reads.expected += read;
    reads.if_alike += static_cast<double>(on_disk) * reading.share;
    reads.chosen += static_cast<double>(all) * reading.share;
    if (workers[i].disk_bytes_per_second <= 0) {
      plan.notes.push_back(
          absl::StrFormat("the disk of %s is not measured: taken for one of %.0f MB/s",
                          workers[i].id, kAssumedDiskBytesPerSecond / 1e6));
    }
  }
  if (reads.chosen > 0 && !reading.ahead) {
    plan.notes.push_back(ExpertsNote(reads, reading.hits != nullptr));
  }
  AddWaiting(workers, reading, plan);
  AddSharedDisks(workers, plan);
  plan.stream_ms = plan.times.stream();
  plan.slowest_ms = plan.times.slowest;
  plan.exact = false;
}

}  // namespace renga::partition
