// Kernels on rows of activations: rounding to 8 bits, norms, rotations, gates, the cache's cells.
#ifndef RENGA_WORKER_KERNELS_CUDA_DEVICE_ROWS_H_
#define RENGA_WORKER_KERNELS_CUDA_DEVICE_ROWS_H_

#include <cstdint>

#include "worker/kernels/cuda/device/words.h"
#include "worker/kernels/cuda/kernel_list.h"
#include "worker/kernels/cuda/launch_shapes.h"

namespace renga::kernels::cuda {

// The number of this thread, or of its warp, among all of the grid.
RENGA_DEVICE int64_t GridThread() { return BlockX() * BlockThreads() + ThreadIndex(); }
RENGA_DEVICE int64_t GridWarp() { return BlockX() * (BlockThreads() / kWarp) + WarpIndex(); }

// A warp for each group: its largest magnitude becomes 127.
RENGA_DEVICE void QuantizeRows(const QuantizeArgs& args) {
  const int64_t item = GridWarp();
  if (item >= args.tokens * args.groups) return;
  const int64_t token = item / args.groups;
  const int64_t group = item % args.groups;
  const float x = args.in[token * args.in_stride + group * kGroup + Lane()];
  const float peak = WarpMax(fabsf(x));
  // Infinite where the peak is next to nothing: codes stay within bounds all the same.
  const float inverse = peak > 0 ? Divide(127.0f, peak) : 0.0f;
  const float code = Round(Min(Max(Multiply(x, inverse), -127.0f), 127.0f));
  const auto whole = static_cast<int32_t>(code);
  args.codes[item * kGroup + Lane()] = static_cast<int8_t>(whole);
  const int32_t sum = Reduce<16>(whole, JoinSum());  // of this half of the warp
  const int32_t other = ShuffleXor(sum, 16);
  if (Lane() == 0) {
    args.scales[item] = {Divide(peak, 127.0f),
                         {static_cast<int16_t>(sum), static_cast<int16_t>(other)}};
  }
}

RENGA_DEVICE void PadRows(const PadArgs& args) {
  const int64_t width = args.groups * kGroup;
  const int64_t item = GridThread();
  if (item >= args.tokens * width) return;
  const int64_t token = item / width;
  const int64_t column = item % width;
  args.out[item] = column < args.columns ? args.in[token * args.in_stride + column] : 0.0f;
}

// out = in * scale * weight, with the scale that makes the mean square 1.
RENGA_DEVICE float ScaleOf(float squares, int64_t columns, float epsilon) {
  return Divide(1.0f, sqrtf(Sum(Divide(squares, static_cast<float>(columns)), epsilon)));
}

// A block for each row.
RENGA_DEVICE void NormalizeRows(const NormArgs& args) {
  RENGA_SHARED(float, sums, kRowThreads / kWarp);
  const float* const in = args.in + BlockX() * args.in_stride;
  float* const out = args.out + BlockX() * args.out_stride;
  float squares = 0;
  for (int64_t c = ThreadIndex(); c < args.columns; c += kRowThreads) {
    squares = Fma(in[c], in[c], squares);
  }
  squares = WarpSum(squares);
  if (Lane() == 0) sums[WarpIndex()] = squares;
  SyncBlock();
  squares = 0;
  for (int warp = 0; warp < kRowThreads / kWarp; ++warp) squares = Sum(squares, sums[warp]);
  const float scale = ScaleOf(squares, args.columns, args.epsilon);
  for (int64_t c = ThreadIndex(); c < args.columns; c += kRowThreads) {
    out[c] = Multiply(Multiply(in[c], scale), args.weight[c]);
  }
}

// A warp for each head, in place.
RENGA_DEVICE void NormalizeHeads(const NormArgs& args) {
  const int64_t heads = args.columns / args.head_dim;
  const int64_t item = GridWarp();
  if (item >= args.rows * heads) return;
  float* const head = args.out + item / heads * args.out_stride + item % heads * args.head_dim;
  float squares = 0;
  for (int64_t c = Lane(); c < args.head_dim; c += kWarp) squares = Fma(head[c], head[c], squares);
  const float scale = ScaleOf(WarpSum(squares), args.head_dim, args.epsilon);
  for (int64_t c = Lane(); c < args.head_dim; c += kWarp) {
    head[c] = Multiply(Multiply(head[c], scale), args.weight[c]);
  }
}

struct Silu {
  RENGA_DEVICE static float Of(float gate) { return Divide(gate, Sum(1.0f, expf(-gate))); }
};
// In the form with tanh, written with exp: g / (1 + exp(-2 sqrt(2 / pi) (g + 0.044715 g^3))).
struct Gelu {
  RENGA_DEVICE static float Of(float gate) {
    const float cubic = Fma(Multiply(gate, gate), 0.044715f, 1.0f);
    const float twice = Multiply(Multiply(1.5957691216057308f, gate), cubic);
    return Divide(gate, Sum(1.0f, expf(-twice)));
  }
};

template <class Gate>
RENGA_DEVICE void GateRows(const RowsArgs& args) {
  const int64_t item = GridThread();
  if (item >= args.rows * args.columns) return;
  const int64_t row = item / args.columns;
  const int64_t column = item % args.columns;
  const float gate = Gate::Of(args.a[row * args.a_stride + column]);
  args.out[row * args.out_stride + column] = Multiply(gate, args.b[row * args.b_stride + column]);
}

RENGA_DEVICE void AddRows(const RowsArgs& args) {
  const int64_t item = GridThread();
  if (item >= args.rows * args.columns) return;
  const int64_t row = item / args.columns;
  const int64_t column = item % args.columns;
  float* const out = args.out + row * args.out_stride + column;
  *out = Sum(*out, args.a[row * args.a_stride + column]);
}

RENGA_DEVICE void AddParts(const SumPartsArgs& args) {
  const int64_t item = GridThread();
  if (item >= args.count) return;
  float sum = args.parts[item];
  for (int64_t member = 1; member < args.members; ++member) {
    sum = Sum(sum, args.parts[member * args.count + item]);
  }
  args.out[item] = sum;
}

// Angles in double: far positions times slow frequencies.
RENGA_DEVICE void MakeRopeTable(const RopeTableArgs& args) {
  const int64_t item = GridThread();
  if (item >= args.rows * args.pairs) return;
  const int64_t pair = item % args.pairs;
  const double factor = args.factors != nullptr ? static_cast<double>(args.factors[pair]) : 1.0;
  const double frequency = pow(args.base, -2.0 * static_cast<double>(pair) / args.dims);
  const double angle = static_cast<double>(args.positions[item / args.pairs]) /
                       args.position_scale * frequency / factor;
  args.table[2 * item] = static_cast<float>(cos(angle));
  args.table[2 * item + 1] = static_cast<float>(sin(angle));
}

RENGA_DEVICE void RotateRows(const RopeArgs& args) {
  const int64_t item = GridThread();
  if (item >= args.row_count * args.heads * args.pairs) return;
  const int64_t pair = item % args.pairs;
  const int64_t head = item / args.pairs % args.heads;
  const int64_t row = item / args.pairs / args.heads;
  float* const at = args.rows + row * args.stride + head * args.head_dim;
  float& x = args.neighbours != 0 ? at[2 * pair] : at[pair];
  float& y = args.neighbours != 0 ? at[2 * pair + 1] : at[pair + args.pairs];
  const float cosine = args.table[2 * (row * args.pairs + pair)];
  const float sine = args.table[2 * (row * args.pairs + pair) + 1];
  const float old_x = x;
  const float old_y = y;
  x = Fma(old_x, cosine, -Multiply(old_y, sine));
  y = Fma(old_x, sine, Multiply(old_y, cosine));
}

// ---- The cells of the KV cache: see kv_layout.h -------------------------------------------------

RENGA_DEVICE int8_t KvCode(float number, float scale) {
  if (!(scale > 0)) return 0;
  const float code = Round(Max(-127.0f, Min(127.0f, Divide(number, scale))));
  return static_cast<int8_t>(static_cast<int32_t>(code));
}

struct KvCell {
  int64_t code;   // index of the number
  int64_t scale;  // of kKvQ8: index of its half behind the codes
};

// Lane `i` has number `i` of the group, or none when `inside` is false.
RENGA_DEVICE void StoreCell(const StoreKvArgs& args, uint8_t* cells, const KvCell& cell,
                            float number, bool inside) {
  if (args.format == kKvF32) {
    if (inside) reinterpret_cast<float*>(cells)[cell.code] = number;
    return;
  }
  if (args.format == kKvF16) {
    if (inside) reinterpret_cast<uint16_t*>(cells)[cell.code] = FloatToHalf(number);
    return;
  }
  const float peak = WarpMax(inside ? fabsf(number) : 0.0f);
  const uint16_t half = FloatToHalf(Min(Divide(peak, 127.0f), 65504.0f));
  if (inside) {
    reinterpret_cast<int8_t*>(cells)[cell.code] = KvCode(number, HalfToFloat(half));
  }
  uint8_t* const scales = cells + args.cache.block_tokens * args.cache.head_dim;
  if (Lane() != 0) return;
  // Where blocks are of odd sizes, halves may lie at odd addresses.
  scales[2 * cell.scale] = static_cast<uint8_t>(half);
  scales[2 * cell.scale + 1] = static_cast<uint8_t>(half >> 8);
}

// A warp for each 32 numbers of a row's head.
RENGA_DEVICE void StoreCells(const StoreKvArgs& args) {
  const KvPlanes& cache = args.cache;
  const int64_t groups = (cache.head_dim + kWarp - 1) / kWarp;
  const int64_t item = GridWarp();
  if (item >= args.row_count * cache.kv_heads * groups) return;
  const int64_t group = item % groups;
  const int64_t head = item / groups % cache.kv_heads;
  const StoredRow row = args.rows[item / groups / cache.kv_heads];
  const int64_t cells = (row.block * cache.kv_heads + head) * cache.head_bytes;
  const int64_t d = group * kWarp + Lane();
  const bool inside = d < cache.head_dim;
  const int64_t column = head * cache.head_dim + (inside ? d : 0);
  StoreCell(args, cache.keys + cells,
            {d * cache.block_tokens + row.token, group * cache.block_tokens + row.token},
            args.keys[row.row * args.key_stride + column], inside);
  StoreCell(args, cache.values + cells,
            {row.token * cache.head_dim + d, row.token * groups + group},
            args.values[row.row * args.value_stride + column], inside);
}

}  // namespace renga::kernels::cuda

#endif  // RENGA_WORKER_KERNELS_CUDA_DEVICE_ROWS_H_
