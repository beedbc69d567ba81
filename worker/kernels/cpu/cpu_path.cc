// Which paths this build has and this machine can run.
#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include <vector>

#include "absl/strings/string_view.h"
#include "worker/kernels/cpu/cpu_backend.h"

namespace renga::kernels {
namespace {

#if defined(__x86_64__)
// clang 14 has no name for this one in __builtin_cpu_supports.
bool HasF16c() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0;
}

// Nor for this one; leaf 7, subleaf 1.
bool HasAvxVnni() {
  constexpr unsigned kAvxVnniBit = 1u << 4;
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) != 0 && (eax & kAvxVnniBit) != 0;
}
#endif

}  // namespace

absl::string_view CpuPathName(CpuPath path) {
  switch (path) {
    case CpuPath::kPortable:
      return "portable";
    case CpuPath::kSsse3:
      return "ssse3";
    case CpuPath::kAvx:
      return "avx";
    case CpuPath::kAvx2:
      return "avx2";
    case CpuPath::kAvxVnni:
      return "avxvnni";
    case CpuPath::kAvx512Vnni:
      return "avx512vnni";
  }
  return "unknown";
}

std::vector<CpuPath> AvailableCpuPaths() {
  std::vector<CpuPath> paths;
#if defined(__x86_64__)
  // __builtin_cpu_supports also asks whether the system saves the wide registers (XGETBV).
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && HasF16c();
  if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512vnni")) {
    paths.push_back(CpuPath::kAvx512Vnni);
  }
  if (avx2 && HasAvxVnni()) paths.push_back(CpuPath::kAvxVnni);
  if (avx2) paths.push_back(CpuPath::kAvx2);
  if (__builtin_cpu_supports("avx")) paths.push_back(CpuPath::kAvx);
  if (__builtin_cpu_supports("ssse3")) paths.push_back(CpuPath::kSsse3);
#endif
  paths.push_back(CpuPath::kPortable);
  return paths;
}

}  // namespace renga::kernels
