// Tiles: registers of up to 16 rows of 64 bytes and their products, as AMX has them; and how the
// tokens of a matrix product are laid out in them.
//
// Kernels are written for a type `Tiles` whose functions are the instructions of the calling
// thread. Tile numbers have fixed parts, for two tiles of tokens times two panels of 16 rows:
//   0..3  sums: a row per token, a column of 32 bits per matrix row; 2 * (tile of tokens) + panel
//   4, 5  activations: a row per token, `depth` bytes of its numbers
//   6, 7  weights: `depth` / 4 rows; row g holds four bytes (or two bfloat16), numbers 4 * g .. + 3
//         (or 2 * g, + 1), of each of 16 matrix rows
// The functions:
//   Configure(tokens, depth)  gives the tiles these shapes; before all others
//   Release()                 back to the initial state, which costs nothing to save
//   Load<tile>(p, stride), Store<tile>(p, stride)  a row each `stride` bytes
//   Zero<tile>()
//   DotSigned<sums, a, w>()    sums += a * w, int8 times int8, exact
//   DotUnsigned<sums, a, w>()  the same, int8 times uint8
//   DotBf16<sums, a, w>()      the same, bfloat16, summed up and rounded as TDPBF16PS does
#ifndef RENGA_WORKER_KERNELS_CPU_TILES_H_
#define RENGA_WORKER_KERNELS_CPU_TILES_H_

#include <cstddef>
#include <cstdint>

namespace renga::kernels::cpu {

inline constexpr int kTileRows = 16;
inline constexpr int kTileRowBytes = 64;

// What LDTILECFG reads.
struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};

  // `tokens` in 1..16, `depth` a multiple of 4 up to 64.
  constexpr TileConfig(int tokens, int depth) {
    for (int tile = 0; tile < 8; ++tile) {
      const bool weights = tile >= 6;
      const bool activations = !weights && tile >= 4;
      rows[tile] = static_cast<uint8_t>(weights ? depth / 4 : tokens);
      row_bytes[tile] = static_cast<uint16_t>(activations ? depth : kTileRowBytes);
    }
  }
};
static_assert(sizeof(TileConfig) == 64 && offsetof(TileConfig, row_bytes) == 16 &&
              offsetof(TileConfig, rows) == 48);

// `n` tokens in an even number of tiles of `rows` rows each. The last ones may overlap: what they
// have in common is computed twice, with the same bits.
struct TokenTiles {
  explicit constexpr TokenTiles(int n)
      : tokens(n),
        count(2 * ((n + 2 * kTileRows - 1) / (2 * kTileRows))),
        rows((n + count - 1) / count) {}
  // The first token of a tile.
  constexpr int First(int tile) const {
    return tile * rows < tokens - rows ? tile * rows : tokens - rows;
  }

  int tokens;
  int count;
  int rows;
};

// `n` shared out evenly into as few parts of at most `most` as there can be: the size of a part.
constexpr int64_t EvenPart(int64_t n, int64_t most) {
  const int64_t parts = (n + most - 1) / most;
  return (n + parts - 1) / parts;
}

}  // namespace renga::kernels::cpu

#endif  // RENGA_WORKER_KERNELS_CPU_TILES_H_
