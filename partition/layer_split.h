// Dividing the layers over stages whose workers and order are fixed.
#ifndef RENGA_PARTITION_LAYER_SPLIT_H_
#define RENGA_PARTITION_LAYER_SPLIT_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "model/shard_spec.h"
#include "partition/plan.h"
#include "partition/stage_options.h"

namespace renga::partition {

struct LineupStage {
  std::vector<int> kinds;  // of its workers, ascending
  int64_t head_rows = 0;   // of the output matrix, beside its layers
  friend bool operator==(const LineupStage&, const LineupStage&) = default;
};
// Stages in order; each is to get at least one layer.
using Lineup = std::vector<LineupStage>;

// What a search compares: the objective's own time first.
struct Value {
  double first = 0;
  double second = 0;
};
// Times that differ by rounding only are equal.
inline constexpr double kSameTime = 1e-9;
bool Better(const Value& a, const Value& b);
Value ValueFor(Objective objective, double stream_ms, double slowest_ms);

struct LayerSplit {
  std::vector<const StageOption*> options;  // one per stage
  std::vector<model::Range> layers;         // one per stage, none empty
  double slowest_ms = 0;                    // of the stages, head rows included, and of the hops
  // Stages, the hops to them, and the last one's head rows with their way back.
  double stream_ms = 0;
  double prompt_ms = 0;  // of the slowest stage, for kPromptRows tokens
  // What of stream_ms was given up for that, and the part that prompts then take less.
  double given_up_ms = 0;
  double prompts_gain = 0;
};

// kOneStream: the least stream_ms and, among those, the least slowest_ms; kManyStreams the other
// way round. Of one stream's, the request's for_prompts may be given up for a lesser prompt_ms.
// Within every worker's memory. Exact, by dynamic programming: O(stages * layers^2), with a
// bisection for what comes second. nullopt when none fits.
std::optional<LayerSplit> SplitLayers(StageOptions& options, const Lineup& lineup,
                                      Objective objective);
// What SplitLayers would find, sooner: for kOneStream the second time is not the least.
std::optional<Value> MeasureLineup(StageOptions& options, const Lineup& lineup,
                                   Objective objective);

// A head's way back to the coordinator from the members of the last stage.
double ReturnMs(const CostModel& costs, const std::vector<int>& kinds);

}  // namespace renga::partition

#endif  // RENGA_PARTITION_LAYER_SPLIT_H_
