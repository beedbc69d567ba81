#include "worker/kernels/cuda/arena_device.h"

#include <map>
#include <random>
#include <vector>

#include "base/testing/status_matchers.h"
#include "worker/kernels/cuda/device_images.h"
#include "worker/kernels/cuda/driver_device.h"
#include "worker/kernels/cuda/emulation/made_up_driver.h"

namespace renga::kernels::cuda {
namespace {

using ::renga::testing::StatusIs;

TEST(ArenaPiecesTest, PiecesNeverOverlapAndNothingIsLost) {
  constexpr int64_t kBytes = 100'000;
  constexpr int64_t kWhole = kBytes / 256 * 256;
  std::mt19937 random(5);
  ArenaPieces arena(kBytes);
  std::map<int64_t, int64_t> taken;  // begin to end
  int refused = 0;
  for (int round = 0; round < 5000; ++round) {
    if (random() % 2 == 0 && !taken.empty()) {
      const auto piece = std::next(taken.begin(), static_cast<int64_t>(random() % taken.size()));
      EXPECT_TRUE(arena.GiveBack(piece->first));
      EXPECT_FALSE(arena.GiveBack(piece->first)) << "twice";
      taken.erase(piece);
      continue;
    }
    const int64_t bytes = 1 + static_cast<int64_t>(random() % 9000);
    const auto begin = arena.Take(bytes);
    if (!begin.has_value()) {
      ++refused;
      continue;
    }
    ASSERT_EQ(*begin % 256, 0);
    ASSERT_GE(*begin, 0);
    ASSERT_LE(*begin + bytes, kBytes);
    const auto [piece, added] = taken.emplace(*begin, *begin + bytes);
    ASSERT_TRUE(added);
    const bool first = piece == taken.begin();
    ASSERT_LE(first ? 0 : std::prev(piece)->second, *begin);
    const bool last = std::next(piece) == taken.end();
    ASSERT_LE(*begin + bytes, last ? kBytes : std::next(piece)->first);
  }
  EXPECT_GT(refused, 0);
  for (const auto& [begin, end] : taken) EXPECT_TRUE(arena.GiveBack(begin));
  EXPECT_EQ(arena.free_bytes(), kWhole);
  EXPECT_EQ(arena.Take(kWhole), 0) << "one gap again";
}

class ArenaDeviceTest : public ::testing::Test {
 protected:
  static constexpr int64_t kMiB = int64_t{1} << 20;
  void SetUp() override { emulation::ThisMachine() = {}; }
  void TearDown() override { EXPECT_TRUE(machine_.memory.empty()); }
  static absl::StatusOr<std::unique_ptr<Device>> Open(int64_t bytes) {
    auto card = OpenCard(emulation::MadeUpDriver(), 0, emulation::MadeUpImages());
    if (!card.ok()) return card.status();
    return CreateArenaDevice(*std::move(card), bytes);
  }
  emulation::MadeUpMachine& machine_ = emulation::ThisMachine();
};

TEST_F(ArenaDeviceTest, WhatIsOfferedIsThereWhateverOthersTakeLater) {
  ASSERT_OK_AND_ASSIGN(const auto card, Open(90 * kMiB));
  machine_.free_bytes = 0;  // a desktop takes the rest
  ASSERT_OK_AND_ASSIGN(std::byte* const first, card->Allocate(60 * kMiB));
  ASSERT_OK_AND_ASSIGN(std::byte* const second, card->Allocate(30 * kMiB));
  EXPECT_THAT(card->Allocate(1), StatusIs(absl::StatusCode::kResourceExhausted));
  const std::vector<std::byte> bytes(1000, std::byte{7});
  ASSERT_OK(card->Upload(bytes, second));
  ASSERT_OK(card->Copy(second, first, 1000));
  std::vector<std::byte> back(1000);
  ASSERT_OK(card->Download(first, back));
  EXPECT_EQ(back, bytes);
  card->Free(first);
  ASSERT_OK_AND_ASSIGN(std::byte* const again, card->Allocate(60 * kMiB));
  EXPECT_EQ(again, first);
  card->Free(again);
  card->Free(second);
}

TEST_F(ArenaDeviceTest, WhatFindsNoRoomComesFromTheRestOfTheCard) {
  ASSERT_OK_AND_ASSIGN(const auto card, Open(10 * kMiB));
  ASSERT_OK_AND_ASSIGN(std::byte* const inside, card->Allocate(8 * kMiB));
  ASSERT_OK_AND_ASSIGN(std::byte* const outside, card->Allocate(20 * kMiB));
  EXPECT_EQ(machine_.memory.size(), 2u);
  card->Free(outside);
  EXPECT_EQ(machine_.memory.size(), 1u);
  card->Free(inside);
}

TEST_F(ArenaDeviceTest, AnOfferLargerThanTheCardIsRefused) {
  EXPECT_THAT(Open(200 * kMiB), StatusIs(absl::StatusCode::kResourceExhausted,
                                         ::testing::HasSubstr("offer less with --memory")));
}

}  // namespace
}  // namespace renga::kernels::cuda
