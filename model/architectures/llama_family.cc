#include "model/architectures/llama_family.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "model/architectures/config_reader.h"

namespace renga::model {
namespace {

// Places of a layer's tensors in its list; -1 where a member of the family has none.
struct LayerRoles {
  int attention_norm = -1;
  int q = -1, k = -1, v = -1;
  int q_bias = -1, k_bias = -1, v_bias = -1;
  int q_norm = -1, k_norm = -1;
  int attention_output = -1, attention_post_norm = -1;
  int ffn_norm = -1;
  int gate = -1, up = -1, down = -1, ffn_post_norm = -1;
  int router = -1;  // with experts, who have the three before it
};

struct LayerLayout {
  std::vector<TensorSpec> tensors;
  LayerRoles roles;
};

// The one list that both the tensors and the program come from.
LayerLayout LayOut(const LlamaFamilyTraits& traits, const ModelConfig& config, int64_t layer) {
  LayerLayout layout;
  const auto matrix = [&](absl::string_view name, int64_t rows, int64_t columns, Cut cut) {
    layout.tensors.push_back({.name = absl::StrCat("blk.", layer, ".", name),
                              .rows = rows,
                              .columns = columns,
                              .cut = cut});
    return static_cast<int>(layout.tensors.size()) - 1;
  };
  const auto vector = [&](absl::string_view name, int64_t width, Cut cut) {
    const int index = matrix(name, 1, width, cut);
    layout.tensors.back().must_be_f32 = true;
    return index;
  };
  const ModelConfig& c = config;
  LayerRoles& roles = layout.roles;
  roles.attention_norm = vector("attn_norm.weight", c.d_model, Cut::kNone);
  roles.q = matrix("attn_q.weight", c.q_width(), c.d_model, Cut::kQueryHeads);
  roles.k = matrix("attn_k.weight", c.kv_width(), c.d_model, Cut::kKvHeads);
  roles.v = matrix("attn_v.weight", c.kv_width(), c.d_model, Cut::kKvHeads);
  if (traits.qkv_bias) {
    roles.q_bias = vector("attn_q.bias", c.q_width(), Cut::kQueryHeads);
    roles.k_bias = vector("attn_k.bias", c.kv_width(), Cut::kKvHeads);
    roles.v_bias = vector("attn_v.bias", c.kv_width(), Cut::kKvHeads);
  }
  if (traits.head_norms) {
    roles.q_norm = vector("attn_q_norm.weight", c.head_dim, Cut::kNone);
    roles.k_norm = vector("attn_k_norm.weight", c.head_dim, Cut::kNone);
  }
  roles.attention_output = matrix("attn_output.weight", c.d_model, c.q_width(), Cut::kHeadColumns);
  if (traits.post_norms) {
    roles.attention_post_norm = vector("post_attention_norm.weight", c.d_model, Cut::kNone);
  }
  roles.ffn_norm = vector("ffn_norm.weight", c.d_model, Cut::kNone);
  if (c.has_experts()) {
    const auto of_experts = [&](absl::string_view name, int64_t rows, int64_t columns) {
      const int index = matrix(name, c.n_experts * rows, columns, Cut::kExperts);
      layout.tensors.back().experts = c.n_experts;
      return index;
    };
    roles.router = matrix("ffn_gate_inp.weight", c.n_experts, c.d_model, Cut::kNone);
    roles.gate = of_experts("ffn_gate_exps.weight", c.d_ff, c.d_model);
    roles.up = of_experts("ffn_up_exps.weight", c.d_ff, c.d_model);
    roles.down = of_experts("ffn_down_exps.weight", c.d_model, c.d_ff);
  } else {
    roles.gate = matrix("ffn_gate.weight", c.d_ff, c.d_model, Cut::kFeedForward);
    roles.up = matrix("ffn_up.weight", c.d_ff, c.d_model, Cut::kFeedForward);
    roles.down = matrix("ffn_down.weight", c.d_model, c.d_ff, Cut::kFeedForwardColumns);
  }
  if (traits.post_norms) {
    roles.ffn_post_norm = vector("post_ffw_norm.weight", c.d_model, Cut::kNone);
  }
  return layout;
}

// Hands out activation buffers and reuses one that was given back when the width is the same, so
// that scratch memory stays small.
class BufferPlan {
 public:
  int Take(int64_t width) {
    for (size_t i = 0; i < widths_.size(); ++i) {
      if (is_free_[i] && widths_[i] == width) {
        is_free_[i] = false;
        return static_cast<int>(i);
      }
    }
    widths_.push_back(width);
    is_free_.push_back(false);
    return static_cast<int>(widths_.size()) - 1;
  }
  void GiveBack(int buffer) { is_free_[static_cast<size_t>(buffer)] = true; }
  std::vector<int64_t> TakeWidths() { return std::move(widths_); }

 private:
  std::vector<int64_t> widths_;
  std::vector<bool> is_free_;
};

// residual += branch, summed over the group and normed where the family does that.
void AddBranch(int branch, int post_norm, int residual, BufferPlan& buffers, std::vector<Op>& ops) {
  ops.push_back({.kind = OpKind::kAllReduce, .in = branch});
  if (post_norm >= 0) {
    ops.push_back({.kind = OpKind::kRmsNorm, .in = branch, .out = branch, .weight = post_norm});
  }
  ops.push_back({.kind = OpKind::kAdd, .in = branch, .out = residual});
  buffers.GiveBack(branch);
}

// residual += output(attention(rope(q, k, v of norm(residual)))).
void AddAttention(const LayerRoles& roles, const ModelConfig& config, int residual,
                  BufferPlan& buffers, std::vector<Op>& ops) {
  const int normed = buffers.Take(config.d_model);
  const int q = buffers.Take(config.q_width());
  const int k = buffers.Take(config.kv_width());
  const int v = buffers.Take(config.kv_width());
  ops.push_back(
      {.kind = OpKind::kRmsNorm, .in = residual, .out = normed, .weight = roles.attention_norm});
  // Side by side, so that a backend may compute the three in one pass over their input.
  ops.push_back(
      {.kind = OpKind::kLinear, .in = normed, .out = q, .weight = roles.q, .bias = roles.q_bias});
  ops.push_back(
      {.kind = OpKind::kLinear, .in = normed, .out = k, .weight = roles.k, .bias = roles.k_bias});
  ops.push_back(
      {.kind = OpKind::kLinear, .in = normed, .out = v, .weight = roles.v, .bias = roles.v_bias});
  buffers.GiveBack(normed);
  if (roles.q_norm >= 0) {
    ops.push_back(
        {.kind = OpKind::kHeadRmsNorm, .in = q, .weight = roles.q_norm, .n_heads = config.n_heads});
    ops.push_back({.kind = OpKind::kHeadRmsNorm,
                   .in = k,
                   .weight = roles.k_norm,
                   .n_heads = config.n_kv_heads});
  }
  ops.push_back({.kind = OpKind::kRope, .in = q, .n_heads = config.n_heads});
  ops.push_back({.kind = OpKind::kRope, .in = k, .n_heads = config.n_kv_heads});
  const int attended = buffers.Take(config.q_width());
  ops.push_back({.kind = OpKind::kAttention, .in = q, .in2 = k, .in3 = v, .out = attended});
  for (const int done : {q, k, v}) buffers.GiveBack(done);
  const int branch = buffers.Take(config.d_model);
  ops.push_back(
      {.kind = OpKind::kLinear, .in = attended, .out = branch, .weight = roles.attention_output});
  buffers.GiveBack(attended);
  AddBranch(branch, roles.attention_post_norm, residual, buffers, ops);
}

// residual += down(activation(gate(norm(residual))) * up(norm(residual))).
void AddFeedForward(const LayerRoles& roles, OpKind gate_kind, const ModelConfig& config,
                    int residual, BufferPlan& buffers, std::vector<Op>& ops) {
  const int normed = buffers.Take(config.d_model);
  const int gate = buffers.Take(config.d_ff);
  const int up = buffers.Take(config.d_ff);
  ops.push_back(
      {.kind = OpKind::kRmsNorm, .in = residual, .out = normed, .weight = roles.ffn_norm});
  ops.push_back({.kind = OpKind::kLinear, .in = normed, .out = gate, .weight = roles.gate});
  ops.push_back({.kind = OpKind::kLinear, .in = normed, .out = up, .weight = roles.up});
  buffers.GiveBack(normed);
  ops.push_back({.kind = gate_kind, .in = gate, .in2 = up, .out = gate});
  const int branch = buffers.Take(config.d_model);
  ops.push_back({.kind = OpKind::kLinear, .in = gate, .out = branch, .weight = roles.down});
  for (const int done : {gate, up}) buffers.GiveBack(done);
  AddBranch(branch, roles.ffn_post_norm, residual, buffers, ops);
}

// residual += the weighed sum of what the chosen experts make of norm(residual).
void AddExperts(const LayerRoles& roles, const ModelConfig& config, int residual,
                BufferPlan& buffers, LayerProgram& program) {
  const int normed = buffers.Take(config.d_model);
  const int scores = buffers.Take(config.n_experts);
  program.ops.push_back(
      {.kind = OpKind::kRmsNorm, .in = residual, .out = normed, .weight = roles.ffn_norm});
  program.ops.push_back(
      {.kind = OpKind::kLinear, .in = normed, .out = scores, .weight = roles.router});
  const int64_t used = config.n_experts_used;
  program.experts = {.gate = roles.gate,
                     .up = roles.up,
                     .down = roles.down,
                     .rows = buffers.Take(used * config.d_model),
                     .gates = buffers.Take(used * config.d_ff),
                     .ups = buffers.Take(used * config.d_ff)};
  const int branch = buffers.Take(config.d_model);
  program.ops.push_back({.kind = OpKind::kExperts, .in = normed, .in2 = scores, .out = branch});
  AddBranch(branch, roles.ffn_post_norm, residual, buffers, program.ops);
}

}  // namespace

absl::StatusOr<ModelConfig> LlamaFamily::ReadConfig(const GgufFile& file) const {
  constexpr double kMaxEpsilon = 1.0;
  const ConfigReader reader(file, traits_.name);
  RENGA_RETURN_IF_ERROR(reader.RefuseForeignFeatures());
  ModelConfig config;
  config.architecture = std::string(traits_.name);
  RENGA_ASSIGN_OR_RETURN(auto name, file.metadata().GetString("general.name"));
  config.name = std::move(name).value_or("");
  RENGA_RETURN_IF_ERROR(reader.ReadShape(config));
  RENGA_RETURN_IF_ERROR(reader.ReadExperts(traits_.experts, config));
  config.rope.style = traits_.rope_style;
  RENGA_RETURN_IF_ERROR(reader.ReadRope(config));
  RENGA_ASSIGN_OR_RETURN(const auto epsilon,
                         reader.PositiveFloat("attention.layer_norm_rms_epsilon", kMaxEpsilon));
  if (!epsilon) return reader.Missing("attention.layer_norm_rms_epsilon");
  config.norm_epsilon = *epsilon;
  RENGA_ASSIGN_OR_RETURN(config.vocab_size, reader.ReadVocabularySize());
  config.tied_output = file.FindTensor("output.weight") == nullptr;
  return config;
}

std::vector<TensorSpec> LlamaFamily::LayerTensors(const ModelConfig& config, int64_t layer) const {
  return LayOut(traits_, config, layer).tensors;
}

LayerProgram LlamaFamily::Program(const ModelConfig& config) const {
  const LayerRoles roles = LayOut(traits_, config, 0).roles;
  LayerProgram program;
  BufferPlan buffers;
  const int residual = buffers.Take(config.d_model);
  AddAttention(roles, config, residual, buffers, program.ops);
  if (config.has_experts()) {
    AddExperts(roles, config, residual, buffers, program);
  } else {
    AddFeedForward(roles, traits_.gelu_gate ? OpKind::kGeluGate : OpKind::kSiluGate, config,
                   residual, buffers, program.ops);
  }
  program.buffer_widths = buffers.TakeWidths();
  return program;
}

}  // namespace renga::model
