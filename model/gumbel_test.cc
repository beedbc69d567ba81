#include "model/gumbel.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <vector>

namespace renga::model {
namespace {

constexpr int kDraws = 16000;

// The noise of 16,000 tokens, positions and seeds, the others fixed.
std::vector<std::vector<double>> Samples() {
  std::vector<std::vector<double>> samples(3);
  const GumbelNoise noise(12, 34);
  for (int i = 0; i < kDraws; ++i) {
    samples[0].push_back(noise.Of(i));
    samples[1].push_back(GumbelNoise(12, static_cast<uint64_t>(i)).Of(7));
    samples[2].push_back(GumbelNoise(static_cast<uint64_t>(i), 34).Of(7));
  }
  return samples;
}

// exp(-exp(-g)) is uniform: 16 classes, so 15 degrees of freedom, whose 0.999 quantile is 37.7. The
// numbers are fixed: this can't fail by chance once it passes.
TEST(GumbelTest, HasItsDistributionOverTokensPositionsAndSeeds) {
  for (const std::vector<double>& sample : Samples()) {
    std::vector<int> counts(16);
    for (const double g : sample) ++counts[static_cast<size_t>(std::exp(-std::exp(-g)) * 16)];
    double chi = 0;
    for (const int count : counts) chi += (count - 1000.0) * (count - 1000.0) / 1000.0;
    EXPECT_LT(chi, 37.7);
  }
}

TEST(GumbelTest, NeighboursAreStrangers) {
  for (const std::vector<double>& sample : Samples()) {
    double mean = 0;
    for (const double g : sample) mean += g / kDraws;
    EXPECT_NEAR(mean, 0.5772, 0.04);
    double covariance = 0;
    double variance = 0;
    for (size_t i = 0; i + 1 < sample.size(); ++i) {
      covariance += (sample[i] - mean) * (sample[i + 1] - mean);
      variance += (sample[i] - mean) * (sample[i] - mean);
    }
    EXPECT_NEAR(covariance / variance, 0, 0.03);
  }
}

TEST(GumbelTest, TheBoundHoldsAndIsClose) {
  for (uint64_t position = 0; position < 200; ++position) {
    const GumbelNoise noise(5, position);
    for (int32_t token = 0; token < 5000; ++token) {
      const double g = noise.Of(token);
      ASSERT_TRUE(std::isfinite(g));
      ASSERT_LE(g, noise.AtMost(token));
      if (g > 3) {
        ASSERT_LE(noise.AtMost(token), g + 1.45);
      }
    }
  }
}

// A seed's texts stay what they are: computed once by another implementation.
TEST(GumbelTest, IsTheSameForEver) {
  EXPECT_NEAR(GumbelNoise(1, 2).Of(3), 0.6209229720461489, 1e-13);
  EXPECT_NEAR(GumbelNoise(0, 0).Of(0), 0.49745312417525495, 1e-13);
  EXPECT_NEAR(GumbelNoise(UINT64_MAX, 4096).Of(262143), -1.008014722000476, 1e-13);
}

}  // namespace
}  // namespace renga::model
