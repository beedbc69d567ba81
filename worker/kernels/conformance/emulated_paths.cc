#include "worker/kernels/conformance/emulated_paths.h"

#include <algorithm>
#include <array>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_replace.h"
#include "base/testing/status_matchers.h"
#include "base/testing/tested_cards.h"
#include "worker/kernels/backend_factory.h"
#include "worker/kernels/conformance/emulated_cuda.h"
#include "worker/kernels/conformance/emulated_kernels.h"
#include "worker/kernels/cpu/cpu_backend.h"
#include "worker/kernels/cpu/isa_generic.h"
#include "worker/kernels/cpu/path_kernels.h"

namespace renga::kernels::conformance {
namespace {

constexpr char kLikeAvx512Vnni[] = "like-avx512vnni";
constexpr char kLikeAmx[] = "like-amx";
constexpr char kForcedMma[] = "cuda-mma";  // of a real card

struct Imitation {
  const char* device;
  const cpu::CpuKernels& (*kernels)();
  const char* twin;  // or ""
};

#if defined(__x86_64__)
struct EmulatedTag;
// 16 lanes, and byte dot products that add up in int32.
using LikeAvx512Vnni = cpu::Generic<16, true, EmulatedTag>;

constexpr cpu::CpuKernels kAvx512VnniKernels =
    cpu::PathKernels<LikeAvx512Vnni>(kLikeAvx512Vnni, &cpu::FormatKernelsOf<LikeAvx512Vnni>);

constexpr std::array kImitations = {Imitation{kLikeAvx512Vnni, &LikeAvx512VnniKernels, ""},
                                    Imitation{kLikeAmx, &LikeAmxKernels, kLikeAvx512Vnni}};
#else
// Those above imitate x86 processors, and take the compiler longer than all other tests.
constexpr std::array<Imitation, 0> kImitations = {};
#endif

}  // namespace

#if defined(__x86_64__)
const cpu::CpuKernels& LikeAvx512VnniKernels() { return kAvx512VnniKernels; }
#endif

std::vector<std::string> TestedDevices() {
  std::vector<std::string> devices = AvailableDevices();
  for (const Imitation& imitation : kImitations) devices.emplace_back(imitation.device);
  if (HasEmulatedCuda()) devices.emplace_back(kEmulatedCuda);
  for (const std::string& card : testing::TestedCards()) devices.push_back(card);
  return devices;
}

std::vector<std::string> TensorDevices() {
  return HasEmulatedCuda() ? std::vector<std::string>{kEmulatedMma} : std::vector<std::string>{};
}

std::vector<std::string> HalfDevices() {
  return HasEmulatedCuda() ? std::vector<std::string>{kEmulatedHalf} : std::vector<std::string>{};
}

std::string TwinOf(const std::string& device) {
  if (device == kEmulatedMma) return kEmulatedCuda;
  if (absl::StartsWith(device, kForcedMma)) return absl::StrReplaceAll(device, {{"mma", "dp4a"}});
  if (device == "cpu-ssse3") {
    const std::vector<std::string> devices = AvailableDevices();
    const bool avx = std::find(devices.begin(), devices.end(), "cpu-avx") != devices.end();
    return avx ? "cpu-avx" : "";
  }
  // No processor has the one without the other.
  if (device == "cpu-avxvnni") return "cpu-avx2";
  if (device == "cpu-amx") return "cpu-avx512vnni";
  if (device == "cpu-neon-dotprod" || device == "cpu-neon-i8mm") return "cpu-neon";
  for (const Imitation& imitation : kImitations) {
    if (device == imitation.device) return imitation.twin;
  }
  return "";
}

std::string LinearTwinOf(const std::string& device, base::DataType type) {
  // Tiles of bfloat16 have their own order of summation.
  const bool tiles = device == "cpu-amx" || device == kLikeAmx;
  if (tiles && type == base::DataType::kBF16) return "";
  // No sum of a product crosses lanes, so their number does not matter.
  if (device == kLikeAvx512Vnni) return "cpu-portable";
  return TwinOf(device);
}

// A card's context takes long to make; while one backend lives, others share it. Never destroyed:
// the driver may be gone when the program ends.
static void KeepOpen(const std::string& device) {
  static const auto* const kept =
      new absl::StatusOr<std::unique_ptr<Backend>>(CreateBackend({.device = device}));
  EXPECT_OK(*kept);
}

std::unique_ptr<Backend> CreateTestedBackend(const std::string& device, int threads) {
  if (IsCard(device)) KeepOpen(device);
  for (const Imitation& imitation : kImitations) {
    if (device == imitation.device) return CreateCpuBackendOf(imitation.kernels(), threads);
  }
  if (device == kEmulatedCuda || device == kEmulatedMma || device == kEmulatedHalf) {
    return CreateEmulatedCuda(device, threads);
  }
  auto backend = CreateBackend({.device = device, .threads = threads});
  EXPECT_OK(backend);
  return backend.ok() ? std::move(backend).value() : nullptr;
}

}  // namespace renga::kernels::conformance
