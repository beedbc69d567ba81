#include "worker/kernels/backend_factory.h"

#include <algorithm>
#include <cstdlib>
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/machine_limits.h"
#include "worker/kernels/cpu/cpu_backend.h"
#include "worker/kernels/reference/reference_backend.h"

namespace renga::kernels {
namespace {

constexpr CpuPath kAllPaths[] = {CpuPath::kAvx512Vnni, CpuPath::kAvxVnni, CpuPath::kAvx2,
                                 CpuPath::kAvx,        CpuPath::kSsse3,   CpuPath::kPortable};
constexpr absl::string_view kCpu = "cpu";
constexpr absl::string_view kReference = "reference";
constexpr char kIsaVariable[] = "RENGA_CPU_ISA";

std::string CpuDevice(CpuPath path) { return absl::StrCat(kCpu, "-", CpuPathName(path)); }

std::optional<CpuPath> PathOfName(absl::string_view name) {
  for (const CpuPath path : kAllPaths) {
    if (CpuPathName(path) == name) return path;
  }
  return std::nullopt;
}

// The path of "cpu": the environment's, else the best one here.
absl::StatusOr<CpuPath> PathOfPlainCpu() {
  const char* forced = std::getenv(kIsaVariable);
  if (forced == nullptr || *forced == '\0') return AvailableCpuPaths().front();
  if (const std::optional<CpuPath> path = PathOfName(forced)) return *path;
  return absl::InvalidArgumentError(
      absl::StrCat(kIsaVariable, " names no CPU path: '", forced, "'; it may be ",
                   absl::StrJoin(kAllPaths, ", ", [](std::string* out, CpuPath path) {
                     absl::StrAppend(out, CpuPathName(path));
                   })));
}

absl::StatusOr<CpuPath> PathOfDevice(const std::string& device) {
  if (device == kCpu) return PathOfPlainCpu();
  for (const CpuPath path : kAllPaths) {
    if (CpuDevice(path) == device) return path;
  }
  return absl::InvalidArgumentError(absl::StrCat("no such device: '", device,
                                                 "'; this machine has ", kCpu, ", ",
                                                 absl::StrJoin(AvailableDevices(), ", ")));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Backend>> CreateBackend(const BackendOptions& options) {
  if (options.threads < 0) {
    return absl::InvalidArgumentError(absl::StrCat("a backend with ", options.threads, " threads"));
  }
  if (options.device == kReference) return CreateReferenceBackend();
  const absl::StatusOr<CpuPath> path = PathOfDevice(options.device);
  if (!path.ok()) return path.status();
  const std::vector<CpuPath> available = AvailableCpuPaths();
  if (std::find(available.begin(), available.end(), *path) == available.end()) {
    return absl::FailedPreconditionError(absl::StrCat("this machine cannot run ", CpuDevice(*path),
                                                      "; it can run ",
                                                      absl::StrJoin(AvailableDevices(), ", ")));
  }
  return CreateCpuBackend(*path, options.threads > 0 ? options.threads : base::UsableCpuCount());
}

std::vector<std::string> AvailableDevices() {
  std::vector<std::string> devices;
  for (const CpuPath path : AvailableCpuPaths()) devices.push_back(CpuDevice(path));
  devices.emplace_back(kReference);
  return devices;
}

}  // namespace renga::kernels
