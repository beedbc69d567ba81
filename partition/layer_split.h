// Dividing the layers over workers whose order is fixed.
#ifndef RENGA_PARTITION_LAYER_SPLIT_H_
#define RENGA_PARTITION_LAYER_SPLIT_H_

#include <optional>
#include <vector>

#include "model/shard_spec.h"
#include "partition/plan.h"
#include "partition/shard_costs.h"

namespace renga::partition {

// Workers in the order of the stages; each is to get at least one layer.
struct Lineup {
  std::vector<int> workers;             // indices into the profiles
  std::vector<model::Range> head_rows;  // beside its layers; one per worker, may be empty
};

struct LayerSplit {
  std::vector<model::Range> layers;  // one per worker of the lineup, none empty
  double slowest_ms = 0;
  double total_ms = 0;
};

// The split with the least time of the slowest stage and, among those, the least sum, that keeps
// every worker within its memory. Exact, by dynamic programming: O(workers * layers^2). nullopt
// when none fits.
std::optional<LayerSplit> SplitLayers(const ShardCosts& costs,
                                      const std::vector<WorkerProfile>& workers,
                                      const Lineup& lineup);

// An order of some of `candidates` (indices, at most 12 are looked at) that can hold all layers,
// the last of them with `last_head_rows` too; empty when no order of any of them can. For the odd
// case that the orders tried before all fail: with layers of unequal size the order can matter.
std::vector<int> FindFittingOrder(const ShardCosts& costs,
                                  const std::vector<WorkerProfile>& workers,
                                  const std::vector<int>& candidates,
                                  const model::Range& last_head_rows);

}  // namespace renga::partition

#endif  // RENGA_PARTITION_LAYER_SPLIT_H_
