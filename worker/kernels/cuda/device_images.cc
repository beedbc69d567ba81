#include "worker/kernels/cuda/device_images.h"

#include "absl/strings/str_cat.h"

namespace renga::kernels::cuda {
namespace {

// DP4A, which all kernels of quantised weights need, came with this one.
constexpr int kOldest = 61;

std::string Capability(int capability) {
  return absl::StrCat(capability / 10, ".", capability % 10);
}
std::string Version(int version) { return absl::StrCat(version / 1000, ".", version % 1000 / 10); }

}  // namespace

absl::StatusOr<DeviceImage> ChooseImage(std::span<const DeviceImage> images, int capability,
                                        int driver_version, const std::string& card) {
  if (capability < kOldest) {
    return absl::FailedPreconditionError(absl::StrCat(
        "the ", card, " is too old: its compute capability is ", Capability(capability),
        ", at least ", Capability(kOldest), " (GTX 10 series) is needed; use --device cpu"));
  }
  for (const DeviceImage& image : images) {
    if (capability < image.first || capability > image.last) continue;
    if (driver_version >= image.driver_version) return image;
    return absl::FailedPreconditionError(
        absl::StrCat("the NVIDIA driver is too old: it knows CUDA ", Version(driver_version),
                     ", the code for "
                     "the ",
                     card, " needs ", Version(image.driver_version),
                     "; install a newer driver, or use --device cpu"));
  }
  return absl::FailedPreconditionError(
      images.empty()
          ? "this renga was built without a CUDA compiler: docs/CUDA.md says how to build it, or "
            "use --device cpu"
          : absl::StrCat("this renga has no code for the ", card, " (compute capability ",
                         Capability(capability),
                         "): docs/CUDA.md says how to build it, or use --device cpu"));
}

}  // namespace renga::kernels::cuda
