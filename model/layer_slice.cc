#include "model/layer_slice.h"

#include <numeric>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace renga::model {
namespace {

std::string ToText(const Range& range) { return absl::StrCat(range.begin, " to ", range.end); }

absl::Status CheckCut(const char* what, const Range& range, int64_t size, int64_t unit) {
  const bool inside = range.begin >= 0 && range.begin <= range.end && range.end <= size;
  if (inside && range.begin % unit == 0 && range.end % unit == 0) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("a slice of ", what, " ", ToText(range), " of ",
                                                 size, ", which are cut at multiples of ", unit));
}

}  // namespace

void Widen(const TensorSpec& tensor, base::DataType type, const ModelConfig& config,
           SliceUnits& units) {
  const int64_t block = base::GetDataTypeInfo(type).block_elements;
  if (tensor.cut == Cut::kHeadColumns) {
    units.heads = std::lcm(units.heads, block / std::gcd(block, config.head_dim));
  } else if (tensor.cut == Cut::kFeedForwardColumns) {
    units.ff = std::lcm(units.ff, block);
  }
}

LayerSlice WholeLayer(const ModelConfig& config) {
  return {.heads = {.begin = 0, .end = config.n_heads}, .ff = {.begin = 0, .end = config.d_ff}};
}

Range KvHeadsOf(const ModelConfig& config, const Range& heads) {
  if (heads.empty()) return {};
  const int64_t group = config.n_heads / config.n_kv_heads;
  return {.begin = heads.begin / group, .end = (heads.end + group - 1) / group};
}

absl::Status CheckSlice(const ModelConfig& config, const SliceUnits& units,
                        const LayerSlice& slice) {
  if (config.has_experts()) {
    return absl::UnimplementedError(
        "layers with experts are not divided over tensor-parallel groups: give whole layers to "
        "each worker (--tensor-parallel 1)");
  }
  RENGA_RETURN_IF_ERROR(CheckCut("query heads", slice.heads, config.n_heads, units.heads));
  RENGA_RETURN_IF_ERROR(CheckCut("feed-forward columns", slice.ff, config.d_ff, units.ff));
  if (slice.heads.empty() && slice.ff.empty()) {
    return absl::InvalidArgumentError("a slice without heads and without feed-forward columns");
  }
  const int64_t group = config.n_heads / config.n_kv_heads;
  const bool whole_groups = slice.heads.begin % group == 0 && slice.heads.end % group == 0;
  if (!whole_groups && KvHeadsOf(config, slice.heads).size() != 1) {
    return absl::InvalidArgumentError(absl::StrCat("query heads ", ToText(slice.heads),
                                                   " are neither whole groups of ", group,
                                                   " nor inside one of them"));
  }
  return absl::OkStatus();
}

absl::Status CheckGroup(const ModelConfig& config, const SliceUnits& units,
                        std::span<const LayerSlice> members) {
  int64_t heads = 0;
  int64_t ff = 0;
  for (const LayerSlice& slice : members) {
    RENGA_RETURN_IF_ERROR(CheckSlice(config, units, slice));
    if (slice.heads.begin != heads || slice.ff.begin != ff) {
      return absl::InvalidArgumentError(
          absl::StrCat("a group's slices do not follow each other at query head ", heads,
                       " and feed-forward column ", ff));
    }
    heads = slice.heads.end;
    ff = slice.ff.end;
  }
  if (heads == config.n_heads && ff == config.d_ff) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("a group's slices end at query head ", heads, " of ", config.n_heads,
                   " and feed-forward column ", ff, " of ", config.d_ff));
}

ModelConfig SlicedConfig(const ModelConfig& config, const LayerSlice& slice) {
  ModelConfig sliced = config;
  sliced.n_heads = slice.heads.size();
  sliced.n_kv_heads = KvHeadsOf(config, slice.heads).size();
  sliced.d_ff = slice.ff.size();
  return sliced;
}

TensorPart WholeTensor(const TensorSpec& tensor) {
  return {.rows = {.begin = 0, .end = tensor.rows}, .columns = {.begin = 0, .end = tensor.columns}};
}

TensorPart ExpertPart(const TensorSpec& tensor, int64_t expert) {
  TensorPart part = WholeTensor(tensor);
  const int64_t rows = tensor.rows / tensor.experts;
  part.rows = {.begin = expert * rows, .end = (expert + 1) * rows};
  return part;
}

TensorPart PartOf(const TensorSpec& tensor, const ModelConfig& config, const LayerSlice& slice) {
  TensorPart part = WholeTensor(tensor);
  const auto heads = [&](const Range& range) {
    return Range{.begin = range.begin * config.head_dim, .end = range.end * config.head_dim};
  };
  Range& outputs = tensor.rows == 1 ? part.columns : part.rows;
  switch (tensor.cut) {
    case Cut::kNone:
    case Cut::kVocabulary:
    case Cut::kExperts:
      break;
    case Cut::kQueryHeads:
      outputs = heads(slice.heads);
      break;
    case Cut::kKvHeads:
      outputs = heads(KvHeadsOf(config, slice.heads));
      break;
    case Cut::kFeedForward:
      outputs = slice.ff;
      break;
    case Cut::kHeadColumns:
      part.columns = heads(slice.heads);
      break;
    case Cut::kFeedForwardColumns:
      part.columns = slice.ff;
      break;
  }
  return part;
}

}  // namespace renga::model
