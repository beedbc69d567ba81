// The AMX path: AVX-512 VNNI's with products by tiles. Compiled with that path's flags and
// -mamx-tile -mamx-int8 -mamx-bf16.
#include "worker/kernels/cpu/isa_amx.h"
#include "worker/kernels/cpu/path_tiles.h"

namespace renga::kernels::cpu {
namespace {

struct AmxPath {
  using Isa = Amx;
  using Tiles = AmxTiles;
  static const CpuKernels& Vectors() { return Avx512VnniKernels(); }
};

}  // namespace

const CpuKernels& AmxKernels() {
  static const CpuKernels kKernels = TilePathKernels<AmxPath>("cpu-amx-1");
  return kKernels;
}

}  // namespace renga::kernels::cpu
