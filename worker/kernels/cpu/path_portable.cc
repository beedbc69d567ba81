// The portable path: compiler vectors, no instruction set asked for.
#include "worker/kernels/cpu/isa_generic.h"
#include "worker/kernels/cpu/path_kernels.h"

namespace renga::kernels::cpu {
namespace {
struct PortableTag;
}  // namespace

using Portable = Generic<8, false, PortableTag>;

const CpuKernels& PortableKernels() {
  static constexpr CpuKernels kKernels =
      PathKernels<Portable>("cpu-portable-1", &FormatKernelsOf<Portable>);
  return kKernels;
}

}  // namespace renga::kernels::cpu
