#include "worker/kernels/cuda/nccl_api.h"

#include <dlfcn.h>

#include <type_traits>

#include "absl/strings/str_cat.h"

namespace renga::kernels::cuda {

absl::StatusOr<NcclApi> LoadNccl(const std::string& library) {
  void* const handle = ::dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) {
    return absl::FailedPreconditionError(
        absl::StrCat("this machine has no NCCL (", library,
                     " cannot be loaded): install it, or let groups of cards use sockets"));
  }
  NcclApi nccl;
  const char* missing = nullptr;
  const auto find = [handle, &missing](auto& function, const char* symbol) {
    function =
        reinterpret_cast<std::remove_reference_t<decltype(function)>>(::dlsym(handle, symbol));
    if (function == nullptr) missing = symbol;
  };
#define RENGA_NCCL_FUNCTION(name, symbol, parameters) find(nccl.name, symbol);
  RENGA_NCCL_FUNCTIONS(RENGA_NCCL_FUNCTION)
#undef RENGA_NCCL_FUNCTION
  find(nccl.GetErrorString, "ncclGetErrorString");
  if (missing == nullptr) return nccl;
  return absl::FailedPreconditionError(
      absl::StrCat("this machine's NCCL is too old: ", library, " has no ", missing));
}

absl::Status NcclStatus(const NcclApi& nccl, NcclResult result, absl::string_view what) {
  if (result == kNcclSuccess) return absl::OkStatus();
  const std::string text =
      absl::StrCat("NCCL: ", what, " failed: ", nccl.GetErrorString(result), " (", result,
                   "); NCCL_DEBUG=INFO in the environment makes it say more");
  switch (result) {
    case kNcclSystemError:
    case kNcclRemoteError:
      return absl::UnavailableError(text);
    case kNcclInvalidUsage:  // also two ranks on one card
      return absl::FailedPreconditionError(text);
    default:
      return absl::InternalError(text);
  }
}

}  // namespace renga::kernels::cuda
