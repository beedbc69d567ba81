// CPU paths for instruction sets that a machine may lack, imitated in plain C++: the kernels are
// the same templates, only the words are not the processor's.
#ifndef RENGA_WORKER_KERNELS_CONFORMANCE_EMULATED_PATHS_H_
#define RENGA_WORKER_KERNELS_CONFORMANCE_EMULATED_PATHS_H_

#include <memory>
#include <string>
#include <vector>

#include "worker/kernels/backend.h"

namespace renga::kernels::conformance {

// AvailableDevices() and the imitations: "like-avxvnni", "like-avx512vnni".
std::vector<std::string> TestedDevices();

// The device that must give the same bits as `device` by other instructions; empty if there is none
// here.
std::string TwinOf(const std::string& device);

// A backend for any of them, with `threads` >= 1 threads; null, and a failed test, for other names.
std::unique_ptr<Backend> CreateTestedBackend(const std::string& device, int threads);

}  // namespace renga::kernels::conformance

#endif  // RENGA_WORKER_KERNELS_CONFORMANCE_EMULATED_PATHS_H_
