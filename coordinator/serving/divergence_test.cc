#include "coordinator/serving/divergence.h"

#include <cmath>

#include "gtest/gtest.h"

namespace renga::serving {
namespace {

// Logits of probabilities, shifted: softmax does not see the shift.
std::vector<float> Logits(const std::vector<double>& shares, double shift) {
  std::vector<float> logits;
  for (const double share : shares) logits.push_back(static_cast<float>(std::log(share) + shift));
  return logits;
}

TEST(DivergenceTest, KnownDistributions) {
  const auto exact = Logits({0.5, 0.25, 0.25}, 3);
  const auto other = Logits({0.25, 0.25, 0.5}, -7);
  DivergenceMeter meter;
  meter.Add(exact, other, 0);
  const Divergence found = meter.Summary();
  EXPECT_EQ(found.positions, 1);
  // 0.5 log 2 + 0.25 log 1/2.
  EXPECT_NEAR(found.kl_mean, 0.25 * std::log(2.0), 1e-6);
  EXPECT_NEAR(found.reverse_kl_mean, found.kl_mean, 1e-6);
  EXPECT_NEAR(found.kl_p99, found.kl_mean, 1e-12);
  EXPECT_NEAR(found.exact_perplexity, 2, 1e-6);
  EXPECT_NEAR(found.approximate_perplexity, 4, 1e-6);
  EXPECT_EQ(found.same_top, 0);
  EXPECT_NEAR(NegativeLogLikelihood(exact, 1), std::log(4.0), 1e-6);
}

TEST(DivergenceTest, WhatIsNeverSaidCostsOneDirectionMore) {
  // A third of the mass is as good as gone.
  const auto exact = Logits({1.0 / 3, 1.0 / 3, 1.0 / 3}, 0);
  const auto other = Logits({0.5, 0.5, 1e-12}, 0);
  DivergenceMeter meter;
  meter.Add(exact, other, 0);
  const Divergence found = meter.Summary();
  EXPECT_NEAR(found.reverse_kl_mean, std::log(1.5), 1e-6);  // -log of the mass that is left
  EXPECT_GT(found.kl_mean, 8);
}

TEST(DivergenceTest, OneInAHundredIsLeftOutOfThePercentile) {
  const auto exact = Logits({0.9, 0.1}, 0);
  const auto other = Logits({0.1, 0.9}, 0);
  DivergenceMeter most;
  for (int i = 0; i < 99; ++i) most.Add(exact, exact, 0);
  DivergenceMeter meter;
  meter.Add(exact, other, 0);
  meter.Add(most);
  const Divergence found = meter.Summary();
  EXPECT_EQ(found.positions, 100);
  EXPECT_EQ(found.kl_p99, 0);
  EXPECT_NEAR(found.kl_mean, 0.8 * std::log(9.0) / 100, 1e-6);
  EXPECT_NEAR(found.same_top, 0.99, 1e-12);
  // One more is too many.
  meter.Add(exact, other, 0);
  EXPECT_GT(meter.Summary().kl_p99, 1);
}

}  // namespace
}  // namespace renga::serving
