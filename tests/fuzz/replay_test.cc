// Replays a fuzz target's seeds, whole, cut short and damaged, in builds without libFuzzer. The
// damage is the same in every run. RENGA_FUZZ_NAME is the target's name.
#include <algorithm>
#include <memory>
#include <random>

#include "gtest/gtest.h"
#include "tests/fuzz/fuzz_target.h"

namespace renga::fuzz {
namespace {

// Each input lies in a block of exactly its size, so that a sanitizer sees a read past its end.
void Replay(const std::string& input) {
  const auto copy = std::make_unique<uint8_t[]>(input.size());
  std::copy(input.begin(), input.end(), copy.get());
  EXPECT_EQ(LLVMFuzzerTestOneInput(copy.get(), input.size()), 0);
}

TEST(RENGA_FUZZ_NAME, Seeds) {
  Replay("");
  for (const std::string& seed : Seeds()) Replay(seed);
}

TEST(RENGA_FUZZ_NAME, CutSeeds) {
  constexpr size_t kCuts = 500;
  for (const std::string& seed : Seeds()) {
    const size_t step = std::max<size_t>(1, seed.size() / kCuts);
    for (size_t size = 0; size < seed.size(); size += step) Replay(seed.substr(0, size));
  }
}

TEST(RENGA_FUZZ_NAME, DamagedSeeds) {
  constexpr int kRounds = 1000;
  constexpr size_t kMaxDamage = 8;
  std::mt19937_64 random(20231);
  for (const std::string& seed : Seeds()) {
    if (seed.empty()) continue;
    for (int round = 0; round < kRounds; ++round) {
      std::string damaged = seed;
      for (size_t left = 1 + random() % kMaxDamage; left > 0; --left) {
        // Mostly near the start, where headers and counts are.
        const size_t range = random() % 2 == 0 ? std::min<size_t>(seed.size(), 256) : seed.size();
        damaged[random() % range] = static_cast<char>(random());
      }
      Replay(damaged);
    }
  }
}

}  // namespace
}  // namespace renga::fuzz
