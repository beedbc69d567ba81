// Workers without engines, for tests of the coordinator: they serve the real Worker service and
// a data port, answer steps with logits anybody can compute, and misbehave on demand.
#ifndef RENGA_COORDINATOR_CLUSTER_TESTING_FAKE_WORKERS_H_
#define RENGA_COORDINATOR_CLUSTER_TESTING_FAKE_WORKERS_H_

#include <grpcpp/server.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "coordinator/cluster/membership.h"
#include "model/step.h"
#include "proto/worker.pb.h"
#include "transport/dialer.h"
#include "transport/identity.h"
#include "transport/peer_listener.h"
#include "transport/secure_socket.h"

namespace renga::cluster {

// The logit of vocabulary row `id` for an output whose last activation row begins with `seed`. Few
// different values, so that ties are common.
float FakeLogit(float seed, int64_t id);
// What the head block `rows` answers to `step`; `activations` as Submit got them.
std::vector<model::HeadRow> FakeAnswer(const model::Step& step,
                                       const std::vector<float>& activations, int64_t d_model,
                                       int64_t row_begin, int64_t row_end);

enum class Misbehaviour {
  kNone,
  kWithdrawn,    // none: waits until a step is withdrawn, and says that it skipped it
  kSilent,       // never answers steps
  kWrongEpoch,   // answers for an older epoch only
  kWrongWorker,  // under another worker's index
  kWrongSizes,   // a logit too few
  kWrongId,      // an id outside its block
  kWrongNumber,  // a step that was never sent
  kTwice,        // every answer twice
  kGarbage,      // logits whose bytes are no floats
  kFailsStep,    // kInternal "the engine is on fire"
  kSkips,        // says that it skipped the step
  kDiesOnStep,   // ends its streams in mid-step, and does not answer when links are measured
  kRefusesLoad,  // kResourceExhausted
  kNeverReady,   // ends a load without being ready
  kHangsInLoad,  // reports nothing until it is cancelled
};

class FakeWorkers;

// One worker process. Frames reach the other workers of the plan through the FakeWorkers they share
// rather than over connections: the first stage passes every frame to all who have a head block.
class FakeWorker {
 public:
  FakeWorker(FakeWorkers* others, std::string id);
  ~FakeWorker();
  FakeWorker(const FakeWorker&) = delete;
  FakeWorker& operator=(const FakeWorker&) = delete;

  // In this process, or with an identity on a loopback port.
  void StartInProcess();
  void StartTls(const transport::Identity& identity);
  // Ends every call, as a killed process would.
  void Kill();

  grpc::Server* server() const { return server_.get(); }
  int port() const { return port_; }
  // "host:port" of its data port.
  std::string data_address() const;
  const std::string& id() const { return id_; }
  void set_misbehaviour(Misbehaviour misbehaviour);
  // The last one received; empty when there was none.
  proto::LoadRequest load_request() const;
  int load_count() const;
  // Ids of the workers to which it was asked to measure its link; it makes up round trips of 100 us
  // and 1 us more per 1000 bytes.
  std::vector<std::string> measured_links() const;
  // A member as it would join, reached in process.
  JoinRequest AsMember(int64_t memory_bytes) const;

 private:
  friend class FakeWorkers;
  class Service;
  void Listen(std::shared_ptr<const transport::SocketCredentials> credentials);
  const std::string id_;
  std::unique_ptr<Service> service_;
  std::unique_ptr<grpc::Server> server_;
  int port_ = 0;
  std::unique_ptr<transport::PeerListener> listener_;
};

// All fake workers of a test, which outlive their last step. Thread-safe.
class FakeWorkers {
 public:
  void Add(FakeWorker* worker);
  // The first stage got `frame`: everybody with a head block answers it.
  void Answer(const proto::StepFrame& frame);

 private:
  absl::Mutex mutex_;
  std::vector<FakeWorker*> workers_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace renga::cluster

#endif  // RENGA_COORDINATOR_CLUSTER_TESTING_FAKE_WORKERS_H_
