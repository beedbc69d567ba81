// A coordinator that ships a small model, and workers that join it over plain loopback: what the
// tests of the worker as a whole begin with. For tests only.
#ifndef RENGA_WORKER_SERVICE_TESTING_WORKER_FIXTURE_H_
#define RENGA_WORKER_SERVICE_TESTING_WORKER_FIXTURE_H_

#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "model/shard_spec.h"
#include "proto/worker.pb.h"
#include "transport/dialer.h"
#include "worker/service/testing/test_coordinator.h"
#include "worker/service/worker_server.h"

namespace renga::worker::testing {

inline constexpr int64_t kMiB = int64_t{1} << 20;

// What a worker tells people. Thread-safe.
class Events {
 public:
  void Add(const std::string& line);
  std::vector<std::string> lines() const;

 private:
  mutable absl::Mutex mutex_;
  std::vector<std::string> lines_ ABSL_GUARDED_BY(mutex_);
};

class WorkerTest : public ::testing::Test {
 protected:
  WorkerTest();
  explicit WorkerTest(const TestModel& model);

  // One thread, 256 MiB, any loopback port, no cache, plain text; events go to events_.
  WorkerOptions Options();
  // A worker that has been welcomed.
  std::unique_ptr<WorkerServer> Start(const WorkerOptions& options);
  // Its data port. The name in a certificate is not checked here.
  static transport::PeerAddress AddressOf(WorkerServer& worker, const std::string& name = "w");

  // An order of the model for worker 0: as the last stage it answers for its own head block,
  // as an earlier one it sends to a worker that is not there.
  proto::LoadRequest Order(uint64_t epoch, const model::ShardSpec& spec) const;
  proto::LoadRequest OrderWhole(uint64_t epoch) const;

  const TestModel& model_;
  TestCoordinator coordinator_;
  const std::unique_ptr<transport::Dialer> dialer_;
  Events events_;
};

// Fills in where a stage's output goes.
void SetPeer(uint32_t index, const transport::PeerAddress& address, proto::Peer& peer);

}  // namespace renga::worker::testing

#endif  // RENGA_WORKER_SERVICE_TESTING_WORKER_FIXTURE_H_
