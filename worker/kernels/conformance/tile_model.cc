#include "worker/kernels/conformance/tile_model.h"

#include <bit>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace renga::kernels::conformance {
namespace {

constexpr int kTiles = 8;

struct Tile {
  int rows = 0;
  int row_bytes = 0;
  // [row][byte]; zero beyond rows and row_bytes.
  uint8_t bytes[cpu::kTileRows][cpu::kTileRowBytes] = {};

  template <class T>
  T Get(int row, int index) const {
    T value;
    std::memcpy(&value, &bytes[row][static_cast<size_t>(index) * sizeof(T)], sizeof(T));
    return value;
  }
  template <class T>
  void Set(int row, int index, T value) {
    std::memcpy(&bytes[row][static_cast<size_t>(index) * sizeof(T)], &value, sizeof(T));
  }
};

struct State {
  bool configured = false;
  int64_t products = 0;
  Tile tiles[kTiles];
};
thread_local State state;

void Require(bool condition, const char* what) {
  if (condition) return;
  std::fprintf(stderr, "tiles: %s\n", what);
  std::abort();
}

Tile& Configured(int tile) {
  Require(state.configured, "no configuration is loaded");
  Require(state.tiles[tile].rows > 0, "the tile has no shape");
  return state.tiles[tile];
}

// The three tiles of a dot product, of which the processor wants that they fit and differ.
struct Operands {
  Operands(int sums_tile, int a_tile, int w_tile)
      : sums(Configured(sums_tile)), a(Configured(a_tile)), w(Configured(w_tile)) {
    Require(sums_tile != a_tile && sums_tile != w_tile && a_tile != w_tile, "equal tiles");
    Require(sums.rows == a.rows && sums.row_bytes == w.row_bytes && a.row_bytes == 4 * w.rows,
            "shapes that do not fit");
    ++state.products;
  }
  Tile& sums;
  const Tile& a;
  const Tile& w;
};

// Subnormal numbers count as zero, and become zero.
float Flushed(float x) { return std::fpclassify(x) == FP_SUBNORMAL ? std::copysign(0.0F, x) : x; }

float FromBf16(uint16_t x) { return Flushed(std::bit_cast<float>(static_cast<uint32_t>(x) << 16)); }

// The dot product that one sum gets: even and odd numbers apart, in order.
float Bf16Dot(const Operands& tiles, int row, int column) {
  float parts[2] = {0, 0};
  for (int k = 0; k < tiles.w.rows; ++k) {
    for (int i = 0; i < 2; ++i) {
      const float a = FromBf16(tiles.a.Get<uint16_t>(row, 2 * k + i));
      const float w = FromBf16(tiles.w.Get<uint16_t>(k, 2 * column + i));
      parts[i] = Flushed(std::fma(a, w, parts[i]));
    }
  }
  return Flushed(parts[0] + parts[1]);
}

}  // namespace

void ModelTiles::LoadConfig(const cpu::TileConfig& config) {
  Require(config.palette == 1 && config.start_row == 0, "palette");
  for (int t = 0; t < 16; ++t) {
    Require(t < kTiles || (config.rows[t] == 0 && config.row_bytes[t] == 0), "more than 8 tiles");
    Require(config.rows[t] <= cpu::kTileRows && config.row_bytes[t] <= cpu::kTileRowBytes &&
                (config.rows[t] == 0) == (config.row_bytes[t] == 0),
            "no such shape");
  }
  for (int t = 0; t < kTiles; ++t) {
    state.tiles[t] = Tile{.rows = config.rows[t], .row_bytes = config.row_bytes[t]};
  }
  state.configured = true;
}

void ModelTiles::Release() {
  for (Tile& tile : state.tiles) tile = Tile();
  state.configured = false;
}

bool ModelTiles::configured() { return state.configured; }

int64_t ModelTiles::products() { return state.products; }

void ModelTiles::ZeroTile(int tile) {
  Tile& t = Configured(tile);
  std::memset(t.bytes, 0, sizeof(t.bytes));
}

void ModelTiles::LoadTile(int tile, const void* p, int64_t stride) {
  ZeroTile(tile);
  Tile& t = state.tiles[tile];
  const auto* from = static_cast<const uint8_t*>(p);
  for (int r = 0; r < t.rows; ++r) {
    std::memcpy(t.bytes[r], from + r * stride, static_cast<size_t>(t.row_bytes));
  }
}

void ModelTiles::StoreTile(int tile, void* p, int64_t stride) {
  const Tile& t = Configured(tile);
  auto* to = static_cast<uint8_t*>(p);
  for (int r = 0; r < t.rows; ++r) {
    std::memcpy(to + r * stride, t.bytes[r], static_cast<size_t>(t.row_bytes));
  }
}

void ModelTiles::DotBytes(int sums, int a, int w, bool is_signed) {
  const Operands tiles(sums, a, w);
  for (int m = 0; m < tiles.sums.rows; ++m) {
    for (int n = 0; n < tiles.sums.row_bytes / 4; ++n) {
      int32_t dot = 0;
      for (int k = 0; k < tiles.w.rows; ++k) {
        for (int i = 0; i < 4; ++i) {
          const int weight =
              is_signed ? tiles.w.Get<int8_t>(k, 4 * n + i) : tiles.w.Get<uint8_t>(k, 4 * n + i);
          dot += tiles.a.Get<int8_t>(m, 4 * k + i) * weight;
        }
      }
      // Wraps around, as the processor's sum does.
      tiles.sums.Set(m, n, tiles.sums.Get<uint32_t>(m, n) + static_cast<uint32_t>(dot));
    }
  }
}

void ModelTiles::DotFloats(int sums, int a, int w) {
  const Operands tiles(sums, a, w);
  for (int m = 0; m < tiles.sums.rows; ++m) {
    for (int n = 0; n < tiles.sums.row_bytes / 4; ++n) {
      const float sum = Flushed(tiles.sums.Get<float>(m, n));
      tiles.sums.Set(m, n, Flushed(sum + Bf16Dot(tiles, m, n)));
    }
  }
}

}  // namespace renga::kernels::conformance
