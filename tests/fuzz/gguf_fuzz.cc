// The GGUF reader and all that interprets a model's metadata, on any bytes.
#include <span>

#include "model/architecture.h"
#include "model/footprint.h"
#include "model/gguf_file.h"
#include "model/testing/gguf_image_builder.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/fuzz/small_model.h"

namespace renga::fuzz {
namespace {

// A sum that depends on every tensor's first and last byte, so that reading them is not removed.
int TouchTensors(const model::GgufFile& file) {
  int sum = 0;
  for (const model::GgufTensor& tensor : file.tensors()) {
    const auto bytes = file.TensorBytes(tensor);
    sum += static_cast<int>(bytes.front()) + static_cast<int>(bytes.back());
  }
  return sum;
}

void Examine(std::span<const std::byte> image) {
  const auto file = model::GgufFile::Parse(image);
  if (!file.ok()) return;
  [[maybe_unused]] volatile const int sum = TouchTensors(**file);
  const auto read = model::ReadModel(**file);
  if (!read.ok()) return;
  const auto footprint = model::MeasureModel(**file, *read);
  Require(footprint.ok());  // ReadModel promised every tensor
  const model::ShardSpec whole{.layers = {0, read->config.n_layers},
                               .head_rows = {0, read->config.vocab_size}};
  const model::RuntimeLimits limits{.kv_blocks = 8, .max_step_tokens = 8, .max_step_outputs = 1};
  Require(model::MeasureShard(*read, *footprint, whole, limits).total() > 0);
}

// Every metadata type, and a tensor.
std::string EveryType() {
  using model::GgufImageBuilder;
  GgufImageBuilder builder;
  builder.AddString("general.architecture", "llama").AddUint32("general.alignment", 64);
  for (uint32_t type = 0; type <= 12; ++type) {
    if (type == 8 || type == 9) continue;  // string and array, below
    builder.AddArray("array" + std::to_string(type), type, 1, std::string("\1\0\0\0\0\0\0\0", 8));
  }
  builder.AddArray("words", 8, 1, GgufImageBuilder::StringBytes("word"));
  builder.AddTensor("t", {32, 2}, 8, 0);
  builder.alignment = 64;
  builder.data_bytes = 128;
  return builder.Build();
}

}  // namespace

std::vector<std::string> Seeds() {
  std::vector<std::string> seeds = {EveryType()};
  for (const model::Architecture* architecture : model::AllArchitectures()) {
    model::SyntheticModelOptions options = SmallModel(std::string(architecture->name()), 4);
    options.rope_factors = options.architecture == "llama";
    seeds.push_back(ModelImage(options));
  }
  return seeds;
}

}  // namespace renga::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  renga::fuzz::Examine(std::as_bytes(std::span(data, size)));
  return 0;
}
