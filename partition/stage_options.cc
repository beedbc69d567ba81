#include "partition/stage_options.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "model/layer_slice.h"
#include "partition/head_split.h"
#include "partition/slice_split.h"

namespace renga::partition {
namespace {

// What a group's slices of `layers` layers cost, in the units that SplitSlices divides.
SliceCosts CostsOf(const CostModel& costs, int64_t layers) {
  const model::ModelConfig& config = costs.bytes().config();
  const model::ModelFootprint& footprint = costs.bytes().footprint();
  // The layers of a model are nearly alike; a stage's slices are the same in all of them.
  double query = 0;
  double kv = 0;
  double feed_forward = 0;
  for (const model::LayerWeightBytes& layer : footprint.layers) {
    query += static_cast<double>(layer.query_heads);
    kv += static_cast<double>(layer.kv_heads);
    feed_forward += static_cast<double>(layer.feed_forward);
  }
  const auto all = static_cast<double>(footprint.layers.size());
  const auto stage = static_cast<double>(layers);
  const model::RuntimeLimits& limits = costs.bytes().limits();
  const double kv_cache = static_cast<double>(limits.kv_blocks) *
                          static_cast<double>(model::KvBlockBytesPerLayer(config, limits.kv_type)) /
                          static_cast<double>(config.n_kv_heads);
  SliceCosts result;
  result.query_head_bytes = query / all / static_cast<double>(config.n_heads);
  result.kv_head_bytes = kv / all / static_cast<double>(config.n_kv_heads);
  result.ff_column_bytes = feed_forward / all / static_cast<double>(config.d_ff);
  result.query_head_room = result.query_head_bytes * stage;
  result.kv_head_room = (result.kv_head_bytes + kv_cache) * stage;
  result.ff_column_room = result.ff_column_bytes * stage;
  result.kv_head_bytes += costs.KvBytesReadPerHead();
  return result;
}

model::ShardSpec SpecOf(const StageOption& option, size_t member, const model::Range& layers) {
  model::ShardSpec spec;
  spec.layers = layers;
  if (!option.shape.slices.empty()) spec.slice = option.shape.slices[member];
  if (!option.head_rows.empty()) spec.head_rows = {0, option.head_rows[member]};
  return spec;
}

}  // namespace

const std::vector<StageOption>& StageOptions::Of(const std::vector<int>& kinds, int64_t head_rows) {
  const auto key = std::pair(kinds, head_rows);
  const auto known = options_.find(key);
  if (known != options_.end()) return known->second;
  return options_.emplace(key, Make(kinds, head_rows)).first->second;
}

std::vector<StageOption> StageOptions::Make(const std::vector<int>& kinds,
                                            int64_t head_rows) const {
  StageOption base;
  base.shape.kinds = kinds;
  // The fastest first: it speaks for the group, and members of like speed share KV heads.
  std::stable_sort(base.shape.kinds.begin(), base.shape.kinds.end(), [this](int a, int b) {
    return costs_.LayerMsPerByte(a) < costs_.LayerMsPerByte(b);
  });
  if (head_rows > 0) AddHeadRows(base, head_rows);
  if (kinds.size() > 1) return MakeGroup(std::move(base));
  AddTables(base);
  if (LongestRun(base) == 0) return {};
  return {std::move(base)};
}

void StageOptions::AddHeadRows(StageOption& option, int64_t head_rows) const {
  std::vector<HeadHolder> holders;
  for (const int kind : option.shape.kinds) {
    holders.push_back({.ms_per_row = costs_.HeadMsPerRow(kind),
                       .fixed_ms = 0,
                       .row_capacity = costs_.bytes().vocab_size()});
  }
  const std::optional<std::vector<int64_t>> rows = SplitRows(head_rows, holders);
  option.head_rows = rows.value_or(std::vector<int64_t>(holders.size()));
  for (size_t i = 0; i < holders.size(); ++i) {
    option.head_ms =
        std::max(option.head_ms, static_cast<double>(option.head_rows[i]) * holders[i].ms_per_row);
  }
}

// Slices for one layer need the least memory and are the fastest; they do up to some number of
// layers. For more layers others may fit that are slower, and so on.
std::vector<StageOption> StageOptions::MakeGroup(StageOption base) const {
  const ShardCosts& bytes = costs_.bytes();
  std::vector<StageOption> made;
  for (int64_t layers = 1; layers <= bytes.layer_count();) {
    const SliceCosts slice_costs = CostsOf(costs_, layers);
    std::vector<SliceMember> members;
    for (size_t i = 0; i < base.shape.kinds.size(); ++i) {
      const int kind = base.shape.kinds[i];
      // Scratch depends on the slice; the last slices' is a good guess, and what does not fit in
      // the end is not offered.
      StageOption guess = made.empty() ? base : made.back();
      if (guess.shape.slices.empty()) {
        guess.shape.slices.assign(base.shape.kinds.size(), model::WholeLayer(bytes.config()));
      }
      const model::ShardBytes fixed = bytes.Bytes(SpecOf(guess, i, {0, 1}));
      const int64_t layer = model::SliceBytes(bytes.footprint().layers[0], bytes.config(),
                                              *SpecOf(guess, i, {0, 1}).slice);
      const int64_t uncut = bytes.footprint().layers[0].uncut * layers;
      members.push_back({.ms_per_byte = costs_.LayerMsPerByte(kind),
                         .room = costs_.kinds().ProfileOf(kind).memory_bytes - fixed.scratch -
                                 (fixed.weights - layer) - uncut});
    }
    const auto slices =
        SplitSlices(bytes.config(), bytes.footprint().slice_units, slice_costs, members);
    if (!slices) break;
    StageOption option = base;
    option.shape.slices = *slices;
    AddTables(option);
    const int64_t longest = LongestRun(option);
    if (longest < layers && !made.empty()) break;
    if (longest == 0) break;
    made.push_back(std::move(option));
    layers = longest + 1;
  }
  return made;
}

bool StageOptions::Fits(const StageOption& option, int64_t begin, int64_t end) const {
  for (size_t i = 0; i < option.shape.kinds.size(); ++i) {
    if (!costs_.bytes().Fits(costs_.kinds().ProfileOf(option.shape.kinds[i]),
                             SpecOf(option, i, {begin, end}))) {
      return false;
    }
  }
  return true;
}

void StageOptions::AddTables(StageOption& option) const {
  const int64_t layers = costs_.bytes().layer_count();
  const double sums = costs_.SumsMs(option.shape);
  const double prompt_sums = costs_.SumsMs(option.shape, kPromptRows);
  option.before_ms.assign(1, 0);
  option.prompt_ms.assign(1, 0);
  option.earliest.assign(1, 0);
  for (int64_t end = 1; end <= layers; ++end) {
    option.before_ms.push_back(option.before_ms.back() + costs_.LayerMs(option.shape, end - 1) +
                               sums);
    const double products = costs_.LayerMs(option.shape, end - 1, kPromptRows);
    option.prompt_ms.push_back(option.prompt_ms.back() + products +
                               CostModel::AddedSumsMs(products, prompt_sums, kPromptRows));
    int64_t begin = option.earliest.back();
    while (begin < end && !Fits(option, begin, end)) ++begin;
    option.earliest.push_back(begin);
  }
}

int64_t StageOptions::LongestRun(const StageOption& option) const {
  int64_t longest = 0;
  for (int64_t end = 1; end < static_cast<int64_t>(option.earliest.size()); ++end) {
    longest = std::max(longest, end - option.earliest[end]);
  }
  return longest;
}

}  // namespace renga::partition
