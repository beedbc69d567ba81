#include "coordinator/serving/kv_blocks.h"

#include <algorithm>
#include <map>
#include <random>
#include <set>

#include "base/testing/status_matchers.h"

namespace renga::serving {
namespace {

using renga::testing::StatusIs;

TEST(KvBlocksTest, AppendTruncateShareFree) {
  KvBlocks blocks(8);
  ASSERT_OK_AND_ASSIGN(model::KvCommand append, blocks.Append(1, 3));
  EXPECT_EQ(append.kind, model::KvCommand::Kind::kAppendBlocks);
  EXPECT_EQ(append.blocks, (std::vector<int32_t>{0, 1, 2}));
  EXPECT_EQ(blocks.free_blocks(), 5);

  ASSERT_OK_AND_ASSIGN(model::KvCommand share, blocks.Share(2, 1, 64));
  EXPECT_EQ(share.source, 1u);
  EXPECT_EQ(share.tokens, 64);
  EXPECT_EQ(blocks.BlocksOf(2), 2);
  EXPECT_EQ(blocks.free_blocks(), 5);

  ASSERT_OK(blocks.Free(1));
  EXPECT_EQ(blocks.free_blocks(), 6);  // two of them are still sequence 2's
  ASSERT_OK(blocks.Truncate(2, 32));
  EXPECT_EQ(blocks.free_blocks(), 7);
  ASSERT_OK(blocks.Truncate(2, 5));  // not shared any longer
  EXPECT_EQ(blocks.BlocksOf(2), 1);
  ASSERT_OK(blocks.Free(2));
  EXPECT_EQ(blocks.free_blocks(), 8);
}

TEST(KvBlocksTest, RefusesWhatAStageWouldRefuse) {
  KvBlocks blocks(4);
  EXPECT_THAT(blocks.Append(1, 5), StatusIs(absl::StatusCode::kResourceExhausted));
  EXPECT_THAT(blocks.Append(1, 0), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_EQ(blocks.free_blocks(), 4);
  EXPECT_THAT(blocks.Free(1), StatusIs(absl::StatusCode::kNotFound));
  EXPECT_THAT(blocks.Truncate(1, 0), StatusIs(absl::StatusCode::kNotFound));
  ASSERT_OK(blocks.Append(1, 2));
  EXPECT_THAT(blocks.Truncate(1, 65), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(blocks.Share(2, 1, 33), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(blocks.Share(2, 1, 96), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(blocks.Share(2, 9, 32), StatusIs(absl::StatusCode::kNotFound));
  ASSERT_OK(blocks.Share(2, 1, 64));
  EXPECT_THAT(blocks.Share(2, 1, 32), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(blocks.Truncate(2, 40), StatusIs(absl::StatusCode::kFailedPrecondition));
  EXPECT_OK(blocks.Truncate(2, 32));
}

// A thousand random calls against sets of blocks kept by hand.
TEST(KvBlocksTest, NeverGivesOutABlockInUse) {
  std::mt19937 random(3);
  KvBlocks blocks(40);
  std::map<model::SequenceId, std::vector<int32_t>> tables;
  model::SequenceId next = 1;
  for (int i = 0; i < 1000; ++i) {
    std::set<int32_t> used;
    for (const auto& [id, table] : tables) used.insert(table.begin(), table.end());
    ASSERT_EQ(blocks.free_blocks(), 40 - static_cast<int64_t>(used.size()));
    const auto pick = [&] { return std::next(tables.begin(), random() % tables.size()); };
    const int what = tables.empty() ? 0 : static_cast<int>(random() % 4);
    if (what == 0) {
      const int64_t count = random() % 6 + 1;
      const model::SequenceId id = tables.empty() || random() % 2 == 0 ? next++ : pick()->first;
      auto command = blocks.Append(id, count);
      ASSERT_EQ(command.ok(), count <= 40 - static_cast<int64_t>(used.size()));
      if (!command.ok()) continue;
      for (int32_t block : command->blocks) {
        ASSERT_FALSE(used.contains(block));
        tables[id].push_back(block);
      }
    } else if (what == 1) {
      auto& [id, table] = *pick();
      const int64_t keep = random() % (table.size() + 1);
      ASSERT_OK(blocks.Truncate(id, keep * model::kKvBlockTokens));
      table.resize(keep);
    } else if (what == 2) {
      const auto source = pick();
      if (source->second.empty()) continue;
      const int64_t count = random() % source->second.size() + 1;
      ASSERT_OK(blocks.Share(next, source->first, count * model::kKvBlockTokens));
      std::vector<int32_t> table(source->second.begin(), source->second.begin() + count);
      tables[next++] = table;
    } else {
      const auto it = pick();
      ASSERT_OK(blocks.Free(it->first));
      tables.erase(it);
    }
  }
}

}  // namespace
}  // namespace renga::serving
