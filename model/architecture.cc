#include "model/architecture.h"

#include <algorithm>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status_macros.h"

namespace renga::model {
namespace {

TensorSpec Vector(absl::string_view name, int64_t width) {
  return {.name = std::string(name), .columns = width, .must_be_f32 = true};
}

std::string ShapeText(const TensorSpec& spec) {
  if (spec.rows == 1) return absl::StrCat(spec.columns);
  if (spec.experts == 0) return absl::StrCat(spec.columns, " x ", spec.rows);
  return absl::StrCat(spec.columns, " x ", spec.rows / spec.experts, " x ", spec.experts);
}

bool HasShape(const GgufTensor& tensor, const TensorSpec& spec) {
  return tensor.row_count() == spec.rows && HasDims(spec, tensor.dims);
}

absl::Status CheckTensor(const GgufFile& file, const TensorSpec& spec) {
  const GgufTensor* tensor = file.FindTensor(spec.name);
  if (tensor == nullptr) {
    return absl::DataLossError(absl::StrCat("the model lacks the tensor ", spec.name));
  }
  if (!HasShape(*tensor, spec)) {
    return absl::DataLossError(absl::StrCat("tensor ", spec.name, " has the shape ",
                                            absl::StrJoin(tensor->dims, " x "),
                                            ", but the metadata asks for ", ShapeText(spec)));
  }
  if (spec.must_be_f32 && tensor->type != base::DataType::kF32) {
    return absl::UnimplementedError(absl::StrCat("tensor ", spec.name, " is stored as ",
                                                 base::GetDataTypeInfo(tensor->type).name,
                                                 "; renga reads it only as F32"));
  }
  return absl::OkStatus();
}

std::vector<TensorSpec> ExpectedTensors(const Model& model) {
  std::vector<TensorSpec> expected = {EmbeddingTensor(model.config),
                                      OutputNormTensor(model.config)};
  if (!model.config.tied_output) expected.push_back(OutputTensor(model.config));
  if (model.config.rope_has_factors) expected.push_back(RopeFactorsTensor(model.config));
  for (int64_t layer = 0; layer < model.config.n_layers; ++layer) {
    auto tensors = model.architecture->LayerTensors(model.config, layer);
    std::move(tensors.begin(), tensors.end(), std::back_inserter(expected));
  }
  return expected;
}

// Old converters stored rope's frequencies, which follow from the metadata.
bool IsRedundant(absl::string_view tensor_name) {
  return absl::StrContains(tensor_name, "attn_rot_embd") ||
         absl::StrContains(tensor_name, "rotary_emb.inv_freq");
}

// A tensor that nobody expects means a model that differs from its family; computing it without
// that tensor would give plausible nonsense.
absl::Status CheckTensors(const GgufFile& file, const Model& model) {
  absl::flat_hash_set<std::string> names;
  for (TensorSpec& spec : ExpectedTensors(model)) {
    RENGA_RETURN_IF_ERROR(CheckTensor(file, spec));
    names.insert(std::move(spec.name));
  }
  for (const GgufTensor& tensor : file.tensors()) {
    if (names.contains(tensor.name) || IsRedundant(tensor.name)) continue;
    return absl::UnimplementedError(absl::StrCat("the model has the tensor ", tensor.name,
                                                 ", which renga does not know in ",
                                                 model.architecture->name(), " models"));
  }
  return absl::OkStatus();
}

}  // namespace

bool HasDims(const TensorSpec& spec, std::span<const int64_t> dims) {
  const auto at = [&](size_t i) { return i < dims.size() ? dims[i] : 1; };
  for (size_t i = 3; i < dims.size(); ++i) {
    if (dims[i] != 1) return false;
  }
  const int64_t matrices = std::max<int64_t>(spec.experts, 1);
  return at(0) == spec.columns && at(1) == spec.rows / matrices && at(2) == matrices;
}

bool ReadsTensor(const LayerProgram& program, const Op& op, size_t tensor) {
  const auto index = static_cast<int>(tensor);
  if (op.weight == index || op.bias == index) return true;
  const ExpertTensors& experts = program.experts;
  return op.kind == OpKind::kExperts &&
         (experts.gate == index || experts.up == index || experts.down == index);
}

TensorSpec EmbeddingTensor(const ModelConfig& config) {
  return {.name = "token_embd.weight",
          .rows = config.vocab_size,
          .columns = config.d_model,
          .cut = Cut::kVocabulary};
}

TensorSpec OutputNormTensor(const ModelConfig& config) {
  return Vector("output_norm.weight", config.d_model);
}

TensorSpec OutputTensor(const ModelConfig& config) {
  TensorSpec spec = EmbeddingTensor(config);
  if (!config.tied_output) spec.name = "output.weight";
  return spec;
}

TensorSpec RopeFactorsTensor(const ModelConfig& config) {
  return Vector("rope_freqs.weight", config.rope.dims / 2);
}

absl::StatusOr<Model> ReadModel(const GgufFile& file) {
  RENGA_ASSIGN_OR_RETURN(const auto name, file.metadata().GetString("general.architecture"));
  if (!name) {
    std::vector<absl::string_view> known;
    for (const Architecture* architecture : AllArchitectures()) {
      known.push_back(architecture->name());
    }
    return absl::InvalidArgumentError(
        absl::StrCat("the file does not say which architecture its model has: it lacks the "
                     "metadata key general.architecture; renga knows ",
                     absl::StrJoin(known, ", ")));
  }
  Model model;
  RENGA_ASSIGN_OR_RETURN(model.architecture, FindArchitecture(*name));
  if (file.tensors().empty()) {
    return absl::InvalidArgumentError(
        "the file holds only a vocabulary, no tensors: it can tokenize but not compute");
  }
  RENGA_ASSIGN_OR_RETURN(model.config, model.architecture->ReadConfig(file));
  RENGA_RETURN_IF_ERROR(CheckTensors(file, model));
  return model;
}

}  // namespace renga::model
