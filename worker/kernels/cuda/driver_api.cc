#include "worker/kernels/cuda/driver_api.h"

#include <dlfcn.h>

#include "absl/strings/str_cat.h"

namespace renga::kernels::cuda {
namespace {

std::string ErrorText(const DriverApi& driver, DriverResult result) {
  const char* name = nullptr;
  const char* text = nullptr;
  if (driver.GetErrorName == nullptr || driver.GetErrorName(result, &name) != kDriverSuccess ||
      driver.GetErrorString(result, &text) != kDriverSuccess || name == nullptr ||
      text == nullptr) {
    return absl::StrCat("error ", result);
  }
  return absl::StrCat(name, " (", text, ")");
}

}  // namespace

absl::StatusOr<DriverApi> LoadDriver(const std::string& library) {
  void* const handle = ::dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) {
    return absl::FailedPreconditionError(
        absl::StrCat("this machine has no NVIDIA driver (", library,
                     " cannot be loaded): install one, or use --device cpu"));
  }
  DriverApi driver;
  const char* missing = nullptr;
#define RENGA_DRIVER_FUNCTION(name, symbol, parameters)                           \
  driver.name = reinterpret_cast<decltype(driver.name)>(::dlsym(handle, symbol)); \
  if (driver.name == nullptr) missing = symbol;
  RENGA_DRIVER_FUNCTIONS(RENGA_DRIVER_FUNCTION)
#undef RENGA_DRIVER_FUNCTION
  if (missing != nullptr) {
    return absl::FailedPreconditionError(
        absl::StrCat("the NVIDIA driver is too old: ", library, " has no ", missing,
                     "; install a newer one, or use --device cpu"));
  }
  return driver;
}

absl::Status DriverStatus(const DriverApi& driver, DriverResult result, absl::string_view what) {
  if (result == kDriverSuccess) return absl::OkStatus();
  const std::string text = absl::StrCat(what, " failed: ", ErrorText(driver, result));
  switch (result) {
    case kDriverOutOfMemory:
      return absl::ResourceExhaustedError(text);
    case kDriverNoDevice:
      return absl::FailedPreconditionError(
          "the NVIDIA driver finds no card: look at nvidia-smi, or use --device cpu");
    case kDriverMismatch:
      return absl::FailedPreconditionError(
          "the NVIDIA driver's library and its kernel module are of different versions: restart "
          "the machine after installing a driver, or use --device cpu");
    case kDriverNoBinary:
    case kDriverOldPtx:
      return absl::FailedPreconditionError(text);
    default:
      return absl::InternalError(text);
  }
}

}  // namespace renga::kernels::cuda
