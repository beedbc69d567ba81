#include "coordinator/serving/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <random>
#include <set>

#include "base/testing/status_matchers.h"
#include "coordinator/serving/testing/fake_pipeline.h"
#include "model/gumbel.h"

namespace renga::serving {
namespace {

using renga::testing::StatusIs;
using ::testing::HasSubstr;

model::HeadRow FullRow(std::vector<float> logits) {
  model::HeadRow row;
  row.max_logit = *std::max_element(logits.begin(), logits.end());
  for (float logit : logits) row.sum_exp += std::exp(logit - row.max_logit);
  row.logits = std::move(logits);
  return row;
}

// The token drawn at the position after `tokens`, from as many of the row's logits as are asked
// for.
TokenId Draw(const model::HeadRow& row, const SamplingParams& params,
             std::vector<TokenId> tokens = {}, int64_t prompt_tokens = 0) {
  const int64_t vocab = static_cast<int64_t>(row.logits.size());
  const int64_t k = row.ids.empty() ? HeadTopK(params, 0, vocab) : 0;
  absl::StatusOr<SampledToken> sampled =
      SampleToken(k > 0 ? ToyRow(row.logits, k) : row, {tokens, prompt_tokens}, params, 0, vocab);
  EXPECT_OK(sampled);
  return sampled.ok() ? sampled->id : -1;
}

// Chi-square of `draws` draws at consecutive positions against `expected` probabilities.
double ChiSquare(const model::HeadRow& row, SamplingParams params,
                 const std::vector<double>& expected, int draws) {
  std::vector<int> counts(expected.size());
  std::vector<TokenId> tokens;
  for (int i = 0; i < draws; ++i) {
    ++counts[Draw(row, params, tokens, 0)];
    tokens.push_back(0);
  }
  double chi = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    if (expected[i] == 0) {
      EXPECT_EQ(counts[i], 0) << "token " << i << " can't be drawn";
      continue;
    }
    const double want = expected[i] * draws;
    chi += (counts[i] - want) * (counts[i] - want) / want;
  }
  return chi;
}

std::vector<double> Softmax(const std::vector<float>& logits, double temperature) {
  std::vector<double> p(logits.size());
  double total = 0;
  for (size_t i = 0; i < p.size(); ++i) total += p[i] = std::exp(logits[i] / temperature);
  for (double& x : p) x /= total;
  return p;
}

TEST(SamplerTest, GreedyTakesTheBestAndTheLowestOfEquals) {
  EXPECT_EQ(Draw(FullRow({0, 3, -1, 3, 2}), {.temperature = 0, .repetition_penalty = 1.0001}), 1);
  model::HeadRow row;
  row.ids = {3};
  row.logits = {2.5f};
  row.max_logit = 2.5f;
  row.sum_exp = 2;
  ASSERT_OK_AND_ASSIGN(SampledToken sampled, SampleToken(row, {}, {}, 0, 100));
  EXPECT_EQ(sampled.id, 3);
  EXPECT_NEAR(sampled.logprob, -std::log(2.0), 1e-6);
}

// The 0.999 quantiles of chi-square with 4, 2 and 1 degrees of freedom are 18.5, 13.8 and 10.8; the
// draws are fixed by the seed, so these can't fail by chance once they pass.
TEST(SamplerTest, PlainTemperatureDrawsTheSoftmax) {
  const std::vector<float> logits = {0.5f, 1.5f, -0.5f, 2.0f, 0.0f};
  for (double temperature : {0.7, 1.0, 2.0}) {
    EXPECT_LT(ChiSquare(FullRow(logits), {.temperature = temperature, .seed = 7},
                        Softmax(logits, temperature), 20000),
              18.5);
  }
}

TEST(SamplerTest, FiltersKeepWhatTheySay) {
  const std::vector<float> logits = {0.5f, 1.5f, -0.5f, 2.0f, 0.0f};
  const auto renormalised = [&](std::vector<int> kept) {
    std::vector<double> p = Softmax(logits, 1);
    std::vector<double> out(p.size());
    double total = 0;
    for (int i : kept) total += p[i];
    for (int i : kept) out[i] = p[i] / total;
    return out;
  };
  // top_k beyond kMaxHeadTopK or the vocabulary is cut from full rows; 3 of 5 would be a short row.
  EXPECT_LT(ChiSquare(FullRow(logits), {.temperature = 1, .top_p = 0.85, .seed = 1},
                      renormalised({3, 1, 0}), 20000),
            13.8);
  // min_p 0.2 of the best (logit 2): logits above 2 + ln 0.2 = 0.39.
  EXPECT_LT(ChiSquare(FullRow(logits), {.temperature = 1, .min_p = 0.2, .seed = 2},
                      renormalised({3, 1, 0}), 20000),
            13.8);
  EXPECT_LT(ChiSquare(FullRow(logits),
                      {.temperature = 1, .top_k = 2, .repetition_penalty = 1.0000001, .seed = 3},
                      renormalised({3, 1}), 20000),
            10.8);
}

TEST(SamplerTest, TopPWalksPastTheFirstSortedRun) {
  // Flat: half of the probability is half of 5000 tokens, and equal tokens go by their ids.
  const model::HeadRow row = FullRow(std::vector<float>(5000, 1.0f));
  std::vector<TokenId> tokens;
  TokenId largest = 0;
  for (int i = 0; i < 400; ++i) {
    largest = std::max(largest, Draw(row, {.temperature = 1, .top_p = 0.5, .seed = 5}, tokens));
    tokens.push_back(0);
  }
  EXPECT_LE(largest, 2500);
  EXPECT_GT(largest, 2300);
}

TEST(SamplerTest, DrawsDependOnSeedAndPositionOnly) {
  const model::HeadRow row = ToyRow(ToyLogits(std::vector<TokenId>{1, 2, 3}, 64), 0);
  const SamplingParams params{.temperature = 2, .seed = 99};
  std::map<TokenId, int> seen;
  for (size_t n = 0; n < 50; ++n) {
    const std::vector<TokenId> a(n, 1);
    const std::vector<TokenId> b(n, 9);
    const TokenId token = Draw(row, params, a);
    EXPECT_EQ(token, Draw(row, params, b));
    ++seen[token];
  }
  EXPECT_GT(seen.size(), 5u);
  int same = 0;
  for (uint64_t seed = 0; seed < 50; ++seed) {
    same += Draw(row, {.temperature = 2, .seed = seed}) ==
            Draw(row, {.temperature = 2, .seed = seed + 1});
  }
  EXPECT_LT(same, 15);
}

TEST(SamplerTest, ShortRowsGiveWhatFullRowsGive) {
  constexpr int64_t kVocab = 600;
  std::mt19937 random(17);
  for (int round = 0; round < 300; ++round) {
    std::vector<TokenId> tokens(random() % 20 + 1);
    for (TokenId& token : tokens) token = static_cast<TokenId>(random() % kVocab);
    const auto prompt = static_cast<int64_t>(tokens.size());
    SamplingParams params;
    params.temperature = static_cast<double>(random() % 30) * 0.1;
    params.top_k = static_cast<int64_t>(random() % 50) + 1;
    params.top_p = 1 - static_cast<double>(random() % 5) * 0.15;
    params.min_p = static_cast<double>(random() % 3) * 0.05;
    params.seed = random();
    if (round % 3 > 0) {
      params.repetition_penalty = 1 + static_cast<double>(random() % 20) * 0.1;
      params.repetition_window = static_cast<int64_t>(random() % 12) + 1;
    }
    // The likeliest tokens among them.
    for (int i = 0; i < round % 4; ++i) {
      params.logit_bias[static_cast<TokenId>(random() % kVocab)] =
          -static_cast<double>(random() % 9);
      params.logit_bias[ToyRow(ToyLogits(tokens, kVocab), 4).ids[i]] = -3.5;
    }
    const int64_t k = HeadTopK(params, 3, kVocab);
    ASSERT_GT(k, 0);
    ASSERT_OK_AND_ASSIGN(SampledToken from_short, SampleToken(ToyRow(ToyLogits(tokens, kVocab), k),
                                                              {tokens, prompt}, params, 3, kVocab));
    // A penalty for an answer that is still empty asks for all logits and changes none of them.
    params.presence_penalty = 1;
    ASSERT_EQ(HeadTopK(params, 3, kVocab), 0);
    ASSERT_OK_AND_ASSIGN(SampledToken from_full, SampleToken(ToyRow(ToyLogits(tokens, kVocab), 0),
                                                             {tokens, prompt}, params, 3, kVocab));
    EXPECT_EQ(from_short.id, from_full.id);
    EXPECT_EQ(from_short.logprob, from_full.logprob);
    ASSERT_EQ(from_short.alternatives.size(), 3u);
    for (int i = 0; i < 3; ++i) {
      EXPECT_EQ(from_short.alternatives[i].id, from_full.alternatives[i].id);
    }
  }
}

// What some rows and all rows give, which must be the same token.
TokenId DrawOfBoth(const model::HeadRow& full, const model::HeadRow& near,
                   std::span<const TokenId> tokens, const SamplingParams& params) {
  const auto vocabulary = static_cast<int64_t>(full.logits.size());
  const auto from_full = SampleToken(full, {tokens, 0}, params, 0, vocabulary);
  const auto from_near = SampleToken(near, {tokens, 0}, params, 0, vocabulary);
  EXPECT_OK(from_full);
  EXPECT_OK(from_near);
  if (!from_full.ok() || !from_near.ok()) return -1;
  EXPECT_EQ(from_near->id, from_full->id);
  return from_near->id;
}

// Rows near the best one are enough where min_p alone decides what is kept.
TEST(SamplerTest, NearRowsGiveWhatFullRowsGive) {
  constexpr int64_t kVocab = 600;
  std::mt19937 random(23);
  std::set<TokenId> drawn;
  for (int round = 0; round < 300; ++round) {
    std::vector<TokenId> tokens(random() % 20 + 1);
    for (TokenId& token : tokens) token = static_cast<TokenId>(random() % kVocab);
    SamplingParams params;
    params.temperature = static_cast<double>(random() % 30 + 1) * 0.1;
    params.min_p = static_cast<double>(random() % 10 + 1) * 0.02;
    params.seed = random();
    ASSERT_EQ(HeadTopK(params, 0, kVocab), 0);
    const float within = HeadWithin(params, 0);
    ASSERT_GT(within, 0);
    const model::HeadRow full = ToyRow(ToyLogits(tokens, kVocab), 0);
    model::HeadRow near = ToyRow(ToyLogits(tokens, kVocab), kVocab);
    size_t kept = 0;
    while (kept < near.ids.size() && near.logits[kept] >= near.logits[0] - within) ++kept;
    near.ids.resize(kept);
    near.logits.resize(kept);
    drawn.insert(DrawOfBoth(full, near, tokens, params));
  }
  EXPECT_GT(drawn.size(), 20u);
}

// So are the rows that are best with noise where nothing limits the draw, in whatever company.
TEST(SamplerTest, NoisyRowsGiveWhatFullRowsGive) {
  constexpr int64_t kVocab = 600;
  std::mt19937 random(29);
  std::set<TokenId> drawn;
  for (int round = 0; round < 300; ++round) {
    std::vector<TokenId> tokens(random() % 20 + 1);
    for (TokenId& token : tokens) token = static_cast<TokenId>(random() % kVocab);
    const SamplingParams params = {.temperature = static_cast<double>(random() % 30 + 1) * 0.1,
                                   .seed = random()};
    ASSERT_EQ(HeadDraw(params, 0), params.temperature);
    const model::HeadRow full = ToyRow(ToyLogits(tokens, kVocab), 0);
    const model::GumbelNoise noise(params.seed, tokens.size());
    const auto value = [&](int32_t id) {
      return full.logits[id] + params.temperature * noise.Of(id);
    };
    double best = value(0);
    for (int32_t id = 1; id < kVocab; ++id) best = std::max(best, value(id));
    model::HeadRow near = ToyRow(ToyLogits(tokens, kVocab), kVocab);
    size_t kept = 0;
    for (size_t i = 0; i < near.ids.size(); ++i) {
      // Some that were not asked for, too.
      if (value(near.ids[i]) < best - HeadWithin(params, 0) && i % 7 != 0) continue;
      near.ids[kept] = near.ids[i];
      near.logits[kept++] = near.logits[i];
    }
    near.ids.resize(kept);
    near.logits.resize(kept);
    drawn.insert(DrawOfBoth(full, near, tokens, params));
  }
  EXPECT_GT(drawn.size(), 20u);
}

// What a head answers when only some tokens are allowed, best first.
model::HeadRow AllowedRow(const model::HeadRow& full, const model::TokenMask& allowed,
                          const SamplingParams& params, uint64_t position) {
  const int64_t k = HeadTopK(params, 0, std::ssize(full.logits));
  const float within = HeadWithin(params, 0);
  if (k == 0 && within == 0) return full;
  const model::GumbelNoise noise(params.seed, position);
  const auto value = [&](int32_t id) {
    return full.logits[id] + HeadDraw(params, 0) * (HeadDraw(params, 0) > 0 ? noise.Of(id) : 0);
  };
  model::HeadRow row = ToyRow(full.logits, std::ssize(full.logits), &allowed);
  if (k > 0) {
    row.ids.resize(std::min(row.ids.size(), static_cast<size_t>(k)));
  } else {
    double best = -1e300;
    for (const int32_t id : row.ids) best = std::max(best, value(id));
    std::erase_if(row.ids, [&](int32_t id) { return value(id) < best - within; });
  }
  row.logits.clear();
  for (const int32_t id : row.ids) row.logits.push_back(full.logits[id]);
  return row;
}

// Whatever the head is asked for: the token is that of all logits, those that are not allowed at
// minus infinity.
TEST(SamplerTest, AllowedRowsGiveWhatMaskedLogitsGive) {
  constexpr int64_t kVocab = 600;
  std::mt19937 random(31);
  std::set<TokenId> drawn;
  for (int round = 0; round < 600; ++round) {
    std::vector<TokenId> tokens(random() % 20 + 1);
    for (TokenId& token : tokens) token = static_cast<TokenId>(random() % kVocab);
    SamplingParams params;
    params.temperature = static_cast<double>(random() % 30) * 0.1;
    params.seed = random();
    if (round % 5 == 1) params.top_k = static_cast<int64_t>(random() % 50) + 1;
    if (round % 5 == 2) params.min_p = 0.05;
    if (round % 5 == 3) params.top_p = 0.8;
    if (round % 7 == 3) params.repetition_penalty = 1.5;
    if (round % 7 == 4) params.frequency_penalty = 0.5;
    if (round % 7 == 5) params.logit_bias[tokens.front()] = 2;
    std::vector<int32_t> ids;
    const uint32_t share = round % 2 == 0 ? 2 : 1 + random() % 300;
    for (int32_t id = 0; id < kVocab; ++id) {
      if (random() % share == 0) ids.push_back(id);
    }
    if (ids.empty()) ids.push_back(static_cast<int32_t>(random() % kVocab));
    const model::TokenMask allowed = model::TokenMask::Of(ids, kVocab);
    const model::HeadRow full = ToyRow(ToyLogits(tokens, kVocab), 0);
    model::HeadRow masked = full;
    for (int32_t id = 0; id < kVocab; ++id) {
      if (!allowed.Contains(id)) masked.logits[id] = -std::numeric_limits<float>::infinity();
    }
    ASSERT_OK_AND_ASSIGN(const SampledToken got,
                         SampleToken(AllowedRow(full, allowed, params, tokens.size()), {tokens, 0},
                                     params, 0, kVocab, &allowed));
    SamplingParams all = params;
    all.presence_penalty += 1e-300;  // asks for all logits, and changes none
    ASSERT_OK_AND_ASSIGN(const SampledToken expected,
                         SampleToken(masked, {tokens, 0}, all, 0, kVocab));
    ASSERT_EQ(got.id, expected.id) << "round " << round;
    EXPECT_EQ(got.logprob, expected.logprob);
    drawn.insert(got.id);
  }
  EXPECT_GT(drawn.size(), 100u);
}

TEST(SamplerTest, TemperaturesNearNothingTakeTheBest) {
  EXPECT_EQ(Draw(FullRow({-3, 1, 5, 4}), {.temperature = 1e-300, .seed = 1}), 2);
}

TEST(SamplerTest, PenaltiesAndBias) {
  const model::HeadRow row = FullRow({4, 3, 2, -1});
  EXPECT_EQ(Draw(row, {.repetition_penalty = 2}, {0}, 1), 1);  // 4 / 2 < 3
  EXPECT_EQ(Draw(row, {.repetition_penalty = 2, .repetition_window = 1}, {0, 3}, 2), 0);
  EXPECT_EQ(Draw(row, {.repetition_penalty = 2, .repetition_window = 0}, {0, 3}, 2), 1);
  EXPECT_EQ(Draw(row, {.presence_penalty = 1.5}, {0}, 1), 0);  // the prompt doesn't count
  EXPECT_EQ(Draw(row, {.presence_penalty = 1.5}, {0}, 0), 1);
  EXPECT_EQ(Draw(row, {.frequency_penalty = 0.6}, {0}, 0), 0);
  EXPECT_EQ(Draw(row, {.frequency_penalty = 0.6}, {0, 0}, 0), 1);
  SamplingParams biased;
  biased.logit_bias[3] = 100;
  EXPECT_EQ(Draw(row, biased), 3);
  // Negative logits move down, too.
  EXPECT_EQ(Draw(FullRow({-1, -1.5}), {.repetition_penalty = 2}, {0}, 1), 1);
}

TEST(SamplerTest, AsksTheHeadForNoMoreThanItNeeds) {
  EXPECT_EQ(HeadTopK({}, 0, 1000), 1);
  EXPECT_EQ(HeadTopK({}, 5, 1000), 5);
  EXPECT_EQ(HeadTopK({.temperature = 1, .top_k = 40, .top_p = 0.9, .min_p = 0.1}, 0, 1000), 40);
  EXPECT_EQ(HeadTopK({.temperature = 1, .top_k = 40}, 0, 30), 0);
  EXPECT_EQ(HeadTopK({.temperature = 1, .top_k = 5000}, 0, 100000), 0);
  EXPECT_EQ(HeadTopK({.temperature = 1}, 0, 1000), 0);
  EXPECT_EQ(HeadTopK({.temperature = 1, .min_p = 0.1}, 0, 1000), 0);
  EXPECT_EQ(HeadTopK({.presence_penalty = 1}, 0, 1000), 0);
  // As many more as may be lowered; none where some rise, or nobody knows how many change.
  EXPECT_EQ(HeadTopK({.repetition_penalty = 1.1}, 0, 1000), 1 + 64);
  EXPECT_EQ(HeadTopK({.repetition_penalty = 1.1, .logit_bias = {{3, -1}, {4, -100}}}, 0, 1000), 67);
  EXPECT_EQ(HeadTopK({.repetition_penalty = 1.1, .repetition_window = 0}, 0, 1000), 0);
  EXPECT_EQ(HeadTopK({.repetition_penalty = 1.1, .repetition_window = 256}, 0, 1000), 0);
  EXPECT_EQ(HeadTopK({.repetition_penalty = 0.9}, 0, 1000), 0);
  EXPECT_EQ(HeadTopK({.logit_bias = {{3, 1}}}, 0, 1000), 0);
  EXPECT_NEAR(HeadWithin({.temperature = 2, .min_p = 0.1}, 0), 2 * std::log(10), 1e-4);
  EXPECT_GT(HeadWithin({.temperature = 1, .min_p = 1}, 0), 0);
  EXPECT_EQ(HeadWithin({.min_p = 0.1}, 0), 0);
  EXPECT_GT(HeadWithin({.temperature = 1}, 0), 0);
  EXPECT_EQ(HeadDraw({.temperature = 0.7}, 0), 0.7);
  EXPECT_EQ(HeadDraw({.temperature = 0.7}, 1), 0);
  EXPECT_EQ(HeadDraw({.temperature = 0.7, .min_p = 0.1}, 0), 0);
  EXPECT_EQ(HeadDraw({.temperature = 0.7, .top_k = 3}, 0), 0);
  EXPECT_EQ(HeadDraw({.temperature = 0.7, .top_p = 0.9}, 0), 0);
  EXPECT_EQ(HeadDraw({.temperature = 0.7, .logit_bias = {{1, 1}}}, 0), 0);
  EXPECT_EQ(HeadDraw({}, 0), 0);
  EXPECT_EQ(HeadWithin({.temperature = 1, .min_p = 0.1}, 3), 0);
  EXPECT_EQ(HeadWithin({.temperature = 1, .top_k = 40, .min_p = 0.1}, 0), 0);
  EXPECT_EQ(HeadWithin({.temperature = 1, .top_p = 0.9, .min_p = 0.1}, 0), 0);
  EXPECT_EQ(HeadWithin({.temperature = 1, .min_p = 0.1, .presence_penalty = 1}, 0), 0);
}

TEST(SamplerTest, RefusesParametersOutOfRange) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const auto refused = [](const SamplingParams& params, const char* name) {
    EXPECT_THAT(CheckSamplingParams(params, 10),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(name)));
  };
  EXPECT_OK(CheckSamplingParams({}, 10));
  refused({.temperature = -0.1}, "temperature");
  refused({.temperature = nan}, "temperature");
  refused({.top_k = -1}, "top_k");
  refused({.top_p = 0}, "top_p");
  refused({.top_p = 1.5}, "top_p");
  refused({.min_p = nan}, "min_p");
  refused({.repetition_penalty = 0}, "repetition_penalty");
  refused({.repetition_window = -3}, "repetition_window");
  refused({.presence_penalty = nan}, "presence_penalty");
  refused({.frequency_penalty = 1e9}, "frequency_penalty");
  SamplingParams biased;
  biased.logit_bias[10] = 1;
  refused(biased, "token 10");
  biased.logit_bias = {{1, nan}};
  refused(biased, "logit_bias");
}

TEST(SamplerTest, RefusesRowsThatAreNoAnswer) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float inf = std::numeric_limits<float>::infinity();
  const SamplingParams plain{.temperature = 1};
  const auto sample = [&](std::vector<float> logits) {
    return SampleToken(FullRow(std::move(logits)), {}, plain, 0, 3);
  };
  EXPECT_OK(sample({nan, 1, nan}));
  EXPECT_THAT(sample({nan, nan, nan}), StatusIs(absl::StatusCode::kInternal));
  EXPECT_THAT(sample({1, inf, 2}), StatusIs(absl::StatusCode::kInternal));
  EXPECT_THAT(sample({1, 2}), StatusIs(absl::StatusCode::kInternal));
  model::HeadRow row;
  row.ids = {77};
  row.logits = {1};
  EXPECT_THAT(SampleToken(row, {}, {}, 0, 50), StatusIs(absl::StatusCode::kInternal));
  row.ids = {};
  EXPECT_THAT(SampleToken(row, {}, {}, 0, 50), StatusIs(absl::StatusCode::kInternal));
}

}  // namespace
}  // namespace renga::serving
