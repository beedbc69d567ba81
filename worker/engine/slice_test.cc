// Members of a tensor-parallel group, each with its slice of every layer, compute what one shard
// with whole layers computes.
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "base/testing/status_matchers.h"
#include "model/footprint.h"
#include "model/gguf_file.h"
#include "model/layer_slice.h"
#include "model/testing/synthetic_model.h"
#include "worker/engine/local_weights.h"
#include "worker/engine/memory_budget.h"
#include "worker/engine/shard.h"
#include "worker/engine/thread_group.h"
#include "worker/kernels/backend_factory.h"

namespace renga::engine {
namespace {

using base::DataType;
using model::LayerSlice;
using model::ShardSpec;
using Rows = std::vector<float>;

const model::RuntimeLimits kLimits = {
    .kv_blocks = 12, .max_step_tokens = 300, .max_step_outputs = 1, .kv_type = DataType::kF32};

// One member with everything it needs to run on a thread of its own.
struct Member {
  std::unique_ptr<kernels::Backend> backend;
  std::unique_ptr<LocalWeights> weights;
  MemoryBudget budget{int64_t{1} << 30};
  std::unique_ptr<Shard> shard;
};

class SliceTest : public ::testing::TestWithParam<std::tuple<std::string, std::string>> {
 protected:
  void Open(const model::SyntheticModelOptions& options) {
    path_ = absl::StrCat(::testing::TempDir(), "renga_slice_test.", getpid(), ".gguf");
    ASSERT_OK(model::WriteSyntheticModel(path_, options));
    ASSERT_OK_AND_ASSIGN(file_, model::GgufFile::Open(path_));
    ASSERT_OK_AND_ASSIGN(model_, model::ReadModel(*file_));
  }

  absl::StatusOr<std::unique_ptr<Member>> Load(const std::optional<LayerSlice>& slice,
                                               LoadMode mode = LoadMode::kEager) {
    auto member = std::make_unique<Member>();
    RENGA_ASSIGN_OR_RETURN(
        member->backend, kernels::CreateBackend({.device = std::get<1>(GetParam()), .threads = 1}));
    RENGA_ASSIGN_OR_RETURN(member->weights, LocalWeights::Create(file_.get()));
    const ShardSpec spec = {.layers = {0, model_.config.n_layers}, .slice = slice, .head_rows = {}};
    RENGA_ASSIGN_OR_RETURN(
        member->shard, Shard::Load(model_, spec, kLimits, member->backend.get(), &member->budget,
                                   member->weights.get(), nullptr, mode));
    return member;
  }

  // Steps of so many tokens each; all output rows side by side.
  using Steps = std::vector<int64_t>;
  absl::StatusOr<Rows> Run(Shard& shard, base::Communicator* group,
                           const Steps& steps = kPromptAndDecodes) const {
    Rows all;
    int64_t position = 0;
    for (const int64_t count : steps) {
      model::Step step;
      step.epoch = 1;
      step.number = static_cast<uint64_t>(position + 1);
      if (position == 0) {
        step.commands.push_back({.kind = model::KvCommand::Kind::kAppendBlocks,
                                 .sequence = 1,
                                 .blocks = {2, 0, 3, 1, 4, 5, 6, 11, 10, 9, 8, 7}});
      }
      step.slots.push_back({.sequence = 1, .first_position = position, .token_count = count});
      Rows rows(count * model_.config.d_model);
      for (size_t i = 0; i < rows.size(); ++i) {
        rows[i] = std::sin(static_cast<float>((all.size() + i) % 1009 * 7));
      }
      RENGA_RETURN_IF_ERROR(shard.RunLayers(step, rows, group));
      all.insert(all.end(), rows.begin(), rows.end());
      position += count;
    }
    return all;
  }

  // Every member's rows.
  absl::StatusOr<std::vector<Rows>> RunGroup(const std::vector<LayerSlice>& slices,
                                             const Steps& steps = kPromptAndDecodes,
                                             LoadMode mode = LoadMode::kEager) {
    std::vector<std::unique_ptr<Member>> members;
    for (const LayerSlice& slice : slices) {
      RENGA_ASSIGN_OR_RETURN(members.emplace_back(), Load(slice, mode));
    }
    ThreadGroup group(static_cast<int>(slices.size()));
    std::vector<absl::StatusOr<Rows>> rows(slices.size(), absl::UnknownError("not run"));
    std::vector<std::thread> threads;
    for (size_t i = 0; i < slices.size(); ++i) {
      threads.emplace_back(
          [&, i] { rows[i] = Run(*members[i]->shard, group.member(static_cast<int>(i)), steps); });
    }
    for (std::thread& thread : threads) thread.join();
    // Two for each layer and lane.
    int64_t lanes = 0;
    for (const int64_t count : steps) {
      const bool one = count < 32 || mode == LoadMode::kLazy;
      lanes += one ? 1 : std::max<int64_t>(2, (count + 127) / 128);
    }
    EXPECT_EQ(group.sums(), lanes * 2 * model_.config.n_layers);
    std::vector<Rows> all;
    for (absl::StatusOr<Rows>& one : rows) {
      RENGA_RETURN_IF_ERROR(one.status());
      all.push_back(*std::move(one));
    }
    return all;
  }

  void TearDown() override { std::remove(path_.c_str()); }

  static inline const Steps kPromptAndDecodes = {33, 1, 1, 1};

  std::string path_;
  std::unique_ptr<model::GgufFile> file_;
  model::Model model_;
};

// Squared difference over squared size.
double Nmse(const Rows& actual, const Rows& expected) {
  double difference = 0;
  double size = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    difference += std::pow(static_cast<double>(actual[i]) - expected[i], 2);
    size += std::pow(static_cast<double>(expected[i]), 2);
  }
  return difference / size;
}

// 8 query heads of 64 in 2 groups.
model::SyntheticModelOptions Shape(const std::string& architecture, DataType type) {
  return {.architecture = architecture,
          .n_layers = 2,
          .d_model = 512,
          .n_heads = 8,
          .n_kv_heads = 2,
          .d_ff = 1024,
          .type = type};
}

TEST_P(SliceTest, GroupsComputeWhatOneShardComputes) {
  const std::vector<std::vector<LayerSlice>> groups = {
      {{{0, 4}, {0, 512}}, {{4, 8}, {512, 1024}}},
      {{{0, 4}, {0, 768}}, {{4, 8}, {768, 1024}}},
      // The second and third hold the same KV head.
      {{{0, 4}, {0, 256}}, {{4, 4}, {256, 512}}, {{4, 8}, {512, 1024}}},
      {{{0, 8}, {0, 0}}, {{8, 8}, {0, 1024}}},
  };
  for (const DataType type : {DataType::kF32, DataType::kQ4_0, DataType::kQ4_K}) {
    SCOPED_TRACE(base::GetDataTypeInfo(type).name);
    ASSERT_NO_FATAL_FAILURE(Open(Shape(std::get<0>(GetParam()), type)));
    ASSERT_OK_AND_ASSIGN(const auto whole, Load(std::nullopt));
    ASSERT_OK_AND_ASSIGN(const Rows expected, Run(*whole->shard, nullptr));
    for (const std::vector<LayerSlice>& slices : groups) {
      ASSERT_OK_AND_ASSIGN(const std::vector<Rows> rows, RunGroup(slices));
      EXPECT_LT(Nmse(rows[0], expected), type == DataType::kF32 ? 1e-10 : 1e-4);
      for (const Rows& other : rows) {
        EXPECT_EQ(std::memcmp(other.data(), rows[0].data(), rows[0].size() * sizeof(float)), 0);
      }
    }
  }
}

// A long step's rows take turns, in lanes, and attend to each other across them.
TEST_P(SliceTest, RowsThatTakeTurnsHaveTheSameBits) {
  ASSERT_NO_FATAL_FAILURE(Open({.architecture = std::get<0>(GetParam()),
                                .n_layers = 2,
                                .d_model = 64,
                                .n_heads = 4,
                                .n_kv_heads = 2,
                                .d_ff = 128,
                                .type = DataType::kF32}));
  for (const std::vector<LayerSlice>& slices : std::vector<std::vector<LayerSlice>>{
           {{{0, 2}, {0, 96}}, {{2, 4}, {96, 128}}}, {{{0, 4}, {0, 0}}, {{4, 4}, {0, 128}}}}) {
    ASSERT_OK_AND_ASSIGN(const std::vector<Rows> in_turns, RunGroup(slices, {5, 300, 33, 1}));
    ASSERT_OK_AND_ASSIGN(const std::vector<Rows> at_once,
                         RunGroup(slices, {5, 31, 31, 31, 31, 31, 31, 31, 31, 31, 21, 17, 16, 1}));
    EXPECT_EQ(in_turns, at_once);
  }
}

// Of a device that holds all matrices of a lazy shard. A member that streams has one lane, so the
// others of a lazy group have one, too.
class LazySliceTest : public SliceTest {};

TEST_P(LazySliceTest, MembersKeepRowsTogether) {
  ASSERT_NO_FATAL_FAILURE(Open(Shape(std::get<0>(GetParam()), DataType::kQ4_0)));
  const std::vector<LayerSlice> slices = {{{0, 4}, {0, 512}}, {{4, 8}, {512, 1024}}};
  ASSERT_OK_AND_ASSIGN(const std::vector<Rows> eager, RunGroup(slices));
  ASSERT_OK_AND_ASSIGN(const std::vector<Rows> lazy,
                       RunGroup(slices, kPromptAndDecodes, LoadMode::kLazy));
  EXPECT_EQ(lazy, eager);
}

INSTANTIATE_TEST_SUITE_P(All, LazySliceTest,
                         ::testing::Combine(::testing::Values("llama", "qwen2", "qwen3"),
                                            ::testing::Values("reference")));

TEST_P(SliceTest, MembersOfOneHeadGroupShareItsKvHead) {
  ASSERT_NO_FATAL_FAILURE(Open(Shape(std::get<0>(GetParam()), DataType::kQ4_0)));
  ASSERT_OK_AND_ASSIGN(const auto whole, Load(std::nullopt));
  ASSERT_OK_AND_ASSIGN(const Rows expected, Run(*whole->shard, nullptr));
  ASSERT_OK_AND_ASSIGN(const std::vector<Rows> rows,
                       RunGroup({{{0, 4}, {0, 32}}, {{4, 7}, {32, 64}}, {{7, 8}, {64, 1024}}}));
  EXPECT_LT(Nmse(rows[0], expected), 1e-4);
}

TEST_P(SliceTest, ASliceTakesWhatItsFormulasSay) {
  ASSERT_NO_FATAL_FAILURE(Open(Shape(std::get<0>(GetParam()), DataType::kQ4_K)));
  ASSERT_OK_AND_ASSIGN(const auto footprint, model::MeasureModel(*file_, model_));
  EXPECT_EQ(footprint.slice_units, (model::SliceUnits{.heads = 4, .ff = 256}));
  const LayerSlice slice = {{4, 8}, {256, 512}};
  ASSERT_OK_AND_ASSIGN(const auto member, Load(slice));
  const ShardSpec spec = {.layers = {0, 2}, .slice = slice, .head_rows = {}};
  EXPECT_EQ(member->shard->memory_bytes(),
            model::MeasureShard(model_, footprint, spec, kLimits).total());
}

TEST_P(SliceTest, RefusesWrongSlices) {
  ASSERT_NO_FATAL_FAILURE(Open(Shape(std::get<0>(GetParam()), DataType::kQ4_K)));
  for (const LayerSlice& bad :
       {LayerSlice{{2, 8}, {0, 256}}, LayerSlice{{0, 4}, {0, 32}}, LayerSlice{{0, 0}, {0, 0}},
        LayerSlice{{0, 16}, {0, 256}}, LayerSlice{{0, 4}, {-256, 256}}}) {
    EXPECT_EQ(Load(bad).status().code(), absl::StatusCode::kInvalidArgument);
  }
  ASSERT_OK_AND_ASSIGN(const auto member, Load(LayerSlice{{0, 4}, {0, 256}}));
  EXPECT_EQ(Run(*member->shard, nullptr).status().code(), absl::StatusCode::kFailedPrecondition);
}

INSTANTIATE_TEST_SUITE_P(All, SliceTest,
                         ::testing::Combine(::testing::Values("llama", "qwen2", "qwen3"),
                                            ::testing::Values("reference", "cpu")));

}  // namespace
}  // namespace renga::engine
