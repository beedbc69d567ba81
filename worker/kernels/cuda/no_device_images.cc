// Stands in for the embedded code in builds without a CUDA compiler.
#include "worker/kernels/cuda/device_images.h"

namespace renga::kernels::cuda {

std::span<const DeviceImage> EmbeddedImages() { return {}; }

}  // namespace renga::kernels::cuda
