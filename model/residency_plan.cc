#include "model/residency_plan.h"

#include <algorithm>
#include <numeric>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/byte_size.h"

namespace renga::model {
namespace {

// Pins about `room` bytes of the bundles, at even distances.
void PinEvenly(std::span<const int64_t> bundle_bytes, int64_t room, int64_t total,
               ResidencyPlan& plan) {
  const double share = static_cast<double>(room) / static_cast<double>(total);
  double due = 0;  // bytes that should be pinned by now and are not
  for (size_t i = 0; i < bundle_bytes.size(); ++i) {
    const auto bytes = static_cast<double>(bundle_bytes[i]);
    due += share * bytes;
    if (due < bytes / 2 || plan.pinned_bytes + bundle_bytes[i] > room) continue;
    plan.pinned[i] = true;
    plan.pinned_bytes += bundle_bytes[i];
    due -= bytes;
  }
}

// Room that is left may do for some bundle more.
void PinWhatFits(std::span<const int64_t> bundle_bytes, int64_t room, ResidencyPlan& plan) {
  for (size_t i = 0; i < bundle_bytes.size(); ++i) {
    if (plan.pinned[i] || plan.pinned_bytes + bundle_bytes[i] > room) continue;
    plan.pinned[i] = true;
    plan.pinned_bytes += bundle_bytes[i];
  }
}

}  // namespace

absl::StatusOr<ExpertPlaces> PlanExpertPlaces(std::span<const int64_t> expert_bytes,
                                              int64_t used_at_once, int64_t other_bytes,
                                              int64_t budget_bytes) {
  ExpertPlaces places;
  places.bytes = *std::max_element(expert_bytes.begin(), expert_bytes.end());
  const int64_t room = budget_bytes - other_bytes;
  places.count = std::min(room / places.bytes - 1, std::ssize(expert_bytes));
  if (room > 0 && places.count >= used_at_once) return places;
  return absl::ResourceExhaustedError(absl::StrCat(
      "not enough memory to read experts as they are needed: what every token reads takes ",
      base::FormatByteSize(other_bytes), ", the experts of one token in one layer and one more ",
      base::FormatByteSize((used_at_once + 1) * places.bytes), ", ",
      base::FormatByteSize(std::max<int64_t>(budget_bytes, 0)), " are left"));
}

absl::StatusOr<ResidencyPlan> PlanResidency(std::span<const int64_t> bundle_bytes,
                                            int64_t budget_bytes) {
  const int64_t total = std::accumulate(bundle_bytes.begin(), bundle_bytes.end(), int64_t{0});
  ResidencyPlan plan;
  if (total <= budget_bytes) {
    plan.pinned.assign(bundle_bytes.size(), true);
    plan.pinned_bytes = total;
    return plan;
  }
  const int64_t largest = *std::max_element(bundle_bytes.begin(), bundle_bytes.end());
  if (largest > budget_bytes) {
    return absl::ResourceExhaustedError(
        absl::StrCat("not enough memory to read weights as they are needed: the largest matrices "
                     "of a layer take ",
                     base::FormatByteSize(largest), ", ",
                     base::FormatByteSize(std::max<int64_t>(budget_bytes, 0)), " are left"));
  }
  plan.pinned.assign(bundle_bytes.size(), false);
  // With less than that reading waits for computing, but it works.
  plan.ring_bytes = std::min(RingBytes(largest), budget_bytes);
  const int64_t room = budget_bytes - plan.ring_bytes;
  PinEvenly(bundle_bytes, room, total, plan);
  PinWhatFits(bundle_bytes, room, plan);
  plan.streamed_bytes = total - plan.pinned_bytes;
  return plan;
}

}  // namespace renga::model
