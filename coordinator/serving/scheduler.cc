#include "coordinator/serving/scheduler.h"

#include <utility>

#include "coordinator/serving/dispatcher.h"
#include "coordinator/serving/inbox.h"
#include "coordinator/serving/sequence.h"

namespace renga::serving {
namespace {

absl::Status Stopping() { return absl::CancelledError("renga is stopping"); }

void Run(const SchedulerOptions& options, const std::shared_ptr<Inbox>& inbox) {
  Dispatcher dispatcher(options, inbox);
  bool stopped = false;
  while (!stopped) {
    std::vector<Event> events = inbox->Take(dispatcher.NextDeadline(), stopped);
    for (Event& event : events) dispatcher.Handle(std::move(event));
    if (!stopped) dispatcher.Turn();
    ServingStats stats = dispatcher.Stats();
    absl::MutexLock lock(&inbox->mutex);
    inbox->stats = std::move(stats);
  }
  dispatcher.EndAll(Stopping());
}

}  // namespace

void RequestHandle::Cancel() const {
  const std::shared_ptr<Inbox> inbox = inbox_.lock();
  if (inbox != nullptr) inbox->Put(CancelEvent{id_});
}

Scheduler::Scheduler(SchedulerOptions options)
    : inbox_(std::make_shared<Inbox>()),
      thread_([options = std::move(options), inbox = inbox_] { Run(options, inbox); }) {}

Scheduler::~Scheduler() { Stop(); }

RequestHandle Scheduler::Generate(GenerateRequest request, GenerateSink sink) {
  auto sequence = std::make_unique<Sequence>();
  sequence->tokens = request.prompt;
  sequence->job = GenerateJob{std::move(request), std::move(sink)};
  return Send(std::move(sequence));
}

RequestHandle Scheduler::Score(ScoreRequest request, ScoreSink sink) {
  auto sequence = std::make_unique<Sequence>();
  sequence->tokens = request.tokens;
  sequence->next_row = request.first_row;
  sequence->job = ScoreJob{std::move(request), std::move(sink)};
  return Send(std::move(sequence));
}

RequestHandle Scheduler::Send(std::unique_ptr<Sequence> sequence) {
  sequence->prompt_tokens = static_cast<int64_t>(sequence->tokens.size());
  sequence->arrived = absl::Now();
  {
    absl::MutexLock lock(&inbox_->mutex);
    sequence->request_id = ++inbox_->last_request_id;
  }
  const uint64_t id = sequence->request_id;
  Event event = std::move(sequence);
  if (inbox_->Put(std::move(event))) return RequestHandle(inbox_, id);
  auto& refused = std::get<std::unique_ptr<Sequence>>(event)->job;
  if (auto* score = std::get_if<ScoreJob>(&refused)) {
    if (score->sink.on_done) score->sink.on_done(Stopping());
  } else {
    auto& sink = std::get<GenerateJob>(refused).sink;
    if (sink.on_done) sink.on_done(Stopping());
  }
  return RequestHandle();
}

void Scheduler::Stop() {
  inbox_->Stop();
  if (thread_.joinable()) thread_.join();
}

ServingStats Scheduler::Stats() const {
  absl::MutexLock lock(&inbox_->mutex);
  return inbox_->stats;
}

}  // namespace renga::serving
