// Which paths this build has and this machine can run.
#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#elif defined(__aarch64__)
#include <sys/auxv.h>
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

// Whether the system saves the tiles and their configuration (XGETBV).
bool SystemSavesTiles() {
  constexpr unsigned kTileState = 3u << 17;
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (__get_cpuid(1, &eax, &ebx, &ecx, &edx) == 0 || (ecx & bit_OSXSAVE) == 0) return false;
  asm volatile("xgetbv" : "=a"(eax), "=d"(edx) : "c"(0));
  return (eax & kTileState) == kTileState;
}

// Linux saves tiles only for processes that have asked for it, since 5.16.
bool MayUseTiles() {
#if defined(__linux__)
  constexpr long kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr long kTileData = 18;               // XFEATURE_XTILE_DATA
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

bool HasAmx() {
  constexpr unsigned kBf16Bit = 1u << 22, kTileBit = 1u << 24, kInt8Bit = 1u << 25;
  constexpr unsigned kAll = kBf16Bit | kTileBit | kInt8Bit;
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) != 0 && (edx & kAll) == kAll &&
         SystemSavesTiles() && MayUseTiles();
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
    case CpuPath::kAmx:
      return "amx";
    case CpuPath::kNeon:
      return "neon";
    case CpuPath::kNeonDotprod:
      return "neon-dotprod";
    case CpuPath::kNeonI8mm:
      return "neon-i8mm";
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
    if (HasAmx()) paths.push_back(CpuPath::kAmx);
    paths.push_back(CpuPath::kAvx512Vnni);
  }
  if (avx2 && HasAvxVnni()) paths.push_back(CpuPath::kAvxVnni);
  if (avx2) paths.push_back(CpuPath::kAvx2);
  if (__builtin_cpu_supports("avx")) paths.push_back(CpuPath::kAvx);
  if (__builtin_cpu_supports("ssse3")) paths.push_back(CpuPath::kSsse3);
#elif defined(__aarch64__)
  const bool dotprod = (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0;
  if (dotprod && (getauxval(AT_HWCAP2) & HWCAP2_I8MM) != 0) paths.push_back(CpuPath::kNeonI8mm);
  if (dotprod) paths.push_back(CpuPath::kNeonDotprod);
  paths.push_back(CpuPath::kNeon);
#endif
  paths.push_back(CpuPath::kPortable);
  return paths;
}

int64_t WeightsAheadBytes() {
#if defined(__x86_64__)
  // Measured on Sapphire Rapids, where the paths' own numbers, found on Zen 3 and Zen 4, leave up
  // to a quarter of the bandwidth unused; on Zen 4 so large a distance stops at 20 GB/s.
  __builtin_cpu_init();
  if (__builtin_cpu_is("intel")) return 4096;
#endif
  return 0;
}

}  // namespace renga::kernels
