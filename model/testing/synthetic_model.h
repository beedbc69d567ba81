// Whole models of a chosen shape with random weights: for benchmarks, and for tests that need a
// complete file. The result is a GGUF file that any reader takes: every tensor its architecture
// expects, the usual metadata, and a small SentencePiece-style tokenizer.
#ifndef RENGA_MODEL_TESTING_SYNTHETIC_MODEL_H_
#define RENGA_MODEL_TESTING_SYNTHETIC_MODEL_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/data_type.h"
#include "model/gguf_writer.h"

namespace renga::model {

// Smallest vocabulary: 3 special tokens, 256 bytes and one piece.
inline constexpr int64_t kMinSyntheticVocabulary = 260;

struct SyntheticModelOptions {
  std::string architecture = "llama";  // any that FindArchitecture knows
  int64_t n_layers = 4;
  int64_t d_model = 256;
  int64_t n_heads = 4;
  int64_t n_kv_heads = 2;
  int64_t head_dim = 0;        // 0: d_model / n_heads
  int64_t d_ff = 512;          // of each expert, if there are any
  int64_t n_experts = 0;       // of each layer, in families that have experts
  int64_t n_experts_used = 0;  // by each token
  // Routers with favourites: an expert's scores are (1 + rank)^-skew as large, by ranks that each
  // layer draws, so that those of high rank are hardly ever the best. 0: experts are alike.
  double router_skew = 0;
  int64_t vocab_size = 512;
  int64_t context_length = 512;
  bool tied_output = false;
  bool rope_factors = false;  // with a rope_freqs.weight
  // Matrices whose row length is no multiple of the type's block fall back to Q8_0, then F16.
  base::DataType type = base::DataType::kF32;
  std::optional<base::DataType> output_type = std::nullopt;  // of output.weight; `type` when absent
  uint64_t seed = 1;
};

// The options of a shape by name: "tiny", "1.1b" (TinyLlama), "7b" (Llama 2), "tiny-moe" (8
// experts, of which 2 are used; of llama, so Mixtral's kind). kInvalidArgument names the known
// ones.
absl::StatusOr<SyntheticModelOptions> SyntheticShape(absl::string_view name);

// A model ready for WriteGguf: tests may change it before writing.
struct SyntheticModel {
  GgufMetadata metadata;
  std::vector<GgufTensorToWrite> tensors;
};
absl::StatusOr<SyntheticModel> MakeSyntheticModel(const SyntheticModelOptions& options);

// Streams the model to `path`; needs little memory whatever its size. The same options give the
// same bytes.
absl::Status WriteSyntheticModel(const std::string& path, const SyntheticModelOptions& options);

}  // namespace renga::model

#endif  // RENGA_MODEL_TESTING_SYNTHETIC_MODEL_H_
