#include "worker/service/coordinator_link.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <memory>

#include "absl/strings/str_cat.h"
#include "base/testing/status_matchers.h"
#include "transport/hello.h"
#include "worker/service/testing/test_coordinator.h"

namespace renga::worker {
namespace {

using ::renga::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::TestCoordinator;

class CoordinatorLinkTest : public ::testing::Test {
 protected:
  std::unique_ptr<CoordinatorLink> Link(const std::string& address, absl::Duration join_timeout,
                                        absl::Duration rejoin_timeout) {
    return std::make_unique<CoordinatorLink>(
        CoordinatorLink::Options{.coordinator = {.address = address, .name = "coordinator"},
                                 .dialer = dialer_.get(),
                                 .hello =
                                     [this] {
                                       proto::Hello hello;
                                       *hello.mutable_build() = transport::ThisBuild();
                                       hello.set_worker_name("pi");
                                       hello.set_resident_epoch(++asked_);
                                       return hello;
                                     },
                                 .heartbeat =
                                     [] {
                                       proto::Heartbeat heartbeat;
                                       heartbeat.set_steps_done(17);
                                       return heartbeat;
                                     },
                                 .join_timeout = join_timeout,
                                 .rejoin_timeout = rejoin_timeout,
                                 .on_event = nullptr});
  }

  const std::unique_ptr<transport::Dialer> dialer_ = transport::CreateInsecureLoopbackDialer();
  std::atomic<uint64_t> asked_ = 0;
};

TEST_F(CoordinatorLinkTest, JoinsAndSendsHeartbeatsUntilStopped) {
  TestCoordinator coordinator({});
  const auto link = Link(coordinator.address(), absl::Seconds(10), absl::Seconds(10));
  EXPECT_OK(link->WaitForWelcome());
  EXPECT_EQ(coordinator.WaitForHello(1).worker_name(), "pi");
  EXPECT_EQ(coordinator.WaitForHeartbeat().steps_done(), 17u);
  coordinator.WaitForHeartbeat();
  link->Stop();
  EXPECT_OK(link->Wait());
  EXPECT_EQ(coordinator.leaves(), 1);
}

TEST_F(CoordinatorLinkTest, ARefusalEndsItWithItsReason) {
  TestCoordinator coordinator({});
  coordinator.RefuseJoins(absl::FailedPreconditionError("install the same version"));
  const auto link = Link(coordinator.address(), absl::Seconds(10), absl::InfiniteDuration());
  EXPECT_THAT(link->WaitForWelcome(), StatusIs(absl::StatusCode::kFailedPrecondition,
                                               HasSubstr("install the same version")));
  EXPECT_THAT(link->Wait(), StatusIs(absl::StatusCode::kFailedPrecondition));
}

TEST_F(CoordinatorLinkTest, ACoordinatorOfAnotherProtocolIsNotJoined) {
  TestCoordinator::Options options;
  options.protocol_version = 99;
  TestCoordinator coordinator(options);
  const auto link = Link(coordinator.address(), absl::Seconds(10), absl::InfiniteDuration());
  EXPECT_THAT(link->Wait(),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       AllOf(HasSubstr("protocol 99"),
                             HasSubstr(absl::StrCat("protocol ", transport::kProtocolVersion)),
                             HasSubstr("install the same version"))));
}

TEST_F(CoordinatorLinkTest, AGoodbyeWithAFinalErrorEndsIt) {
  TestCoordinator coordinator({});
  const auto link = Link(coordinator.address(), absl::Seconds(10), absl::InfiniteDuration());
  ASSERT_OK(link->WaitForWelcome());
  coordinator.EndMemberships(absl::PermissionDeniedError("removed by its owner"));
  EXPECT_THAT(link->Wait(),
              StatusIs(absl::StatusCode::kPermissionDenied, HasSubstr("removed by its owner")));
}

TEST_F(CoordinatorLinkTest, AnInterruptionMakesItJoinAgain) {
  TestCoordinator coordinator({});
  const auto link = Link(coordinator.address(), absl::Seconds(10), absl::InfiniteDuration());
  ASSERT_OK(link->WaitForWelcome());
  coordinator.EndMemberships(absl::UnavailableError("counted as lost; join again"));
  // Asked anew: what it holds may have changed.
  EXPECT_EQ(coordinator.WaitForHello(2).resident_epoch(), 2u);
  coordinator.EndMemberships(absl::OkStatus());
  coordinator.WaitForHello(3);
  link->Stop();
  EXPECT_OK(link->Wait());
}

TEST_F(CoordinatorLinkTest, ACoordinatorThatRestartsIsJoinedAgain) {
  auto coordinator = std::make_unique<TestCoordinator>(TestCoordinator::Options{});
  const std::string address = coordinator->address();
  const auto link = Link(address, absl::Seconds(10), absl::Seconds(20));
  ASSERT_OK(link->WaitForWelcome());
  coordinator.reset();
  TestCoordinator::Options options;
  options.address = address;
  TestCoordinator restarted(options);
  restarted.WaitForHello(1);
  restarted.WaitForHeartbeat();
}

TEST_F(CoordinatorLinkTest, PatienceHasItsEnd) {
  const auto never = Link("127.0.0.1:1", absl::Milliseconds(200), absl::InfiniteDuration());
  EXPECT_THAT(never->WaitForWelcome(), StatusIs(absl::StatusCode::kUnavailable,
                                                HasSubstr("the coordinator at 127.0.0.1:1")));
  auto coordinator = std::make_unique<TestCoordinator>(TestCoordinator::Options{});
  const auto once = Link(coordinator->address(), absl::Seconds(10), absl::Milliseconds(200));
  ASSERT_OK(once->WaitForWelcome());
  coordinator.reset();
  EXPECT_THAT(once->Wait(), StatusIs(absl::StatusCode::kUnavailable));
}

TEST_F(CoordinatorLinkTest, StopEndsAFruitlessSearch) {
  const auto link = Link("127.0.0.1:1", absl::InfiniteDuration(), absl::InfiniteDuration());
  link->Stop();
  EXPECT_OK(link->Wait());
  EXPECT_OK(link->WaitForWelcome());
}

}  // namespace
}  // namespace renga::worker
