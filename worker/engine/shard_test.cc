#include "worker/engine/shard.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/testing/status_matchers.h"
#include "model/embedding.h"
#include "model/footprint.h"
#include "worker/engine/golden_files.h"
#include "worker/engine/local_weights.h"
#include "worker/engine/test_pipeline.h"
#include "worker/engine/watched_backend.h"
#include "worker/engine/weight_loader.h"

namespace renga::engine {
namespace {

using model::KvCommand;
using ::renga::testing::StatusIs;
using ::testing::HasSubstr;

constexpr int64_t kPlenty = int64_t{1} << 30;

KvCommand AppendTo(model::SequenceId id, std::vector<int32_t> blocks) {
  return {.kind = KvCommand::Kind::kAppendBlocks, .sequence = id, .blocks = std::move(blocks)};
}

// A model file, and beside it matrices that a shard has packed before.
class PackedWeights : public WeightSource {
 public:
  explicit PackedWeights(WeightSource* file) : file_(file) {}
  void Keep(const Shard& shard) {
    for (const HeldMatrix& matrix : shard.newly_packed()) {
      kept_[absl::StrCat(matrix.key.tensor, " ", matrix.key.rows.begin, " ", matrix.key.rows.end)] =
          std::make_shared<std::vector<std::byte>>(matrix.bytes.begin(), matrix.bytes.end());
    }
  }
  size_t kept() const { return kept_.size(); }
  int64_t bytes_read() const { return bytes_read_; }

  absl::StatusOr<base::DataType> TensorType(const std::string& name) override {
    return file_->TensorType(name);
  }
  absl::Status Read(const std::string& name, int64_t offset, std::span<std::byte> out) override {
    bytes_read_ += static_cast<int64_t>(out.size());
    return file_->Read(name, offset, out);
  }
  std::optional<kernels::PackedBytes> FindPacked(const MatrixKey& key, int64_t bytes) override {
    const auto found = kept_.find(absl::StrCat(key.tensor, " ", key.rows.begin, " ", key.rows.end));
    if (found == kept_.end()) return std::nullopt;
    EXPECT_EQ(static_cast<int64_t>(found->second->size()), bytes);
    return kernels::PackedBytes{.bytes = *found->second, .owner = found->second};
  }

 private:
  WeightSource* const file_;
  std::map<std::string, std::shared_ptr<std::vector<std::byte>>> kept_;
  int64_t bytes_read_ = 0;
};

class ShardTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (SharedDataFolder().empty()) GTEST_SKIP() << "the shared golden models are not here";
    ASSERT_NO_FATAL_FAILURE(Open("llama-gqa-q4_k"));
  }

  void Open(const std::string& name) {
    golden_ = ReadGolden(name);
    ASSERT_OK_AND_ASSIGN(file_, model::GgufFile::Open(golden_.model_path));
    ASSERT_OK_AND_ASSIGN(model_, model::ReadModel(*file_));
    ASSERT_OK_AND_ASSIGN(footprint_, model::MeasureModel(*file_, model_));
    ASSERT_OK_AND_ASSIGN(weights_, LocalWeights::Create(file_.get()));
    ASSERT_OK_AND_ASSIGN(auto inner, kernels::CreateBackend({.device = "reference"}));
    backend_ = std::make_unique<WatchedBackend>(std::move(inner));
    whole_ = {.layers = {0, model_.config.n_layers}, .head_rows = {0, model_.config.vocab_size}};
  }

  absl::StatusOr<std::unique_ptr<Shard>> Load(const model::ShardSpec& spec, MemoryBudget& budget,
                                              const LoadProgress& progress = nullptr) {
    return Shard::Load(model_, spec, limits_, backend_.get(), &budget, weights_.get(), progress);
  }

  // The first `count` embedding rows of the golden tokens.
  std::vector<float> Rows(int64_t count) {
    auto table = model::EmbeddingTable::Create(*file_, model_.config);
    return *table->Rows(std::span(golden_.token_ids).first(count));
  }

  Golden golden_;
  std::unique_ptr<model::GgufFile> file_;
  model::Model model_;
  model::ModelFootprint footprint_;
  std::unique_ptr<LocalWeights> weights_;
  std::unique_ptr<WatchedBackend> backend_;
  model::ShardSpec whole_;
  model::RuntimeLimits limits_ = {.kv_blocks = 4,
                                  .max_step_tokens = 16,
                                  .max_step_outputs = 4,
                                  .kv_type = base::DataType::kF16};
};

TEST_F(ShardTest, MatricesThatWerePackedBeforeAreNotReadAgain) {
  ASSERT_OK_AND_ASSIGN(auto cpu, kernels::CreateBackend({.device = "cpu", .threads = 1}));
  MemoryBudget budget(kPlenty);
  PackedWeights source(weights_.get());
  const auto load = [&](const model::ShardSpec& spec, const LoadProgress& progress) {
    return Shard::Load(model_, spec, limits_, cpu.get(), &budget, &source, progress);
  };
  ASSERT_OK_AND_ASSIGN(auto first, load(whole_, nullptr));
  const int64_t bytes_read = source.bytes_read();
  source.Keep(*first);
  // Every matrix of the layers, and the head.
  EXPECT_EQ(source.kept(), 7 * static_cast<size_t>(model_.config.n_layers) + 1);

  int64_t done = 0;
  int64_t total = 0;
  ASSERT_OK_AND_ASSIGN(auto second, load(whole_, [&](int64_t d, int64_t t) {
                         done = d;
                         total = t;
                         return true;
                       }));
  EXPECT_TRUE(second->newly_packed().empty());
  EXPECT_EQ(done, total);
  EXPECT_LT(source.bytes_read() - bytes_read, bytes_read / 10);  // norms
  const model::Step step{
      .commands = {AppendTo(1, {0})},
      .slots = {
          {.sequence = 1, .first_position = 0, .token_count = 5, .output_count = 1, .top_k = 0}}};
  std::vector<float> rows = Rows(5);
  std::vector<float> again = rows;
  ASSERT_OK(first->RunLayers(step, rows, nullptr));
  ASSERT_OK(second->RunLayers(step, again, nullptr));
  EXPECT_EQ(again, rows);
  const std::vector<float> output = GatherOutputs(step, rows, model_.config.d_model);
  ASSERT_OK_AND_ASSIGN(const auto logits, first->RunHead(step, output));
  ASSERT_OK_AND_ASSIGN(const auto logits_again, second->RunHead(step, output));
  EXPECT_EQ(logits_again[0].logits, logits[0].logits);

  // Other rows of the head are another matrix.
  ASSERT_OK_AND_ASSIGN(auto part, load({.layers = {0, 1}, .head_rows = {3, 30}}, nullptr));
  ASSERT_EQ(part->newly_packed().size(), 1u);
  EXPECT_EQ(part->newly_packed()[0].key.rows, (model::Range{3, 30}));
}

TEST_F(ShardTest, ReservesWhatThePlannerMeasuredAndAllocatesNoMore) {
  const int64_t rows = model_.config.vocab_size;
  for (const std::string name : {"llama-gqa-q4_k", "story-f32", "qwen2-f32"}) {
    ASSERT_NO_FATAL_FAILURE(Open(name));
    for (const model::ShardSpec& spec :
         {whole_, model::ShardSpec{.layers = {1, 2}, .head_rows = {}},
          model::ShardSpec{.layers = {}, .head_rows = {3, rows / 2}},
          model::ShardSpec{.layers = {0, 1}, .head_rows = {rows - 1, rows}}}) {
      const model::ShardBytes bytes = model::MeasureShard(model_, footprint_, spec, limits_);
      MemoryBudget budget(bytes.total());
      const int64_t before = backend_->allocated_bytes();
      ASSERT_OK_AND_ASSIGN(auto shard, Load(spec, budget));
      EXPECT_EQ(shard->memory_bytes(), bytes.total());
      EXPECT_EQ(budget.used_bytes(), bytes.total());
      EXPECT_LE(backend_->allocated_bytes() - before, bytes.total());
      EXPECT_GE(backend_->allocated_bytes() - before, bytes.weights - footprint_.shared_bytes);
      shard.reset();
      EXPECT_EQ(budget.used_bytes(), 0);
    }
  }
}

// The planner counts a matrix as its bytes in the file; a backend whose layout takes more would
// make plans that fit fail to load. Rounding the rows up a little is provided for.
TEST_F(ShardTest, NoBackendNeedsMoreThanTheFileAndAFewRows) {
  for (const std::string& device : kernels::AvailableDevices()) {
    ASSERT_OK_AND_ASSIGN(auto backend, kernels::CreateBackend({.device = device, .threads = 1}));
    for (const base::DataTypeInfo& info : base::AllDataTypes()) {
      for (const int64_t matrix_rows : {1, 3, 7, 64, 100}) {
        ASSERT_OK_AND_ASSIGN(const int64_t row_bytes, base::RowBytes(info.type, 768));
        EXPECT_LE(backend->MatrixBytes(info.type, matrix_rows, 768),
                  (matrix_rows + 15) / 16 * 16 * row_bytes)
            << device << " " << info.name << " " << matrix_rows;
      }
    }
  }
}

// One row of head takes a whole panel on some backends: the shard still keeps to the plan.
TEST_F(ShardTest, EveryBackendKeepsToThePlan) {
  for (const std::string& device : kernels::AvailableDevices()) {
    ASSERT_OK_AND_ASSIGN(auto inner, kernels::CreateBackend({.device = device, .threads = 1}));
    backend_ = std::make_unique<WatchedBackend>(std::move(inner));
    const model::ShardSpec spec{.layers = {0, 1}, .head_rows = {5, 6}};
    const model::ShardBytes bytes = model::MeasureShard(model_, footprint_, spec, limits_);
    MemoryBudget budget(bytes.total());
    ASSERT_OK_AND_ASSIGN(auto shard, Load(spec, budget));
    EXPECT_LE(backend_->allocated_bytes(), bytes.total()) << device;
  }
}

TEST_F(ShardTest, OneByteTooLittleIsRefusedBeforeAnythingIsAllocated) {
  const int64_t bytes = model::MeasureShard(model_, footprint_, whole_, limits_).total();
  MemoryBudget budget(bytes - 1);
  EXPECT_THAT(Load(whole_, budget), StatusIs(absl::StatusCode::kResourceExhausted));
  EXPECT_EQ(budget.used_bytes(), 0);
  EXPECT_EQ(backend_->allocated_bytes(), 0);
}

TEST_F(ShardTest, RefusesSpecsAndLimitsThatMakeNoSense) {
  MemoryBudget budget(kPlenty);
  const int64_t layers = model_.config.n_layers;
  const int64_t rows = model_.config.vocab_size;
  for (const model::ShardSpec& spec :
       {model::ShardSpec{}, model::ShardSpec{.layers = {0, layers + 1}, .head_rows = {}},
        model::ShardSpec{.layers = {-1, 1}, .head_rows = {}},
        model::ShardSpec{.layers = {}, .head_rows = {0, rows + 1}},
        model::ShardSpec{.layers = {0, 1}, .head_rows = {-5, 2}}}) {
    EXPECT_THAT(Load(spec, budget), StatusIs(absl::StatusCode::kInvalidArgument));
  }
  const model::RuntimeLimits good = limits_;
  const auto refuses = [&](auto change) {
    limits_ = good;
    change(limits_);
    EXPECT_THAT(Load(whole_, budget), StatusIs(absl::StatusCode::kInvalidArgument));
  };
  refuses([](auto& limits) { limits.kv_blocks = 0; });
  refuses([](auto& limits) { limits.kv_blocks = INT64_MAX; });
  refuses([](auto& limits) { limits.max_step_tokens = 0; });
  refuses([](auto& limits) { limits.max_step_tokens = INT64_MAX; });
  refuses([](auto& limits) { limits.max_step_outputs = 0; });
  refuses([](auto& limits) { limits.max_step_outputs = limits.max_step_tokens + 1; });
  refuses([](auto& limits) { limits.kv_type = base::DataType::kQ4_0; });
  EXPECT_EQ(budget.used_bytes(), 0);
}

// A source that lacks what is asked, or has it in the wrong type.
class BrokenWeights : public WeightSource {
 public:
  explicit BrokenWeights(WeightSource* inner) : inner_(inner) {}
  std::string missing;
  std::string not_f32;
  std::string unreadable;

  absl::StatusOr<base::DataType> TensorType(const std::string& name) override {
    if (name == missing) return absl::NotFoundError("no tensor " + name);
    if (name == not_f32) return base::DataType::kF16;
    return inner_->TensorType(name);
  }
  absl::Status Read(const std::string& name, int64_t offset, std::span<std::byte> out) override {
    if (name == unreadable) return absl::DataLossError("damaged: " + name);
    EXPECT_LE(static_cast<int64_t>(out.size()), kMaxStagingBytes);
    return inner_->Read(name, offset, out);
  }

 private:
  WeightSource* const inner_;
};

TEST_F(ShardTest, BadSourcesGiveTheirErrorAndKeepNothing) {
  MemoryBudget budget(kPlenty);
  const auto load = [&](WeightSource* source) {
    return Shard::Load(model_, whole_, limits_, backend_.get(), &budget, source, nullptr).status();
  };
  BrokenWeights missing(weights_.get());
  missing.missing = "blk.1.ffn_up.weight";
  EXPECT_THAT(load(&missing), StatusIs(absl::StatusCode::kNotFound, HasSubstr("blk.1.ffn_up")));
  BrokenWeights not_f32(weights_.get());
  not_f32.not_f32 = "blk.0.attn_norm.weight";
  EXPECT_THAT(load(&not_f32),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("must be F32")));
  BrokenWeights unreadable(weights_.get());
  unreadable.unreadable = "output_norm.weight";
  EXPECT_THAT(load(&unreadable), StatusIs(absl::StatusCode::kDataLoss, HasSubstr("damaged")));
  EXPECT_EQ(budget.used_bytes(), 0);
}

TEST_F(ShardTest, ProgressEndsAtTheTotalAndCanCancel) {
  MemoryBudget budget(kPlenty);
  int64_t last_done = 0;
  int64_t last_total = 0;
  ASSERT_OK(Load(whole_, budget, [&](int64_t done, int64_t total) {
    EXPECT_GT(done, last_done);
    last_done = done;
    last_total = total;
    return true;
  }));
  EXPECT_EQ(last_done, last_total);
  EXPECT_EQ(last_total, model::MeasureShard(model_, footprint_, whole_, limits_).weights);
  EXPECT_THAT(Load(whole_, budget, [](int64_t done, int64_t total) { return done < total / 2; }),
              StatusIs(absl::StatusCode::kCancelled));
  EXPECT_EQ(budget.used_bytes(), 0);
}

TEST_F(ShardTest, BadStepsLeaveTheStateAsItWas) {
  MemoryBudget budget(kPlenty);
  ASSERT_OK_AND_ASSIGN(auto shard, Load(whole_, budget));
  ASSERT_OK_AND_ASSIGN(auto untouched, Load(whole_, budget));
  model::Step first;
  first.commands = {AppendTo(1, {2})};
  first.slots = {{.sequence = 1, .first_position = 0, .token_count = 3}};
  std::vector<float> rows = Rows(3);
  ASSERT_OK(shard->RunLayers(first, rows, nullptr));
  rows = Rows(3);
  ASSERT_OK(untouched->RunLayers(first, rows, nullptr));

  const auto refused = [&](std::vector<KvCommand> commands, std::vector<model::StepSlot> slots,
                           int64_t row_count) {
    model::Step step;
    step.commands = std::move(commands);
    step.slots = std::move(slots);
    std::vector<float> input(row_count * model_.config.d_model, 0.25f);
    const std::vector<float> before = input;
    EXPECT_THAT(shard->RunLayers(step, input, nullptr),
                StatusIs(absl::StatusCode::kInvalidArgument));
    EXPECT_EQ(input, before);
  };
  refused({}, {{.sequence = 1, .first_position = 2, .token_count = 1}}, 1);
  refused({}, {{.sequence = 7, .first_position = 0, .token_count = 1}}, 1);
  refused({}, {{.sequence = 1, .first_position = 3, .token_count = 17}}, 17);
  refused({}, {{.sequence = 1, .first_position = 3, .token_count = 2}}, 1);
  refused({}, {{.sequence = 1, .first_position = 3, .token_count = 1}}, 2);
  refused({}, {{.sequence = 1, .first_position = 3, .token_count = 5, .output_count = 5}}, 5);
  refused({AppendTo(2, {2})}, {}, 0);
  refused({AppendTo(2, {4})}, {}, 0);
  // Good commands before the bad one must not stay either.
  refused({AppendTo(2, {0}), {.kind = KvCommand::Kind::kFree, .sequence = 1, .blocks = {}}},
          {{.sequence = 1, .first_position = 3, .token_count = 1}}, 1);

  model::Step next;
  next.commands = {AppendTo(2, {0})};
  next.slots = {{.sequence = 1, .first_position = 3, .token_count = 2},
                {.sequence = 2, .first_position = 0, .token_count = 1}};
  std::vector<float> actual = Rows(3);
  std::vector<float> expected = actual;
  ASSERT_OK(shard->RunLayers(next, actual, nullptr));
  ASSERT_OK(untouched->RunLayers(next, expected, nullptr));
  EXPECT_EQ(actual, expected);
}

TEST_F(ShardTest, WhatASkippedStepLeftIsTakenBackByATruncation) {
  MemoryBudget budget(kPlenty);
  ASSERT_OK_AND_ASSIGN(auto shard, Load(whole_, budget));
  ASSERT_OK_AND_ASSIGN(auto untouched, Load(whole_, budget));
  const auto step_of = [](int64_t first, int64_t count) {
    model::Step step;
    if (first == 0) step.commands = {AppendTo(1, {2})};
    step.slots = {{.sequence = 1, .first_position = first, .token_count = count}};
    return step;
  };
  for (Shard* each : {shard.get(), untouched.get()}) {
    std::vector<float> rows = Rows(3);
    ASSERT_OK(each->RunLayers(step_of(0, 3), rows, nullptr));
  }
  // Given up after each number of layers, before all of them, and before any.
  for (int64_t layers = 0; layers <= model_.config.n_layers; ++layers) {
    int64_t asked = 0;
    std::vector<float> rows = Rows(4);
    ASSERT_OK(shard->RunLayers(step_of(3, 4), rows, nullptr, [&] { return asked++ == layers; }));
    EXPECT_EQ(asked, std::min(layers + 1, model_.config.n_layers)) << "not asked again";
    model::Step next = step_of(7, 2);
    next.commands = {AppendTo(1, {3})};
    next.slots.push_back({.sequence = 2, .first_position = 0, .token_count = 1});
    EXPECT_THAT(shard->SkipLayers(next), StatusIs(absl::StatusCode::kInvalidArgument))
        << "an unknown sequence, and nothing of the step is carried out";
    next.slots.pop_back();
    ASSERT_OK(shard->SkipLayers(next));
    model::Step right = step_of(3, 2);
    right.commands = {
        {.kind = KvCommand::Kind::kTruncate, .sequence = 1, .tokens = 3, .blocks = {}}};
    std::vector<float> actual = Rows(2);
    ASSERT_OK(shard->RunLayers(right, actual, nullptr));
    std::vector<float> expected = Rows(2);
    ASSERT_OK(untouched->RunLayers(right, expected, nullptr));
    EXPECT_EQ(actual, expected);
    // Both have five positions: back to three.
    model::Step back;
    back.commands = {
        {.kind = KvCommand::Kind::kTruncate, .sequence = 1, .tokens = 3, .blocks = {}}};
    ASSERT_OK(shard->SkipLayers(back));
    ASSERT_OK(untouched->SkipLayers(back));
  }
}

TEST_F(ShardTest, AFailedDeviceNeedsAReset) {
  MemoryBudget budget(kPlenty);
  ASSERT_OK_AND_ASSIGN(auto shard, Load(whole_, budget));
  model::Step step;
  step.commands = {AppendTo(1, {0})};
  step.slots = {{.sequence = 1, .first_position = 0, .token_count = 2}};
  std::vector<float> rows = Rows(2);
  backend_->FailLinearAfter(5);
  EXPECT_THAT(shard->RunLayers(step, rows, nullptr), StatusIs(absl::StatusCode::kInternal));
  EXPECT_THAT(shard->RunLayers(step, rows, nullptr),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("the device broke")));
  shard->ResetSequences();
  rows = Rows(2);
  EXPECT_OK(shard->RunLayers(step, rows, nullptr));
}

TEST_F(ShardTest, PartsThatAreNotThereSaySo) {
  MemoryBudget budget(kPlenty);
  ASSERT_OK_AND_ASSIGN(auto layers, Load({.layers = {0, 1}, .head_rows = {}}, budget));
  ASSERT_OK_AND_ASSIGN(auto head, Load({.layers = {}, .head_rows = {0, 9}}, budget));
  EXPECT_THAT(layers->RunHead({}, {}), StatusIs(absl::StatusCode::kFailedPrecondition));
  EXPECT_THAT(head->RunLayers({}, {}, nullptr), StatusIs(absl::StatusCode::kFailedPrecondition));
}

TEST_F(ShardTest, HeadChecksItsRows) {
  MemoryBudget budget(kPlenty);
  ASSERT_OK_AND_ASSIGN(auto head, Load({.layers = {}, .head_rows = {0, 9}}, budget));
  model::Step step;
  step.slots = {{.sequence = 1, .first_position = 0, .token_count = 5, .output_count = 4}};
  const std::vector<float> rows(4 * model_.config.d_model, 0.5f);
  ASSERT_OK(head->RunHead(step, rows));
  EXPECT_THAT(head->RunHead(step, std::span(rows).first(rows.size() - 1)),
              StatusIs(absl::StatusCode::kInvalidArgument));
  step.slots[0].output_count = 5;
  EXPECT_THAT(head->RunHead(step, rows), StatusIs(absl::StatusCode::kInvalidArgument));
  step.slots.clear();
  ASSERT_OK_AND_ASSIGN(const auto none, head->RunHead(step, {}));
  EXPECT_TRUE(none.empty());
}

// Slots that ask for different things in one step, over uneven blocks: each answer is what the
// full logits say.
TEST_F(ShardTest, TopRowsAndNormaliserAreExact) {
  PipelineOptions options{.device = "reference", .stages = 2, .head_blocks = 3};
  ASSERT_OK_AND_ASSIGN(auto pipeline, TestPipeline::Create(golden_.model_path, options));
  const std::span<const int32_t> tokens = golden_.token_ids;
  ASSERT_OK_AND_ASSIGN(const auto all, pipeline->Feed(1, tokens.first(12), 256));
  pipeline->Reset();

  model::Step step;
  step.commands = {*pipeline->Extend(1, 12), *pipeline->Extend(2, 12), *pipeline->Extend(3, 12)};
  std::vector<int32_t> ids;
  const std::vector<std::pair<int64_t, int64_t>> asked = {{1, 3}, {40, 2}, {10000, 1}};
  for (size_t i = 0; i < asked.size(); ++i) {
    model::StepSlot slot = pipeline->Slot(i + 1, 12);
    std::tie(slot.top_k, slot.output_count) = asked[i];
    step.slots.push_back(slot);
    ids.insert(ids.end(), tokens.begin(), tokens.begin() + 12);
  }
  ASSERT_OK_AND_ASSIGN(const auto rows, pipeline->Run(step, ids));
  ASSERT_EQ(rows.size(), 6u);
  const std::vector<int> output_of_row = {9, 10, 11, 10, 11, 11};
  const std::vector<size_t> count_of_row = {1, 1, 1, 40, 40, 512};
  for (size_t r = 0; r < rows.size(); ++r) {
    const std::vector<float>& logits = all[output_of_row[r]];
    ASSERT_EQ(rows[r].ids.size(), count_of_row[r]);
    EXPECT_EQ(rows[r].max_logit, *std::max_element(logits.begin(), logits.end()));
    double sum = 0;
    for (const float logit : logits) sum += std::exp(double{logit} - rows[r].max_logit);
    EXPECT_NEAR(rows[r].sum_exp / sum, 1.0, 1e-5);
    for (size_t i = 0; i < rows[r].ids.size(); ++i) {
      EXPECT_EQ(rows[r].logits[i], logits[rows[r].ids[i]]);
      if (i > 0) {
        EXPECT_LE(rows[r].logits[i], rows[r].logits[i - 1]);
      }
    }
  }
}

// Answers of allowed tokens only, by blocks of which some have none of them.
TEST_F(ShardTest, AllowedRowsAreThoseOfTheWholeHead) {
  PipelineOptions options{.device = "cpu", .stages = 1, .head_blocks = 3};
  ASSERT_OK_AND_ASSIGN(auto pipeline, TestPipeline::Create(golden_.model_path, options));
  const std::span<const int32_t> tokens = golden_.token_ids;
  ASSERT_OK_AND_ASSIGN(const auto all, pipeline->Feed(1, tokens.first(12), 256));
  const std::vector<float>& logits = all[11];
  const auto vocabulary = static_cast<int32_t>(logits.size());
  for (const int32_t step_of_ids : {1, 3, 200, 400}) {
    std::vector<int32_t> ids;
    for (int32_t id = step_of_ids / 2; id < vocabulary; id += step_of_ids) ids.push_back(id);
    const auto mask =
        std::make_shared<const model::TokenMask>(model::TokenMask::Of(ids, vocabulary));
    const auto better = [&](int32_t a, int32_t b) { return logits[a] > logits[b]; };
    std::stable_sort(ids.begin(), ids.end(), better);
    for (const int64_t top_k : {0, 1, 40}) {
      pipeline->Reset();
      model::Step step;
      step.commands = {*pipeline->Extend(1, 12)};
      model::StepSlot slot = pipeline->Slot(1, 12);
      slot.output_count = 1;
      slot.top_k = top_k;
      slot.within = top_k == 0 ? 1.5F : 0;
      slot.allowed = {mask};
      step.slots = {slot};
      ASSERT_OK_AND_ASSIGN(auto rows, pipeline->Run(step, tokens.first(12)));
      ASSERT_EQ(rows.size(), 1u);
      // Rows near the best of each block are not merged here.
      std::stable_sort(rows[0].ids.begin(), rows[0].ids.end(), better);
      if (top_k == 0) std::sort(rows[0].logits.rbegin(), rows[0].logits.rend());
      size_t count = std::min(ids.size(), static_cast<size_t>(top_k));
      while (top_k == 0 && count < ids.size() &&
             logits[ids[count]] >= double{logits[ids[0]]} - 1.5) {
        ++count;
      }
      ASSERT_GE(rows[0].ids.size(), count);
      EXPECT_LE(rows[0].ids.size(), ids.size());
      for (size_t i = 0; i < count; ++i) {
        EXPECT_EQ(rows[0].ids[i], ids[i]);
        EXPECT_EQ(rows[0].logits[i], logits[ids[i]]);
      }
      // Of all rows, whatever is allowed.
      EXPECT_EQ(rows[0].max_logit, *std::max_element(logits.begin(), logits.end()));
      EXPECT_GT(rows[0].sum_exp, 0);
    }
  }
}

TEST_F(ShardTest, SetsOfTokensAreChecked) {
  MemoryBudget budget(kPlenty);
  ASSERT_OK_AND_ASSIGN(auto head, Load({.layers = {}, .head_rows = {0, 9}}, budget));
  const int64_t vocabulary = model_.config.vocab_size;
  model::Step step;
  step.slots = {{.sequence = 1, .token_count = 1, .output_count = 1, .top_k = 1}};
  const std::vector<float> rows(model_.config.d_model, 0.5F);
  const auto of = [](std::vector<int32_t> ids, int64_t size) {
    return std::make_shared<const model::TokenMask>(model::TokenMask::Of(std::move(ids), size));
  };
  step.slots[0].allowed = {of({3}, vocabulary)};
  ASSERT_OK_AND_ASSIGN(const auto answer, head->RunHead(step, rows));
  EXPECT_EQ(answer[0].ids, std::vector<int32_t>({3}));
  step.slots[0].allowed = {of({static_cast<int32_t>(vocabulary)}, vocabulary + 1)};
  EXPECT_THAT(head->RunHead(step, rows), StatusIs(absl::StatusCode::kInvalidArgument));
  step.slots[0].allowed = {of({1, 2, 3}, 8)};
  EXPECT_THAT(head->RunHead(step, rows), StatusIs(absl::StatusCode::kInvalidArgument));
  step.slots[0].allowed = {of({3}, vocabulary), of({3}, vocabulary)};
  EXPECT_THAT(head->RunHead(step, rows), StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST(GatherOutputsTest, TakesTheLastRowsOfEachSlot) {
  model::Step step;
  step.slots = {{.sequence = 1, .token_count = 2, .output_count = 1},
                {.sequence = 2, .token_count = 1, .output_count = 0},
                {.sequence = 3, .token_count = 2, .output_count = 2}};
  const std::vector<float> rows = {0, 1, 10, 11, 20, 21, 30, 31, 40, 41};
  EXPECT_EQ(GatherOutputs(step, rows, 2), (std::vector<float>{10, 11, 30, 31, 40, 41}));
}

TEST_F(ShardTest, LocalWeightsRefuseBytesOutsideTheTensor) {
  const std::string name = "output_norm.weight";
  const int64_t size = model_.config.d_model * 4;
  std::vector<std::byte> bytes(size);
  ASSERT_OK(weights_->Read(name, 0, bytes));
  EXPECT_THAT(weights_->Read(name, 1, bytes), StatusIs(absl::StatusCode::kOutOfRange));
  EXPECT_THAT(weights_->Read(name, -1, bytes), StatusIs(absl::StatusCode::kOutOfRange));
  EXPECT_THAT(weights_->Read(name, INT64_MAX, bytes), StatusIs(absl::StatusCode::kOutOfRange));
  EXPECT_THAT(weights_->Read("nobody", 0, bytes), StatusIs(absl::StatusCode::kNotFound));
  EXPECT_THAT(weights_->TensorType("nobody"), StatusIs(absl::StatusCode::kNotFound));
}

}  // namespace
}  // namespace renga::engine
