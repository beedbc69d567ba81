// The imitated card's memory is its own: what the host or a kernel takes for the wrong one's is
// found.
#include <cstring>
#include <limits>
#include <vector>

#include "base/testing/status_matchers.h"
#include "worker/kernels/cuda/emulation/card_memory.h"
#include "worker/kernels/cuda/emulation/emulated_device.h"
#include "worker/kernels/cuda/launch_shapes.h"

namespace renga::kernels::cuda {
namespace {

using ::renga::testing::StatusIs;
using ::testing::HasSubstr;

TEST(CardMemoryTest, PiecesAreReusedAndNeverOverlap) {
  emulation::CardMemory memory(4096);
  std::byte* const first = memory.Allocate(1);
  std::byte* const second = memory.Allocate(257);
  std::byte* const third = memory.Allocate(256);
  ASSERT_TRUE(first != nullptr && second != nullptr && third != nullptr);
  for (std::byte* const piece : {first, second, third}) {
    EXPECT_EQ(reinterpret_cast<uintptr_t>(piece) % 256, 0u);
  }
  {
    const emulation::CardMemory::Access access(memory);
    std::memset(second, 2, 257);
    std::memset(first, 1, 1);
    std::memset(third, 3, 256);
    EXPECT_EQ(second[0], std::byte{2});
    EXPECT_EQ(second[256], std::byte{2});
  }
  EXPECT_EQ(memory.Allocate(4096), nullptr);
  EXPECT_EQ(memory.Allocate(std::numeric_limits<int64_t>::max()), nullptr);
  const int64_t free_before = memory.free_bytes();
  memory.Free(second);
  EXPECT_EQ(memory.free_bytes(), free_before + 512);
  memory.Free(second);  // no longer a piece
  EXPECT_EQ(memory.free_bytes(), free_before + 512);
  EXPECT_NE(memory.Allocate(512), nullptr);
  memory.Free(first);
  memory.Free(third);
}

#if !defined(__SANITIZE_ADDRESS__)
TEST(EmulatedMemoryDeathTest, TheHostCannotTouchTheCardsMemory) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const auto device = emulation::CreateEmulatedDevice(emulation::Turns::kForwards);
  ASSERT_OK_AND_ASSIGN(std::byte* const memory, device->Allocate(16));
  EXPECT_DEATH(*const_cast<volatile std::byte*>(memory) = std::byte{1}, "");
  device->Free(memory);
}

TEST(EmulatedMemoryTest, AKernelCannotLoadTheHostsMemory) {
  const auto device = emulation::CreateEmulatedDevice(emulation::Turns::kForwards);
  alignas(16) float host[32] = {};
  ASSERT_OK_AND_ASSIGN(std::byte* const memory, device->Allocate(4096));
  LinearArgs args = {};
  args.matrix = {.plane = {reinterpret_cast<const uint8_t*>(memory)}, .rows = 1, .groups = 1};
  args.floats = host;
  args.tokens = 1;
  args.out = reinterpret_cast<float*>(memory + 1024);
  args.out_stride = 1;
  const auto launch = [&] {
    return device->Launch(Kernel::kVectorOne_F32, {1, 1, kVectorThreads},
                          std::as_bytes(std::span(&args, 1)));
  };
  EXPECT_THAT(launch(), StatusIs(absl::StatusCode::kInternal, HasSubstr("not the card's")));
  args.floats = reinterpret_cast<const float*>(memory + 2048);
  EXPECT_OK(launch());
  device->Free(memory);
}
#endif

}  // namespace
}  // namespace renga::kernels::cuda
