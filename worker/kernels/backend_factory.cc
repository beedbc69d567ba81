#include "worker/kernels/backend_factory.h"

#include <algorithm>
#include <cstdlib>
#include <optional>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "base/log.h"
#include "base/machine_limits.h"
#include "base/status_macros.h"
#include "worker/kernels/cpu/cpu_backend.h"
#include "worker/kernels/cuda/arena_device.h"
#include "worker/kernels/cuda/cuda_backend.h"
#include "worker/kernels/cuda/device_images.h"
#include "worker/kernels/cuda/driver_api.h"
#include "worker/kernels/cuda/driver_device.h"
#include "worker/kernels/reference/reference_backend.h"

namespace renga::kernels {
namespace {

constexpr CpuPath kAllPaths[] = {CpuPath::kAmx,      CpuPath::kAvx512Vnni,  CpuPath::kAvxVnni,
                                 CpuPath::kAvx2,     CpuPath::kAvx,         CpuPath::kSsse3,
                                 CpuPath::kNeonI8mm, CpuPath::kNeonDotprod, CpuPath::kNeon,
                                 CpuPath::kPortable};
constexpr absl::string_view kAuto = "auto";
constexpr absl::string_view kCpu = "cpu";
constexpr absl::string_view kReference = "reference";
constexpr absl::string_view kCuda = "cuda";
constexpr absl::string_view kDp4a = "dp4a";
constexpr absl::string_view kMma = "mma";
constexpr absl::string_view kHalf = "half";
constexpr char kIsaVariable[] = "RENGA_CPU_ISA";
constexpr char kCudaPathVariable[] = "RENGA_CUDA_PATH";

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

struct CardName {
  int ordinal = 0;
  std::string path;  // "dp4a", "mma" or "half" when it is forced
};

// What "cuda", "cuda:1" or "cuda-dp4a:1" says; nullopt for other devices.
std::optional<CardName> CardOfDevice(absl::string_view device) {
  if (!absl::ConsumePrefix(&device, kCuda)) return std::nullopt;
  CardName card;
  for (const absl::string_view path : {kDp4a, kMma, kHalf}) {
    if (absl::ConsumePrefix(&device, absl::StrCat("-", path))) card.path = std::string(path);
  }
  if (device.empty()) return card;
  if (!absl::ConsumePrefix(&device, ":") || device.size() > 3 ||
      !std::all_of(device.begin(), device.end(), absl::ascii_isdigit) ||
      !absl::SimpleAtoi(device, &card.ordinal)) {
    return std::nullopt;
  }
  return card;
}

// The environment's path for cards, or "".
absl::StatusOr<std::string> ForcedCardPath() {
  const char* forced = std::getenv(kCudaPathVariable);
  if (forced == nullptr || *forced == '\0') return "";
  if (forced == kDp4a || forced == kMma || forced == kHalf) return forced;
  return absl::InvalidArgumentError(absl::StrCat(kCudaPathVariable, " names no path of cards: '",
                                                 forced, "'; it may be dp4a, mma or half"));
}

absl::StatusOr<std::unique_ptr<Backend>> CreateBackendOfCard(const CardName& name,
                                                             int64_t memory_bytes) {
  std::string path = name.path;
  if (path.empty()) {
    RENGA_ASSIGN_OR_RETURN(path, ForcedCardPath());
  }
  RENGA_ASSIGN_OR_RETURN(const cuda::DriverApi driver, cuda::LoadDriver());
  RENGA_ASSIGN_OR_RETURN(std::unique_ptr<cuda::Device> card,
                         cuda::OpenCard(driver, name.ordinal, cuda::EmbeddedImages()));
  if ((path == kMma || path == kHalf) && !card->has_tensor_kernels()) {
    return absl::FailedPreconditionError(
        absl::StrCat("cuda:", name.ordinal, " cannot run the path ", path,
                     ": it takes a card of compute capability 7.5 or newer "
                     "and code for it; use dp4a"));
  }
  if (memory_bytes > 0) {
    RENGA_ASSIGN_OR_RETURN(card, cuda::CreateArenaDevice(std::move(card), memory_bytes));
  }
  return CreateCudaBackend(std::move(card), path == kDp4a   ? CudaPath::kDp4a
                                            : path == kMma  ? CudaPath::kMma
                                            : path == kHalf ? CudaPath::kHalf
                                                            : CudaPath::kBest);
}

absl::StatusOr<CpuPath> PathOfDevice(const std::string& device) {
  if (device == kCpu) return PathOfPlainCpu();
  for (const CpuPath path : kAllPaths) {
    if (CpuDevice(path) == device) return path;
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "no such device: '", device, "'; this machine has ", kCpu, ", ",
      absl::StrJoin(AvailableDevices(), ", "), "; an NVIDIA card is ", kCuda, " or ", kCuda, ":1"));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Backend>> CreateBackend(const BackendOptions& options) {
  if (options.threads < 0) {
    return absl::InvalidArgumentError(absl::StrCat("a backend with ", options.threads, " threads"));
  }
  if (options.device == kReference) return CreateReferenceBackend();
  if (const std::optional<CardName> card = CardOfDevice(options.device)) {
    return CreateBackendOfCard(*card, options.card_memory_bytes);
  }
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

bool IsCard(const std::string& device) { return CardOfDevice(device).has_value(); }

absl::StatusOr<int64_t> AvailableBytesOf(const std::string& device) {
  if (!IsCard(device)) return base::AvailableMemoryBytes();
  RENGA_ASSIGN_OR_RETURN(const CardDescription card, DescribeCard(device));
  return card.free_bytes;
}

absl::StatusOr<CardDescription> DescribeCard(const std::string& device) {
  const std::optional<CardName> name = CardOfDevice(device);
  if (!name.has_value()) return absl::InvalidArgumentError(absl::StrCat(device, " is no card"));
  RENGA_ASSIGN_OR_RETURN(const cuda::DriverApi driver, cuda::LoadDriver());
  RENGA_ASSIGN_OR_RETURN(const cuda::Card card, cuda::FindCard(driver, name->ordinal));
  RENGA_ASSIGN_OR_RETURN(const cuda::CardMemory memory, cuda::MemoryOfCard(driver, name->ordinal));
  return CardDescription{.name = card.name,
                         .bus_id = card.bus_id,
                         .total_bytes = memory.total_bytes,
                         .free_bytes = memory.free_bytes};
}

std::string ChooseDevice(const std::string& device) {
  if (device != kAuto) return device;
  const absl::StatusOr<cuda::DriverApi> driver = cuda::LoadDriver();
  if (!driver.ok()) return std::string(kCpu);
  // A driver without a card is common, too: say only what is wrong with a card that is there.
  const absl::StatusOr<cuda::Card> card = cuda::FindCard(*driver, 0);
  if (!card.ok()) return std::string(kCpu);
  const auto image =
      cuda::ChooseImage(cuda::EmbeddedImages(), card->capability, card->driver_version, card->name);
  if (image.ok()) return std::string(kCuda);
  RENGA_LOG(WARNING) << "the card is not used: " << image.status().message();
  return std::string(kCpu);
}

std::vector<std::string> AvailableDevices() {
  std::vector<std::string> devices;
  for (const CpuPath path : AvailableCpuPaths()) devices.push_back(CpuDevice(path));
  devices.emplace_back(kReference);
  return devices;
}

}  // namespace renga::kernels
