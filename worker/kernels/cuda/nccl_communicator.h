// A tensor-parallel group of cards over NCCL.
//
// The contract wants sums in rank order, which NCCL's own sums are not in: parts are gathered and
// added up on the card. For the two to four cards of a machine that moves as many bytes, or one and
// a half times as many.
//
// NCCL's calls do not wait here (its nonblocking mode), and whoever waits for the card looks at the
// other members meanwhile: work that needs a member that is gone would never end by itself.
#ifndef RENGA_WORKER_KERNELS_CUDA_NCCL_COMMUNICATOR_H_
#define RENGA_WORKER_KERNELS_CUDA_NCCL_COMMUNICATOR_H_

#include <memory>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/communicator.h"
#include "worker/kernels/cuda/device.h"
#include "worker/kernels/cuda/nccl_api.h"

namespace renga::kernels::cuda {

struct NcclLimits {
  absl::Duration join = absl::Seconds(30);  // until all members are in the group
  // Of one wait for the card, which may have a whole step to do.
  absl::Duration wait = absl::Seconds(60);
};

// The group that `others` is, in the same ranks, as Backend::JoinDeviceGroup describes it; `others`
// outlives it. NCCL's id of the group goes through it, by a Broadcast of as many bytes as an id
// has. Each rank has a card of its own: NCCL refuses two on one. `nccl` is what LoadNccl gave this
// member. On the card it takes at most kNcclBytesOnCard, and what the library takes for itself.
absl::StatusOr<std::unique_ptr<base::Communicator>> JoinNcclGroup(
    const absl::StatusOr<NcclApi>& nccl, std::shared_ptr<Device> device, base::Communicator& others,
    const NcclLimits& limits = {});

// No more than model::ScratchParts::group counts.
inline constexpr int64_t kNcclBytesOnCard = int64_t{4} << 20;

}  // namespace renga::kernels::cuda

#endif  // RENGA_WORKER_KERNELS_CUDA_NCCL_COMMUNICATOR_H_
