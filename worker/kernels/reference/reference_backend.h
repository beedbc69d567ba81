// The judge of the other backends: plain loops, weights decoded as their format defines them,
// every sum in double and in order. One thread, no tricks; fast enough for tests only.
#ifndef RENGA_WORKER_KERNELS_REFERENCE_REFERENCE_BACKEND_H_
#define RENGA_WORKER_KERNELS_REFERENCE_REFERENCE_BACKEND_H_

#include <memory>

#include "worker/kernels/backend.h"

namespace renga::kernels {

std::unique_ptr<Backend> CreateReferenceBackend();

}  // namespace renga::kernels

#endif  // RENGA_WORKER_KERNELS_REFERENCE_REFERENCE_BACKEND_H_
