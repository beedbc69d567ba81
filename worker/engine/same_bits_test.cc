// The same tokens give the same bits, however they are cut into chunks, stages, head blocks and
// batches, and whether their KV state was computed, shared or replayed.
#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/testing/status_matchers.h"
#include "worker/engine/golden_files.h"
#include "worker/engine/test_pipeline.h"

namespace renga::engine {
namespace {

using model::kKvBlockTokens;
using model::KvCommand;
using Logits = std::vector<std::vector<float>>;

void ExpectSameBits(const Logits& actual, const Logits& expected) {
  ASSERT_EQ(actual.size(), expected.size());
  for (size_t r = 0; r < actual.size(); ++r) {
    ASSERT_EQ(actual[r].size(), expected[r].size());
    ASSERT_EQ(std::memcmp(actual[r].data(), expected[r].data(), actual[r].size() * sizeof(float)),
              0)
        << "row " << r;
  }
}

class SameBitsTest : public ::testing::TestWithParam<std::tuple<std::string, std::string>> {
 protected:
  void SetUp() override {
    if (SharedDataFolder().empty()) GTEST_SKIP() << "the shared golden models are not here";
    golden_ = ReadGolden(std::get<0>(GetParam()));
    options_.device = std::get<1>(GetParam());
    // What users run; its rounding must not show anywhere either.
    options_.limits.kv_type = base::DataType::kF16;
    ASSERT_NO_FATAL_FAILURE(Create(options_));
    ASSERT_OK_AND_ASSIGN(expected_, pipeline_->Feed(1, golden_.token_ids, 256));
    pipeline_->Reset();
  }

  void Create(const PipelineOptions& options) {
    pipeline_.reset();
    ASSERT_OK_AND_ASSIGN(pipeline_, TestPipeline::Create(golden_.model_path, options));
  }
  Logits ExpectedFrom(int64_t row) const {
    return Logits(expected_.begin() + row, expected_.end());
  }
  std::span<const int32_t> tokens() const { return golden_.token_ids; }

  Golden golden_;
  PipelineOptions options_;
  std::unique_ptr<TestPipeline> pipeline_;
  Logits expected_;
};

TEST_P(SameBitsTest, AnyChunk) {
  for (const int64_t chunk : {1, 2, 3, 5, 8, 16, 31, 32, 33, 40}) {
    SCOPED_TRACE(chunk);
    pipeline_->Reset();
    ASSERT_OK_AND_ASSIGN(const Logits logits, pipeline_->Feed(1, tokens(), chunk));
    ASSERT_NO_FATAL_FAILURE(ExpectSameBits(logits, expected_));
  }
}

TEST_P(SameBitsTest, AnyStagesHeadBlocksAndThreads) {
  const int layers = static_cast<int>(pipeline_->model().config.n_layers);
  for (int stages = 1; stages <= std::min(4, layers); ++stages) {
    for (int head_blocks = 1; head_blocks <= 3; ++head_blocks) {
      SCOPED_TRACE(absl::StrCat(stages, " stages, ", head_blocks, " head blocks"));
      PipelineOptions options = options_;
      options.stages = stages;
      options.head_blocks = head_blocks;
      options.threads = 1 + head_blocks % 2;
      ASSERT_NO_FATAL_FAILURE(Create(options));
      ASSERT_OK_AND_ASSIGN(const Logits logits, pipeline_->Feed(1, tokens(), 7));
      ASSERT_NO_FATAL_FAILURE(ExpectSameBits(logits, expected_));
    }
  }
}

// One step of the sequence under test between steps' slots of two strangers.
TEST_P(SameBitsTest, BatchedWithStrangers) {
  const std::vector<int32_t> stranger(golden_.token_ids.rbegin(), golden_.token_ids.rend());
  Logits logits;
  size_t fed = 0;
  size_t stranger_fed = 0;
  for (int64_t round = 0; fed < tokens().size(); ++round) {
    const size_t own = std::min<size_t>(1 + round * 5 % 9, tokens().size() - fed);
    const size_t other = std::min<size_t>(1 + round % 4, stranger.size() - stranger_fed);
    model::Step step;
    std::vector<int32_t> all;
    const auto add = [&](model::SequenceId id, std::span<const int32_t> piece) {
      if (piece.empty()) return;
      if (auto more = pipeline_->Extend(id, piece.size())) step.commands.push_back(*more);
      step.slots.push_back(pipeline_->Slot(id, piece.size()));
      all.insert(all.end(), piece.begin(), piece.end());
    };
    const auto other_piece = std::span(stranger).subspan(stranger_fed, other);
    add(8, other_piece);
    add(1, tokens().subspan(fed, own));
    add(9, other_piece);
    ASSERT_OK_AND_ASSIGN(const auto rows, pipeline_->Run(step, all));
    for (size_t i = 0; i < own; ++i) logits.push_back(rows[other + i].logits);
    fed += own;
    stranger_fed += other;
  }
  ExpectSameBits(logits, expected_);
}

TEST_P(SameBitsTest, SharedPrefix) {
  ASSERT_OK(pipeline_->Feed(1, tokens(), 256));
  KvCommand share{.kind = KvCommand::Kind::kShare,
                  .sequence = 2,
                  .source = 1,
                  .tokens = kKvBlockTokens,
                  .blocks = {}};
  model::Step step;
  step.commands = {share, {.kind = KvCommand::Kind::kFree, .sequence = 1, .blocks = {}}};
  ASSERT_OK(pipeline_->Run(step, {}));
  pipeline_->SetLength(2, kKvBlockTokens, 1);
  ASSERT_OK_AND_ASSIGN(const Logits logits,
                       pipeline_->Feed(2, tokens().subspan(kKvBlockTokens), 5));
  ExpectSameBits(logits, ExpectedFrom(kKvBlockTokens));
}

TEST_P(SameBitsTest, TruncatedAndReplayed) {
  for (const int64_t keep : {0, 1, 17, 32, 33}) {
    SCOPED_TRACE(keep);
    pipeline_->Reset();
    // A wrong end first, so that what is cut off differs from what replaces it.
    std::vector<int32_t> other(tokens().begin(), tokens().begin() + keep);
    for (int i = 0; i < 14; ++i) other.push_back(tokens()[i * 3 % 11]);
    ASSERT_OK(pipeline_->Feed(1, other, 9));
    model::Step step;
    step.commands.push_back(
        {.kind = KvCommand::Kind::kTruncate, .sequence = 1, .tokens = keep, .blocks = {}});
    ASSERT_OK(pipeline_->Run(step, {}));
    pipeline_->SetLength(1, keep, (keep + kKvBlockTokens - 1) / kKvBlockTokens);
    ASSERT_OK_AND_ASSIGN(const Logits logits, pipeline_->Feed(1, tokens().subspan(keep), 6));
    ASSERT_NO_FATAL_FAILURE(ExpectSameBits(logits, ExpectedFrom(keep)));
  }
}

std::string SameBitsName(
    const ::testing::TestParamInfo<std::tuple<std::string, std::string>>& info) {
  std::string text = std::get<0>(info.param) + "_" + std::get<1>(info.param);
  std::replace(text.begin(), text.end(), '-', '_');
  return text;
}

INSTANTIATE_TEST_SUITE_P(Shared, SameBitsTest,
                         ::testing::Combine(::testing::Values("llama-f32", "llama-gqa-q4_k",
                                                              "llama-gqa-q8_0", "llama-gqa-bf16",
                                                              "qwen3-f32", "story-f32"),
                                            ::testing::ValuesIn(kernels::AvailableDevices())),
                         SameBitsName);

}  // namespace
}  // namespace renga::engine
