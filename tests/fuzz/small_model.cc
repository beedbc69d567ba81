#include "tests/fuzz/small_model.h"

#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <utility>

#include "base/file.h"

namespace renga::fuzz {

model::SyntheticModelOptions SmallModel(const std::string& architecture, int64_t width) {
  model::SyntheticModelOptions options;
  options.architecture = architecture;
  options.n_layers = 1;
  options.d_model = width;
  options.n_heads = 2;
  options.n_kv_heads = 1;
  options.d_ff = width;
  options.vocab_size = model::kMinSyntheticVocabulary;
  options.tied_output = true;
  return options;
}

std::string ModelImage(const model::SyntheticModelOptions& options) {
  const auto path = std::filesystem::temp_directory_path() /
                    ("renga-fuzz-model-" + std::to_string(::getpid()) + ".gguf");
  if (!model::WriteSyntheticModel(path, options).ok()) std::abort();
  auto bytes = base::ReadFile(path);
  std::filesystem::remove(path);
  if (!bytes.ok()) std::abort();
  return *std::move(bytes);
}

}  // namespace renga::fuzz
