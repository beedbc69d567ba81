// Workers over real sockets: how they join, who may call them, how they leave.
#include "worker/service/worker_server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <thread>

#include "base/testing/status_matchers.h"
#include "worker/service/testing/test_setup.h"
#include "worker/service/testing/worker_driver.h"
#include "worker/service/testing/worker_fixture.h"

namespace renga::worker {
namespace {

using ::renga::testing::IsOkAndHolds;
using ::renga::testing::StatusIs;
using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::SmallModel;
using testing::TestCoordinator;
using testing::WorkerDriver;

using WorkerServerTest = testing::WorkerTest;

TEST_F(WorkerServerTest, JoinsWithWhatItOffers) {
  WorkerOptions options = Options();
  options.advertise_host = "pi.local";
  options.assumed_weight_bytes_per_second = 7e9;
  const auto worker = Start(options);
  const proto::Hello hello = coordinator_.WaitForHello(1);
  EXPECT_EQ(hello.worker_name(), "pi");
  EXPECT_EQ(hello.listen_port(), static_cast<uint32_t>(worker->port()));
  EXPECT_EQ(hello.advertise_host(), "pi.local");
  EXPECT_EQ(hello.resident_epoch(), 0u);
  EXPECT_EQ(hello.offer().memory_bytes(), options.memory_bytes);
  EXPECT_GT(hello.offer().memory_available_bytes(), 0);
  EXPECT_EQ(hello.offer().weight_bytes_per_second(), 7e9);
  EXPECT_EQ(hello.offer().threads(), 1u);
  EXPECT_EQ(hello.offer().device_path(), worker->device_path());
  EXPECT_FALSE(hello.offer().device_name().empty());
}

TEST_F(WorkerServerTest, MeasuresItsSpeed) {
  WorkerOptions options = Options();
  options.measure_speed = true;
  const auto worker = Start(options);
  const double speed = coordinator_.WaitForHello(1).offer().weight_bytes_per_second();
  EXPECT_GT(speed, 1e7);
  EXPECT_LT(speed, 1e12);
}

// A real device, beside a real shard: the middle of three real measurements.
TEST_F(WorkerServerTest, MeasuresItsSpeedAgainWhileItIsIdle) {
  WorkerOptions options = Options();
  options.measure_speed = true;
  options.measure_again_after = absl::Milliseconds(10);
  const auto worker = Start(options);
  WorkerDriver driver(dialer_.get(), *worker);
  ASSERT_OK(driver.Load(OrderWhole(5)));
  driver.OpenResults(5);
  proto::Heartbeat heartbeat;
  while (!heartbeat.speed().confirmed()) heartbeat = coordinator_.WaitForHeartbeat();
  ASSERT_GT(heartbeat.speed().kernels_size(), 0);
  EXPECT_GT(heartbeat.speed().kernels(0).decode_bytes_per_second(), 1e7);
  EXPECT_GT(heartbeat.speed().layer_us(), 0);
  EXPECT_EQ(heartbeat.epoch(), 5u);
  // Whoever joins again says the same.
  coordinator_.EndMemberships(absl::UnavailableError("counted as lost; join again"));
  EXPECT_GT(coordinator_.WaitForHello(2).offer().weight_bytes_per_second(), 1e7);
  // A step is computed meanwhile, in its turn.
  ASSERT_OK(driver.SendStep(testing::MakeStep(5, 1, 0, 3), testing::MakeRows(3, 128, 1)));
  EXPECT_OK(driver.NextResult());
}

TEST_F(WorkerServerTest, WhereNothingIsMeasuredNothingIsMeasuredAgain) {
  const auto worker = Start(Options());
  EXPECT_FALSE(coordinator_.WaitForHeartbeat().has_speed());
}

TEST_F(WorkerServerTest, TellsWhatItHoldsAndDoes) {
  const auto worker = Start(Options());
  WorkerDriver driver(dialer_.get(), *worker);
  ASSERT_OK(driver.Load(OrderWhole(5)));
  driver.OpenResults(5);
  ASSERT_OK(driver.SendStep(testing::MakeStep(5, 1, 0, 3), testing::MakeRows(3, 128, 1)));
  ASSERT_OK(driver.NextResult());
  proto::Heartbeat heartbeat;
  while (heartbeat.steps_done() == 0) heartbeat = coordinator_.WaitForHeartbeat();
  EXPECT_EQ(heartbeat.epoch(), 5u);
  EXPECT_EQ(heartbeat.steps_done(), 1u);
  EXPECT_GT(heartbeat.memory_used_bytes(), 5 << 20);
  EXPECT_GT(heartbeat.resident_bytes(), heartbeat.memory_used_bytes());
}

TEST_F(WorkerServerTest, LeavesWithAWord) {
  auto worker = Start(Options());
  WorkerDriver driver(dialer_.get(), *worker);
  ASSERT_OK(driver.Load(OrderWhole(5)));
  driver.OpenResults(5);
  // Once there is an answer the stream is known to be there.
  ASSERT_OK(driver.SendStep(testing::MakeStep(5, 1, 0, 3), testing::MakeRows(3, 128, 1)));
  ASSERT_OK(driver.NextResult());
  worker->Shutdown();
  EXPECT_OK(worker->Wait());
  EXPECT_EQ(coordinator_.leaves(), 1);
  EXPECT_THAT(driver.NextResult(), StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_THAT(driver.Load(OrderWhole(6)), StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_THAT(events_.lines(),
              ElementsAre("joined as pi (w)",
                          AllOf(HasSubstr("holding layers 0-3 and head rows 0-4999 of "),
                                HasSubstr(": fetched "), HasSubstr(" bytes, 0 from the cache")),
                          "left"));
  worker->Shutdown();
  worker.reset();
}

TEST_F(WorkerServerTest, ShutdownInMidLoadWaitsForNobody) {
  auto worker = Start(Options());
  WorkerDriver driver(dialer_.get(), *worker);
  coordinator_.StallFetchAfter(2);
  std::thread load([&] { EXPECT_FALSE(driver.Load(OrderWhole(5)).ok()); });
  while (coordinator_.pieces_sent() < 2) std::this_thread::yield();
  worker->Shutdown();
  load.join();
  EXPECT_OK(worker->Wait());
}

TEST_F(WorkerServerTest, JoinsAgainWithTheShardItHolds) {
  const auto worker = Start(Options());
  WorkerDriver driver(dialer_.get(), *worker);
  ASSERT_OK(driver.Load(OrderWhole(5)));
  const int pieces = coordinator_.pieces_sent();
  EXPECT_GT(pieces, 0);
  coordinator_.EndMemberships(absl::UnavailableError("counted as lost; join again"));
  EXPECT_EQ(coordinator_.WaitForHello(2).resident_epoch(), 5u);
  // The same shard under a newer plan is not loaded again.
  ASSERT_OK_AND_ASSIGN(const proto::LoadProgress progress, driver.Load(OrderWhole(6)));
  EXPECT_EQ(progress.fetched_bytes(), 0);
  EXPECT_EQ(coordinator_.pieces_sent(), pieces);
  EXPECT_THAT(events_.lines(), Contains(HasSubstr("fetched 0 bytes, held already")));
}

TEST_F(WorkerServerTest, ARefusalEndsItWithItsReason) {
  coordinator_.RefuseJoins(absl::FailedPreconditionError("install the same version on both"));
  ASSERT_OK_AND_ASSIGN(const auto worker, WorkerServer::Create(Options()));
  EXPECT_THAT(worker->Wait(), StatusIs(absl::StatusCode::kFailedPrecondition)) << "not joining yet";
  worker->Join();
  EXPECT_THAT(worker->Wait(), StatusIs(absl::StatusCode::kFailedPrecondition,
                                       HasSubstr("install the same version")));
}

TEST_F(WorkerServerTest, OptionsThatMakeNoSenseAreRefused) {
  WorkerOptions options = Options();
  options.memory_bytes = 0;
  EXPECT_THAT(WorkerServer::Create(options), StatusIs(absl::StatusCode::kInvalidArgument));
  options = Options();
  options.listen_address = "0.0.0.0:0";
  EXPECT_THAT(WorkerServer::Create(options),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("loopback only")));
  options.listen_address = "nonsense";
  EXPECT_THAT(WorkerServer::Create(options), StatusIs(absl::StatusCode::kInvalidArgument));
  options = Options();
  options.local_model_path = "/nowhere.gguf";
  EXPECT_THAT(WorkerServer::Create(options), StatusIs(absl::StatusCode::kNotFound));
  options = Options();
  options.device.device = "abacus";
  EXPECT_THAT(WorkerServer::Create(options),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("abacus")));
}

TEST_F(WorkerServerTest, ATakenPortIsNamed) {
  WorkerOptions options = Options();
  options.listen_address = coordinator_.address();
  EXPECT_THAT(WorkerServer::Create(options),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr(coordinator_.address())));
}

proto::MeasureLinkRequest LinkRequest(const transport::PeerAddress& peer) {
  proto::MeasureLinkRequest request;
  testing::SetPeer(0, peer, *request.mutable_peer());
  request.add_payload_bytes(1000);
  request.add_payload_bytes(100'000);
  request.set_rounds(5);
  request.set_time_limit_ms(10'000);
  return request;
}

TEST_F(WorkerServerTest, MeasuresItsLinkToAnotherWorker) {
  const auto worker = Start(Options());
  const auto other = Start(Options());
  WorkerDriver driver(dialer_.get(), *worker);
  for (int i = 0; i < 3; ++i) {
    ASSERT_OK_AND_ASSIGN(const proto::MeasureLinkReply reply,
                         driver.MeasureLink(LinkRequest(AddressOf(*other))));
    ASSERT_EQ(reply.times_size(), 2);
    EXPECT_EQ(reply.times(0).payload_bytes(), 1000u);
    EXPECT_EQ(reply.times(1).payload_bytes(), 100'000u);
    for (const proto::RoundTripTime& time : reply.times()) {
      EXPECT_EQ(time.rounds(), 5u);
      EXPECT_GT(time.minimum_us(), 0);
      EXPECT_GE(time.p50_us(), time.minimum_us());
      EXPECT_GE(time.p99_us(), time.p50_us());
    }
  }
}

TEST_F(WorkerServerTest, MeasurementsOutOfBoundsAreRefused) {
  const auto worker = Start(Options());
  WorkerDriver driver(dialer_.get(), *worker);
  const std::function<void(proto::MeasureLinkRequest&)> damages[] = {
      [](auto& r) { r.clear_payload_bytes(); },
      [](auto& r) { r.add_payload_bytes(0); },
      [](auto& r) { r.add_payload_bytes(100 << 20); },
      [](auto& r) {
        for (int i = 0; i < 8; ++i) r.add_payload_bytes(1000);
      },
      [](auto& r) { r.set_rounds(0); },
      [](auto& r) { r.set_rounds(0xffffffff); },
      [](auto& r) { r.set_time_limit_ms(0); },
      [](auto& r) { r.set_time_limit_ms(0xffffffff); },
  };
  for (const auto& damage : damages) {
    proto::MeasureLinkRequest request = LinkRequest(AddressOf(*worker));
    damage(request);
    EXPECT_THAT(driver.MeasureLink(request), StatusIs(absl::StatusCode::kInvalidArgument));
  }
  for (const char* address : {"", "nonsense", "10.0.0.1:80", "127.0.0.1:1"}) {
    EXPECT_FALSE(driver.MeasureLink(LinkRequest({.address = address, .name = "w"})).ok())
        << address;
  }
}

TEST_F(WorkerServerTest, LeavesWhileALinkIsMeasured) {
  const auto worker = Start(Options());
  const auto other = Start(Options());
  WorkerDriver driver(dialer_.get(), *worker);
  proto::MeasureLinkRequest request = LinkRequest(AddressOf(*other));
  request.set_rounds(1000);
  std::thread measuring([&] { (void)driver.MeasureLink(request); });
  worker->Shutdown();
  measuring.join();
}

TEST_F(WorkerServerTest, ProbeAnswersWhatItGets) {
  const auto worker = Start(Options());
  WorkerDriver driver(dialer_.get(), *worker);
  EXPECT_THAT(driver.Probe("hello"), IsOkAndHolds("hello"));
  EXPECT_THAT(driver.Probe(std::string(1 << 20, 'x')), IsOkAndHolds(std::string(1 << 20, 'x')));
}

// Everything over mutual TLS.
class WorkerTlsTest : public WorkerServerTest {
 protected:
  void SetUp() override {
    ASSERT_OK_AND_ASSIGN(authority_, transport::Authority::CreateEphemeral());
    tls_coordinator_ = std::make_unique<TestCoordinator>(
        TestCoordinator::Options{.model = &SmallModel(), .identity = Issue("coordinator")});
    worker_dialer_ = transport::CreateTlsDialer(Issue("w-1"));
    WorkerOptions options = Options();
    options.identity = Issue("w-1");
    options.dialer = worker_dialer_.get();
    options.coordinator.address = tls_coordinator_->address();
    worker_ = Start(options);
  }
  transport::Identity Issue(const std::string& name) {
    auto identity = authority_->IssueIdentity(name);
    EXPECT_OK(identity);
    return *std::move(identity);
  }
  // Loads a shard as `identity`.
  absl::Status LoadAs(const transport::Identity& identity) {
    const auto dialer = transport::CreateTlsDialer(identity);
    return WorkerDriver(dialer.get(), *worker_, "w-1").Load(OrderWhole(1)).status();
  }

  std::unique_ptr<transport::Authority> authority_;
  std::unique_ptr<TestCoordinator> tls_coordinator_;
  std::unique_ptr<transport::Dialer> worker_dialer_;
  std::unique_ptr<WorkerServer> worker_;
};

TEST_F(WorkerTlsTest, OnlyTheCoordinatorGivesOrders) {
  EXPECT_THAT(LoadAs(Issue("w-2")), StatusIs(absl::StatusCode::kPermissionDenied));
  const auto dialer = transport::CreateTlsDialer(Issue("w-2"));
  WorkerDriver member(dialer.get(), *worker_, "w-1");
  EXPECT_THAT(member.Unload(1), StatusIs(absl::StatusCode::kPermissionDenied));
  member.OpenResults(1);
  EXPECT_THAT(member.NextResult(), StatusIs(absl::StatusCode::kPermissionDenied));
  EXPECT_THAT(member.Probe("members may"), IsOkAndHolds("members may"));
  EXPECT_THAT(member.MeasureLink(LinkRequest(AddressOf(*worker_, "w-1"))),
              StatusIs(absl::StatusCode::kPermissionDenied));
  EXPECT_OK(LoadAs(Issue("coordinator")));
}

TEST_F(WorkerTlsTest, StrangersAreNotHeard) {
  ASSERT_OK_AND_ASSIGN(const auto other, transport::Authority::CreateEphemeral());
  ASSERT_OK_AND_ASSIGN(transport::Identity forged, other->IssueIdentity("coordinator"));
  EXPECT_THAT(LoadAs(forged), StatusIs(absl::StatusCode::kUnavailable));
  // Even if they know the authority's certificate, which is no secret.
  forged.authority_pem = authority_->certificate_pem();
  EXPECT_THAT(LoadAs(forged), StatusIs(absl::StatusCode::kUnavailable));
  const auto plain = transport::CreateInsecureLoopbackDialer();
  EXPECT_THAT(WorkerDriver(plain.get(), *worker_).Load(OrderWhole(1)),
              StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_OK(LoadAs(Issue("coordinator")));
}

TEST_F(WorkerTlsTest, AWorkerWithoutTheAuthoritysCertificateDoesNotJoin) {
  ASSERT_OK_AND_ASSIGN(const auto other, transport::Authority::CreateEphemeral());
  ASSERT_OK_AND_ASSIGN(const transport::Identity foreign, other->IssueIdentity("w-3"));
  const auto dialer = transport::CreateTlsDialer(foreign);
  WorkerOptions options = Options();
  options.identity = foreign;
  options.dialer = dialer.get();
  options.coordinator.address = tls_coordinator_->address();
  options.join_timeout = absl::Milliseconds(300);
  ASSERT_OK_AND_ASSIGN(const auto worker, WorkerServer::Create(options));
  worker->Join();
  EXPECT_THAT(worker->Wait(),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr(tls_coordinator_->address())));
}

}  // namespace
}  // namespace renga::worker
