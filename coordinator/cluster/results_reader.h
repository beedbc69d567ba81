// What a worker answers to the steps of an epoch: over a connection to its data port, or handed
// over in this process.
#ifndef RENGA_COORDINATOR_CLUSTER_RESULTS_READER_H_
#define RENGA_COORDINATOR_CLUSTER_RESULTS_READER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "coordinator/cluster/step_tracker.h"
#include "transport/dialer.h"
#include "transport/local_worker.h"
#include "transport/message_socket.h"

namespace renga::proto {
class StepResult;
}  // namespace renga::proto

namespace renga::cluster {

// Thread-safe.
class ResultsReader {
 public:
  struct Options {
    transport::Dialer* dialer = nullptr;  // outlives the reader
    transport::PeerAddress worker;        // its data port
    uint64_t epoch = 0;
    uint32_t worker_index = 0;
    size_t worker_count = 0;  // of the plan: bounds the timings of an answer
    int64_t vocabulary = 0;
    int64_t max_outputs = 0;
    // Every answer in order, on a thread of the connection or of a local worker. An error is an
    // answer that can't be understood: after it no more come. Must neither block nor destroy the
    // reader.
    std::function<void(absl::StatusOr<StepAnswer>)> on_answer;
    // At most once: the stream ended, and not by the end of this object. Likewise.
    std::function<void(const absl::Status&)> on_broken;
  };
  explicit ResultsReader(Options options);
  // Hangs up and waits until nothing of it runs any more.
  ~ResultsReader();
  ResultsReader(const ResultsReader&) = delete;
  ResultsReader& operator=(const ResultsReader&) = delete;

  // Tells the worker that nobody waits for its answers to these steps. Never blocks; a worker that
  // cannot be reached is on_broken's to tell.
  void Withdraw(std::span<const uint64_t> numbers);

 private:
  class Sink;
  const uint64_t epoch_;
  std::shared_ptr<transport::LocalWorker> local_;  // null: a worker elsewhere
  std::shared_ptr<Sink> sink_;
  std::unique_ptr<transport::MessageSocket> socket_;  // null: a worker of this process
};

// What a message says, checked as far as that needs no step: `options` say who sent it and what
// the plan allows. Nullopt for an answer of another epoch, which nobody waits for.
absl::StatusOr<std::optional<StepAnswer>> ReadAnswer(const proto::StepResult& message,
                                                     const ResultsReader::Options& options);

}  // namespace renga::cluster

#endif  // RENGA_COORDINATOR_CLUSTER_RESULTS_READER_H_
