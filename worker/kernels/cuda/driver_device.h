// A card behind NVIDIA's driver.
#ifndef RENGA_WORKER_KERNELS_CUDA_DRIVER_DEVICE_H_
#define RENGA_WORKER_KERNELS_CUDA_DRIVER_DEVICE_H_

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "absl/status/statusor.h"
#include "worker/kernels/cuda/device.h"
#include "worker/kernels/cuda/device_images.h"
#include "worker/kernels/cuda/driver_api.h"

namespace renga::kernels::cuda {

// A card by its number, before anything of it is used.
struct Card {
  int device = 0;          // the driver's handle
  int capability = 0;      // compute capability, 61 for 6.1
  int driver_version = 0;  // the newest CUDA that the driver knows, 12040 for 12.4
  std::string name;        // as its maker calls it
  std::string bus_id;      // where it is in its machine: "0000:01:00.0"
};

// kFailedPrecondition in one sentence: no driver that works, no such card.
absl::StatusOr<Card> FindCard(const DriverApi& driver, int ordinal);

struct CardMemory {
  int64_t free_bytes = 0;  // now: a desktop or another program may take some
  int64_t total_bytes = 0;
};

struct CardOptions {
  bool graphs = true;  // whether steps that come again become CUDA graphs (launch_queue.h)
};

// The `ordinal`-th card. kFailedPrecondition in one sentence: no driver, a driver too old, no such
// card, a card too old, no code for it in `images`. kResourceExhausted: not even room for a
// context.
absl::StatusOr<std::unique_ptr<Device>> OpenCard(const DriverApi& driver, int ordinal,
                                                 std::span<const DeviceImage> images,
                                                 const CardOptions& options = {});

// Asks the driver; opens a context for it.
absl::StatusOr<CardMemory> MemoryOfCard(const DriverApi& driver, int ordinal);

}  // namespace renga::kernels::cuda

#endif  // RENGA_WORKER_KERNELS_CUDA_DRIVER_DEVICE_H_
