#include "model/testing/random_blocks.h"

#include <cstring>

#include "base/split_mix.h"

namespace renga::model {
namespace {

using base::DataType;

// Root mean squares of what uniformly random bits decode to, before the block's scale.
constexpr float kRmsOf3Bits = 2.35f;      // -4 .. 3
constexpr float kRmsOf2Bits = 1.12f;      // 0 .. 3 around its mean
constexpr float kRmsOf4Bits = 4.61f;      // 0 .. 15 around its mean
constexpr float kRmsOf5Bits = 9.23f;      // 0 .. 31 around its mean
constexpr float kRmsOf6Bits = 18.5f;      // -32 .. 31
constexpr float kRmsOf6BitScale = 36.5f;  // 0 .. 63, not centred
constexpr float kRmsOf4BitScale = 8.8f;   // 0 .. 15, not centred
constexpr float kRmsOf8Bits = 73.9f;      // -128 .. 127
constexpr float kRmsOfNonLinear = 68.f;   // the 16 values of IQ4

void PutHalf(std::byte* at, float value) {
  const uint16_t half = base::FloatToHalf(value);
  std::memcpy(at, &half, sizeof(half));
}

// Formats that decode to scale * (quant - offset) have a small mean; a random sign of the scale
// makes it cancel over blocks. Without that, every output of a linear layer would share a
// component, and the layers would amplify it.
float WithRandomSign(float scale, RandomSource& random) {
  return random.Next() % 2 == 0 ? scale : -scale;
}

// scale * quant + minimum, with the minimum that makes the mean 0.
void PutScaleAndMinimum(std::byte* block, float scale, float quant_mean) {
  PutHalf(block, scale);
  PutHalf(block + 2, -scale * quant_mean);
}

// Q4_K and Q5_K pack eight 6-bit scales and eight 6-bit minima into 12 bytes. Equal scale and
// minimum in each sub-block, together with dmin = d * quant_mean, give a mean of 0.
void PutKScales(std::byte* block, float scale, float quant_mean) {
  PutHalf(block, scale);
  PutHalf(block + 2, scale * quant_mean);
  std::byte* packed = block + 4;
  for (int i = 0; i < 4; ++i) {
    packed[4 + i] = packed[i];
    const std::byte low = packed[8 + i] & std::byte{15};
    packed[8 + i] = low | low << 4;
  }
}

// Q2_K: 16 bytes of 4-bit scale and 4-bit minimum, 64 bytes of quants, d, dmin.
void PutQ2KScales(std::byte* block, float scale) {
  for (int i = 0; i < 16; ++i) {
    const std::byte low = block[i] & std::byte{15};
    block[i] = low | low << 4;
  }
  PutHalf(block + 80, scale);
  PutHalf(block + 82, scale * 1.5f);
}

// `block` holds random bits; sets the scales in it so that its numbers have the deviation.
void SetScales(DataType type, float deviation, RandomSource& random, std::byte* block) {
  switch (type) {
    case DataType::kInvalid:
      return;
    case DataType::kF32: {
      const float value = deviation * 1.732f * random.NextSigned();
      std::memcpy(block, &value, sizeof(value));
      return;
    }
    case DataType::kF16:
      return PutHalf(block, deviation * 1.732f * random.NextSigned());
    case DataType::kBF16: {
      const uint16_t bits = base::FloatToBFloat16(deviation * 1.732f * random.NextSigned());
      std::memcpy(block, &bits, sizeof(bits));
      return;
    }
    case DataType::kQ8_0:
      return PutHalf(block, WithRandomSign(deviation / kRmsOf8Bits, random));
    case DataType::kQ4_0:
      return PutHalf(block, WithRandomSign(deviation / kRmsOf4Bits, random));
    case DataType::kQ4_1:
      return PutScaleAndMinimum(block, deviation / kRmsOf4Bits, 7.5f);
    case DataType::kQ5_0:
      return PutHalf(block, WithRandomSign(deviation / kRmsOf5Bits, random));
    case DataType::kQ5_1:
      return PutScaleAndMinimum(block, deviation / kRmsOf5Bits, 15.5f);
    case DataType::kQ2_K:
      return PutQ2KScales(block, deviation / (kRmsOf4BitScale * kRmsOf2Bits));
    case DataType::kQ3_K:
      return PutHalf(block + 108, deviation / (kRmsOf6Bits * kRmsOf3Bits));
    case DataType::kQ4_K:
      return PutKScales(block, deviation / (kRmsOf6BitScale * kRmsOf4Bits), 7.5f);
    case DataType::kQ5_K:
      return PutKScales(block, deviation / (kRmsOf6BitScale * kRmsOf5Bits), 15.5f);
    case DataType::kQ6_K:
      return PutHalf(block + 208, deviation / (kRmsOf8Bits * kRmsOf6Bits));
    case DataType::kIQ4_NL:
      return PutHalf(block, WithRandomSign(deviation / kRmsOfNonLinear, random));
    case DataType::kIQ4_XS:
      return PutHalf(block, deviation / (kRmsOf6Bits * kRmsOfNonLinear));
    case DataType::kR3:
      return PutHalf(block, WithRandomSign(deviation / kRmsOf3Bits, random));
  }
}

}  // namespace

uint64_t RandomSource::Next() {
  state_ += base::kSplitMixStep;
  return base::SplitMix(state_);
}

float RandomSource::NextSigned() {
  return static_cast<float>(static_cast<int64_t>(Next()) >> 40) * 0x1p-23f;
}

void RandomSource::Fill(std::span<std::byte> out) {
  while (out.size() >= sizeof(uint64_t)) {
    const uint64_t bits = Next();
    std::memcpy(out.data(), &bits, sizeof(bits));
    out = out.subspan(sizeof(bits));
  }
  const uint64_t bits = Next();
  std::memcpy(out.data(), &bits, out.size());
}

void FillRandomBlocks(DataType type, float deviation, RandomSource& random,
                      std::span<std::byte> out) {
  random.Fill(out);
  const size_t block_bytes = static_cast<size_t>(base::GetDataTypeInfo(type).block_bytes);
  for (size_t at = 0; at + block_bytes <= out.size(); at += block_bytes) {
    SetScales(type, deviation, random, out.data() + at);
  }
}

}  // namespace renga::model
