// The coordinator's side of a worker's calls, blocking, for tests: load, steps, results.
// For tests only.
#ifndef RENGA_WORKER_SERVICE_TESTING_WORKER_DRIVER_H_
#define RENGA_WORKER_SERVICE_TESTING_WORKER_DRIVER_H_

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "model/step.h"
#include "proto/step.pb.h"
#include "proto/worker.pb.h"
#include "transport/dialer.h"
#include "worker/service/worker_server.h"

namespace renga::worker::testing {

// One thread at a time.
class WorkerDriver {
 public:
  // `name`: that of the worker's certificate, where it has one.
  WorkerDriver(transport::Dialer* dialer, WorkerServer& worker, const std::string& name = "w");
  ~WorkerDriver();

  // The last progress message, which says ready, or the load's error.
  absl::StatusOr<proto::LoadProgress> Load(const proto::LoadRequest& request);
  absl::Status Unload(uint64_t epoch);

  // Connects for results.
  void OpenResults(uint64_t epoch);
  // The next result; the connection's error; kDeadlineExceeded after some seconds.
  absl::StatusOr<proto::StepResult> NextResult();

  // As the coordinator, where results come.
  absl::Status Withdraw(uint64_t epoch, const std::vector<uint64_t>& numbers);
  absl::Status SendResultsBytes(const std::string& message);

  // Sends a frame on an edge that is opened with the first one.
  absl::Status Send(proto::StepFrame frame);
  absl::Status SendStep(const model::Step& step, std::span<const float> rows);
  // Cuts the edge.
  void CloseEdge();
  // Waits for the edge's end, whoever brings it.
  absl::Status WaitForBrokenEdge();

  // Opens one more edge, which stays open: the credits it gets.
  absl::StatusOr<uint32_t> OpenEdge();
  void CloseEdges();
  // How an edge ends on which a frame is sent that no credit allows.
  absl::Status SendWithoutCredit();

  // Sends `payload` to be sent back, and returns what comes.
  absl::StatusOr<std::string> Probe(const std::string& payload);
  absl::StatusOr<proto::MeasureLinkReply> MeasureLink(const proto::MeasureLinkRequest& request);

 private:
  class Messages;
  struct Impl;
  const std::unique_ptr<Impl> impl_;
};

}  // namespace renga::worker::testing

#endif  // RENGA_WORKER_SERVICE_TESTING_WORKER_DRIVER_H_
