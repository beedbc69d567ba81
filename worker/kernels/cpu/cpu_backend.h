// The CPU backend: one class, several sets of kernels ("paths") compiled from the same templates
// for different instruction sets, chosen when the program runs.
//
// A path fixes the order of every sum and the rounding of every step, so its name is part of a
// result's identity: "cpu-avx2-1" computed on two machines gives the same bits.
#ifndef RENGA_WORKER_KERNELS_CPU_CPU_BACKEND_H_
#define RENGA_WORKER_KERNELS_CPU_CPU_BACKEND_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "worker/kernels/backend.h"

namespace renga::kernels {

enum class CpuPath {
  kPortable,     // plain C++, any processor
  kSsse3,        // SSSE3; the bits of kAvx
  kAvx,          // AVX floats, SSSE3 integers; neither FMA nor F16C (Sandy and Ivy Bridge)
  kAvx2,         // AVX2, FMA, F16C
  kAvxVnni,      // kAvx2 and AVX-VNNI; the bits of kAvx2
  kAvx512Vnni,   // AVX-512 F, BW, DQ, VL and VNNI
  kAmx,          // kAvx512Vnni and AMX's tiles of int8 and BF16; its bits but for BF16 matrices
  kNeon,         // any 64-bit ARM processor
  kNeonDotprod,  // kNeon with dot products of bytes; the bits of kNeon
  kNeonI8mm,     // kNeonDotprod and matrix products of bytes; the bits of kNeon
};

// "portable", "ssse3", "avx", "avx2", "avxvnni", "avx512vnni", "amx", "neon", "neon-dotprod",
// "neon-i8mm".
absl::string_view CpuPathName(CpuPath path);

// The paths this machine can run, best first; kPortable is always the last. Where there is AMX,
// asks the system to let this process use it.
std::vector<CpuPath> AvailableCpuPaths();

// How far ahead this processor is best asked for the weights of a product with one token, or a few,
// in bytes; 0: as far as each path's own number says. It does not touch the bits.
int64_t WeightsAheadBytes();

// A backend that uses `threads` >= 1 threads, the calling one included. kInvalidArgument when
// threads < 1, kFailedPrecondition when this machine cannot run the path.
absl::StatusOr<std::unique_ptr<Backend>> CreateCpuBackend(CpuPath path, int threads);

// The same with any kernels: tests bring some that imitate instruction sets. `kernels` must outlive
// the backend.
namespace cpu {
struct CpuKernels;
}  // namespace cpu
std::unique_ptr<Backend> CreateCpuBackendOf(const cpu::CpuKernels& kernels, int threads);

}  // namespace renga::kernels

#endif  // RENGA_WORKER_KERNELS_CPU_CPU_BACKEND_H_
