// Makes the backend of a device by name. The only place that knows which backends exist.
#ifndef RENGA_WORKER_KERNELS_BACKEND_FACTORY_H_
#define RENGA_WORKER_KERNELS_BACKEND_FACTORY_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/kernels/backend.h"

namespace renga::kernels {

struct BackendOptions {
  // "cpu" (best path this machine has), a forced path ("cpu-portable", "cpu-ssse3", "cpu-avx",
  // "cpu-avx2", "cpu-avxvnni", "cpu-avx512vnni", "cpu-amx", "cpu-neon", "cpu-neon-dotprod",
  // "cpu-neon-i8mm") or "reference". The environment's RENGA_CPU_ISA=avx2 forces a path of "cpu".
  // "cuda" or "cuda:1": an NVIDIA card by its number; "cuda-dp4a:1", "cuda-mma:1" and
  // "cuda-half:1" force the instructions that multiply matrices, as RENGA_CUDA_PATH=dp4a does for
  // "cuda:1".
  std::string device = "cpu";
  int threads = 0;  // 0: base::UsableCpuCount(); of no use to a card
  // Of a card's memory, taken at once, so that nobody else can take it later; 0: each piece is
  // taken when it is needed. Of no use to other devices.
  int64_t card_memory_bytes = 0;
};

// kInvalidArgument names the known devices; kFailedPrecondition when this machine lacks the path,
// or says what a card lacks: a driver, a newer driver, code for it.
absl::StatusOr<std::unique_ptr<Backend>> CreateBackend(const BackendOptions& options);

// Memory that a worker on that device may still take: the card's, or this machine's. Errors as
// CreateBackend's for cards.
absl::StatusOr<int64_t> AvailableBytesOf(const std::string& device);

// Whether the name is a card's, be it there or not.
bool IsCard(const std::string& device);

// What a card is, asked of its driver.
struct CardDescription {
  std::string name;         // as its maker calls it
  std::string bus_id;       // where it is in its machine: another one for every card
  int64_t total_bytes = 0;  // of its memory
  int64_t free_bytes = 0;   // now: a desktop or another program may take some
};
// Errors as CreateBackend's for cards; kInvalidArgument for devices that are none.
absl::StatusOr<CardDescription> DescribeCard(const std::string& device);

// "auto" is the first card if this build can use it, else "cpu"; other names are what they are.
// What is wrong with a card that is there is said in the log.
std::string ChooseDevice(const std::string& device);

// CPU paths this machine can run, best first, and the reference. Cards are not looked for.
std::vector<std::string> AvailableDevices();

}  // namespace renga::kernels

#endif  // RENGA_WORKER_KERNELS_BACKEND_FACTORY_H_
