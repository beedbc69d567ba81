// Slices against trying every division that is allowed.
#include "partition/slice_split.h"

#include <algorithm>
#include <functional>
#include <limits>
#include <random>

#include "base/testing/status_matchers.h"

namespace renga::partition {
namespace {

using model::LayerSlice;

struct Case {
  model::ModelConfig config;
  model::SliceUnits units;
  SliceCosts costs;
  std::vector<SliceMember> members;
};

Case RandomCase(uint32_t seed) {
  std::mt19937 random(seed);
  Case made;
  made.config.n_kv_heads = 1 + random() % 3;
  made.config.n_heads = made.config.n_kv_heads * (1 + random() % 4);
  made.units.heads = made.config.n_heads % 2 == 0 && random() % 3 == 0 ? 2 : 1;
  made.units.ff = 4;
  made.config.d_ff = made.units.ff * static_cast<int64_t>(3 + random() % 4);
  made.costs = {.query_head_bytes = 1.0 + random() % 4,
                .kv_head_bytes = 1.0 + random() % 3,
                .ff_column_bytes = 0.25 * (1 + random() % 4),
                .query_head_room = 1.0 + random() % 4,
                .kv_head_room = 1.0 + random() % 8,
                .ff_column_room = 0.25 * (1 + random() % 4)};
  made.members.resize(1 + random() % 3);
  for (SliceMember& member : made.members) {
    member.ms_per_byte = 0.5 * (1 + random() % 6);
    member.room = random() % 2 == 0 ? 1000 : random() % 40;
  }
  return made;
}

// The group's time for one layer; infinity when a member has no room.
double TimeOf(const Case& made, const std::vector<LayerSlice>& slices) {
  double attention = 0;
  double feed_forward = 0;
  for (size_t i = 0; i < slices.size(); ++i) {
    const auto heads = static_cast<double>(slices[i].heads.size());
    const auto kv = static_cast<double>(model::KvHeadsOf(made.config, slices[i].heads).size());
    const auto ff = static_cast<double>(slices[i].ff.size());
    const SliceCosts& costs = made.costs;
    if (heads * costs.query_head_room + kv * costs.kv_head_room + ff * costs.ff_column_room >
        static_cast<double>(made.members[i].room)) {
      return std::numeric_limits<double>::infinity();
    }
    const double speed = made.members[i].ms_per_byte;
    attention =
        std::max(attention, speed * (heads * costs.query_head_bytes + kv * costs.kv_head_bytes));
    feed_forward = std::max(feed_forward, speed * ff * costs.ff_column_bytes);
  }
  return attention + feed_forward;
}

double BestByTrying(const Case& made) {
  double best = std::numeric_limits<double>::infinity();
  std::vector<LayerSlice> slices;
  const std::function<void()> divide = [&] {
    if (slices.size() == made.members.size()) {
      if (model::CheckGroup(made.config, made.units, slices).ok()) {
        best = std::min(best, TimeOf(made, slices));
      }
      return;
    }
    const int64_t head = slices.empty() ? 0 : slices.back().heads.end;
    const int64_t column = slices.empty() ? 0 : slices.back().ff.end;
    for (int64_t h = head; h <= made.config.n_heads; h += made.units.heads) {
      for (int64_t f = column; f <= made.config.d_ff; f += made.units.ff) {
        slices.push_back({.heads = {head, h}, .ff = {column, f}});
        divide();
        slices.pop_back();
      }
    }
  };
  divide();
  return best;
}

TEST(SplitSlicesTest, IsAsGoodAsTheBestOfAllDivisions) {
  int possible = 0;
  int replicated = 0;
  for (uint32_t seed = 1; seed <= 600; ++seed) {
    SCOPED_TRACE(seed);
    const Case made = RandomCase(seed);
    const auto slices = SplitSlices(made.config, made.units, made.costs, made.members);
    const double best = BestByTrying(made);
    ASSERT_EQ(slices.has_value(), best < std::numeric_limits<double>::infinity());
    if (!slices) continue;
    ++possible;
    ASSERT_OK(model::CheckGroup(made.config, made.units, *slices));
    ASSERT_NEAR(TimeOf(made, *slices), best, 1e-6 * best);
    int64_t kv_heads = 0;
    for (const LayerSlice& slice : *slices) {
      kv_heads += model::KvHeadsOf(made.config, slice.heads).size();
    }
    replicated += kv_heads > made.config.n_kv_heads;
  }
  EXPECT_GT(possible, 150);
  EXPECT_LT(possible, 600);
  EXPECT_GT(replicated, 10);
}

TEST(SplitSlicesTest, FollowsSpeed) {
  model::ModelConfig config;
  config.n_heads = 32;
  config.n_kv_heads = 8;
  config.d_ff = 4096;
  const SliceCosts costs = {.query_head_bytes = 10,
                            .kv_head_bytes = 10,
                            .ff_column_bytes = 1,
                            .query_head_room = 10,
                            .kv_head_room = 10,
                            .ff_column_room = 1};
  const auto slices =
      SplitSlices(config, {.heads = 2, .ff = 256}, costs,
                  {{.ms_per_byte = 1, .room = 1 << 20}, {.ms_per_byte = 3, .room = 1 << 20}});
  ASSERT_TRUE(slices.has_value());
  EXPECT_EQ((*slices)[0].heads, (model::Range{0, 24}));
  EXPECT_EQ((*slices)[0].ff, (model::Range{0, 3072}));
}

}  // namespace
}  // namespace renga::partition
