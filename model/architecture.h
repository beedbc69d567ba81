// Architectures are data: what a model family reads from the metadata, which tensors it has, how
// each may be cut, and one layer as a short list of ops. The engine, the planner and shipping read
// these tables; none of them names a family. A family is one file under architectures/ and a line
// in its registry.
#ifndef RENGA_MODEL_ARCHITECTURE_H_
#define RENGA_MODEL_ARCHITECTURE_H_

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "model/gguf_file.h"
#include "model/model_config.h"

namespace renga::model {

// How a tensor may be divided over the members of a tensor-parallel group. A bias is cut along its
// numbers, as its weight is along its rows.
enum class Cut {
  kNone,                // every member holds all of it (norms)
  kQueryHeads,          // by rows, in units of a query head with its KV head's group
  kKvHeads,             // by rows, in units of a KV head
  kFeedForward,         // by rows: gate and up
  kVocabulary,          // by rows: embedding and output
  kHeadColumns,         // by columns, in units of a query head: attention output
  kFeedForwardColumns,  // by columns: feed-forward down
  kExperts,             // not at all: a matrix for each expert of a mixture
};

// A tensor an architecture expects. Rows x columns in the linear-layer sense: `columns` inputs
// (contiguous), `rows` outputs. Vectors have rows == 1. Experts' matrices lie in one tensor, one
// after the other, with a third dimension in the file: `rows` are those of all of them.
struct TensorSpec {
  std::string name;  // full GGUF name: "blk.3.attn_q.weight"
  int64_t rows = 1;
  int64_t columns = 0;
  Cut cut = Cut::kNone;
  bool must_be_f32 = false;  // norm weights, biases, rope factors
  int64_t experts = 0;       // matrices of rows / experts rows each; 0: one matrix
};

// Whether a tensor's dimensions, innermost first, are the spec's; those of 1 at the end may be left
// out.
bool HasDims(const TensorSpec& spec, std::span<const int64_t> dims);

enum class OpKind {
  kRmsNorm,      // out = rmsnorm(in) * weight, over the whole width
  kHeadRmsNorm,  // in place on `in`: rmsnorm of each head of head_dim, * weight
  kLinear,       // out = weight * in (+ bias)
  kRope,         // in place on `in`, each head, at the token's position, as the layer rotates
  kAttention,    // stores in2 = K, in3 = V at the token's position, out = attention(in = Q) over
                 // the positions that the layer sees
  kSiluGate,     // out = silu(in) * in2; out may be the same buffer as in
  kGeluGate,     // out = gelu(in) * in2, in the form with tanh; out may be the same buffer as in
  kAllReduce,    // in place on `in`: the sum over the members of a tensor-parallel group, each
                 // of which has computed a part; nothing for a stage of one
  kAdd,          // out = out + in
  kExperts,      // out = for each row the sum, in the order of the experts, of what those with its
                 // best scores in `in2` make of `in`, as LayerProgram::experts says
  kAddLate,      // the same with what the layer before has left in `in`; nothing in a stage's first
};

// Which of a step's rows an op works on; all but where a mode approximates (late_program.h).
enum class OpRows {
  kAll,
  kComplete,  // those that are computed as the model says
  kLate,      // the others
  kPresent,   // those of which the layer's feed-forward is not left out
};

// One op of a layer. Buffers are indices into LayerProgram::buffer_widths, tensors are indices
// into the layer's tensor list; -1 is none.
struct Op {
  OpKind kind;
  int in = -1;
  int in2 = -1;
  int in3 = -1;
  int out = -1;
  int weight = -1;
  int bias = -1;
  int64_t n_heads = 0;  // kHeadRmsNorm, kRope: heads in the buffer
  OpRows rows = OpRows::kAll;
};

// What kExperts works with. Each row has the n_experts_used experts with the largest scores, the
// lower number first where two are equal; their weights are the softmax of their scores, which is
// the softmax over all experts made to add up to 1 again. An expert is down * (silu(gate * in) *
// (up * in)), times its weight.
struct ExpertTensors {
  int gate = -1, up = -1, down = -1;  // indices into the layer's tensor list
  // Buffers with room for one row of each expert that a token uses: of their inputs and then of
  // what they give, of gates and of ups.
  int rows = -1, gates = -1, ups = -1;
};

// One layer. Buffer 0 is the residual stream: input and output of the layer, width d_model.
// Every buffer holds float32 rows, one per token of the step.
struct LayerProgram {
  std::vector<int64_t> buffer_widths;
  std::vector<Op> ops;
  ExpertTensors experts = {};  // of the kExperts op, where there is one
};

// Whether an op of this layer reads the layer's tensor with the index `tensor`.
bool ReadsTensor(const LayerProgram& program, const Op& op, size_t tensor);

class Architecture {
 public:
  virtual ~Architecture() = default;

  // GGUF's general.architecture: "llama".
  virtual absl::string_view name() const = 0;

  // Reads and checks the hyper-parameters. kInvalidArgument names the bad key.
  virtual absl::StatusOr<ModelConfig> ReadConfig(const GgufFile& file) const = 0;

  // Tensors of layer `layer`, in a fixed order that Op::weight and Op::bias index. The list has
  // the same length and roles for every layer.
  virtual std::vector<TensorSpec> LayerTensors(const ModelConfig& config, int64_t layer) const = 0;

  virtual LayerProgram Program(const ModelConfig& config) const = 0;
};

// Tensors outside the layers; the same names for every family so far.
TensorSpec EmbeddingTensor(const ModelConfig& config);   // token_embd.weight: vocab x d_model
TensorSpec OutputNormTensor(const ModelConfig& config);  // output_norm.weight
// output.weight, or token_embd.weight when the output is tied.
TensorSpec OutputTensor(const ModelConfig& config);
// rope_freqs.weight: rot/2 divisors. Only when config.rope_has_factors.
TensorSpec RopeFactorsTensor(const ModelConfig& config);

// A family by its GGUF name; kUnimplemented names the known ones.
absl::StatusOr<const Architecture*> FindArchitecture(absl::string_view name);
// Every family, for tests over the whole registry.
std::vector<const Architecture*> AllArchitectures();

// Reads general.architecture, the config, and checks that every expected tensor is there with the
// expected shape and a type renga computes, and no other tensor. One clear sentence otherwise:
// kInvalidArgument (metadata), kDataLoss (tensors that contradict it), kUnimplemented (a family or
// a feature renga does not compute).
struct Model {
  const Architecture* architecture = nullptr;
  ModelConfig config;
};
absl::StatusOr<Model> ReadModel(const GgufFile& file);

}  // namespace renga::model

#endif  // RENGA_MODEL_ARCHITECTURE_H_
