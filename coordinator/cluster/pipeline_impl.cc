#include "coordinator/cluster/pipeline_impl.h"

#include <algorithm>
#include <deque>
#include <optional>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/synchronization/mutex.h"
#include "base/status_macros.h"
#include "coordinator/cluster/head_merge.h"
#include "coordinator/cluster/results_reader.h"
#include "coordinator/cluster/step_tracker.h"
#include "proto/step.pb.h"
#include "transport/dialer.h"
#include "transport/edge_sender.h"
#include "transport/wire.h"

namespace renga::cluster {
namespace {

// What Submit's caller got wrong, if anything.
absl::Status CheckStep(const model::Step& step, size_t token_count,
                       const PipelineOptions& options) {
  int64_t tokens = 0;
  int64_t outputs = 0;
  for (const model::StepSlot& slot : step.slots) {
    if (slot.token_count < 1 || slot.token_count > options.limits.max_step_tokens ||
        slot.output_count < 0 || slot.output_count > slot.token_count || slot.top_k < 0) {
      return absl::InternalError("a step with an impossible slot");
    }
    tokens += slot.token_count;
    outputs += slot.output_count;
  }
  if (tokens > options.limits.max_step_tokens || outputs > options.limits.max_step_outputs) {
    return absl::InternalError(
        absl::StrCat("a step of ", tokens, " tokens and ", outputs, " outputs, but the plan has ",
                     options.limits.max_step_tokens, " and ", options.limits.max_step_outputs));
  }
  if (token_count != static_cast<size_t>(tokens)) {
    return absl::InternalError(
        absl::StrCat("a step of ", tokens, " positions with ", token_count, " tokens"));
  }
  return absl::OkStatus();
}

// What the first workers get of a step, but for the step itself.
absl::StatusOr<proto::StepFrame> MakeFrame(const model::Step& step,
                                           std::span<const model::TokenId> tokens,
                                           const PipelineOptions& options) {
  RENGA_RETURN_IF_ERROR(CheckStep(step, tokens.size(), options));
  proto::StepFrame frame;
  if (options.embedding_worker.has_value()) {
    frame.set_target(proto::FRAME_TARGET_EMBEDDING);
    frame.mutable_tokens()->Add(tokens.begin(), tokens.end());
    return frame;
  }
  RENGA_ASSIGN_OR_RETURN(const std::vector<float> rows, options.embed(tokens));
  frame.set_target(proto::FRAME_TARGET_LAYERS);
  transport::PackActivations(rows, frame, options.limits.wire_type);
  return frame;
}

// The workers that get every step from here.
std::vector<uint32_t> FirstWorkers(const PipelineOptions& options) {
  if (options.embedding_worker.has_value()) return {*options.embedding_worker};
  return options.stages.front();
}

}  // namespace

// Shared by the pipeline and its thread, so that the pipeline may end inside a callback.
class PipelineImpl::Core {
 public:
  explicit Core(PipelineOptions options)
      : options_(std::move(options)),
        first_(FirstWorkers(options_)),
        tracker_(HeadRowsOf(options_), options_.near_head),
        times_(options_.workers.size(), options_.stages) {}

  // `self` keeps this alive on the thread. Called once.
  void Start(std::shared_ptr<Core> self);
  void Stop();
  uint64_t Submit(model::Step step, std::span<const model::TokenId> tokens, Callback done,
                  EarlyCallback early);
  void Withdraw(std::span<const uint64_t> numbers);
  void Heard(uint32_t worker, const StepTracker::Progress& progress);
  void Break(const absl::Status& why);

  absl::Status status() const {
    absl::MutexLock lock(&mutex_);
    return status_;
  }
  PipelineTimes times() const {
    absl::MutexLock lock(&mutex_);
    return times_.Read();
  }
  const PipelineOptions& options() const { return options_; }

 private:
  struct ArrivedAnswer {
    uint32_t worker;
    absl::StatusOr<StepAnswer> answer;
    absl::Duration at;
  };

  static std::vector<model::BlockRows> HeadRowsOf(const PipelineOptions& options) {
    std::vector<model::BlockRows> blocks;
    for (const PipelineOptions::Worker& worker : options.workers) {
      blocks.push_back(worker.head_rows);
    }
    return blocks;
  }
  transport::PeerAddress AddressOf(uint32_t worker) const {
    return {.address = options_.workers[worker].address, .name = options_.workers[worker].id};
  }
  absl::Status LossOf(uint32_t worker, const absl::Status& reason) const {
    return absl::UnavailableError(
        absl::StrCat("worker ", options_.workers[worker].name, " failed: ", reason.message()));
  }
  // What a worker says of a step, with workers called by their names.
  absl::Status Reported(uint32_t worker, const absl::Status& status) const;
  void OpenStreams();
  void Arrived(uint32_t worker, absl::StatusOr<StepAnswer> answer);
  void BreakLocked(const absl::Status& why) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool HasWork() const ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
    const bool undelivered = !finished_.empty() && deliverer_ == std::thread::id();
    return stopping_ || undelivered || (!status_.ok() && !told_);
  }
  void Run();
  void WaitForWork() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void DeliverAll();
  void JudgeAnswers() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void TellBroken();
  void Deliver(FinishedStep finished);

  const PipelineOptions options_;
  const std::vector<uint32_t> first_;  // as senders_
  std::thread thread_;

  mutable absl::Mutex mutex_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  bool told_ ABSL_GUARDED_BY(mutex_) = false;  // on_broken has run
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
  StepTracker tracker_ ABSL_GUARDED_BY(mutex_);
  StepTimes times_ ABSL_GUARDED_BY(mutex_);
  std::deque<ArrivedAnswer> arrived_ ABSL_GUARDED_BY(mutex_);
  std::deque<FinishedStep> finished_ ABSL_GUARDED_BY(mutex_);
  std::vector<EarlyAnswer> early_ ABSL_GUARDED_BY(mutex_);
  std::thread::id deliverer_ ABSL_GUARDED_BY(mutex_);  // the thread in DeliverAll, if any
  std::vector<std::unique_ptr<transport::EdgeSender>> senders_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::unique_ptr<ResultsReader>> readers_ ABSL_GUARDED_BY(mutex_);
};

void PipelineImpl::Core::Start(std::shared_ptr<Core> self) {
  OpenStreams();
  thread_ = std::thread([self = std::move(self)] { self->Run(); });
}

// Results first, so that no answer comes before somebody listens, and without the lock, since a
// worker of this process that has left says so within the call. The streams hold plain pointers:
// the thread ends them before it lets go of this object.
void PipelineImpl::Core::OpenStreams() {
  std::vector<std::unique_ptr<ResultsReader>> readers;
  std::vector<std::unique_ptr<transport::EdgeSender>> senders;
  for (uint32_t worker = 0; worker < options_.workers.size(); ++worker) {
    readers.push_back(std::make_unique<ResultsReader>(ResultsReader::Options{
        .dialer = options_.dialer,
        .worker = AddressOf(worker),
        .epoch = options_.epoch,
        .worker_index = worker,
        .worker_count = options_.workers.size(),
        .vocabulary = options_.model.config.vocab_size,
        .max_outputs = options_.limits.max_step_outputs,
        .on_answer = [this, worker](
                         absl::StatusOr<StepAnswer> answer) { Arrived(worker, std::move(answer)); },
        .on_broken = [this,
                      worker](const absl::Status& status) { Break(LossOf(worker, status)); }}));
  }
  for (const uint32_t worker : first_) {
    senders.push_back(std::make_unique<transport::EdgeSender>(
        *options_.dialer, AddressOf(worker),
        [this, worker](const absl::Status& status) { Break(LossOf(worker, status)); }));
  }
  absl::MutexLock lock(&mutex_);
  readers_ = std::move(readers);
  senders_ = std::move(senders);
}

absl::Status PipelineImpl::Core::Reported(uint32_t worker, const absl::Status& status) const {
  if (status.ok()) return status;
  std::vector<std::pair<absl::string_view, absl::string_view>> names;
  for (const PipelineOptions::Worker& known : options_.workers) {
    names.emplace_back(known.id, known.name);
  }
  // Memory or a disk of a worker that is full is nothing that a user asked too much of.
  const absl::StatusCode code =
      absl::IsResourceExhausted(status) ? absl::StatusCode::kUnavailable : status.code();
  return absl::Status(code, absl::StrCat("worker ", options_.workers[worker].name, " reports: ",
                                         absl::StrReplaceAll(status.message(), names)));
}

void PipelineImpl::Core::Stop() {
  bool in_callback = false;
  {
    absl::MutexLock lock(&mutex_);
    BreakLocked(absl::CancelledError("the pipeline has ended"));
    stopping_ = true;
    in_callback = deliverer_ == std::this_thread::get_id();
  }
  // The thread of the pipeline waits for callbacks to end.
  if (in_callback || thread_.get_id() == std::this_thread::get_id()) {
    thread_.detach();
  } else {
    thread_.join();
  }
}

void PipelineImpl::Core::Heard(uint32_t worker, const StepTracker::Progress& progress) {
  absl::MutexLock lock(&mutex_);
  tracker_.Heard(worker, progress, options_.clock());
}

void PipelineImpl::Core::Break(const absl::Status& why) {
  absl::MutexLock lock(&mutex_);
  BreakLocked(why);
}

void PipelineImpl::Core::BreakLocked(const absl::Status& why) {
  if (!status_.ok()) return;
  status_ = why;
  for (FinishedStep& finished : tracker_.FailAll(why, options_.clock())) {
    finished_.push_back(std::move(finished));
  }
}

uint64_t PipelineImpl::Core::Submit(model::Step step, std::span<const model::TokenId> tokens,
                                    Callback done, EarlyCallback early) {
  step.epoch = options_.epoch;
  absl::StatusOr<proto::StepFrame> frame = MakeFrame(step, tokens, options_);
  absl::Status status = frame.status();

  absl::MutexLock lock(&mutex_);
  if (status.ok()) status = status_;
  if (status.ok() && tracker_.pending() >= transport::kEdgeWindowFrames) {
    status = absl::ResourceExhaustedError(
        absl::StrCat(tracker_.pending(), " steps are on their way already"));
  }
  if (!status.ok()) {
    FinishedStep refused;
    refused.done = std::move(done);
    refused.status = std::move(status);
    finished_.push_back(std::move(refused));
    return 0;
  }
  tracker_.Begin(step, std::move(done), options_.clock(), std::move(early));
  *frame->mutable_step() = transport::ToProto(step);
  for (size_t i = 0; i < senders_.size(); ++i) {
    const bool last = i + 1 == senders_.size();
    const absl::Status sent = senders_[i]->Send(last ? *std::move(frame) : *frame);
    if (sent.ok()) continue;
    BreakLocked(LossOf(first_[i], sent));
    break;
  }
  return step.number;
}

void PipelineImpl::Core::Withdraw(std::span<const uint64_t> numbers) {
  absl::MutexLock lock(&mutex_);
  const std::vector<uint64_t> pending = tracker_.Withdraw(numbers);
  if (pending.empty()) return;
  // To every worker at once: a step is on any of them. One that cannot be told computes, or its
  // end breaks the pipeline.
  for (const auto& reader : readers_) reader->Withdraw(pending);
}

void PipelineImpl::Core::Arrived(uint32_t worker, absl::StatusOr<StepAnswer> answer) {
  {
    absl::MutexLock lock(&mutex_);
    if (!status_.ok()) return;
    // A step gives at most one answer and one error per worker; more is a flood.
    if (arrived_.size() > 2 * options_.workers.size() * transport::kEdgeWindowFrames) {
      BreakLocked(LossOf(worker, absl::InternalError("it sends more answers than were asked")));
    } else {
      arrived_.push_back({worker, std::move(answer), options_.clock()});
    }
  }
  DeliverAll();
}

// Runs what callbacks there are, until there are none; at once, when another thread is at it: that
// one sees what this one brought.
void PipelineImpl::Core::DeliverAll() {
  std::deque<FinishedStep> finished;
  std::vector<EarlyAnswer> early;
  {
    absl::MutexLock lock(&mutex_);
    if (deliverer_ != std::thread::id()) return;
    deliverer_ = std::this_thread::get_id();
  }
  while (true) {
    {
      absl::MutexLock lock(&mutex_);
      JudgeAnswers();
      if (finished_.empty() && early_.empty()) {
        deliverer_ = std::thread::id();
        return;
      }
      finished.swap(finished_);
      early.swap(early_);
    }
    for (EarlyAnswer& answer : early) answer.tell(std::move(answer.rows));
    early.clear();
    for (FinishedStep& step : finished) Deliver(std::move(step));
    finished.clear();
  }
}

void PipelineImpl::Core::Run() {
  bool stopping = false;
  while (!stopping) {
    bool tell = false;
    {
      absl::MutexLock lock(&mutex_);
      WaitForWork();
      tell = !status_.ok() && !told_;
      told_ = told_ || tell;
      stopping = stopping_;
    }
    DeliverAll();
    if (tell) TellBroken();
  }
}

void PipelineImpl::Core::WaitForWork() {
  // A step that is sent meanwhile wakes nobody: its deadline is looked at after the next interval.
  const absl::Duration interval = std::min(options_.step_deadline, absl::Seconds(1));
  if (mutex_.AwaitWithTimeout(absl::Condition(this, &Core::HasWork), interval)) return;
  const StepTracker::Standstill standstill = tracker_.standstill();
  if (options_.clock() - standstill.since < options_.step_deadline) return;
  std::vector<std::string> names;
  for (uint32_t worker : tracker_.SilentOnOldest()) names.push_back(options_.workers[worker].name);
  BreakLocked(absl::UnavailableError(
      absl::StrCat("a step was not answered within ", absl::FormatDuration(options_.step_deadline),
                   standstill.weights_came ? " after the last weights had come" : "", " by worker ",
                   absl::StrJoin(names, ", "))));
}

void PipelineImpl::Core::JudgeAnswers() {
  while (!arrived_.empty()) {
    ArrivedAnswer arrived = std::move(arrived_.front());
    arrived_.pop_front();
    if (!status_.ok()) continue;
    if (!arrived.answer.ok()) {
      BreakLocked(LossOf(arrived.worker, arrived.answer.status()));
      continue;
    }
    const absl::Status failure = Reported(arrived.worker, arrived.answer->status);
    arrived.answer->status = failure;
    absl::StatusOr<std::optional<FinishedStep>> finished =
        tracker_.Answer(arrived.worker, *std::move(arrived.answer), arrived.at);
    if (!finished.ok()) {
      BreakLocked(LossOf(arrived.worker, finished.status()));
      continue;
    }
    for (EarlyAnswer& early : tracker_.TakeEarly()) early_.push_back(std::move(early));
    if (finished->has_value()) finished_.push_back(**std::move(finished));
    if (!failure.ok()) BreakLocked(absl::UnavailableError(failure.message()));
  }
}

// The streams go too: a worker need not keep them for an epoch that is over.
void PipelineImpl::Core::TellBroken() {
  std::vector<std::unique_ptr<transport::EdgeSender>> senders;
  std::vector<std::unique_ptr<ResultsReader>> readers;
  {
    absl::MutexLock lock(&mutex_);
    senders = std::move(senders_);
    senders_.clear();
    readers = std::move(readers_);
    readers_.clear();
  }
  senders.clear();
  readers.clear();
  if (options_.on_broken) options_.on_broken();
}

void PipelineImpl::Core::Deliver(FinishedStep finished) {
  if (!finished.status.ok()) {
    finished.done(std::move(finished.status));
    return;
  }
  StepOutcome outcome;
  outcome.skipped = finished.skipped;
  if (!finished.skipped) {
    outcome.rows = MergeHeadBlocks(finished.step, std::move(finished.blocks));
  }
  outcome.timings = std::move(finished.timings);
  outcome.round_trip_us =
      static_cast<uint64_t>(std::max<int64_t>(0, absl::ToInt64Microseconds(finished.round_trip)));
  outcome.compute_us = SpentOnWorkers(outcome.timings, options_.stages).compute;
  if (!finished.skipped) {
    absl::MutexLock lock(&mutex_);
    times_.Add(finished.step, outcome);
  }
  finished.done(std::move(outcome));
}

PipelineImpl::PipelineImpl(PipelineOptions options)
    : core_(std::make_shared<Core>(std::move(options))) {
  core_->Start(core_);
}
PipelineImpl::~PipelineImpl() { core_->Stop(); }
uint64_t PipelineImpl::epoch() const { return core_->options().epoch; }
const model::Model& PipelineImpl::model() const { return core_->options().model; }
const model::RuntimeLimits& PipelineImpl::limits() const { return core_->options().limits; }
int64_t PipelineImpl::stage_count() const {
  return static_cast<int64_t>(core_->options().stages.size());
}
absl::Status PipelineImpl::status() const { return core_->status(); }
uint64_t PipelineImpl::Submit(model::Step step, std::vector<model::TokenId> tokens, Callback done,
                              EarlyCallback early) {
  return core_->Submit(std::move(step), tokens, std::move(done), std::move(early));
}
void PipelineImpl::Withdraw(std::span<const uint64_t> numbers) { core_->Withdraw(numbers); }
void PipelineImpl::Heard(uint32_t worker, const StepTracker::Progress& progress) {
  core_->Heard(worker, progress);
}
void PipelineImpl::Break(const absl::Status& why) { core_->Break(why); }
PipelineTimes PipelineImpl::times() const { return core_->times(); }

}  // namespace renga::cluster
