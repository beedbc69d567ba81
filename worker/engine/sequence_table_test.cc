#include "worker/engine/sequence_table.h"

#include <algorithm>
#include <map>
#include <optional>
#include <random>
#include <vector>

#include "base/testing/status_matchers.h"

namespace renga::engine {
namespace {

using model::kKvBlockTokens;
using model::KvCommand;
using model::SequenceId;
using model::Step;
using model::StepSlot;
using ::renga::testing::StatusIs;
using ::testing::HasSubstr;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

model::RuntimeLimits Limits(int64_t kv_blocks) {
  model::RuntimeLimits limits;
  limits.kv_blocks = kv_blocks;
  limits.max_step_tokens = 256;
  limits.max_step_outputs = 16;
  return limits;
}

KvCommand Append(SequenceId id, std::vector<int32_t> blocks) {
  return {.kind = KvCommand::Kind::kAppendBlocks, .sequence = id, .blocks = std::move(blocks)};
}
KvCommand Truncate(SequenceId id, int64_t tokens) {
  return {.kind = KvCommand::Kind::kTruncate, .sequence = id, .tokens = tokens, .blocks = {}};
}
KvCommand Share(SequenceId id, SequenceId source, int64_t tokens) {
  return {.kind = KvCommand::Kind::kShare,
          .sequence = id,
          .source = source,
          .tokens = tokens,
          .blocks = {}};
}
KvCommand Free(SequenceId id) {
  return {.kind = KvCommand::Kind::kFree, .sequence = id, .blocks = {}};
}
StepSlot Slot(SequenceId id, int64_t first, int64_t count) {
  return {.sequence = id, .first_position = first, .token_count = count};
}
Step MakeStep(std::vector<KvCommand> commands, std::vector<StepSlot> slots = {}) {
  Step step;
  step.commands = std::move(commands);
  step.slots = std::move(slots);
  return step;
}

TEST(SequenceTableTest, AppendsGrowsAndFrees) {
  SequenceTable table(Limits(4));
  ASSERT_OK(table.Apply(MakeStep({Append(7, {2, 0})}, {Slot(7, 0, 40)})));
  ASSERT_NE(table.Find(7), nullptr);
  EXPECT_EQ(table.Find(7)->length, 40);
  EXPECT_EQ(table.Find(7)->blocks, (std::vector<int32_t>{2, 0}));
  EXPECT_EQ(table.free_block_count(), 2);
  ASSERT_OK(table.Apply(MakeStep({}, {Slot(7, 40, 24)})));
  EXPECT_THAT(table.Apply(MakeStep({}, {Slot(7, 64, 1)})),
              StatusIs(kInvalid, HasSubstr("beyond its 2 KV blocks")));
  ASSERT_OK(table.Apply(MakeStep({Free(7)})));
  EXPECT_EQ(table.Find(7), nullptr);
  EXPECT_EQ(table.free_block_count(), 4);
}

TEST(SequenceTableTest, SharedBlocksOutliveTheirFirstOwner) {
  SequenceTable table(Limits(4));
  ASSERT_OK(table.Apply(MakeStep({Append(1, {0, 1})}, {Slot(1, 0, 50)})));
  ASSERT_OK(table.Apply(MakeStep({Share(2, 1, 32), Free(1), Append(2, {1})}, {Slot(2, 32, 5)})));
  EXPECT_EQ(table.Find(2)->blocks, (std::vector<int32_t>{0, 1}));
  EXPECT_EQ(table.Find(2)->length, 37);
  EXPECT_EQ(table.free_block_count(), 2);
}

TEST(SequenceTableTest, NobodyWritesIntoASharedBlock) {
  SequenceTable table(Limits(4));
  ASSERT_OK(table.Apply(MakeStep({Append(1, {0, 1})}, {Slot(1, 0, 64)})));
  ASSERT_OK(table.Apply(MakeStep({Share(2, 1, 64)})));
  EXPECT_THAT(table.Apply(MakeStep({Truncate(2, 40)}, {Slot(2, 40, 1)})),
              StatusIs(kInvalid, HasSubstr("shared")));
  EXPECT_THAT(table.Apply(MakeStep({Truncate(1, 63)}, {Slot(1, 63, 1)})),
              StatusIs(kInvalid, HasSubstr("shared")));
  // On a block border the shared part stays untouched.
  ASSERT_OK(table.Apply(MakeStep({Truncate(2, 32), Append(2, {3})}, {Slot(2, 32, 1)})));
  EXPECT_EQ(table.Find(1)->length, 64);
  EXPECT_EQ(table.reference_count(0), 2);
  EXPECT_EQ(table.reference_count(1), 1);
}

TEST(SequenceTableTest, RefusesAndChangesNothing) {
  SequenceTable table(Limits(8));
  ASSERT_OK(table.Apply(MakeStep({Append(1, {0, 1})}, {Slot(1, 0, 40)})));
  const std::vector<Step> bad = {
      MakeStep({Append(2, {})}),
      MakeStep({Append(2, {-1})}),
      MakeStep({Append(2, {8})}),
      MakeStep({Append(2, {1})}),
      MakeStep({Append(2, {3, 3})}),
      MakeStep({Append(1, {3}), Truncate(1, 41)}),
      MakeStep({Truncate(9, 0)}),
      MakeStep({Truncate(1, -1)}),
      MakeStep({Share(2, 9, 32)}),
      MakeStep({Share(1, 1, 32)}),
      MakeStep({Share(2, 1, 33)}),
      MakeStep({Share(2, 1, 0)}),
      MakeStep({Share(2, 1, -32)}),
      MakeStep({Share(2, 1, 64)}),
      MakeStep({Free(1), Free(1)}),
      MakeStep({Free(9)}),
      MakeStep({Free(1)}, {Slot(1, 40, 1)}),
      MakeStep({{.kind = static_cast<KvCommand::Kind>(77), .sequence = 1, .blocks = {}}}),
      MakeStep({}, {Slot(9, 0, 1)}),
      MakeStep({}, {Slot(1, 39, 1)}),
      MakeStep({}, {Slot(1, 41, 1)}),
      MakeStep({}, {Slot(1, -1, 1)}),
      MakeStep({}, {Slot(1, 40, 25)}),
      MakeStep({}, {Slot(1, 40, 0)}),
      MakeStep({}, {Slot(1, 40, 1), Slot(1, 41, 1)}),
  };
  for (const Step& step : bad) {
    EXPECT_THAT(table.Apply(step), StatusIs(kInvalid));
    ASSERT_EQ(table.sequence_count(), 1);
    EXPECT_EQ(table.Find(1)->length, 40);
    EXPECT_EQ(table.free_block_count(), 6);
  }
}

TEST(SequenceTableTest, BoundsTheStep) {
  SequenceTable table(Limits(64));
  ASSERT_OK(table.Apply(MakeStep({Append(1, {0, 1, 2, 3, 4, 5, 6, 7, 8, 9})})));
  EXPECT_THAT(table.Apply(MakeStep({}, {Slot(1, 0, 257)})),
              StatusIs(kInvalid, HasSubstr("a step of 256")));
  EXPECT_THAT(table.Apply(MakeStep({}, {Slot(1, 0, INT64_MAX)})), StatusIs(kInvalid));
  StepSlot outputs = Slot(1, 0, 17);
  outputs.output_count = 17;
  EXPECT_THAT(table.Apply(MakeStep({}, {outputs})), StatusIs(kInvalid, HasSubstr("outputs")));
  outputs.output_count = 18;
  EXPECT_THAT(table.Apply(MakeStep({}, {outputs})), StatusIs(kInvalid, HasSubstr("18 outputs")));
  outputs.output_count = -1;
  EXPECT_THAT(table.Apply(MakeStep({}, {outputs})), StatusIs(kInvalid));
  outputs.output_count = 1;
  outputs.top_k = -1;
  EXPECT_THAT(table.Apply(MakeStep({}, {outputs})), StatusIs(kInvalid, HasSubstr("top_k")));
  const Step many = MakeStep(std::vector<KvCommand>(kMaxCommandsPerStep + 1, Truncate(1, 0)));
  EXPECT_THAT(table.Apply(many), StatusIs(kInvalid, HasSubstr("commands")));
}

// The same rules written the slow and obvious way: whole copies, counts by searching.
class NaiveTable {
 public:
  explicit NaiveTable(int64_t kv_blocks) : kv_blocks_(kv_blocks) {}

  bool Apply(const Step& step) {
    const auto before = sequences_;
    if (RunAll(step)) return true;
    sequences_ = before;
    return false;
  }
  const std::map<SequenceId, SequenceTable::Sequence>& sequences() const { return sequences_; }
  int Holders(int32_t block) const {
    int holders = 0;
    for (const auto& [id, sequence] : sequences_) {
      holders += std::count(sequence.blocks.begin(), sequence.blocks.end(), block);
    }
    return holders;
  }

 private:
  bool RunAll(const Step& step) {
    for (const KvCommand& command : step.commands) {
      if (!Run(command)) return false;
    }
    std::map<SequenceId, int> slots;
    for (const StepSlot& slot : step.slots) {
      if (!sequences_.contains(slot.sequence) || ++slots[slot.sequence] > 1) return false;
      auto& sequence = sequences_[slot.sequence];
      if (slot.first_position != sequence.length) return false;
      for (int64_t i = 0; i < slot.token_count; ++i) {
        const size_t block = (sequence.length + i) / kKvBlockTokens;
        if (block >= sequence.blocks.size() || Holders(sequence.blocks[block]) > 1) return false;
      }
    }
    for (const StepSlot& slot : step.slots) sequences_[slot.sequence].length += slot.token_count;
    return true;
  }

  bool Run(const KvCommand& command) {
    const bool known = sequences_.contains(command.sequence);
    switch (command.kind) {
      case KvCommand::Kind::kAppendBlocks:
        if (command.blocks.empty()) return false;
        for (const int32_t block : command.blocks) {
          if (block < 0 || block >= kv_blocks_ || Holders(block) > 0) return false;
          sequences_[command.sequence].blocks.push_back(block);
        }
        return true;
      case KvCommand::Kind::kTruncate: {
        if (!known || command.tokens < 0) return false;
        auto& sequence = sequences_[command.sequence];
        if (command.tokens > sequence.length) return false;
        sequence.length = command.tokens;
        while ((static_cast<int64_t>(sequence.blocks.size()) - 1) * kKvBlockTokens >=
               command.tokens) {
          sequence.blocks.pop_back();
        }
        return true;
      }
      case KvCommand::Kind::kShare: {
        if (known || !sequences_.contains(command.source) || command.tokens < 1 ||
            command.tokens % kKvBlockTokens != 0) {
          return false;
        }
        const auto source = sequences_[command.source];
        if (command.tokens > source.length) return false;
        auto& sequence = sequences_[command.sequence];
        sequence.length = command.tokens;
        for (int64_t i = 0; i < command.tokens / kKvBlockTokens; ++i) {
          sequence.blocks.push_back(source.blocks[i]);
        }
        return true;
      }
      case KvCommand::Kind::kFree:
        return sequences_.erase(command.sequence) == 1;
    }
    return false;
  }

  const int64_t kv_blocks_;
  std::map<SequenceId, SequenceTable::Sequence> sequences_;
};

constexpr int kBlocks = 12;
constexpr int kIds = 5;

class StepMaker {
 public:
  explicit StepMaker(uint32_t seed) : random_(seed) {}

  // A step that is often valid: blocks and positions are mostly right for `table`.
  Step Make(const NaiveTable& table) {
    Step step;
    for (int64_t i = Pick(4); i > 0; --i) step.commands.push_back(Command(table));
    for (int64_t i = Pick(3); i > 0; --i) {
      const SequenceId id = Pick(kIds);
      const int64_t length = Length(table, id) + (Pick(20) == 0 ? 1 : 0);
      step.slots.push_back(Slot(id, length, 1 + Pick(Pick(2) == 0 ? 3 : 70)));
    }
    return step;
  }

 private:
  int64_t Pick(int64_t n) { return static_cast<int64_t>(random_() % n); }
  static int64_t Length(const NaiveTable& table, SequenceId id) {
    const auto entry = table.sequences().find(id);
    return entry == table.sequences().end() ? 0 : entry->second.length;
  }

  KvCommand Command(const NaiveTable& table) {
    const SequenceId id = Pick(kIds);
    switch (Pick(8)) {
      case 0:
        return Truncate(id, Pick(3) == 0 ? Pick(200) : Length(table, id) * Pick(5) / 4);
      case 1:
      case 2: {
        const SequenceId source = Pick(kIds);
        return Share(id, source, Length(table, source) / kKvBlockTokens * kKvBlockTokens);
      }
      case 3:
        return Free(id);
      default: {
        std::vector<int32_t> blocks;
        for (int64_t i = Pick(4); i > 0; --i) {
          int32_t block = static_cast<int32_t>(Pick(kBlocks));
          for (int tries = 0; tries < 3 && table.Holders(block) > 0; ++tries) {
            block = static_cast<int32_t>(Pick(kBlocks + 1));
          }
          blocks.push_back(block);
        }
        return Append(id, blocks);
      }
    }
  }

  std::mt19937 random_;
};

void ExpectSame(const SequenceTable& table, const NaiveTable& naive) {
  ASSERT_EQ(table.sequence_count(), static_cast<int64_t>(naive.sequences().size()));
  for (const auto& [id, expected] : naive.sequences()) {
    const SequenceTable::Sequence* actual = table.Find(id);
    ASSERT_NE(actual, nullptr);
    EXPECT_EQ(actual->length, expected.length);
    EXPECT_EQ(actual->blocks, expected.blocks);
  }
  for (int32_t block = 0; block < kBlocks; ++block) {
    ASSERT_EQ(table.reference_count(block), naive.Holders(block));
  }
}

TEST(SequenceTableTest, AgreesWithTheNaiveTableOnRandomSteps) {
  int accepted = 0;
  int refused = 0;
  for (uint32_t seed = 1; seed <= 200; ++seed) {
    SCOPED_TRACE(seed);
    StepMaker maker(seed);
    SequenceTable table(Limits(kBlocks));
    NaiveTable naive(kBlocks);
    for (int i = 0; i < 120; ++i) {
      const Step step = maker.Make(naive);
      const bool expected = naive.Apply(step);
      const absl::Status status = table.Apply(step);
      ASSERT_EQ(status.ok(), expected) << status;
      if (!status.ok()) {
        ASSERT_EQ(status.code(), kInvalid);
      }
      (expected ? accepted : refused)++;
      ASSERT_NO_FATAL_FAILURE(ExpectSame(table, naive));
    }
    table.Reset();
    EXPECT_EQ(table.sequence_count(), 0);
    EXPECT_EQ(table.free_block_count(), kBlocks);
  }
  // The generator must exercise both sides, or the test proves nothing.
  EXPECT_GT(accepted, 3000);
  EXPECT_GT(refused, 3000);
}

}  // namespace
}  // namespace renga::engine
