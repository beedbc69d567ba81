#include "partition/expert_usage.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <random>
#include <set>

#include "base/testing/status_matchers.h"
#include "model/expert_uses.h"
#include "partition/expert_replay.h"

namespace renga::partition {
namespace {

using ::renga::testing::StatusIs;
using ::testing::ElementsAre;

// Texts of one layer in which tokens choose as listed.
ExpertRecord OneLayer(int64_t experts, int64_t used,
                      const std::vector<std::vector<std::vector<int>>>& texts) {
  ExpertRecorder recorder(1, experts, used);
  for (size_t t = 0; t < texts.size(); ++t) {
    recorder.BeginText(std::string(1, static_cast<char>('a' + t)),
                       static_cast<int64_t>(texts[t].size()));
    for (size_t i = 0; i < texts[t].size(); ++i) {
      for (const int expert : texts[t][i]) recorder.Add(0, static_cast<int64_t>(i), expert);
    }
  }
  return recorder.Finish();
}

// Texts of random choices: of each layer an expert of its own is liked most.
ExpertRecord RandomRecord(int64_t layers, int64_t experts, int64_t used, int texts, int positions,
                          uint32_t seed) {
  std::mt19937 random(seed);
  std::exponential_distribution<double> step(4.0 / static_cast<double>(experts));
  ExpertRecorder recorder(layers, experts, used);
  for (int t = 0; t < texts; ++t) {
    recorder.BeginText(std::string(1, static_cast<char>('a' + t)), positions);
    for (int i = 0; i < positions; ++i) {
      for (int64_t layer = 0; layer < layers; ++layer) {
        std::set<int64_t> chosen;
        while (std::ssize(chosen) < used) {
          chosen.insert((static_cast<int64_t>(step(random)) + layer + t) % experts);
        }
        for (const int64_t expert : chosen) recorder.Add(layer, i, expert);
      }
    }
  }
  return recorder.Finish();
}

// A worker's cache as plainly as can be: the least used of those that the token's layer has not
// chosen goes, the first place where several are equal.
class PlainCache {
 public:
  PlainCache(int64_t layers, int64_t experts, int64_t places, double half_life)
      : layers_(layers), experts_(experts), half_life_(half_life), place_(places, -1) {}

  int64_t Use(std::span<const uint16_t> chosen) {
    ++step_;
    const auto used = std::ssize(chosen) / layers_;
    int64_t hits = 0;
    for (int64_t layer = 0; layer < layers_; ++layer) {
      std::vector<int64_t> wanted;
      for (int64_t k = 0; k < used; ++k) {
        wanted.push_back(layer * experts_ + chosen[static_cast<size_t>(layer * used + k)]);
        when_[wanted.back()].push_back(step_);
      }
      std::vector<int64_t> missing;
      for (const int64_t expert : wanted) {
        const bool here = std::find(place_.begin(), place_.end(), expert) != place_.end();
        hits += here ? 1 : 0;
        if (!here) missing.push_back(expert);
      }
      for (const int64_t expert : missing) *Victim(wanted) = expert;
    }
    return hits;
  }

 private:
  double Uses(int64_t expert) {
    double sum = 0;
    for (const int64_t step : when_[expert]) {
      sum += std::exp2(static_cast<double>(step - step_) / half_life_);
    }
    return sum;
  }
  std::vector<int64_t>::iterator Victim(const std::vector<int64_t>& wanted) {
    auto least = place_.end();
    for (auto at = place_.begin(); at != place_.end(); ++at) {
      if (*at < 0) return at;
      if (std::find(wanted.begin(), wanted.end(), *at) != wanted.end()) continue;
      // What is the same but for rounding is the same.
      if (least == place_.end() || Uses(*at) < Uses(*least) * (1 - 1e-9)) least = at;
    }
    return least;
  }

  const int64_t layers_;
  const int64_t experts_;
  const double half_life_;
  int64_t step_ = 0;
  std::vector<int64_t> place_;
  std::map<int64_t, std::vector<int64_t>> when_;
};

TEST(ExpertReplayTest, KeepsWhatAPlainCacheKeeps) {
  const ExpertRecord record = RandomRecord(3, 10, 2, 1, 150, 5);
  const auto each = static_cast<size_t>(record.layers * record.used);
  for (const int64_t places : {2, 5, 11, 30}) {
    for (const double half_life : {1.5, 20.0}) {
      SCOPED_TRACE(::testing::Message() << places << " places, half-life " << half_life);
      ExpertReplay replay(3, 10, places, half_life);
      PlainCache plain(3, 10, places, half_life);
      for (size_t i = 0; i < 150; ++i) {
        const auto chosen = std::span(record.texts[0].chosen).subspan(i * each, each);
        ASSERT_EQ(replay.Use(chosen), plain.Use(chosen)) << i;
      }
    }
  }
}

TEST(ExpertReplayTest, GoesOnWhenItsNumbersAreMadeSmaller) {
  // With a half-life of a tenth of a step, numbers are made smaller every 67 tokens.
  const std::vector<std::vector<uint16_t>> turns = {{0}, {1}, {0}, {2}};
  ExpertReplay replay(1, 4, 2, 0.1);
  int64_t hits = 0;
  for (int i = 0; i < 400; ++i) hits += replay.Use(turns[static_cast<size_t>(i % 4)]);
  // 0 is always the one used last, so 1 and 2 take each other's place: every second token hits.
  EXPECT_EQ(hits, 199);
}

TEST(ExpertReplayTest, WhatIsPutThereStaysWhileItIsLiked) {
  ExpertReplay replay(1, 4, 2, 256);
  replay.Put(3, 5);
  replay.Put(2, 1);
  replay.Put(1, 1);  // no place is free
  EXPECT_TRUE(replay.IsHere(3));
  EXPECT_FALSE(replay.IsHere(1));
  const std::vector<uint16_t> zero = {0};
  EXPECT_EQ(replay.Use(zero), 0);
  EXPECT_TRUE(replay.IsHere(3));
  EXPECT_FALSE(replay.IsHere(2));
}

TEST(ExpertUsageTest, CountsLayers) {
  const ExpertRecord record =
      OneLayer(4, 2, {{{0, 1}, {0, 1}, {0, 2}, {1, 0}}, {{0, 3}, {0, 1}, {2, 0}, {0, 1}}});
  ASSERT_OK_AND_ASSIGN(const ExpertReport report, StudyExperts(record, 0.9));
  EXPECT_EQ(report.positions, 8);
  const ExpertLayer& layer = report.by_layer[0];
  EXPECT_THAT(layer.uses, ElementsAre(8, 5, 2, 1));
  EXPECT_EQ(layer.half, 1);
  EXPECT_EQ(layer.nine_tenths, 3);
  EXPECT_EQ(layer.nearly_all, 4);
  // Of the second tokens on: 2, 1, 1 and 1, 1, 1 of two each.
  EXPECT_DOUBLE_EQ(layer.again, 7.0 / 12);
  EXPECT_EQ(report.working_set.front().share, 0.5);
  EXPECT_EQ(report.working_set.back().share, 1);
  EXPECT_DOUBLE_EQ(report.heat[0].mean, 0.5);
  EXPECT_DOUBLE_EQ(report.heat[2].most, 15.0 / 16);
  EXPECT_THAT(report.topics[0].uses, ElementsAre(4, 3, 1, 0));
  EXPECT_EQ(report.topics[1].nine_tenths, 4);
  // In eighths, 4 3 1 0 and 4 2 1 1.
  EXPECT_DOUBLE_EQ(report.together[1], 7.0 / 8);
  EXPECT_DOUBLE_EQ(report.together[0], 1);
}

TEST(ExpertUsageTest, PairsAreComparedWithChance) {
  const ExpertRecord record =
      OneLayer(4, 2, {{{0, 1}, {0, 1}, {2, 3}, {2, 3}}, {{0, 1}, {2, 3}, {0, 2}, {1, 3}}});
  ASSERT_OK_AND_ASSIGN(const ExpertReport report, StudyExperts(record, 0.9));
  ASSERT_EQ(report.layers_together.size(), 1u);
  const ExpertsTogether& together = report.layers_together[0];
  EXPECT_THAT(together.tokens, ElementsAre(0, 3, 1, 0, 3, 0, 0, 1, 1, 0, 0, 3, 0, 1, 3, 0));
  ASSERT_EQ(together.pairs.size(), 4u);
  EXPECT_EQ(together.pairs[0].first, 0);
  EXPECT_EQ(together.pairs[0].second, 1);
  // Each is used 4 times: eight pairs of six that are alike.
  EXPECT_DOUBLE_EQ(together.pairs[0].lift, 3 / (8.0 / 6));
  EXPECT_DOUBLE_EQ(together.lift[1], together.pairs[0].lift);
}

// Favourites by counting each time anew.
double PlainFavourites(const ExpertRecord& record, int64_t places, bool of_text) {
  double hits = 0;
  double choices = 0;
  const auto each = record.layers * record.used;
  for (size_t t = 0; t < record.texts.size(); ++t) {
    std::map<int64_t, int64_t> uses;
    for (size_t o = 0; o < record.texts.size(); ++o) {
      if (of_text && o != t) continue;
      for (int64_t i = 0; i < record.texts[o].positions / 2 * each; ++i) {
        const int64_t layer = i / record.used % record.layers;
        ++uses[layer * record.experts + record.texts[o].chosen[static_cast<size_t>(i)]];
      }
    }
    std::vector<std::pair<int64_t, int64_t>> order;
    for (int64_t e = 0; e < record.layers * record.experts; ++e) order.emplace_back(-uses[e], e);
    std::sort(order.begin(), order.end());
    std::set<int64_t> pinned;
    for (int64_t i = 0; i < places; ++i) pinned.insert(order[static_cast<size_t>(i)].second);
    for (int64_t i = record.texts[t].positions / 2 * each; i < record.texts[t].positions * each;
         ++i) {
      const int64_t layer = i / record.used % record.layers;
      choices += 1;
      hits += static_cast<double>(
          pinned.count(layer * record.experts + record.texts[t].chosen[static_cast<size_t>(i)]));
    }
  }
  return hits / choices;
}

TEST(ExpertUsageTest, CachesHaveWhatCountingOneByOneGives) {
  const ExpertRecord record = RandomRecord(2, 12, 2, 3, 31, 9);
  ASSERT_OK_AND_ASSIGN(const ExpertReport report, StudyExperts(record, 0.8));
  double before = 0;
  for (const ExpertCachePoint& point : report.caches) {
    SCOPED_TRACE(point.experts);
    EXPECT_DOUBLE_EQ(point.favourites, PlainFavourites(record, point.experts, false));
    EXPECT_DOUBLE_EQ(point.of_text, PlainFavourites(record, point.experts, true));
    PlainCache plain(2, 12, point.experts, model::kExpertHalfLifeSteps);
    int64_t hits = 0;
    for (const ExpertText& text : record.texts) {
      for (size_t i = 0; i < 31; ++i) {
        const int64_t here = plain.Use(std::span(text.chosen).subspan(i * 4, 4));
        hits += i >= 15 ? here : 0;
      }
    }
    EXPECT_DOUBLE_EQ(point.cached, static_cast<double>(hits) / (3 * 16 * 4));
    EXPECT_GE(point.favourites, before);
    before = point.favourites;
  }
  EXPECT_EQ(report.caches.back().experts, 24);
  EXPECT_DOUBLE_EQ(report.caches.back().favourites, 1);
  EXPECT_DOUBLE_EQ(report.caches.back().told_start, 1);
  EXPECT_LT(report.caches.back().cold_start, 1);
  // The first cut that is good enough.
  for (const ExpertCachePoint& point : report.caches) {
    EXPECT_EQ(point.cached >= 0.8, point.experts >= report.recommended_experts) << point.experts;
  }
  // The half-life that workers have, at a quarter of the experts.
  const auto own = std::find_if(
      report.half_lives.begin(), report.half_lives.end(),
      [](const auto& point) { return point.half_life_steps == model::kExpertHalfLifeSteps; });
  ASSERT_NE(own, report.half_lives.end());
  ASSERT_EQ(report.caches[3].experts, 6);
  EXPECT_DOUBLE_EQ(own->cached[1], report.caches[3].cached);
}

TEST(ExpertUsageTest, StartsKnowTheOtherTextsOnly) {
  // Both texts use 0 and 1 all the time; nobody else knows of a's 2 and b's 3.
  std::vector<std::vector<int>> a(60, {0, 1});
  std::vector<std::vector<int>> b = a;
  a[7] = {0, 2};
  b[9] = {0, 3};
  ASSERT_OK_AND_ASSIGN(const ExpertReport report, StudyExperts(OneLayer(4, 2, {a, b}), 0.9));
  ASSERT_EQ(report.caches[0].experts, 2);
  // Of 50 tokens with two choices: with two places 2, and 1 again after it, are missed.
  EXPECT_DOUBLE_EQ(report.caches[0].told_start, 1 - 2.0 / 100);
  EXPECT_DOUBLE_EQ(report.caches[0].cold_start, 1 - 4.0 / 100);
}

TEST(ExpertUsageTest, RefusesWhatMakesNoSense) {
  const auto bad = StatusIs(absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(StudyExperts({}, 0.9), bad);
  EXPECT_THAT(StudyExperts(OneLayer(4, 1, {{{0}, {1}}}), 0.9), bad);
  EXPECT_THAT(StudyExperts(OneLayer(4, 1, {{{0}, {1}}, {{2}}}), 0.9), bad);
  EXPECT_THAT(StudyExperts(OneLayer(4, 2, {{{0, 1}, {1}}, {{2, 3}, {2, 3}}}), 0.9), bad);
  EXPECT_OK(StudyExperts(OneLayer(4, 1, {{{0}, {1}}, {{2}, {1}}}), 0.9).status());
}

}  // namespace
}  // namespace renga::partition
