#include "worker/kernels/conformance/emulated_paths.h"

#include <algorithm>
#include <utility>

#include "base/testing/status_matchers.h"
#include "worker/kernels/backend_factory.h"
#include "worker/kernels/cpu/cpu_backend.h"
#include "worker/kernels/cpu/isa_generic.h"
#include "worker/kernels/cpu/path_kernels.h"

namespace renga::kernels::conformance {
namespace {

struct EmulatedTag;
// Byte dot products that add up in int32: 8 lanes as AVX-VNNI, 16 as AVX-512.
using LikeAvxVnni = cpu::Generic<8, true, EmulatedTag>;
using LikeAvx512Vnni = cpu::Generic<16, true, EmulatedTag>;

constexpr char kLikeAvxVnni[] = "like-avxvnni";
constexpr char kLikeAvx512Vnni[] = "like-avx512vnni";

constexpr cpu::CpuKernels kAvxVnniKernels =
    cpu::PathKernels<LikeAvxVnni>(kLikeAvxVnni, &cpu::FormatKernelsOf<LikeAvxVnni>);
constexpr cpu::CpuKernels kAvx512VnniKernels =
    cpu::PathKernels<LikeAvx512Vnni>(kLikeAvx512Vnni, &cpu::FormatKernelsOf<LikeAvx512Vnni>);

}  // namespace

std::vector<std::string> TestedDevices() {
  std::vector<std::string> devices = AvailableDevices();
  devices.emplace_back(kLikeAvxVnni);
  devices.emplace_back(kLikeAvx512Vnni);
  return devices;
}

std::string TwinOf(const std::string& device) {
  if (device == "cpu-ssse3") {
    const std::vector<std::string> devices = AvailableDevices();
    const bool avx = std::find(devices.begin(), devices.end(), "cpu-avx") != devices.end();
    return avx ? "cpu-avx" : "";
  }
  if (device == "cpu-avxvnni") return "cpu-avx2";  // no processor has the one without the other
  if (device == kLikeAvxVnni) return "cpu-portable";
  return "";
}

std::unique_ptr<Backend> CreateTestedBackend(const std::string& device, int threads) {
  if (device == kLikeAvxVnni) return CreateCpuBackendOf(kAvxVnniKernels, threads);
  if (device == kLikeAvx512Vnni) return CreateCpuBackendOf(kAvx512VnniKernels, threads);
  auto backend = CreateBackend({.device = device, .threads = threads});
  EXPECT_OK(backend);
  return backend.ok() ? std::move(backend).value() : nullptr;
}

}  // namespace renga::kernels::conformance
