// Makes the backend of a device by name. The only place that knows which backends exist.
#ifndef RENGA_WORKER_KERNELS_BACKEND_FACTORY_H_
#define RENGA_WORKER_KERNELS_BACKEND_FACTORY_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/kernels/backend.h"

namespace renga::kernels {

struct BackendOptions {
  // "cpu" (best path this machine has), a forced path ("cpu-portable", "cpu-ssse3", "cpu-avx",
  // "cpu-avx2", "cpu-avxvnni", "cpu-avx512vnni") or "reference". The environment's
  // RENGA_CPU_ISA=avx2 forces a path of "cpu".
  std::string device = "cpu";
  int threads = 0;  // 0: base::UsableCpuCount()
};

// kInvalidArgument names the known devices; kFailedPrecondition when this machine lacks the path.
absl::StatusOr<std::unique_ptr<Backend>> CreateBackend(const BackendOptions& options);

// Devices this machine can run, best first.
std::vector<std::string> AvailableDevices();

}  // namespace renga::kernels

#endif  // RENGA_WORKER_KERNELS_BACKEND_FACTORY_H_
