// One Worker.Results stream, or its like in this process: what a worker answers to the steps of an
// epoch.
#ifndef RENGA_COORDINATOR_CLUSTER_RESULTS_READER_H_
#define RENGA_COORDINATOR_CLUSTER_RESULTS_READER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "coordinator/cluster/step_tracker.h"
#include "transport/local_worker.h"

namespace grpc {
class Channel;
}  // namespace grpc

namespace renga::proto {
class StepResult;
}  // namespace renga::proto

namespace renga::cluster {

// Thread-safe.
class ResultsReader {
 public:
  struct Options {
    std::shared_ptr<grpc::Channel> channel;
    std::shared_ptr<transport::LocalWorker> local = nullptr;  // where given, instead of the channel
    uint64_t epoch = 0;
    uint32_t worker_index = 0;
    size_t worker_count = 0;  // of the plan: bounds the timings of an answer
    int64_t vocabulary = 0;
    int64_t max_outputs = 0;
    // Every answer in order, on gRPC's threads or a local worker's. An error is an answer that
    // can't be understood: after it no more come. Must neither block nor destroy the reader.
    std::function<void(absl::StatusOr<StepAnswer>)> on_answer;
    // At most once: the stream ended, and not by the end of this object. Likewise.
    std::function<void(const absl::Status&)> on_broken;
  };
  explicit ResultsReader(Options options);
  // Cancels the stream and waits until nothing of it runs any more.
  ~ResultsReader();
  ResultsReader(const ResultsReader&) = delete;
  ResultsReader& operator=(const ResultsReader&) = delete;

 private:
  class Reactor;
  class LocalSink;
  // One of the two.
  std::unique_ptr<Reactor> reactor_;
  std::shared_ptr<LocalSink> sink_;
};

// What a message says, checked as far as that needs no step: `options` say who sent it and what
// the plan allows. Nullopt for an answer of another epoch, which nobody waits for.
absl::StatusOr<std::optional<StepAnswer>> ReadAnswer(const proto::StepResult& message,
                                                     const ResultsReader::Options& options);

}  // namespace renga::cluster

#endif  // RENGA_COORDINATOR_CLUSTER_RESULTS_READER_H_
