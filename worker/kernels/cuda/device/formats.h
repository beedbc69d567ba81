// How the kernels read each quantised format: 32 codes of a group as bytes, and the numbers that
// they are scaled by. The planes are what packed_weights.cc writes.
//
// A group's share of a dot product is whole numbers but for one multiplication by the scales:
//   scale * (first_scale * sum(first 16 products) + second_scale * sum(last 16))
//   + minimum * (first_minimum * sum(first 16 activations) + ...)
// All whole numbers stay below 2^24, so floats hold them exactly and no order of summation matters
// before the one addition to the group's chain.
#ifndef RENGA_WORKER_KERNELS_CUDA_DEVICE_FORMATS_H_
#define RENGA_WORKER_KERNELS_CUDA_DEVICE_FORMATS_H_

#include <cstdint>

#include "worker/kernels/cuda/device/words.h"
#include "worker/kernels/cuda/kernel_list.h"

namespace renga::kernels::cuda {

constexpr int kCodeWords = kGroup / 4;

struct WeightGroup {
  int32_t codes[kCodeWords];  // 4 signed bytes each
  float scale;
  float minimum;
  // Of the first and the last 16 codes, as signed bytes: scales, then minimums.
  int32_t factors;
};

// What a group of activations gives to the product: the products' sums, and the codes' own.
struct GroupSums {
  int32_t products[2];
  int32_t codes[2];
};

RENGA_DEVICE int32_t ByteOf(int32_t word, int i) {
  return static_cast<int8_t>(static_cast<uint32_t>(word) >> (8 * i));
}
RENGA_DEVICE int32_t PackBytes(int32_t a, int32_t b, int32_t c, int32_t d) {
  return (a & 255) | (b & 255) << 8 | (c & 255) << 16 |
         static_cast<int32_t>(static_cast<uint32_t>(d) << 24);
}

// Where group `group` of row `row` begins in a plane of kBytes a group.
template <int kBytes>
RENGA_DEVICE const uint8_t* GroupAt(const MatrixPlanes& m, int plane, int64_t row, int64_t group) {
  return m.plane[plane] + (row * m.groups + group) * kBytes;
}
// The same of kBytes for every 8 groups.
template <int kBytes>
RENGA_DEVICE const uint8_t* BlockAt(const MatrixPlanes& m, int plane, int64_t row, int64_t group) {
  return m.plane[plane] + (row * ((m.groups + 7) / 8) + group / 8) * kBytes;
}
// Part `part` of a group of kParts times 16 bytes: the parts of 8 neighbouring groups lie side by
// side, so that 8 chains read 128 bytes at once.
template <int kParts>
RENGA_DEVICE const uint8_t* PartAt(const MatrixPlanes& m, int64_t row, int64_t group, int part) {
  const int64_t first = group / 8 * 8;
  const int64_t width = m.groups - first < 8 ? m.groups - first : 8;
  return m.plane[0] +
         (row * m.groups * kParts + first * kParts + part * width + (group - first)) * 16;
}
RENGA_DEVICE float HalfAt(const uint8_t* at) {
  return HalfToFloat(LoadOnce(reinterpret_cast<const uint16_t*>(at)));
}
RENGA_DEVICE float LowHalf(int32_t word) { return HalfToFloat(static_cast<uint16_t>(word)); }
RENGA_DEVICE float HighHalf(int32_t word) {
  return HalfToFloat(static_cast<uint16_t>(static_cast<uint32_t>(word) >> 16));
}

// 16 bytes: the first 16 codes in the low halves, the others in the high halves.
RENGA_DEVICE void LoadNibbles(const MatrixPlanes& m, int64_t row, int64_t group, WeightGroup& w) {
  const Words4 packed = LoadWords4(GroupAt<16>(m, 0, row, group));
  RENGA_UNROLL
  for (int i = 0; i < 4; ++i) {
    w.codes[i] = packed.word[i] & 0x0f0f0f0f;
    w.codes[i + 4] = (packed.word[i] >> 4) & 0x0f0f0f0f;
  }
}
// 4 bytes: bit i of byte b belongs to code 4 i + b, where it counts `1 << kShift`.
template <int kShift>
RENGA_DEVICE void AddHighBits(const MatrixPlanes& m, int plane, int64_t row, int64_t group,
                              WeightGroup& w) {
  const int32_t high = LoadOnce(reinterpret_cast<const int32_t*>(GroupAt<4>(m, plane, row, group)));
  RENGA_UNROLL
  for (int i = 0; i < kCodeWords; ++i) w.codes[i] |= ((high >> i) & 0x01010101) << kShift;
}
// 8 bytes: bits 2 i and 2 i + 1 of byte b of word k belong to code 4 (2 i + k) + b.
RENGA_DEVICE int32_t PairsOf(const Words2& pairs, int i) {
  return (pairs.word[i % 2] >> (i / 2 * 2)) & 0x03030303;
}
// The 6-bit scale and minimum of a group in the 16 bytes of a Q4_K or Q5_K block.
RENGA_DEVICE void LoadSixBits(const MatrixPlanes& m, int plane, int64_t row, int64_t group,
                              WeightGroup& w) {
  const Words4 block = LoadWords4(BlockAt<16>(m, plane, row, group));
  w.scale = LowHalf(block.word[0]);
  w.minimum = -HighHalf(block.word[0]);
  const int i = static_cast<int>(group % 8);
  const int shift = i % 4 * 8;
  const int32_t a = block.word[1] >> shift;  // of groups 0-3: scales; high bits for 4-7
  const int32_t b = block.word[2] >> shift;
  const int32_t c = block.word[3] >> shift;
  const int32_t scale = i < 4 ? a & 63 : (c & 15) | ((a >> 6) & 3) << 4;
  const int32_t minimum = i < 4 ? b & 63 : ((c >> 4) & 15) | ((b >> 6) & 3) << 4;
  w.factors = PackBytes(scale, scale, minimum, minimum);
}

// kOffsetOfCodes is taken from every code. kFactors: whether `factors` is not all ones; kMinimums:
// whether there is a minimum.
template <int kOffsetOfCodes, bool kFactors, bool kMinimums>
struct QuantizedFormat {
  static constexpr bool kHasFactors = kFactors;

  // The sum of the chain after this group.
  RENGA_DEVICE static float Accumulate(const WeightGroup& w, float activation_scale,
                                       const GroupSums& sums, float chain) {
    const int32_t first = sums.products[0] - kOffsetOfCodes * sums.codes[0];
    const int32_t second = sums.products[1] - kOffsetOfCodes * sums.codes[1];
    const int32_t products =
        kFactors ? ByteOf(w.factors, 0) * first + ByteOf(w.factors, 1) * second : first + second;
    chain = Fma(Multiply(w.scale, activation_scale), static_cast<float>(products), chain);
    if (!kMinimums) return chain;
    const int32_t codes =
        kFactors ? ByteOf(w.factors, 2) * sums.codes[0] + ByteOf(w.factors, 3) * sums.codes[1]
                 : sums.codes[0] + sums.codes[1];
    return Fma(Multiply(w.minimum, activation_scale), static_cast<float>(codes), chain);
  }
};

struct Q8_0 : QuantizedFormat<0, false, false> {
  RENGA_DEVICE static void Load(const MatrixPlanes& m, int64_t row, int64_t group, WeightGroup& w) {
    RENGA_UNROLL
    for (int part = 0; part < 2; ++part) {
      const Words4 codes = LoadWords4(PartAt<2>(m, row, group, part));
      RENGA_UNROLL
      for (int i = 0; i < 4; ++i) w.codes[part * 4 + i] = codes.word[i];
    }
    w.scale = HalfAt(GroupAt<2>(m, 1, row, group));
  }
};

struct Q4_0 : QuantizedFormat<8, false, false> {
  RENGA_DEVICE static void Load(const MatrixPlanes& m, int64_t row, int64_t group, WeightGroup& w) {
    LoadNibbles(m, row, group, w);
    w.scale = HalfAt(GroupAt<2>(m, 1, row, group));
  }
};

struct Q4_1 : QuantizedFormat<0, false, true> {
  RENGA_DEVICE static void Load(const MatrixPlanes& m, int64_t row, int64_t group, WeightGroup& w) {
    LoadNibbles(m, row, group, w);
    const int32_t halves = LoadOnce(reinterpret_cast<const int32_t*>(GroupAt<4>(m, 1, row, group)));
    w.scale = LowHalf(halves);
    w.minimum = HighHalf(halves);
  }
};

struct Q5_0 : QuantizedFormat<16, false, false> {
  RENGA_DEVICE static void Load(const MatrixPlanes& m, int64_t row, int64_t group, WeightGroup& w) {
    LoadNibbles(m, row, group, w);
    AddHighBits<4>(m, 1, row, group, w);
    w.scale = HalfAt(GroupAt<2>(m, 2, row, group));
  }
};

struct Q5_1 : QuantizedFormat<0, false, true> {
  RENGA_DEVICE static void Load(const MatrixPlanes& m, int64_t row, int64_t group, WeightGroup& w) {
    LoadNibbles(m, row, group, w);
    AddHighBits<4>(m, 1, row, group, w);
    const int32_t halves = LoadOnce(reinterpret_cast<const int32_t*>(GroupAt<4>(m, 2, row, group)));
    w.scale = LowHalf(halves);
    w.minimum = HighHalf(halves);
  }
};

struct Q2_K : QuantizedFormat<0, true, true> {
  RENGA_DEVICE static void Load(const MatrixPlanes& m, int64_t row, int64_t group, WeightGroup& w) {
    const Words2 pairs = LoadWords2(GroupAt<8>(m, 0, row, group));
    RENGA_UNROLL
    for (int i = 0; i < kCodeWords; ++i) w.codes[i] = PairsOf(pairs, i);
    const int32_t factors =
        LoadOnce(reinterpret_cast<const uint16_t*>(GroupAt<2>(m, 1, row, group)));
    w.factors = PackBytes(factors & 15, (factors >> 8) & 15, (factors >> 4) & 15, factors >> 12);
    const int32_t halves = LoadOnce(reinterpret_cast<const int32_t*>(BlockAt<4>(m, 2, row, group)));
    w.scale = LowHalf(halves);
    w.minimum = -HighHalf(halves);
  }
};

struct Q3_K : QuantizedFormat<4, true, false> {
  RENGA_DEVICE static void Load(const MatrixPlanes& m, int64_t row, int64_t group, WeightGroup& w) {
    const Words2 pairs = LoadWords2(GroupAt<8>(m, 0, row, group));
    RENGA_UNROLL
    for (int i = 0; i < kCodeWords; ++i) w.codes[i] = PairsOf(pairs, i);
    AddHighBits<2>(m, 1, row, group, w);
    const int32_t low = LoadOnce(GroupAt<1>(m, 2, row, group));
    const uint8_t* const block = BlockAt<6>(m, 3, row, group);
    const int i = static_cast<int>(group % 8);
    const int32_t high =
        LoadOnce(reinterpret_cast<const uint16_t*>(block + 2 + i / 4 * 2)) >> (i % 4 * 4);
    w.factors = PackBytes(((low & 15) | (high & 3) << 4) - 32,
                          ((low >> 4) | ((high >> 2) & 3) << 4) - 32, 0, 0);
    w.scale = HalfAt(block);
  }
};

struct Q4_K : QuantizedFormat<0, true, true> {
  RENGA_DEVICE static void Load(const MatrixPlanes& m, int64_t row, int64_t group, WeightGroup& w) {
    LoadNibbles(m, row, group, w);
    LoadSixBits(m, 1, row, group, w);
  }
};

struct Q5_K : QuantizedFormat<0, true, true> {
  RENGA_DEVICE static void Load(const MatrixPlanes& m, int64_t row, int64_t group, WeightGroup& w) {
    LoadNibbles(m, row, group, w);
    AddHighBits<4>(m, 1, row, group, w);
    LoadSixBits(m, 2, row, group, w);
  }
};

struct Q6_K : QuantizedFormat<32, true, false> {
  RENGA_DEVICE static void Load(const MatrixPlanes& m, int64_t row, int64_t group, WeightGroup& w) {
    LoadNibbles(m, row, group, w);
    const Words2 pairs = LoadWords2(GroupAt<8>(m, 1, row, group));
    RENGA_UNROLL
    for (int i = 0; i < kCodeWords; ++i) w.codes[i] |= PairsOf(pairs, i) << 4;
    w.factors = LoadOnce(reinterpret_cast<const uint16_t*>(GroupAt<2>(m, 2, row, group)));
    w.scale = HalfAt(BlockAt<2>(m, 3, row, group));
  }
};

// Codes that stand for 16 values which do not lie evenly, in nibbles.
RENGA_DEVICE int32_t NonLinearValue(int32_t code) {
  // -127 -104 -83 -65 | -49 -35 -22 -10 | 1 13 25 38 | 53 69 89 113
  const uint32_t low = code & 4 ? 0xf6eaddcfu : 0xbfad9881u;
  const uint32_t high = code & 4 ? 0x71594535u : 0x26190d01u;
  return static_cast<int32_t>(((code & 8 ? high : low) >> (code % 4 * 8)) & 255);
}
RENGA_DEVICE void LoadNonLinear(const MatrixPlanes& m, int64_t row, int64_t group, WeightGroup& w) {
  LoadNibbles(m, row, group, w);
  RENGA_UNROLL
  for (int i = 0; i < kCodeWords; ++i) {
    const int32_t codes = w.codes[i];
    w.codes[i] = PackBytes(NonLinearValue(codes & 15), NonLinearValue((codes >> 8) & 15),
                           NonLinearValue((codes >> 16) & 15), NonLinearValue((codes >> 24) & 15));
  }
}

struct IQ4_NL : QuantizedFormat<0, false, false> {
  RENGA_DEVICE static void Load(const MatrixPlanes& m, int64_t row, int64_t group, WeightGroup& w) {
    LoadNonLinear(m, row, group, w);
    w.scale = HalfAt(GroupAt<2>(m, 1, row, group));
  }
};

struct IQ4_XS : QuantizedFormat<0, true, false> {
  RENGA_DEVICE static void Load(const MatrixPlanes& m, int64_t row, int64_t group, WeightGroup& w) {
    LoadNonLinear(m, row, group, w);
    const Words2 block = LoadWords2(BlockAt<8>(m, 1, row, group));
    w.scale = LowHalf(block.word[0]);
    const int i = static_cast<int>(group % 8);
    const int32_t high = (block.word[0] >> (16 + 2 * i)) & 3;
    const int32_t low = (block.word[1] >> (4 * i)) & 15;
    const int32_t scale = (low | high << 4) - 32;
    w.factors = PackBytes(scale, scale, 0, 0);
  }
};

// Plain formats: 16 bytes of a group's numbers as floats. kParts of them make a group.
struct F32 {
  static constexpr int kParts = 8;
  RENGA_DEVICE static void Load(const MatrixPlanes& m, int64_t row, int64_t group, int part,
                                float* out) {
    const Words4 words = LoadWords4(PartAt<kParts>(m, row, group, part));
    RENGA_UNROLL
    for (int i = 0; i < 4; ++i) out[i] = BitsToFloat(static_cast<uint32_t>(words.word[i]));
  }
};

struct F16 {
  static constexpr int kParts = 4;
  RENGA_DEVICE static void Load(const MatrixPlanes& m, int64_t row, int64_t group, int part,
                                float* out) {
    const Words4 words = LoadWords4(PartAt<kParts>(m, row, group, part));
    RENGA_UNROLL
    for (int i = 0; i < 4; ++i) {
      out[2 * i] = LowHalf(words.word[i]);
      out[2 * i + 1] = HighHalf(words.word[i]);
    }
  }
};

struct BF16 {
  static constexpr int kParts = 4;
  RENGA_DEVICE static void Load(const MatrixPlanes& m, int64_t row, int64_t group, int part,
                                float* out) {
    const Words4 words = LoadWords4(PartAt<kParts>(m, row, group, part));
    RENGA_UNROLL
    for (int i = 0; i < 4; ++i) {
      const auto word = static_cast<uint32_t>(words.word[i]);
      out[2 * i] = BitsToFloat(word << 16);
      out[2 * i + 1] = BitsToFloat(word & 0xffff0000u);
    }
  }
};

}  // namespace renga::kernels::cuda

#endif  // RENGA_WORKER_KERNELS_CUDA_DEVICE_FORMATS_H_
