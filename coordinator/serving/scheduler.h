// The scheduler: takes requests from any thread, keeps the stages busy with steps, and gives each
// request its tokens. It runs on one thread of its own, which also runs the callbacks of the
// requests (request.h).
//
// What a sequence's tokens are depends on its request alone: not on the company it had in its
// steps, on how its prompt was cut, on the number of steps in flight, or on being sent back to
// wait in between.
//
// With several replicas each request is computed by one of them: the one with the fewest requests
// when it comes. It stays there.
//
// When a pipeline breaks, requests on the stages end with its status, which names the worker;
// those still waiting go to the next pipeline when there is one, and end with kUnavailable if not.
#ifndef RENGA_COORDINATOR_SERVING_SCHEDULER_H_
#define RENGA_COORDINATOR_SERVING_SCHEDULER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "coordinator/cluster/pipeline.h"
#include "coordinator/serving/request.h"
#include "coordinator/serving/speculation_policy.h"
#include "coordinator/serving/stats.h"

namespace renga::serving {

struct SchedulerOptions {
  // One for each replica of the model there may be; at least one. They must outlive the scheduler.
  std::vector<cluster::PipelineSource*> replicas = {};
  std::function<bool(TokenId)> is_end_token = nullptr;  // none: only lengths and sinks end answers
  // Most tokens of one sequence; 0: as many as the KV blocks hold.
  int64_t context_tokens = 0;
  // Prompt tokens per step; 0: 32 where there are several stages, since the later ones wait for a
  // prompt's first piece and the earlier ones for its last, and 128 where there is one. One stage
  // takes as many as it can while nobody's answer is under way.
  int64_t prefill_chunk = 0;
  // While answers are under way, prompt chunks are made smaller, so that a stage is not busy with
  // one for much longer than this.
  absl::Duration chunk_time = absl::Milliseconds(250);
  int64_t max_requests = 256;  // waiting and running; more are refused
  // Of a replica; 0: one more than there are stages, or two while nobody's answer is under way.
  int64_t max_steps_in_flight = 0;
  SpeculationMode speculation = SpeculationMode::kOff;
  // Begin the next token with what the first head block says, before the others have answered
  // (cluster::Pipeline::Submit). No other guesses are made then.
  bool optimistic = false;
  // For SpeculationMode::kAuto: where a small model with the same vocabulary is (draft_model.h). It
  // outlives the scheduler; null: none.
  cluster::PipelineSource* draft = nullptr;
};

struct Inbox;     // inbox.h
struct Sequence;  // sequence.h

// Ends a request early. May be kept, copied and used after the request and the scheduler are gone.
class RequestHandle {
 public:
  RequestHandle() = default;
  RequestHandle(std::weak_ptr<Inbox> inbox, uint64_t id) : inbox_(std::move(inbox)), id_(id) {}
  // Asks for on_done(kCancelled), which comes soon and from the scheduler's thread, unless the
  // request is done already. Any thread, any number of times.
  void Cancel() const;

 private:
  std::weak_ptr<Inbox> inbox_;
  uint64_t id_ = 0;
};

// Thread-safe.
class Scheduler {
 public:
  explicit Scheduler(SchedulerOptions options);
  ~Scheduler();  // Stop()
  Scheduler(const Scheduler&) = delete;
  Scheduler& operator=(const Scheduler&) = delete;

  RequestHandle Generate(GenerateRequest request, GenerateSink sink);
  RequestHandle Score(ScoreRequest request, ScoreSink sink);

  // Ends every request with kCancelled and the thread. Later requests are refused in the same way,
  // on the caller's thread.
  void Stop();

  ServingStats Stats() const;

 private:
  RequestHandle Send(std::unique_ptr<Sequence> sequence);

  const std::shared_ptr<Inbox> inbox_;
  std::thread thread_;
};

}  // namespace renga::serving

#endif  // RENGA_COORDINATOR_SERVING_SCHEDULER_H_
