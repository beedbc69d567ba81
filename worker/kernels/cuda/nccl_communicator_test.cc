// The contract of Communicator over NCCL: a made-up library and driver for groups of several ranks,
// and the real ones, where they are, for a group of one.
#include "worker/kernels/cuda/nccl_communicator.h"

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_split.h"
#include "absl/synchronization/mutex.h"
#include "base/status_macros.h"
#include "base/testing/communicator_contract.h"
#include "base/testing/status_matchers.h"
#include "base/testing/tested_cards.h"
#include "worker/kernels/cuda/device_images.h"
#include "worker/kernels/cuda/driver_device.h"
#include "worker/kernels/cuda/emulation/emulated_device.h"
#include "worker/kernels/cuda/emulation/made_up_driver.h"
#include "worker/kernels/cuda/nccl_api.h"

namespace renga::kernels::cuda {
namespace {

using ::renga::testing::StatusIs;
using ::testing::HasSubstr;

// Hands bytes from the first rank to the others, as the sockets of a group do before NCCL is there.
class Handing : public base::Communicator {
 public:
  struct Shared {
    absl::Mutex mutex;
    std::vector<std::byte> bytes ABSL_GUARDED_BY(mutex);
  };
  Handing(Shared* shared, int rank, int size) : shared_(shared), rank_(rank), size_(size) {}
  int rank() const override { return rank_; }
  int size() const override { return size_; }
  absl::Status AllReduce(std::span<float>) override {
    return absl::UnimplementedError("this test hands round only");
  }
  absl::Status AllGather(std::span<const std::byte>, std::span<std::byte>) override {
    return absl::UnimplementedError("this test hands round only");
  }
  absl::Status Broadcast(int root, std::span<std::byte> bytes) override {
    const absl::MutexLock lock(&shared_->mutex);
    if (rank_ == root) shared_->bytes.assign(bytes.begin(), bytes.end());
    const auto there = [this]() ABSL_SHARED_LOCKS_REQUIRED(shared_->mutex) {
      return !shared_->bytes.empty();
    };
    shared_->mutex.Await(absl::Condition(&there));
    std::copy(shared_->bytes.begin(), shared_->bytes.end(), bytes.begin());
    return absl::OkStatus();
  }
  absl::Duration TakeExchangeTime() override { return absl::ZeroDuration(); }
  void Cancel() override {}

 private:
  Shared* const shared_;
  const int rank_;
  const int size_;
};

using OpenDevice = absl::StatusOr<std::shared_ptr<Device>> (*)();

testing::RunGroup GroupsOf(const NcclApi& nccl, OpenDevice open) {
  return [nccl, open](int size, const testing::GroupWork& work) {
    Handing::Shared shared;
    std::vector<absl::Status> ends(static_cast<size_t>(size));
    std::vector<std::thread> threads;
    for (int rank = 0; rank < size; ++rank) {
      threads.emplace_back([&, rank] {
        Handing others(&shared, rank, size);
        absl::Status& end = ends[static_cast<size_t>(rank)];
        auto device = open();
        if (!device.ok()) {
          end = device.status();
          return;
        }
        auto group = CreateNcclCommunicator(nccl, *device, others);
        end = group.ok() ? work(**group) : group.status();
      });
    }
    for (std::thread& thread : threads) thread.join();
    return ends;
  };
}

#ifdef RENGA_MADE_UP_NCCL
absl::StatusOr<std::shared_ptr<Device>> OpenMadeUp() {
  return OpenCard(emulation::MadeUpDriver(), 0, emulation::MadeUpImages());
}

class MadeUpNcclTest : public ::testing::Test {
 protected:
  void SetUp() override {
    emulation::ThisMachine() = {};
    const auto nccl = LoadNccl(RENGA_MADE_UP_NCCL);
    ASSERT_OK(nccl);
    nccl_ = *nccl;
  }
  void TearDown() override { EXPECT_TRUE(emulation::ThisMachine().memory.empty()); }
  NcclApi nccl_;
};

TEST_F(MadeUpNcclTest, SumsInRankOrder) {
  for (const int size : {1, 2, 3}) {
    testing::ExpectSumsInRankOrder(GroupsOf(nccl_, &OpenMadeUp), size);
  }
}

TEST_F(MadeUpNcclTest, GathersAndBroadcasts) {
  for (const int size : {1, 3}) {
    testing::ExpectGathersAndBroadcasts(GroupsOf(nccl_, &OpenMadeUp), size);
  }
}

TEST_F(MadeUpNcclTest, CancelEndsAWait) {
  testing::ExpectCancelEndsAWait(GroupsOf(nccl_, &OpenMadeUp));
}

TEST_F(MadeUpNcclTest, WhatGoesWrongIsSaid) {
  Handing::Shared shared;
  Handing alone(&shared, 0, 1);
  const std::shared_ptr<Device> streamless =
      emulation::CreateEmulatedDevice(emulation::Turns::kForwards);
  EXPECT_THAT(CreateNcclCommunicator(nccl_, streamless, alone),
              StatusIs(absl::StatusCode::kUnimplemented));
  ASSERT_OK_AND_ASSIGN(const std::shared_ptr<Device> card, OpenMadeUp());
  NcclApi broken = nccl_;
  broken.CommInitRank = [](NcclComm*, int, NcclUniqueId, int) { return kNcclInvalidUsage; };
  EXPECT_THAT(CreateNcclCommunicator(broken, card, alone),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("NCCL_DEBUG")));
  broken = nccl_;
  broken.CommGetAsyncError = [](NcclComm, NcclResult* error) {
    *error = kNcclRemoteError;
    return kNcclSuccess;
  };
  ASSERT_OK_AND_ASSIGN(const auto group, CreateNcclCommunicator(broken, card, alone));
  std::vector<float> values(10);
  EXPECT_THAT(group->AllReduce(values), StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_THAT(group->Broadcast(0, {}), StatusIs(absl::StatusCode::kUnavailable)) << "stays broken";
}
#endif

TEST(NcclApiTest, NoLibraryOrOneThatLacksFunctions) {
  constexpr auto kNotHere = absl::StatusCode::kFailedPrecondition;
  EXPECT_THAT(LoadNccl("libnccl-that-is-not-there.so.2"), StatusIs(kNotHere, HasSubstr("no NCCL")));
  EXPECT_THAT(LoadNccl("libc.so.6"), StatusIs(kNotHere, HasSubstr("too old")));
}

// deploy/gpu-check names the card: the real library with one rank, as NCCL wants a card for each.
TEST(NcclOnACardTest, OneRank) {
  if (testing::TestedCards().empty()) GTEST_SKIP() << "no card: deploy/gpu-check names one";
  const auto nccl = LoadNccl();
  if (!nccl.ok()) GTEST_SKIP() << nccl.status().message();
  const OpenDevice open = []() -> absl::StatusOr<std::shared_ptr<Device>> {
    // "cuda-dp4a:1" is the card 1.
    const std::pair<std::string, std::string> name =
        absl::StrSplit(testing::TestedCards().front(), ':');
    RENGA_ASSIGN_OR_RETURN(const DriverApi driver, LoadDriver());
    return OpenCard(driver, std::atoi(name.second.c_str()), EmbeddedImages());
  };
  testing::ExpectSumsInRankOrder(GroupsOf(*nccl, open), 1);
  testing::ExpectGathersAndBroadcasts(GroupsOf(*nccl, open), 1);
}

}  // namespace
}  // namespace renga::kernels::cuda
