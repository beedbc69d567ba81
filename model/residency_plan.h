// Which bundles of a shard stay in memory and which are read from disk again for every step: the
// one place where the planner (who predicts) and the engine (who reads) get this.
//
// A step uses all bundles in the same order every time. A cache that keeps what was used last would
// drop each bundle just before it is needed again; so some bundles are pinned for good, the others
// pass through a ring of buffers, read ahead of their use. The streamed ones are spread evenly over
// the step, so that the disk has something to read all the time while the others are computed.
#ifndef RENGA_MODEL_RESIDENCY_PLAN_H_
#define RENGA_MODEL_RESIDENCY_PLAN_H_

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"

namespace renga::model {

struct ResidencyPlan {
  std::vector<bool> pinned;  // by bundle
  int64_t pinned_bytes = 0;
  int64_t streamed_bytes = 0;  // read once per step
  int64_t ring_bytes = 0;      // through which they pass; 0 when nothing is streamed
  int64_t memory_bytes() const { return pinned_bytes + ring_bytes; }
};

// Room for the bundle in use and for reading ahead meanwhile.
constexpr int64_t RingBytes(int64_t largest_bundle_bytes) { return 2 * largest_bundle_bytes; }

// For bundles of these sizes, in the order of their use. As many as fit into `budget_bytes` beside
// the ring are pinned. kResourceExhausted when not even the largest bundle fits.
absl::StatusOr<ResidencyPlan> PlanResidency(std::span<const int64_t> bundle_bytes,
                                            int64_t budget_bytes);

}  // namespace renga::model

#endif  // RENGA_MODEL_RESIDENCY_PLAN_H_
