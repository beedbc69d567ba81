#include "coordinator/cluster/step_tracker.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace renga::cluster {
namespace {

void AddTimings(const std::vector<StageTiming>& from, std::vector<StageTiming>& to) {
  for (const StageTiming& timing : from) {
    const bool known = std::any_of(to.begin(), to.end(), [&](const StageTiming& other) {
      return other.worker_index == timing.worker_index && other.head == timing.head;
    });
    if (!known) to.push_back(timing);
  }
}

}  // namespace

StepTracker::StepTracker(std::vector<model::BlockRows> head_rows, std::optional<uint32_t> near)
    : head_rows_(std::move(head_rows)),
      near_(near),
      last_answered_(head_rows_.size(), 0),
      weight_bytes_(head_rows_.size(), 0) {
  for (uint32_t worker = 0; worker < head_rows_.size(); ++worker) {
    if (head_rows_[worker].empty()) continue;
    heads_.push_back(worker);
    vocabulary_ += head_rows_[worker].size();
  }
  std::sort(heads_.begin(), heads_.end(), [this](uint32_t a, uint32_t b) {
    return head_rows_[a].range().begin < head_rows_[b].range().begin;
  });
}

uint64_t StepTracker::Begin(model::Step& step, Pipeline::Callback done, absl::Duration now,
                            Pipeline::EarlyCallback early) {
  step.number = ++last_number_;
  Pending& pending = pending_[step.number];
  pending.step.epoch = step.epoch;
  pending.step.number = step.number;
  pending.step.slots = step.slots;
  pending.done = std::move(done);
  pending.early = std::move(early);
  pending.begin = now;
  pending.outputs.resize(head_rows_.size());
  return step.number;
}

std::vector<uint64_t> StepTracker::Withdraw(std::span<const uint64_t> numbers) {
  std::vector<uint64_t> withdrawn;
  for (const uint64_t number : numbers) {
    const auto it = pending_.find(number);
    if (it == pending_.end()) continue;
    it->second.withdrawn = true;
    withdrawn.push_back(number);
  }
  return withdrawn;
}

absl::StatusOr<std::optional<FinishedStep>> StepTracker::Answer(uint32_t worker, StepAnswer answer,
                                                                absl::Duration now) {
  if (answer.number == 0 || answer.number > last_number_) {
    return absl::InternalError(absl::StrCat("it answered step ", answer.number,
                                            ", but the last one sent is ", last_number_));
  }
  if (answer.status.ok()) return AcceptHead(worker, answer, now);
  const auto it = pending_.find(answer.number);
  if (it == pending_.end()) return std::nullopt;
  AddTimings(answer.timings, it->second.timings);
  return Finish(it, std::move(answer.status), now);
}

absl::StatusOr<std::optional<FinishedStep>> StepTracker::AcceptHead(uint32_t worker,
                                                                    StepAnswer& answer,
                                                                    absl::Duration now) {
  if (head_rows_[worker].empty()) {
    return absl::InternalError(absl::StrCat("it answered step ", answer.number,
                                            ", but holds no rows of the output matrix"));
  }
  if (answer.number <= last_answered_[worker]) {
    return absl::InternalError(
        absl::StrCat("it answered step ", answer.number, " after step ", last_answered_[worker]));
  }
  last_answered_[worker] = answer.number;
  const auto it = pending_.find(answer.number);
  if (it == pending_.end()) return std::nullopt;  // failed elsewhere meanwhile
  Pending& pending = it->second;
  HeadBlock block{head_rows_[worker], std::move(answer.rows)};
  if (answer.skipped && !pending.withdrawn) {
    return absl::InternalError(
        absl::StrCat("it skipped step ", answer.number, ", whose answer is wanted"));
  }
  if (!answer.skipped) {
    RENGA_RETURN_IF_ERROR(base::Annotate(CheckHeadBlock(pending.step, block),
                                         absl::StrCat("its answer to step ", answer.number)));
  }
  pending.skipped = pending.skipped || answer.skipped;
  const bool last = ++pending.answered == heads_.size();
  if (worker == near_ && pending.early && !last && !answer.skipped) {
    early_.push_back(
        {.tell = std::move(pending.early), .rows = BlockAlone(pending.step, block, vocabulary_)});
  }
  pending.outputs[worker] = std::move(block.outputs);
  AddTimings(answer.timings, pending.timings);
  if (!last) return std::nullopt;
  return Finish(it, absl::OkStatus(), now);
}

FinishedStep StepTracker::Finish(std::map<uint64_t, Pending>::iterator it, absl::Status status,
                                 absl::Duration now) {
  Pending& pending = it->second;
  FinishedStep finished;
  if (status.ok()) {
    for (uint32_t worker : heads_) {
      finished.blocks.push_back({head_rows_[worker], *std::move(pending.outputs[worker])});
    }
  }
  finished.step = std::move(pending.step);
  finished.done = std::move(pending.done);
  finished.status = std::move(status);
  finished.skipped = pending.skipped;
  finished.timings = std::move(pending.timings);
  finished.round_trip = now - pending.begin;
  pending_.erase(it);
  return finished;
}

std::vector<FinishedStep> StepTracker::FailAll(const absl::Status& status, absl::Duration now) {
  std::vector<FinishedStep> finished;
  while (!pending_.empty()) finished.push_back(Finish(pending_.begin(), status, now));
  return finished;
}

void StepTracker::Heard(uint32_t worker, const Progress& progress, absl::Duration now) {
  const bool more = progress.weight_bytes > weight_bytes_[worker];
  weight_bytes_[worker] = progress.weight_bytes;
  // Another step's weights say nothing of this one, whose worker may stand still.
  if (more && !pending_.empty() && progress.step == pending_.begin()->first) fed_at_ = now;
}

StepTracker::Standstill StepTracker::standstill() const {
  if (pending_.empty()) return {.since = absl::InfiniteDuration()};
  const absl::Duration begin = pending_.begin()->second.begin;
  return {.since = std::max(begin, fed_at_), .weights_came = fed_at_ > begin};
}

std::vector<uint32_t> StepTracker::SilentOnOldest() const {
  std::vector<uint32_t> silent;
  if (pending_.empty()) return silent;
  for (uint32_t worker : heads_) {
    if (!pending_.begin()->second.outputs[worker].has_value()) silent.push_back(worker);
  }
  return silent;
}

}  // namespace renga::cluster
