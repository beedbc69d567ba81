// The kernels' device code, as the build made it: embedded in the program.
#ifndef RENGA_WORKER_KERNELS_CUDA_DEVICE_IMAGES_H_
#define RENGA_WORKER_KERNELS_CUDA_DEVICE_IMAGES_H_

#include <cstddef>
#include <span>
#include <string>

#include "absl/status/statusor.h"

namespace renga::kernels::cuda {

// Compute capability, 10 * major + minor: 61 for 6.1.
struct DeviceImage {
  int first = 0;           // the first capability that it serves
  int last = 0;            // and the last
  int driver_version = 0;  // that it needs: 1000 * major + 10 * minor of the driver's CUDA version
  std::span<const std::byte> code;  // a cubin or a fat binary
  int first_tensor = 1000;          // the first capability whose code has the Tensor kernels
};

// What this build has; empty when it was built without a CUDA compiler.
std::span<const DeviceImage> EmbeddedImages();

// The image for a card. kFailedPrecondition: the card is too old, the driver is too old, or the
// build has no code for the card; `card` is its name, for the sentence.
absl::StatusOr<DeviceImage> ChooseImage(std::span<const DeviceImage> images, int capability,
                                        int driver_version, const std::string& card);

}  // namespace renga::kernels::cuda

#endif  // RENGA_WORKER_KERNELS_CUDA_DEVICE_IMAGES_H_
