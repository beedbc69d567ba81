// A tensor-parallel group of cards over NCCL.
//
// The contract wants sums in rank order, which NCCL's own sums are not in: parts are gathered and
// added up on the card. For the two to four cards of a machine that moves as many bytes, or one and
// a half times as many.
#ifndef RENGA_WORKER_KERNELS_CUDA_NCCL_COMMUNICATOR_H_
#define RENGA_WORKER_KERNELS_CUDA_NCCL_COMMUNICATOR_H_

#include <memory>

#include "absl/status/statusor.h"
#include "base/communicator.h"
#include "worker/kernels/cuda/device.h"
#include "worker/kernels/cuda/nccl_api.h"

namespace renga::kernels::cuda {

// The group that `others` is, in the same ranks: NCCL's id of the group goes through it, by one
// Broadcast that all members must be in. Each rank has a card of its own: NCCL refuses two on one.
// Blocks until all are there; there is no way to end that wait. Copies between host and card are in
// the time that TakeExchangeTime tells.
//
// kUnimplemented for a device without a stream; NcclStatus's errors.
absl::StatusOr<std::unique_ptr<base::Communicator>> CreateNcclCommunicator(
    const NcclApi& nccl, std::shared_ptr<Device> device, base::Communicator& others);

}  // namespace renga::kernels::cuda

#endif  // RENGA_WORKER_KERNELS_CUDA_NCCL_COMMUNICATOR_H_
