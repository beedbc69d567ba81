// The contract of Communicator over NCCL: a made-up library and driver for groups of several ranks,
// and the real ones, where they are, for a group of one.
#include "worker/kernels/cuda/nccl_communicator.h"

#include <atomic>
#include <barrier>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
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

// What the sockets of a group are before NCCL is there: all members are threads.
class Handing : public base::Communicator {
 public:
  struct Shared {
    explicit Shared(int size) : parts(static_cast<size_t>(size)), barrier(size) {}
    std::vector<std::string> parts;
    std::barrier<> barrier;
    std::atomic<bool> someone_left = false;
  };
  Handing(Shared* shared, int rank) : shared_(shared), rank_(rank) {}
  int rank() const override { return rank_; }
  int size() const override { return static_cast<int>(shared_->parts.size()); }
  absl::Status AllReduce(std::span<float>) override {
    return absl::UnimplementedError("this test hands round only");
  }
  absl::Status AllGather(std::span<const std::byte> mine, std::span<std::byte> all) override {
    shared_->parts[static_cast<size_t>(rank_)].assign(reinterpret_cast<const char*>(mine.data()),
                                                      mine.size());
    shared_->barrier.arrive_and_wait();
    for (size_t from = 0; from < shared_->parts.size(); ++from) {
      std::memcpy(all.data() + from * mine.size(), shared_->parts[from].data(), mine.size());
    }
    shared_->barrier.arrive_and_wait();
    return absl::OkStatus();
  }
  absl::Status Broadcast(int root, std::span<std::byte> bytes) override {
    std::vector<std::byte> all(bytes.size() * shared_->parts.size());
    RENGA_RETURN_IF_ERROR(AllGather(bytes, all));
    std::memcpy(bytes.data(), all.data() + bytes.size() * static_cast<size_t>(root), bytes.size());
    return absl::OkStatus();
  }
  absl::Status CheckMembers() override {
    return shared_->someone_left ? absl::UnavailableError("a member has left") : absl::OkStatus();
  }
  absl::Duration TakeExchangeTime() override { return absl::ZeroDuration(); }
  void Cancel() override {}

 private:
  Shared* const shared_;
  const int rank_;
};

using OpenDevice = absl::StatusOr<std::shared_ptr<Device>> (*)();

testing::RunGroup GroupsOf(const NcclApi& nccl, OpenDevice open) {
  return [nccl, open](int size, const testing::GroupWork& work) {
    Handing::Shared shared(size);
    std::vector<absl::Status> ends(static_cast<size_t>(size));
    std::vector<std::thread> threads;
    for (int rank = 0; rank < size; ++rank) {
      threads.emplace_back([&, rank] {
        Handing others(&shared, rank);
        absl::Status& end = ends[static_cast<size_t>(rank)];
        auto device = open();
        if (!device.ok()) {
          end = device.status();
          return;
        }
        auto group = JoinNcclGroup(nccl, *device, others);
        end = group.ok() ? work(**group) : group.status();
        if (!end.ok()) shared.someone_left = true;
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

// Sums of numbers that stay on the card, in more than one piece and in none; the work before and
// after keeps its place.
TEST_F(MadeUpNcclTest, SumsWhereTheNumbersLie) {
  constexpr size_t kCount = 700'001;
  const auto work = [](base::Communicator& group, Device& device) -> absl::Status {
    EXPECT_TRUE(group.sums_on_devices());
    RENGA_ASSIGN_OR_RETURN(std::byte* const memory, device.Allocate(kCount * 4));
    const absl::Cleanup free = [&] { device.Free(memory); };
    std::vector<float> values(kCount);
    for (size_t i = 0; i < kCount; ++i) values[i] = testing::GroupValue(group.rank(), i);
    RENGA_RETURN_IF_ERROR(device.Upload(std::as_bytes(std::span(values)), memory));
    RENGA_RETURN_IF_ERROR(group.SumOnDevices(reinterpret_cast<float*>(memory), 0));
    RENGA_RETURN_IF_ERROR(group.SumOnDevices(reinterpret_cast<float*>(memory), kCount));
    RENGA_RETURN_IF_ERROR(group.WaitForDevices());
    RENGA_RETURN_IF_ERROR(device.Download(memory, std::as_writable_bytes(std::span(values))));
    for (size_t i = 0; i < kCount; ++i) {
      float sum = testing::GroupValue(0, i);
      for (int rank = 1; rank < group.size(); ++rank) sum += testing::GroupValue(rank, i);
      if (sum != values[i]) return absl::InternalError(absl::StrCat("value ", i));
    }
    return absl::OkStatus();
  };
  constexpr int kSize = 3;
  Handing::Shared shared(kSize);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < kSize; ++rank) {
    threads.emplace_back([&, rank] {
      Handing others(&shared, rank);
      ASSERT_OK_AND_ASSIGN(const std::shared_ptr<Device> device, OpenMadeUp());
      ASSERT_OK_AND_ASSIGN(const auto group, JoinNcclGroup(nccl_, device, others));
      EXPECT_OK(work(*group, *device));
    });
  }
  for (std::thread& thread : threads) thread.join();
}

// The others are told, nobody waits for it, and what is queued on the card ends.
TEST_F(MadeUpNcclTest, AMemberThatIsGoneEndsTheWait) {
  const auto ends = GroupsOf(nccl_, &OpenMadeUp)(2, [](base::Communicator& group) -> absl::Status {
    if (group.rank() == 1) return absl::InternalError("leaves");
    std::vector<float> values(10);
    const absl::Status status = group.AllReduce(values);
    EXPECT_EQ(group.Broadcast(0, {}), status) << "stays broken";
    return status;
  });
  EXPECT_THAT(ends[0], StatusIs(absl::StatusCode::kUnavailable, HasSubstr("has left")));
}

// The card's own work that waits for a member: the same by the stream.
TEST_F(MadeUpNcclTest, WorkOfTheCardThatNeverEndsIsGivenUp) {
  Handing::Shared shared(1);
  Handing alone(&shared, 0);
  ASSERT_OK_AND_ASSIGN(const std::shared_ptr<Device> card, OpenMadeUp());
  const NcclLimits limits = {.wait = absl::Milliseconds(30)};
  for (const bool is_gone : {false, true}) {
    ASSERT_OK_AND_ASSIGN(const auto group, JoinNcclGroup(nccl_, card, alone, limits));
    shared.someone_left = is_gone;
    emulation::ThisMachine().synchronize = kDriverNotReady;
    EXPECT_THAT(group->WaitForDevices(),
                StatusIs(absl::StatusCode::kUnavailable,
                         HasSubstr(is_gone ? "has left" : "more than 30ms")));
    emulation::ThisMachine().synchronize = kDriverSuccess;
  }
}

// All members end alike, and their own group is as good as before.
TEST_F(MadeUpNcclTest, AllJoinOrNone) {
  constexpr auto kNone = absl::StatusCode::kFailedPrecondition;
  NcclApi broken = nccl_;
  broken.CommInitRank = [](NcclComm*, int, NcclUniqueId, int, NcclConfig*) {
    return kNcclInvalidUsage;
  };
  const std::pair<absl::StatusOr<NcclApi>, std::string> second[] = {
      {LoadNccl("libnccl-that-is-not-there.so.2"), "member 2 of 2: this machine has no NCCL"},
      {broken, "NCCL_DEBUG"}};
  for (const auto& [of_second, sentence] : second) {
    Handing::Shared shared(2);
    std::vector<absl::Status> ends(2);
    std::thread other([&, &of_second = of_second] {
      Handing others(&shared, 1);
      ends[1] = JoinNcclGroup(of_second, *OpenMadeUp(), others).status();
    });
    Handing others(&shared, 0);
    ends[0] =
        JoinNcclGroup(nccl_, *OpenMadeUp(), others, {.join = absl::Milliseconds(50)}).status();
    other.join();
    // The one that could waits for the other one for a while, and says so.
    EXPECT_EQ(ends[0], ends[1]);
    EXPECT_THAT(ends[1], StatusIs(kNone, ::testing::AnyOf(HasSubstr(sentence),
                                                          HasSubstr("more than 50ms"))));
  }
}

TEST_F(MadeUpNcclTest, WhatGoesWrongIsSaid) {
  Handing::Shared shared(1);
  Handing alone(&shared, 0);
  const std::shared_ptr<Device> streamless =
      emulation::CreateEmulatedDevice(emulation::Turns::kForwards);
  EXPECT_THAT(JoinNcclGroup(nccl_, streamless, alone),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("no stream")));
  ASSERT_OK_AND_ASSIGN(const std::shared_ptr<Device> card, OpenMadeUp());
  ASSERT_OK_AND_ASSIGN(const auto group, JoinNcclGroup(nccl_, card, alone));
  NcclApi broken = nccl_;
  broken.CommGetAsyncError = [](NcclComm, NcclResult* error) {
    *error = kNcclRemoteError;
    return kNcclSuccess;
  };
  EXPECT_THAT(JoinNcclGroup(broken, card, alone).status(),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("NCCL_DEBUG")));
}
#endif

TEST(NcclApiTest, NoLibraryOrOneThatLacksFunctions) {
  constexpr auto kPrecondition = absl::StatusCode::kFailedPrecondition;
  EXPECT_THAT(LoadNccl("libnccl-that-is-not-there.so.2"),
              StatusIs(kPrecondition, HasSubstr("no NCCL")));
  EXPECT_THAT(LoadNccl("libc.so.6"), StatusIs(kPrecondition, HasSubstr("too old")));
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
