// renga-make-model: writes a GGUF model of a chosen shape with random weights, for benchmarks.
#include <cstdio>
#include <optional>
#include <string>

#include "CLI/CLI.hpp"
#include "absl/strings/str_cat.h"
#include "base/byte_size.h"
#include "base/status_macros.h"
#include "model/gguf_file.h"
#include "model/testing/synthetic_model.h"

namespace renga {
namespace {

struct Arguments {
  std::string path;
  std::string shape = "tiny";
  std::string type = "Q4_K";
  std::string output_type;
  std::string architecture = "llama";
  uint64_t seed = 1;
  bool tied_output = false;
  bool rope_factors = false;
  double router_skew = 0;
  // Each replaces the shape's own number.
  std::optional<int64_t> layers, d_model, heads, kv_heads, head_dim, ffn, experts, experts_used,
      vocab, context;
};

void AddOptions(CLI::App& app, Arguments& arguments) {
  app.add_option("path", arguments.path, "File to write")->required();
  app.add_option("--shape", arguments.shape, "tiny, tiny-moe, 1.1b (TinyLlama) or 7b (Llama 2)");
  app.add_option("--type", arguments.type, "Format of the matrices: F32, Q4_K, ...");
  app.add_option("--output-type", arguments.output_type, "Format of output.weight, if another");
  app.add_option("--architecture", arguments.architecture, "llama, qwen2, qwen3 or qwen3moe");
  app.add_option("--seed", arguments.seed, "Seed of the random weights");
  app.add_flag("--tied-output", arguments.tied_output, "Use the embedding as output matrix");
  app.add_flag("--rope-factors", arguments.rope_factors, "Add rope_freqs.weight");
  app.add_option("--layers", arguments.layers, "Layers");
  app.add_option("--d-model", arguments.d_model, "Width");
  app.add_option("--heads", arguments.heads, "Query heads");
  app.add_option("--kv-heads", arguments.kv_heads, "Key and value heads");
  app.add_option("--head-dim", arguments.head_dim, "Numbers per head; width / heads if absent");
  app.add_option("--ffn", arguments.ffn, "Feed-forward width");
  app.add_option("--experts", arguments.experts, "Feed-forwards of each layer; 0: one for all");
  app.add_option("--experts-used", arguments.experts_used, "Of these, how many a token uses");
  app.add_option(
      "--router-skew", arguments.router_skew,
      "Routers with favourites: scores of the expert of rank r are (1 + r)^-SKEW as large");
  app.add_option("--vocab", arguments.vocab, "Vocabulary, at least 260");
  app.add_option("--context", arguments.context, "Context length");
}

absl::StatusOr<base::DataType> ParseType(const std::string& name) {
  if (const auto type = base::DataTypeFromName(name)) return *type;
  std::string known;
  for (const base::DataTypeInfo& info : base::AllDataTypes())
    absl::StrAppend(&known, " ", info.name);
  return absl::InvalidArgumentError(
      absl::StrCat("unknown format \"", name, "\"; known are", known));
}

absl::StatusOr<model::SyntheticModelOptions> OptionsOf(const Arguments& arguments) {
  RENGA_ASSIGN_OR_RETURN(model::SyntheticModelOptions options,
                         model::SyntheticShape(arguments.shape));
  RENGA_ASSIGN_OR_RETURN(options.type, ParseType(arguments.type));
  if (!arguments.output_type.empty()) {
    RENGA_ASSIGN_OR_RETURN(options.output_type, ParseType(arguments.output_type));
  }
  options.architecture = arguments.architecture;
  options.seed = arguments.seed;
  options.tied_output = arguments.tied_output;
  options.rope_factors = arguments.rope_factors;
  options.router_skew = arguments.router_skew;
  options.n_layers = arguments.layers.value_or(options.n_layers);
  options.d_model = arguments.d_model.value_or(options.d_model);
  options.n_heads = arguments.heads.value_or(options.n_heads);
  options.n_kv_heads = arguments.kv_heads.value_or(options.n_kv_heads);
  options.head_dim = arguments.head_dim.value_or(options.head_dim);
  options.d_ff = arguments.ffn.value_or(options.d_ff);
  options.n_experts = arguments.experts.value_or(options.n_experts);
  options.n_experts_used = arguments.experts_used.value_or(options.n_experts_used);
  options.vocab_size = arguments.vocab.value_or(options.vocab_size);
  options.context_length = arguments.context.value_or(options.context_length);
  return options;
}

absl::Status Run(const Arguments& arguments) {
  RENGA_ASSIGN_OR_RETURN(const auto options, OptionsOf(arguments));
  RENGA_RETURN_IF_ERROR(model::WriteSyntheticModel(arguments.path, options));
  // Reading it back says what was made, and that it can be read.
  RENGA_ASSIGN_OR_RETURN(const auto file, model::GgufFile::Open(arguments.path));
  std::printf("%s: %zu tensors, %s of weights\n", arguments.path.c_str(), file->tensors().size(),
              base::FormatByteSize(file->total_tensor_bytes()).c_str());
  return absl::OkStatus();
}

}  // namespace
}  // namespace renga

int main(int argc, char** argv) {
  CLI::App app("Writes a GGUF model of a chosen shape with random weights, for benchmarks.");
  renga::Arguments arguments;
  renga::AddOptions(app, arguments);
  CLI11_PARSE(app, argc, argv);
  if (const absl::Status status = renga::Run(arguments); !status.ok()) {
    std::fprintf(stderr, "renga-make-model: %s\n", std::string(status.message()).c_str());
    return 1;
  }
  return 0;
}
