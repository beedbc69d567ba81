// CPU paths for instruction sets that a machine may lack, imitated in plain C++: the kernels are
// the same templates, only the words are not the processor's.
#ifndef RENGA_WORKER_KERNELS_CONFORMANCE_EMULATED_PATHS_H_
#define RENGA_WORKER_KERNELS_CONFORMANCE_EMULATED_PATHS_H_

#include <memory>
#include <string>
#include <vector>

#include "base/data_type.h"
#include "worker/kernels/backend.h"

namespace renga::kernels::conformance {

// AvailableDevices() and the imitations, on x86: "like-avx512vnni", "like-amx", and
// "emulated-cuda", the card's kernels on an imitated card (not under the thread sanitizer); and the
// real cards that the environment names (base/testing/tested_cards.h).
std::vector<std::string> TestedDevices();

// "emulated-cuda-mma", where there is an emulated card: it differs from "emulated-cuda" in products
// of quantised types alone.
std::vector<std::string> TensorDevices();
// "emulated-cuda-half", likewise: it differs from that one in products of F16 alone.
std::vector<std::string> HalfDevices();

// The device that must give the same bits as `device` by other instructions; empty if there is none
// here.
std::string TwinOf(const std::string& device);
// The same for products with a matrix of that type: more devices agree there.
std::string LinearTwinOf(const std::string& device, base::DataType type);

// A backend for any of them, with `threads` >= 1 threads; null, and a failed test, for other names.
std::unique_ptr<Backend> CreateTestedBackend(const std::string& device, int threads);

}  // namespace renga::kernels::conformance

#endif  // RENGA_WORKER_KERNELS_CONFORMANCE_EMULATED_PATHS_H_
