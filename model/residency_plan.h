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

// Equal places in memory that a mixture's experts share.
struct ExpertPlaces {
  int64_t count = 0;
  int64_t bytes = 0;  // of each
  // With room for one more, in which a damaged expert is packed anew.
  int64_t memory_bytes() const { return (count + 1) * bytes; }
};

struct ResidencyPlan {
  std::vector<bool> pinned;  // by bundle
  int64_t pinned_bytes = 0;
  int64_t streamed_bytes = 0;  // read once per step
  int64_t ring_bytes = 0;      // through which they pass; 0 when nothing is streamed
  int64_t memory_bytes() const { return pinned_bytes + ring_bytes; }
};

// Places for experts of these sizes beside `other_bytes` of matrices that every token reads, which
// all stay in memory: experts are what is best left out, since each token uses few of them. Never
// more places than experts. kResourceExhausted unless there is room for those that one token uses
// of a layer.
absl::StatusOr<ExpertPlaces> PlanExpertPlaces(std::span<const int64_t> expert_bytes,
                                              int64_t used_at_once, int64_t other_bytes,
                                              int64_t budget_bytes);

// Room for the bundle in use and for reading ahead meanwhile.
constexpr int64_t RingBytes(int64_t largest_bundle_bytes) { return 2 * largest_bundle_bytes; }

// For bundles of these sizes, in the order of their use. As many as fit into `budget_bytes` beside
// the ring are pinned. kResourceExhausted when not even the largest bundle fits.
absl::StatusOr<ResidencyPlan> PlanResidency(std::span<const int64_t> bundle_bytes,
                                            int64_t budget_bytes);

}  // namespace renga::model

#endif  // RENGA_MODEL_RESIDENCY_PLAN_H_
