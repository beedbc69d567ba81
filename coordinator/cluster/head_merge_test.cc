#include "coordinator/cluster/head_merge.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "base/testing/status_matchers.h"
#include "gtest/gtest.h"

namespace renga::cluster {
namespace {

using ::renga::testing::StatusIs;

// What a head block answers, computed the plain way.
HeadBlock Answer(const std::vector<float>& logits, const model::Range& rows,
                 const model::Step& step) {
  HeadBlock block{rows, {}};
  for (const model::StepSlot& slot : step.slots) {
    for (int64_t i = 0; i < slot.output_count; ++i) {
      model::HeadRow row;
      std::vector<int32_t> ids(static_cast<size_t>(rows.size()));
      std::iota(ids.begin(), ids.end(), static_cast<int32_t>(rows.begin));
      std::stable_sort(ids.begin(), ids.end(),
                       [&](int32_t a, int32_t b) { return logits[a] > logits[b]; });
      row.max_logit = logits[ids.front()];
      for (int32_t id : ids) row.sum_exp += std::exp(double{logits[id]} - double{row.max_logit});
      if (slot.top_k > 0) {
        ids.resize(static_cast<size_t>(std::min(slot.top_k, rows.size())));
        for (int32_t id : ids) row.logits.push_back(logits[id]);
        row.ids = ids;
      } else {
        row.logits.assign(logits.begin() + rows.begin, logits.begin() + rows.end);
      }
      block.outputs.push_back(row);
    }
  }
  return block;
}

model::Step StepAsking(std::vector<int64_t> top_ks) {
  model::Step step;
  for (int64_t top_k : top_ks) {
    step.slots.push_back({.token_count = 2, .output_count = 1, .top_k = top_k});
  }
  return step;
}

TEST(HeadMergeTest, AnySplitEqualsTheWhole) {
  std::mt19937 random(20240607);
  for (int round = 0; round < 200; ++round) {
    const int64_t vocabulary = 1 + static_cast<int64_t>(random() % 97);
    std::vector<float> logits(static_cast<size_t>(vocabulary));
    // Few different values, so that ties are everywhere.
    for (float& logit : logits) logit = static_cast<float>(random() % 7) - 3.0f;
    const model::Step step = StepAsking({1, 5, 0, 1 + static_cast<int64_t>(random() % 120)});
    std::vector<int64_t> cuts = {0, vocabulary};
    for (uint32_t i = random() % 5; i > 0; --i) {
      cuts.push_back(static_cast<int64_t>(random() % static_cast<uint64_t>(vocabulary)));
    }
    std::sort(cuts.begin(), cuts.end());
    cuts.erase(std::unique(cuts.begin(), cuts.end()), cuts.end());
    std::vector<HeadBlock> blocks;
    for (size_t i = 0; i + 1 < cuts.size(); ++i) {
      blocks.push_back(Answer(logits, {cuts[i], cuts[i + 1]}, step));
      ASSERT_OK(CheckHeadBlock(step, blocks.back()));
    }
    const HeadBlock whole = Answer(logits, {0, vocabulary}, step);
    const std::vector<model::HeadRow> merged = MergeHeadBlocks(step, blocks);
    ASSERT_EQ(merged.size(), whole.outputs.size());
    for (size_t i = 0; i < merged.size(); ++i) {
      EXPECT_EQ(merged[i].ids, whole.outputs[i].ids) << "round " << round;
      EXPECT_EQ(merged[i].logits, whole.outputs[i].logits) << "round " << round;
      EXPECT_EQ(merged[i].max_logit, whole.outputs[i].max_logit);
      EXPECT_NEAR(merged[i].sum_exp / whole.outputs[i].sum_exp, 1.0, 1e-12);
    }
  }
}

// A block of any rows: what a block of all of them says, less what is of others.
HeadBlock AnswerOf(const std::vector<float>& logits, const model::BlockRows& rows,
                   const model::Step& step) {
  const auto vocabulary = static_cast<int64_t>(logits.size());
  HeadBlock block{rows, {}};
  for (const model::StepSlot& slot : step.slots) {
    model::Step all = StepAsking({vocabulary});
    const model::HeadRow whole = Answer(logits, {0, vocabulary}, all).outputs[0];
    model::HeadRow& row = block.outputs.emplace_back();
    for (size_t i = 0; i < whole.ids.size(); ++i) {
      if (!rows.Contains(whole.ids[i])) continue;
      if (row.ids.empty()) row.max_logit = whole.logits[i];
      row.sum_exp += std::exp(double{whole.logits[i]} - double{row.max_logit});
      row.ids.push_back(whole.ids[i]);
      row.logits.push_back(whole.logits[i]);
    }
    if (slot.top_k > 0) {
      const auto kept = static_cast<size_t>(std::min(slot.top_k, rows.size()));
      row.ids.resize(kept);
      row.logits.resize(kept);
    } else {
      row.ids.clear();
      row.logits.clear();
      for (int64_t i = 0; i < rows.size(); ++i) row.logits.push_back(logits[rows.id(i)]);
    }
  }
  return block;
}

TEST(HeadMergeTest, BlocksOfAnyRowsEqualTheWhole) {
  std::mt19937 random(11);
  for (int round = 0; round < 100; ++round) {
    const int64_t vocabulary = 8 + static_cast<int64_t>(random() % 60);
    std::vector<float> logits(static_cast<size_t>(vocabulary));
    for (float& logit : logits) logit = static_cast<float>(random() % 7) - 3.0f;
    model::RowSet near;
    for (int32_t row = 0; row < vocabulary; ++row) {
      if (near.empty() || random() % 4 == 0) near.push_back(row);
    }
    const model::Step step = StepAsking({1, 5, 0, 100});
    std::vector<HeadBlock> blocks;
    const int64_t first = std::ssize(near);
    for (const model::Range& places : {model::Range{0, first}, model::Range{first, first + 2},
                                       model::Range{first + 2, vocabulary}}) {
      if (places.empty() || places.end > vocabulary) continue;
      blocks.push_back(AnswerOf(logits, model::BlockRows::At(places, &near, vocabulary), step));
      ASSERT_OK(CheckHeadBlock(step, blocks.back()));
    }
    if (first + 2 > vocabulary) continue;
    const HeadBlock whole = Answer(logits, {0, vocabulary}, step);
    const std::vector<model::HeadRow> merged = MergeHeadBlocks(step, blocks);
    for (size_t i = 0; i < merged.size(); ++i) {
      EXPECT_EQ(merged[i].ids, whole.outputs[i].ids) << "round " << round;
      EXPECT_EQ(merged[i].logits, whole.outputs[i].logits) << "round " << round;
      EXPECT_EQ(merged[i].max_logit, whole.outputs[i].max_logit);
      EXPECT_NEAR(merged[i].sum_exp / whole.outputs[i].sum_exp, 1.0, 1e-12);
    }
    // Alone the near block has no more to say than its rows.
    const std::vector<model::HeadRow> alone = BlockAlone(step, blocks[0], vocabulary);
    EXPECT_TRUE(alone[3].logits.empty() == (first < vocabulary));
    ASSERT_EQ(alone[2].logits.size(), logits.size());
    for (int32_t row = 0; row < vocabulary; ++row) {
      const bool is_near = blocks[0].rows.Contains(row);
      EXPECT_EQ(alone[2].logits[row],
                is_near ? logits[row] : -std::numeric_limits<float>::infinity());
    }
    HeadBlock wrong = blocks[0];
    if (!blocks[0].rows.contiguous()) {
      int32_t other = blocks[0].rows.id(0);
      while (blocks[0].rows.Contains(other)) ++other;
      wrong.outputs[0].ids[0] = other;
      EXPECT_THAT(CheckHeadBlock(step, wrong), StatusIs(absl::StatusCode::kInternal));
    }
  }
}

TEST(HeadMergeTest, BlocksOfMinusInfinityAddNothing) {
  const float low = -std::numeric_limits<float>::infinity();
  const model::Step step = StepAsking({2});
  HeadBlock silent{{0, 2}, {{.ids = {0, 1}, .logits = {low, low}, .max_logit = low, .sum_exp = 0}}};
  HeadBlock loud{{2, 4}, {{.ids = {3, 2}, .logits = {1, 0}, .max_logit = 1, .sum_exp = 1.5}}};
  const std::vector<model::HeadRow> merged = MergeHeadBlocks(step, {silent, loud});
  EXPECT_EQ(merged[0].ids, (std::vector<int32_t>{3, 2}));
  EXPECT_EQ(merged[0].sum_exp, 1.5);
  EXPECT_FALSE(std::isnan(MergeHeadBlocks(step, {silent, silent})[0].sum_exp));
}

TEST(HeadMergeTest, RowsNearTheBestComeTogether) {
  model::Step step = StepAsking({0});
  step.slots[0].within = 3;
  const HeadBlock few{{0, 4}, {{.ids = {2, 0}, .logits = {5, 3}, .max_logit = 5, .sum_exp = 2}}};
  const HeadBlock all{{4, 6}, {{.ids = {}, .logits = {1, 4}, .max_logit = 4, .sum_exp = 2}}};
  ASSERT_OK(CheckHeadBlock(step, few));
  ASSERT_OK(CheckHeadBlock(step, all));
  const std::vector<model::HeadRow> mixed = MergeHeadBlocks(step, {few, all});
  EXPECT_EQ(mixed[0].ids, (std::vector<int32_t>{2, 5, 0, 4}));
  EXPECT_EQ(mixed[0].logits, (std::vector<float>{5, 4, 3, 1}));
  HeadBlock first = all;
  first.rows = {0, 2};
  HeadBlock second = all;
  second.rows = {2, 4};
  EXPECT_EQ(MergeHeadBlocks(step, {first, second})[0].logits, (std::vector<float>{1, 4, 1, 4}));
  HeadBlock bad = few;
  bad.outputs[0].ids = {0, 4};
  EXPECT_THAT(CheckHeadBlock(step, bad), StatusIs(absl::StatusCode::kInternal));
}

TEST(HeadMergeTest, AnswersHoldAllowedTokensOnly) {
  model::Step step = StepAsking({2});
  step.slots[0].allowed = {
      std::make_shared<const model::TokenMask>(model::TokenMask::Of({1, 5}, 8))};
  const HeadBlock one{{0, 4}, {{.ids = {1}, .logits = {5}, .max_logit = 7, .sum_exp = 2}}};
  HeadBlock none{{6, 8}, {{.ids = {}, .logits = {}, .max_logit = 4, .sum_exp = 2}}};
  const HeadBlock other{{4, 6}, {{.ids = {5}, .logits = {6}, .max_logit = 6, .sum_exp = 1}}};
  for (const HeadBlock& block : {one, none, other}) EXPECT_OK(CheckHeadBlock(step, block));
  EXPECT_EQ(MergeHeadBlocks(step, {one, other, none})[0].ids, (std::vector<int32_t>{5, 1}));
  const auto internal = StatusIs(absl::StatusCode::kInternal);
  HeadBlock bad = one;
  bad.outputs[0].ids = {2};
  EXPECT_THAT(CheckHeadBlock(step, bad), internal);
  bad.outputs[0] = {.ids = {1, 0}, .logits = {5, 4}, .max_logit = 7, .sum_exp = 2};
  EXPECT_THAT(CheckHeadBlock(step, bad), internal);
  // Near the best one: nothing from where nothing is allowed, and from nowhere else.
  step.slots[0].top_k = 0;
  step.slots[0].within = 3;
  for (const HeadBlock& block : {one, none, other}) EXPECT_OK(CheckHeadBlock(step, block));
  EXPECT_EQ(MergeHeadBlocks(step, {none, one, other})[0].ids, (std::vector<int32_t>{5, 1}));
  bad.outputs[0] = none.outputs[0];
  EXPECT_THAT(CheckHeadBlock(step, bad), internal);
  // A block without allowed rows that says nothing of its sum leaves the whole unknown.
  none.outputs[0].max_logit = std::numeric_limits<float>::lowest();
  none.outputs[0].sum_exp = 0;
  EXPECT_EQ(MergeHeadBlocks(step, {one, other, none})[0].sum_exp, 0);
}

TEST(HeadMergeTest, StepsWithoutOutputsMergeToNothing) {
  model::Step step;
  step.slots.push_back({.token_count = 8, .output_count = 0});
  EXPECT_TRUE(MergeHeadBlocks(step, {{{0, 3}, {}}, {{3, 5}, {}}}).empty());
}

TEST(HeadMergeTest, ImpossibleAnswersAreRefused) {
  const model::Step step = StepAsking({2});
  const HeadBlock good{{4, 8}, {{.ids = {5, 4}, .logits = {2, 2}, .max_logit = 2, .sum_exp = 2}}};
  auto broken = [&](auto&& change) {
    HeadBlock block = good;
    change(block);
    return CheckHeadBlock(step, block);
  };
  const auto internal = StatusIs(absl::StatusCode::kInternal);
  EXPECT_THAT(broken([](HeadBlock&) {}), internal) << "ties: the lower id comes first";
  EXPECT_OK(broken([](HeadBlock& b) { b.outputs[0].ids = {4, 5}; }));
  EXPECT_THAT(broken([](HeadBlock& b) { b.outputs[0].ids = {4, 4}; }), internal);
  EXPECT_THAT(broken([](HeadBlock& b) {
                b.outputs[0].ids = {4, 4};
                b.outputs[0].logits = {2, 1};
              }),
              internal);
  EXPECT_THAT(broken([](HeadBlock& b) { b.outputs[0].ids = {4, 8}; }), internal);
  EXPECT_THAT(broken([](HeadBlock& b) { b.outputs[0].ids = {3, 5}; }), internal);
  EXPECT_THAT(broken([](HeadBlock& b) { b.outputs[0].ids = {4}; }), internal);
  EXPECT_THAT(broken([](HeadBlock& b) { b.outputs[0].logits = {2}; }), internal);
  EXPECT_THAT(broken([](HeadBlock& b) { b.outputs[0].logits = {1, 2}; }), internal);
  EXPECT_THAT(broken([](HeadBlock& b) { b.outputs.clear(); }), internal);
  EXPECT_THAT(broken([](HeadBlock& b) { b.outputs[0].logits[1] = std::nanf(""); }),
              StatusIs(absl::StatusCode::kDataLoss));
  EXPECT_THAT(broken([](HeadBlock& b) { b.outputs[0].sum_exp = std::nan(""); }),
              StatusIs(absl::StatusCode::kDataLoss));
  EXPECT_THAT(CheckHeadBlock(StepAsking({0}), good), internal);
}

}  // namespace
}  // namespace renga::cluster
