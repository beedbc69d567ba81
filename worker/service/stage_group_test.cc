#include "worker/service/stage_group.h"

#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/testing/status_matchers.h"
#include "worker/engine/thread_group.h"
#include "worker/kernels/backend_factory.h"

namespace renga::worker {
namespace {

using ::testing::Each;
using ::testing::HasSubstr;
using ::testing::SizeIs;

// The connections of one of several threads; remembers Cancel.
class Connections : public base::Communicator {
 public:
  explicit Connections(base::Communicator* member) : member_(member) {}
  int rank() const override { return member_->rank(); }
  int size() const override { return member_->size(); }
  absl::Status AllReduce(std::span<float> values) override { return member_->AllReduce(values); }
  absl::Status AllGather(std::span<const std::byte> mine, std::span<std::byte> all) override {
    return cancelled_ ? absl::CancelledError("given up") : member_->AllGather(mine, all);
  }
  absl::Status Broadcast(int root, std::span<std::byte> bytes) override {
    return member_->Broadcast(root, bytes);
  }
  absl::Duration TakeExchangeTime() override { return member_->TakeExchangeTime(); }
  void Cancel() override { cancelled_ = true; }

 private:
  base::Communicator* const member_;
  bool cancelled_ = false;
};

// A coordinator may order what a worker's device cannot: the group goes on, and says so once.
TEST(StageGroupTest, DevicesWithoutGroupsAddUpOverConnections) {
  constexpr int kSize = 2;
  engine::ThreadGroup threads(kSize);
  std::mutex mutex;
  std::vector<std::string> lines;
  std::vector<std::thread> members;
  for (int rank = 0; rank < kSize; ++rank) {
    members.emplace_back([&, rank] {
      ASSERT_OK_AND_ASSIGN(const auto backend, kernels::CreateBackend({.device = "reference"}));
      auto connections = std::make_unique<Connections>(threads.member(rank));
      base::Communicator* const expected = connections.get();
      StageGroup group({.connections = std::move(connections),
                        .backend = backend.get(),
                        .on_event = [&](const std::string& line) {
                          const std::lock_guard<std::mutex> lock(mutex);
                          lines.push_back(line);
                        }});
      for (int step = 0; step < 2; ++step) {
        ASSERT_OK_AND_ASSIGN(base::Communicator* const joined, group.Joined());
        EXPECT_EQ(joined, expected);
        EXPECT_FALSE(joined->sums_on_devices());
      }
    });
  }
  for (std::thread& member : members) member.join();
  EXPECT_THAT(lines, SizeIs(kSize));
  EXPECT_THAT(lines, Each(HasSubstr("over sockets: member 1 of 2: devices of the path reference")));
}

TEST(StageGroupTest, WithoutAnOrderNothingIsAsked) {
  engine::ThreadGroup threads(2);
  StageGroup group({.connections = std::make_unique<Connections>(threads.member(0)),
                    .backend = nullptr,
                    .on_event = nullptr});
  EXPECT_OK(group.Joined()) << "the other member is not there";
}

TEST(StageGroupTest, CancelEndsJoining) {
  engine::ThreadGroup threads(2);
  ASSERT_OK_AND_ASSIGN(const auto backend, kernels::CreateBackend({.device = "reference"}));
  StageGroup group({.connections = std::make_unique<Connections>(threads.member(0)),
                    .backend = backend.get(),
                    .on_event = nullptr});
  group.Cancel();
  EXPECT_EQ(group.Joined().status().code(), absl::StatusCode::kCancelled);
}

}  // namespace
}  // namespace renga::worker
