#include "worker/kernels/conformance/emulated_kernels.h"
#include "worker/kernels/conformance/tile_model.h"
#include "worker/kernels/cpu/isa_generic.h"
#include "worker/kernels/cpu/path_tiles.h"

namespace renga::kernels::conformance {
namespace {

struct LikeAmxTag;

struct LikeAmxPath {
  using Isa = cpu::Generic<16, true, LikeAmxTag>;
  using Tiles = ModelTiles;
  static const cpu::CpuKernels& Vectors() { return LikeAvx512VnniKernels(); }
};

}  // namespace

const cpu::CpuKernels& LikeAmxKernels() {
  static const cpu::CpuKernels kKernels = cpu::TilePathKernels<LikeAmxPath>("like-amx");
  return kKernels;
}

}  // namespace renga::kernels::conformance
