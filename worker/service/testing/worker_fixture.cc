#include "worker/service/testing/worker_fixture.h"

#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "base/testing/status_matchers.h"
#include "worker/service/testing/test_setup.h"

namespace renga::worker::testing {

void Events::Add(const std::string& line) {
  absl::MutexLock lock(&mutex_);
  lines_.push_back(line);
}

std::vector<std::string> Events::lines() const {
  absl::MutexLock lock(&mutex_);
  return lines_;
}

WorkerTest::WorkerTest() : WorkerTest(SmallModel()) {}

WorkerTest::WorkerTest(const TestModel& model)
    : model_(model),
      coordinator_({.model = &model}),
      dialer_(transport::CreateInsecureLoopbackDialer()) {}

WorkerOptions WorkerTest::Options() {
  WorkerOptions options;
  options.name = "pi";
  options.device = {.device = "cpu", .threads = 1};
  options.memory_bytes = 256 << 20;
  options.listen_address = "127.0.0.1:0";
  options.coordinator = {.address = coordinator_.address(), .name = "coordinator"};
  options.dialer = dialer_.get();
  options.measure_speed = false;
  options.on_event = [this](const std::string& line) { events_.Add(line); };
  return options;
}

std::unique_ptr<WorkerServer> WorkerTest::Start(const WorkerOptions& options) {
  auto worker = WorkerServer::Create(options);
  EXPECT_OK(worker);
  if (!worker.ok()) std::abort();
  (*worker)->Join();
  EXPECT_OK((*worker)->WaitForWelcome());
  return *std::move(worker);
}

transport::PeerAddress WorkerTest::AddressOf(WorkerServer& worker, const std::string& name) {
  return {.address = absl::StrCat("127.0.0.1:", worker.data_port()), .name = name};
}

proto::LoadRequest WorkerTest::Order(uint64_t epoch, const model::ShardSpec& spec) const {
  proto::LoadRequest request = model_.MakeRequest(epoch, spec, SmallLimits());
  if (spec.layers.end == model_.model().config.n_layers) {
    SetPeer(0, {.address = "inproc:itself", .name = "itself"}, *request.add_heads());
  } else if (!spec.layers.empty()) {
    SetPeer(1, {.address = "127.0.0.1:1", .name = "nobody"}, *request.add_next_stage());
  }
  return request;
}

proto::LoadRequest WorkerTest::OrderWhole(uint64_t epoch) const {
  return Order(epoch, WholeSpec(model_));
}

void SetPeer(uint32_t index, const transport::PeerAddress& address, proto::Peer& peer) {
  peer.set_worker_index(index);
  peer.set_address(address.address);
  peer.set_worker_id(address.name);
}

}  // namespace renga::worker::testing
