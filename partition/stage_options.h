// The ways in which a set of workers can compute a stage, as tables that the searches read: how
// long layers take, and which runs of layers fit.
#ifndef RENGA_PARTITION_STAGE_OPTIONS_H_
#define RENGA_PARTITION_STAGE_OPTIONS_H_

#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include "partition/cost_model.h"

namespace renga::partition {

// Tokens of a prompt that stages compute at once.
inline constexpr int64_t kPromptRows = 32;

struct StageOption {
  StageShape shape;
  std::vector<int64_t> head_rows;  // of each member, beside its layers; empty: none
  double head_ms = 0;              // the slowest member's rows
  std::vector<double> before_ms;   // (layers + 1): time of layers [0, l)
  std::vector<double> prompt_ms;   // as before_ms, of kPromptRows tokens at once
  // (layers + 1): where the longest run of layers that ends before layer e and fits begins; e when
  // not even one layer fits. Ascending.
  std::vector<int64_t> earliest;

  double LayersMs(int64_t begin, int64_t end) const { return before_ms[end] - before_ms[begin]; }
  double PromptMs(int64_t begin, int64_t end) const { return prompt_ms[end] - prompt_ms[begin]; }
  // Of the worker that is busy longest.
  double BusyMs(int64_t begin, int64_t end) const { return LayersMs(begin, end) + head_ms; }
};

// Not thread-safe; answers are kept and stay where they are. What it is made from outlives it.
class StageOptions {
 public:
  explicit StageOptions(const CostModel& costs) : costs_(costs) {}

  // For these kinds of workers (ascending; one: an ordinary stage) with `head_rows` rows of the
  // output matrix divided over them. Where memory is short, slices of a group that suit a few
  // layers differ from those for many: then there are several options. Empty when no layer fits.
  const std::vector<StageOption>& Of(const std::vector<int>& kinds, int64_t head_rows);

  const CostModel& costs() const { return costs_; }

 private:
  std::vector<StageOption> Make(const std::vector<int>& kinds, int64_t head_rows) const;
  std::vector<StageOption> MakeGroup(StageOption base) const;
  void AddHeadRows(StageOption& option, int64_t head_rows) const;
  void AddTables(StageOption& option) const;
  int64_t LongestRun(const StageOption& option) const;
  bool Fits(const StageOption& option, int64_t begin, int64_t end) const;

  const CostModel& costs_;
  std::map<std::pair<std::vector<int>, int64_t>, std::vector<StageOption>> options_;
};

}  // namespace renga::partition

#endif  // RENGA_PARTITION_STAGE_OPTIONS_H_
