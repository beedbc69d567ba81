#include "model/architecture.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <limits>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/testing/status_matchers.h"
#include "model/testing/synthetic_model.h"

namespace renga::model {
namespace {

using ::renga::testing::IsOk;
using ::renga::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// A small model of any family; sizes are all different, so that no mix-up goes unseen.
SyntheticModelOptions SmallOptions(absl::string_view architecture) {
  SyntheticModelOptions options;
  options.architecture = std::string(architecture);
  options.n_layers = 3;
  options.d_model = 24;
  options.n_heads = 6;
  options.n_kv_heads = 2;
  options.head_dim = 10;
  options.d_ff = 40;
  if (architecture == "qwen3moe") {
    options.n_experts = 7;
    options.n_experts_used = 3;
  }
  options.vocab_size = 261;
  options.context_length = 99;
  return options;
}

// Writes the model, opens it, and removes the file at once: the mapping keeps it alive.
absl::StatusOr<std::unique_ptr<GgufFile>> Reopen(const SyntheticModel& model) {
  const auto* test = ::testing::UnitTest::GetInstance()->current_test_info();
  std::string name = test->name();
  std::replace(name.begin(), name.end(), '/', '_');
  const std::string path = absl::StrCat(::testing::TempDir(), "renga_architecture_", name);
  if (absl::Status status = WriteGguf(path, model.metadata, model.tensors); !status.ok()) {
    return status;
  }
  auto file = GgufFile::Open(path);
  std::remove(path.c_str());
  return file;
}

absl::StatusOr<Model> ReadBack(const SyntheticModel& model) {
  const auto file = Reopen(model);
  if (!file.ok()) return file.status();
  return ReadModel(**file);
}

// What every family promises, on a small model of it.
class ArchitectureContractTest : public ::testing::TestWithParam<const Architecture*> {
 protected:
  void SetUp() override {
    ASSERT_OK_AND_ASSIGN(const SyntheticModel synthetic,
                         MakeSyntheticModel(SmallOptions(GetParam()->name())));
    ASSERT_OK_AND_ASSIGN(model_, ReadBack(synthetic));
    tensors_ = GetParam()->LayerTensors(model_.config, 0);
    program_ = GetParam()->Program(model_.config);
  }

  int64_t Width(int buffer) const { return program_.buffer_widths.at(static_cast<size_t>(buffer)); }
  const TensorSpec& Tensor(int index) const { return tensors_.at(static_cast<size_t>(index)); }
  void CheckExperts(const Op& op) const {
    const ExpertTensors& experts = program_.experts;
    const int64_t n = model_.config.n_experts;
    EXPECT_EQ(Width(op.in2), n);
    EXPECT_EQ(Width(op.in), Width(op.out));
    for (const int inner : {experts.gate, experts.up}) {
      EXPECT_EQ(Tensor(inner).columns, Width(op.in));
      EXPECT_EQ(Tensor(inner).rows, n * model_.config.d_ff);
    }
    EXPECT_EQ(Tensor(experts.down).columns, model_.config.d_ff);
    EXPECT_EQ(Tensor(experts.down).rows, n * Width(op.out));
    for (const int tensor : {experts.gate, experts.up, experts.down}) {
      EXPECT_EQ(Tensor(tensor).experts, n);
      EXPECT_EQ(Tensor(tensor).cut, Cut::kExperts);
    }
    EXPECT_EQ(Width(experts.rows), model_.config.n_experts_used * Width(op.in));
    EXPECT_EQ(Width(experts.gates), model_.config.n_experts_used * model_.config.d_ff);
    EXPECT_EQ(Width(experts.ups), Width(experts.gates));
  }

  Model model_;
  std::vector<TensorSpec> tensors_;
  LayerProgram program_;
};

TEST_P(ArchitectureContractTest, ReadsItsConfig) {
  const ModelConfig& config = model_.config;
  EXPECT_EQ(model_.architecture, GetParam());
  EXPECT_EQ(config.architecture, GetParam()->name());
  EXPECT_TRUE(absl::StartsWith(config.name, "synthetic"));
  EXPECT_EQ(config.n_layers, 3);
  EXPECT_EQ(config.d_model, 24);
  EXPECT_EQ(config.n_heads, 6);
  EXPECT_EQ(config.n_kv_heads, 2);
  EXPECT_EQ(config.head_dim, 10);
  EXPECT_EQ(config.q_width(), 60);
  EXPECT_EQ(config.kv_width(), 20);
  EXPECT_EQ(config.d_ff, 40);
  EXPECT_EQ(config.vocab_size, 261);
  EXPECT_EQ(config.context_length, 99);
  EXPECT_EQ(config.rope.dims, 10);
  EXPECT_FLOAT_EQ(static_cast<float>(config.norm_epsilon), 1e-5f);
  EXPECT_FALSE(config.tied_output);
  EXPECT_FALSE(config.rope_has_factors);
}

TEST_P(ArchitectureContractTest, LayersHaveTheSameTensorsButForTheirNumber) {
  const auto last = GetParam()->LayerTensors(model_.config, 2);
  ASSERT_EQ(last.size(), tensors_.size());
  std::set<std::string> names;
  for (size_t i = 0; i < last.size(); ++i) {
    ASSERT_TRUE(absl::StartsWith(tensors_[i].name, "blk.0."));
    EXPECT_EQ(last[i].name, "blk.2." + tensors_[i].name.substr(6));
    EXPECT_EQ(last[i].rows, tensors_[i].rows);
    EXPECT_EQ(last[i].columns, tensors_[i].columns);
    EXPECT_EQ(last[i].cut, tensors_[i].cut);
    EXPECT_TRUE(names.insert(last[i].name).second);
  }
}

TEST_P(ArchitectureContractTest, ProgramUsesEveryTensorOnceWithMatchingWidths) {
  std::multiset<int> used;
  for (const Op& op : program_.ops) {
    if (op.weight >= 0) used.insert(op.weight);
    if (op.bias >= 0) used.insert(op.bias);
    switch (op.kind) {
      case OpKind::kRmsNorm:
        EXPECT_EQ(Tensor(op.weight).columns, Width(op.in));
        EXPECT_EQ(Width(op.in), Width(op.out));
        break;
      case OpKind::kHeadRmsNorm:
        EXPECT_EQ(Tensor(op.weight).columns, model_.config.head_dim);
        EXPECT_EQ(op.n_heads * model_.config.head_dim, Width(op.in));
        break;
      case OpKind::kLinear:
        EXPECT_EQ(Tensor(op.weight).columns, Width(op.in));
        EXPECT_EQ(Tensor(op.weight).rows, Width(op.out));
        EXPECT_NE(op.in, op.out);
        if (op.bias >= 0) {
          EXPECT_EQ(Tensor(op.bias).columns, Width(op.out));
        }
        break;
      case OpKind::kRope:
        EXPECT_EQ(op.n_heads * model_.config.head_dim, Width(op.in));
        break;
      case OpKind::kAttention:
        EXPECT_EQ(Width(op.in), model_.config.q_width());
        EXPECT_EQ(Width(op.in2), model_.config.kv_width());
        EXPECT_EQ(Width(op.in3), model_.config.kv_width());
        EXPECT_EQ(Width(op.out), model_.config.q_width());
        EXPECT_NE(op.in, op.out);
        break;
      case OpKind::kExperts:
        CheckExperts(op);
        used.insert({program_.experts.gate, program_.experts.up, program_.experts.down});
        break;
      case OpKind::kSiluGate:
      case OpKind::kGeluGate:
        EXPECT_EQ(Width(op.in), Width(op.in2));
        EXPECT_EQ(Width(op.in), Width(op.out));
        break;
      case OpKind::kAllReduce:
        EXPECT_EQ(Width(op.in), model_.config.d_model);
        break;
      case OpKind::kAdd:
      case OpKind::kAddLate:
        EXPECT_EQ(Width(op.in), Width(op.out));
        break;
    }
  }
  EXPECT_EQ(used.size(), tensors_.size());
  EXPECT_EQ(std::set<int>(used.begin(), used.end()).size(), tensors_.size());
}

TEST_P(ArchitectureContractTest, BuffersAreWrittenBeforeTheyAreRead) {
  EXPECT_EQ(Width(0), model_.config.d_model);
  std::set<int> written = {0};
  for (const Op& op : program_.ops) {
    for (const int input : {op.in, op.in2, op.in3}) {
      if (input >= 0) {
        EXPECT_TRUE(written.contains(input));
      }
    }
    // The residual stream is only ever added to.
    if (op.kind != OpKind::kAdd) {
      EXPECT_NE(op.out, 0);
    }
    if (op.out >= 0) written.insert(op.out);
    if (op.kind != OpKind::kExperts) continue;
    // Nobody else's meanwhile.
    for (const int own : {program_.experts.rows, program_.experts.gates, program_.experts.ups}) {
      EXPECT_FALSE(std::set<int>({op.in, op.in2, op.out, 0}).contains(own));
      written.insert(own);
    }
  }
  EXPECT_EQ(written.size(), program_.buffer_widths.size());
}

TEST_P(ArchitectureContractTest, LinearOpsOfOneInputStandSideBySide) {
  std::vector<std::string> linear;
  for (const Op& op : program_.ops) {
    linear.push_back(op.kind == OpKind::kLinear ? Tensor(op.weight).name : "-");
  }
  const std::string order = absl::StrJoin(linear, " ");
  EXPECT_THAT(order, HasSubstr("blk.0.attn_q.weight blk.0.attn_k.weight blk.0.attn_v.weight"));
  if (!model_.config.has_experts()) {
    EXPECT_THAT(order, HasSubstr("blk.0.ffn_gate.weight blk.0.ffn_up.weight"));
  }
}

TEST_P(ArchitectureContractTest, EveryTensorIsMissedByName) {
  ASSERT_OK_AND_ASSIGN(const SyntheticModel complete,
                       MakeSyntheticModel(SmallOptions(GetParam()->name())));
  for (size_t i = 0; i < complete.tensors.size(); ++i) {
    SyntheticModel model = complete;
    const std::string name = model.tensors[i].name;
    model.tensors.erase(model.tensors.begin() + static_cast<int64_t>(i));
    if (name == "output.weight") {
      ASSERT_OK_AND_ASSIGN(const Model tied, ReadBack(model));
      EXPECT_TRUE(tied.config.tied_output);
      EXPECT_EQ(OutputTensor(tied.config).name, "token_embd.weight");
      continue;
    }
    EXPECT_THAT(ReadBack(model), StatusIs(absl::StatusCode::kDataLoss,
                                          HasSubstr(absl::StrCat("lacks the tensor ", name))));
  }
}

INSTANTIATE_TEST_SUITE_P(Registry, ArchitectureContractTest,
                         ::testing::ValuesIn(AllArchitectures()),
                         [](const ::testing::TestParamInfo<const Architecture*>& param_info) {
                           return std::string(param_info.param->name());
                         });

TEST(ArchitectureTest, FamiliesDifferWhereTheyShould) {
  const auto names = [](absl::string_view name) {
    std::vector<std::string> result;
    ModelConfig config;
    for (const TensorSpec& spec : (*FindArchitecture(name))->LayerTensors(config, 0)) {
      result.push_back(spec.name);
    }
    return absl::StrJoin(result, " ");
  };
  EXPECT_THAT(names("llama"), Not(HasSubstr("bias")));
  EXPECT_THAT(names("llama"), Not(HasSubstr("q_norm")));
  EXPECT_THAT(names("qwen2"), HasSubstr("attn_q.bias blk.0.attn_k.bias blk.0.attn_v.bias"));
  EXPECT_THAT(names("qwen3"), HasSubstr("attn_q_norm.weight blk.0.attn_k_norm.weight"));
  EXPECT_THAT(FindArchitecture("mamba"),
              StatusIs(absl::StatusCode::kUnimplemented,
                       HasSubstr("architecture is \"mamba\", which renga does not know; it knows "
                                 "llama, qwen2, qwen3, qwen3moe, gemma3")));
}

TEST(ArchitectureTest, Gemma3HasLayersOfTwoKinds) {
  SyntheticModelOptions options = SmallOptions("gemma3");
  options.n_layers = 8;
  ASSERT_OK_AND_ASSIGN(SyntheticModel synthetic, MakeSyntheticModel(options));
  ASSERT_OK_AND_ASSIGN(const Model plain, ReadBack(synthetic));
  EXPECT_FALSE(plain.config.IsWindowed(0));
  EXPECT_DOUBLE_EQ(plain.config.embedding_scale, std::sqrt(24.0));

  synthetic.metadata.Set("gemma3.attention.sliding_window", uint64_t{12});
  synthetic.metadata.Set("gemma3.rope.freq_base", 1e6);
  ASSERT_OK_AND_ASSIGN(const Model usual, ReadBack(synthetic));
  EXPECT_EQ(usual.config.window, 12);
  EXPECT_EQ(usual.config.windowed_layers,
            std::vector<bool>({true, true, true, true, true, false, true, true}));
  EXPECT_EQ(usual.config.RopeOf(0).base, 10000.0);
  EXPECT_EQ(usual.config.RopeOf(5).base, 1e6);
  EXPECT_EQ(usual.config.RopeOf(0).dims, 10);

  synthetic.metadata.Set("gemma3.attention.sliding_window_pattern", uint64_t{3});
  ASSERT_OK_AND_ASSIGN(const Model third, ReadBack(synthetic));
  EXPECT_EQ(third.config.windowed_layers,
            std::vector<bool>({true, true, false, true, true, false, true, true}));

  synthetic.metadata.Set("gemma3.final_logit_softcapping", 30.0);
  EXPECT_THAT(ReadBack(synthetic),
              StatusIs(absl::StatusCode::kUnimplemented, HasSubstr("do not cap their logits")));
}

TEST(ArchitectureTest, ReusesBuffersOfEqualWidth) {
  SyntheticModelOptions options;  // q_width == d_model
  ASSERT_OK_AND_ASSIGN(const SyntheticModel synthetic, MakeSyntheticModel(options));
  ASSERT_OK_AND_ASSIGN(const Model model, ReadBack(synthetic));
  EXPECT_THAT(model.architecture->Program(model.config).buffer_widths,
              ElementsAre(256, 256, 256, 128, 128, 512, 512));
}

TEST(ArchitectureTest, RopeFactorsAreExpectedWhenThere) {
  SyntheticModelOptions options = SmallOptions("llama");
  options.rope_factors = true;
  ASSERT_OK_AND_ASSIGN(SyntheticModel synthetic, MakeSyntheticModel(options));
  ASSERT_OK_AND_ASSIGN(const Model model, ReadBack(synthetic));
  EXPECT_TRUE(model.config.rope_has_factors);
  EXPECT_EQ(RopeFactorsTensor(model.config).columns, 5);
  for (GgufTensorToWrite& tensor : synthetic.tensors) {
    if (tensor.name != "rope_freqs.weight") continue;
    tensor.dims = {6};
    tensor.fill = [](const GgufTensorToWrite::Sink& sink) {
      return sink(std::vector<std::byte>(24));
    };
  }
  EXPECT_THAT(
      ReadBack(synthetic),
      StatusIs(absl::StatusCode::kDataLoss,
               HasSubstr("rope_freqs.weight has the shape 6, but the metadata asks for 5")));
}

TEST(ArchitectureTest, VocabularySizeComesFromKeyThenTokensThenEmbedding) {
  ASSERT_OK_AND_ASSIGN(const SyntheticModel complete, MakeSyntheticModel(SmallOptions("llama")));
  SyntheticModel model = complete;
  model.metadata = {};
  for (const std::string& key : complete.metadata.keys()) {
    if (key != "llama.vocab_size") model.metadata.Set(key, *complete.metadata.Find(key));
  }
  ASSERT_OK_AND_ASSIGN(const Model from_tokens, ReadBack(model));
  EXPECT_EQ(from_tokens.config.vocab_size, 261);
  SyntheticModel bare = model;
  bare.metadata = {};
  for (const std::string& key : model.metadata.keys()) {
    if (!absl::StartsWith(key, "tokenizer.")) bare.metadata.Set(key, *model.metadata.Find(key));
  }
  ASSERT_OK_AND_ASSIGN(const Model from_embedding, ReadBack(bare));
  EXPECT_EQ(from_embedding.config.vocab_size, 261);
}

TEST(ArchitectureTest, LinearRopeScaling) {
  const auto scale = [](const std::vector<std::pair<std::string, GgufValue>>& keys) {
    SyntheticModel model = *MakeSyntheticModel(SmallOptions("llama"));
    for (const auto& [key, value] : keys) model.metadata.Set(key, value);
    const auto read = ReadBack(model);
    return read.ok() ? read->config.rope.position_scale : -1.0;
  };
  const std::string type = "llama.rope.scaling.type";
  const std::string factor = "llama.rope.scaling.factor";
  EXPECT_EQ(scale({}), 1.0);
  EXPECT_EQ(scale({{type, std::string("linear")}, {factor, 4.0}}), 4.0);
  EXPECT_EQ(scale({{factor, 4.0}}), 4.0);
  EXPECT_EQ(scale({{factor, 0.0}}), 1.0);
  EXPECT_EQ(scale({{"llama.rope.scale_linear", 2.0}}), 2.0);
  EXPECT_EQ(scale({{type, std::string("none")}, {factor, 4.0}}), 1.0);
}

TEST(ArchitectureTest, MixturesOfExpertsAreCheckedByTheFile) {
  SyntheticModelOptions options = SmallOptions("llama");
  options.n_experts = 5;
  options.n_experts_used = 2;
  ASSERT_OK_AND_ASSIGN(const SyntheticModel mixtral, MakeSyntheticModel(options));
  ASSERT_OK_AND_ASSIGN(const Model model, ReadBack(mixtral));
  EXPECT_EQ(model.config.n_experts, 5);
  EXPECT_EQ(model.config.n_experts_used, 2);
  EXPECT_EQ(model.config.d_ff, 40);

  struct Case {
    const char* key;
    GgufValue value;
    absl::StatusCode code;
    const char* text;
  };
  const auto damaged = absl::StatusCode::kDataLoss;
  const auto invalid = absl::StatusCode::kInvalidArgument;
  const auto not_computed = absl::StatusCode::kUnimplemented;
  const Case cases[] = {
      {"llama.expert_count", uint64_t{6}, damaged, "5, but the metadata asks for 24 x 6"},
      {"llama.expert_count", uint64_t{0}, damaged, "lacks the tensor blk.0.ffn_gate.weight"},
      {"llama.expert_used_count", uint64_t{6}, invalid, "llama.expert_used_count"},
      {"llama.expert_used_count", uint64_t{0}, invalid, "llama.expert_used_count"},
      {"llama.expert_used_count", GgufArray(std::vector<uint64_t>{2, 2, 1}), not_computed,
       "differs from layer to layer"},
      {"llama.expert_feed_forward_length", uint64_t{20}, damaged,
       "blk.0.ffn_gate_exps.weight has the shape 24 x 40 x 5, but the metadata asks for 24 x 20 x "
       "5"},
      {"llama.expert_gating_func", uint64_t{2}, not_computed, "chosen in a way"},
      {"llama.expert_shared_count", uint64_t{1}, not_computed, "chosen in a way"},
      {"llama.expert_weights_scale", 2.5, not_computed, "chosen in a way"},
  };
  for (const Case& c : cases) {
    SyntheticModel changed = mixtral;
    changed.metadata.Set(c.key, c.value);
    EXPECT_THAT(ReadBack(changed), StatusIs(c.code, HasSubstr(c.text))) << c.key;
  }
  ASSERT_OK_AND_ASSIGN(SyntheticModel dense, MakeSyntheticModel(SmallOptions("qwen3")));
  dense.metadata.Set("qwen3.expert_count", uint64_t{4});
  EXPECT_THAT(ReadBack(dense), StatusIs(not_computed, HasSubstr("a mixture of 4 experts")));
  // Two dimensions of the same number of rows are another model's.
  SyntheticModel flat = mixtral;
  for (GgufTensorToWrite& tensor : flat.tensors) {
    if (tensor.name == "blk.1.ffn_up_exps.weight") tensor.dims = {24, 200};
  }
  EXPECT_THAT(ReadBack(flat), StatusIs(damaged, HasSubstr("has the shape 24 x 200")));
}

struct BadMetadata {
  const char* key;
  GgufValue value;
  absl::StatusCode code;
  const char* text;
};

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr auto kNotComputed = absl::StatusCode::kUnimplemented;

const BadMetadata kBadMetadata[] = {
    {"general.architecture", std::string("gpt5"), kNotComputed, "it knows llama, qwen2, qwen3"},
    {"general.architecture", uint64_t{1}, kInvalid, "general.architecture must be a string"},
    {"llama.block_count", uint64_t{0}, kInvalid, "llama.block_count must lie between 1 and 1024"},
    {"llama.block_count", uint64_t{1} << 40, kInvalid, "llama.block_count"},
    {"llama.block_count", uint64_t{4}, absl::StatusCode::kDataLoss, "lacks the tensor blk.3."},
    {"llama.block_count", uint64_t{2}, kNotComputed,
     "the model has the tensor blk.2.attn_norm.weight, which renga does not know"},
    {"llama.embedding_length", uint64_t{65537}, kInvalid, "llama.embedding_length"},
    {"llama.embedding_length", uint64_t{25}, absl::StatusCode::kDataLoss,
     "tensor token_embd.weight has the shape 24 x 261, but the metadata asks for 25 x 261"},
    {"llama.context_length", uint64_t{0}, kInvalid, "llama.context_length"},
    {"llama.feed_forward_length", int64_t{-1}, kInvalid, "llama.feed_forward_length"},
    {"llama.feed_forward_length", uint64_t{41}, absl::StatusCode::kDataLoss,
     "blk.0.ffn_gate.weight"},
    {"llama.feed_forward_length", GgufArray(std::vector<uint64_t>{40, 40}), kInvalid,
     "llama.feed_forward_length has 2 numbers for 3 layers"},
    {"llama.feed_forward_length", GgufArray(std::vector<uint64_t>{40, 40, 32}), kNotComputed,
     "llama.feed_forward_length differs from layer to layer"},
    {"llama.feed_forward_length", GgufArray(std::vector<int64_t>{40, -4, 40}), kInvalid,
     "but holds -4"},
    {"llama.attention.head_count", uint64_t{0}, kInvalid, "llama.attention.head_count"},
    {"llama.attention.head_count", std::string("6"), kInvalid, "llama.attention.head_count"},
    {"llama.attention.head_count_kv", uint64_t{4}, kInvalid,
     "llama.attention.head_count is 6, which is no multiple of llama.attention.head_count_kv = 4"},
    {"llama.attention.head_count_kv", uint64_t{7}, kInvalid, "between 1 and 6 but is 7"},
    {"llama.attention.key_length", uint64_t{2048}, kInvalid, "llama.attention.key_length"},
    {"llama.attention.value_length", uint64_t{8}, kNotComputed,
     "llama.attention.value_length is 8 but heads of keys have 10"},
    {"llama.rope.dimension_count", uint64_t{12}, kInvalid, "between 2 and 10 but is 12"},
    {"llama.rope.dimension_count", uint64_t{5}, kInvalid, "numbers are rotated in pairs"},
    {"llama.rope.freq_base", 0.0, kInvalid, "llama.rope.freq_base must be above 0"},
    {"llama.rope.freq_base", std::numeric_limits<double>::quiet_NaN(), kInvalid,
     "llama.rope.freq_base"},
    {"llama.rope.scaling.type", std::string("yarn"), kNotComputed,
     "llama.rope.scaling.type is \"yarn\""},
    {"llama.rope.scaling.factor", -2.0, kInvalid, "llama.rope.scaling.factor"},
    {"llama.attention.layer_norm_rms_epsilon", -1e-5, kInvalid, "layer_norm_rms_epsilon"},
    {"llama.vocab_size", uint64_t{1} << 30, kInvalid, "llama.vocab_size"},
    {"llama.vocab_size", uint64_t{300}, absl::StatusCode::kDataLoss, "asks for 24 x 300"},
    {"llama.expert_count", uint64_t{8}, kInvalid, "lacks the key llama.expert_used_count"},
    {"llama.expert_count", uint64_t{1} << 40, kInvalid, "llama.expert_count"},
    {"llama.attention.causal", false, kNotComputed, "looks ahead"},
};

class BadMetadataTest : public ::testing::TestWithParam<BadMetadata> {};

TEST_P(BadMetadataTest, IsRefused) {
  ASSERT_OK_AND_ASSIGN(SyntheticModel model, MakeSyntheticModel(SmallOptions("llama")));
  model.metadata.Set(GetParam().key, GetParam().value);
  EXPECT_THAT(ReadBack(model), StatusIs(GetParam().code, HasSubstr(GetParam().text)));
}

INSTANTIATE_TEST_SUITE_P(All, BadMetadataTest, ::testing::ValuesIn(kBadMetadata));

TEST(ArchitectureTest, RequiredKeysAreMissedByName) {
  ASSERT_OK_AND_ASSIGN(const SyntheticModel complete, MakeSyntheticModel(SmallOptions("llama")));
  for (const std::string required :
       {"general.architecture", "llama.block_count", "llama.embedding_length",
        "llama.context_length", "llama.feed_forward_length", "llama.attention.head_count",
        "llama.attention.layer_norm_rms_epsilon"}) {
    SyntheticModel model = complete;
    model.metadata = {};
    for (const std::string& key : complete.metadata.keys()) {
      if (key != required) model.metadata.Set(key, *complete.metadata.Find(key));
    }
    EXPECT_THAT(ReadBack(model), StatusIs(kInvalid, HasSubstr(required)));
  }
}

TEST(ArchitectureTest, RefusesTensorsItWouldIgnore) {
  ASSERT_OK_AND_ASSIGN(SyntheticModel model, MakeSyntheticModel(SmallOptions("llama")));
  GgufTensorToWrite extra{.name = "blk.0.attn_q.bias",
                          .type = base::DataType::kF32,
                          .dims = {60},
                          .fill = [](const GgufTensorToWrite::Sink& sink) {
                            return sink(std::vector<std::byte>(240));
                          }};
  model.tensors.push_back(extra);
  EXPECT_THAT(ReadBack(model),
              StatusIs(kNotComputed, HasSubstr("the tensor blk.0.attn_q.bias, which renga")));
  model.tensors.back().name = "blk.0.attn_rot_embd.weight";
  EXPECT_THAT(ReadBack(model), IsOk());
}

TEST(ArchitectureTest, RefusesNormsThatAreNotF32) {
  ASSERT_OK_AND_ASSIGN(SyntheticModel model, MakeSyntheticModel(SmallOptions("llama")));
  for (GgufTensorToWrite& tensor : model.tensors) {
    if (tensor.name != "blk.1.ffn_norm.weight") continue;
    tensor.type = base::DataType::kF16;
    tensor.fill = [](const GgufTensorToWrite::Sink& sink) {
      return sink(std::vector<std::byte>(48));
    };
  }
  EXPECT_THAT(ReadBack(model),
              StatusIs(kNotComputed, HasSubstr("blk.1.ffn_norm.weight is stored as F16")));
}

TEST(ArchitectureTest, RefusesVocabularyOnlyFilesWithASentence) {
  ASSERT_OK_AND_ASSIGN(SyntheticModel model, MakeSyntheticModel(SmallOptions("llama")));
  model.tensors.clear();
  EXPECT_THAT(ReadBack(model), StatusIs(kInvalid, HasSubstr("holds only a vocabulary")));
}

// Real conversions: every golden file of a known family is read, the others are refused by name.
TEST(ArchitectureTest, ReadsTheGoldenFiles) {
  const char* root = std::getenv("RENGA_SHARED_DATA");
  const std::filesystem::path folder =
      std::filesystem::path(root != nullptr ? root : RENGA_SOURCE_DIR "/../shared/data") / "models";
  if (!std::filesystem::is_directory(folder)) {
    GTEST_SKIP() << "no golden files in " << folder << "; set RENGA_SHARED_DATA";
  }
  int known = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().extension() != ".gguf") continue;
    const std::string name = entry.path().filename();
    ASSERT_OK_AND_ASSIGN(const auto file, GgufFile::Open(entry.path()));
    const auto model = ReadModel(*file);
    if (absl::StartsWith(name, "gpt") || absl::StartsWith(name, "phi3")) {
      EXPECT_THAT(model, StatusIs(kNotComputed, HasSubstr("which renga does not know"))) << name;
      continue;
    }
    ASSERT_THAT(model, IsOk()) << name;
    ++known;
    const ModelConfig& config = model->config;
    EXPECT_GT(config.vocab_size, 256) << name;
    EXPECT_EQ(config.rope_has_factors, absl::StartsWith(name, "llama-gqa")) << name;
    EXPECT_EQ(config.tied_output, absl::StartsWith(name, "qwen2") ||
                                      absl::StartsWith(name, "gemma3") ||
                                      absl::StartsWith(name, "story"))
        << name;
    const bool wide_heads = absl::StartsWith(name, "mistral") || absl::StartsWith(name, "qwen3");
    EXPECT_EQ(config.q_width() != config.d_model, wide_heads) << name;
    EXPECT_EQ(config.rope.style == RopeStyle::kHalves,
              absl::StartsWith(name, "qwen") || absl::StartsWith(name, "gemma3"))
        << name;
    EXPECT_EQ(config.window, absl::StartsWith(name, "gemma3") ? 12 : 0) << name;
  }
  EXPECT_GT(known, 15);
}

}  // namespace
}  // namespace renga::model
