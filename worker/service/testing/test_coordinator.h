// A coordinator as the worker sees it, for tests: enrols nobody, welcomes members, ships pieces of
// a model, and can misbehave on request. For tests only.
#ifndef RENGA_WORKER_SERVICE_TESTING_TEST_COORDINATOR_H_
#define RENGA_WORKER_SERVICE_TESTING_TEST_COORDINATOR_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "model/architecture.h"
#include "model/gguf_file.h"
#include "model/shard_spec.h"
#include "proto/cluster.pb.h"
#include "proto/worker.pb.h"
#include "transport/dialer.h"
#include "transport/identity.h"

namespace grpc {
class Server;
}  // namespace grpc

namespace renga::worker::testing {

// A model file with its manifest entries.
class TestModel {
 public:
  // Opens `path`; aborts the test process when it can't.
  explicit TestModel(const std::string& path);

  const model::GgufFile& file() const { return *file_; }
  const model::Model& model() const { return model_; }
  const std::string& model_id() const { return model_id_; }

  // A complete order for `spec`, with the whole model's tensors in the manifest. Routes are the
  // caller's to add.
  proto::LoadRequest MakeRequest(uint64_t epoch, const model::ShardSpec& spec,
                                 const model::RuntimeLimits& limits) const;

 private:
  std::unique_ptr<model::GgufFile> file_;
  model::Model model_;
  std::string model_id_;
  proto::Manifest manifest_;
};

// Thread-safe.
class TestCoordinator {
 public:
  struct Options {
    const TestModel* model = nullptr;  // whose pieces it ships; may be null
    // Mutual TLS on a loopback port; without it plain text there.
    std::optional<transport::Identity> identity = {};
    std::string address = "127.0.0.1:0";
    uint32_t heartbeat_ms = 50;
    uint32_t protocol_version = transport::kProtocolVersion;  // as it says in its welcome
  };
  explicit TestCoordinator(const Options& options);
  ~TestCoordinator();

  const std::string& address() const { return address_; }
  grpc::Server* server() { return server_.get(); }

  // Hellos that come from now on are refused with this.
  void RefuseJoins(const absl::Status& status);
  // Every member's stream ends, with a Goodbye when `status` is an error.
  void EndMemberships(const absl::Status& status);
  // Ends a Fetch stream with `status` after so many pieces; negative: never. Used up once.
  void CutFetchAfter(int pieces, const absl::Status& status = absl::UnavailableError("cut"));
  // A Fetch stream says nothing more after so many pieces. Used up once.
  void StallFetchAfter(int pieces);
  // While this is so, Fetch streams say nothing.
  void StallFetches(bool stall);
  // Pieces are sent with a changed byte.
  void DamagePieces(bool damage);

  // Waits until so many hellos have come, and returns the last.
  proto::Hello WaitForHello(int count);
  proto::Heartbeat WaitForHeartbeat();
  // Workers that took their leave so far.
  int leaves() const;
  // Pieces sent so far, over all streams.
  int pieces_sent() const;
  int fetches() const;

 private:
  class Cluster;
  class Pieces;
  struct State;

  const std::unique_ptr<State> state_;
  const std::unique_ptr<Cluster> cluster_;
  const std::unique_ptr<Pieces> pieces_;
  std::unique_ptr<grpc::Server> server_;
  std::string address_;
};

}  // namespace renga::worker::testing

#endif  // RENGA_WORKER_SERVICE_TESTING_TEST_COORDINATOR_H_
