// AMX's tile instructions in plain C++, as Intel's manual describes them (Software Developer's
// Manual, volume 2: LDTILECFG, TILELOADD, TDPBSSD, TDPBSUD, TDPBF16PS and so on), for the kernels
// to run on any machine. What a processor would refuse ends the process.
#ifndef RENGA_WORKER_KERNELS_CONFORMANCE_TILE_MODEL_H_
#define RENGA_WORKER_KERNELS_CONFORMANCE_TILE_MODEL_H_

#include <cstdint>

#include "worker/kernels/cpu/tiles.h"

namespace renga::kernels::conformance {

// The calling thread's tiles; a `Tiles` of cpu/tiles.h.
class ModelTiles {
 public:
  static void Configure(int tokens, int depth) { LoadConfig(cpu::TileConfig(tokens, depth)); }
  static void Release();
  template <int tile>
  static void Load(const void* p, int64_t stride) {
    LoadTile(tile, p, stride);
  }
  template <int tile>
  static void Store(void* p, int64_t stride) {
    StoreTile(tile, p, stride);
  }
  template <int tile>
  static void Zero() {
    ZeroTile(tile);
  }
  template <int sums, int a, int w>
  static void DotSigned() {
    DotBytes(sums, a, w, /*is_signed=*/true);
  }
  template <int sums, int a, int w>
  static void DotUnsigned() {
    DotBytes(sums, a, w, /*is_signed=*/false);
  }
  template <int sums, int a, int w>
  static void DotBf16() {
    DotFloats(sums, a, w);
  }

  // For tests: whether the calling thread's tiles have shapes, and how many dot products of tiles
  // it has computed.
  static bool configured();
  static int64_t products();

 private:
  static void LoadConfig(const cpu::TileConfig& config);
  static void LoadTile(int tile, const void* p, int64_t stride);
  static void StoreTile(int tile, void* p, int64_t stride);
  static void ZeroTile(int tile);
  static void DotBytes(int sums, int a, int w, bool is_signed);
  static void DotFloats(int sums, int a, int w);
};

}  // namespace renga::kernels::conformance

#endif  // RENGA_WORKER_KERNELS_CONFORMANCE_TILE_MODEL_H_
