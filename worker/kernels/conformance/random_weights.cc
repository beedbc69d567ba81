#include "worker/kernels/conformance/random_weights.h"

#include <algorithm>
#include <cstring>
#include <random>

#include "base/testing/status_matchers.h"

namespace renga::kernels::conformance {
namespace {

using base::DataType;

// Where the halves of a block lie (docs/FORMATS.md).
std::vector<size_t> ScaleOffsets(DataType type) {
  switch (type) {
    case DataType::kQ8_0:
    case DataType::kQ4_0:
    case DataType::kQ5_0:
    case DataType::kIQ4_NL:
    case DataType::kIQ4_XS:
    case DataType::kR3:
      return {0};
    case DataType::kQ4_1:
    case DataType::kQ5_1:
    case DataType::kQ4_K:
    case DataType::kQ5_K:
      return {0, 2};
    case DataType::kQ2_K:
      return {80, 82};
    case DataType::kQ3_K:
      return {108};
    case DataType::kQ6_K:
      return {208};
    case DataType::kInvalid:
    case DataType::kF32:
    case DataType::kF16:
    case DataType::kBF16:
      return {};
  }
  return {};
}

void Put16(std::byte* at, uint16_t value) { std::memcpy(at, &value, 2); }

uint16_t RandomScale(std::mt19937& random, Scales scales) {
  const uint16_t sign = random() % 2 == 0 ? 0x8000 : 0;
  if (scales == Scales::kSubnormal) return static_cast<uint16_t>(sign | (1 + random() % 0x3ff));
  if (random() % 16 == 0) return sign;
  const float magnitude = 0.005F + 0.01F * static_cast<float>(random() % 1000) / 1000.0F;
  return sign | base::FloatToHalf(magnitude);
}

void FillPlain(DataType type, Scales scales, std::mt19937& random, std::vector<std::byte>& bytes) {
  std::normal_distribution<float> distribution(0, scales == Scales::kUsual ? 0.05F : 0x1p-17F);
  const size_t width = static_cast<size_t>(base::GetDataTypeInfo(type).block_bytes);
  for (size_t at = 0; at < bytes.size(); at += width) {
    const float value = distribution(random);
    if (type == DataType::kF32) {
      std::memcpy(&bytes[at], &value, 4);
    } else {
      Put16(&bytes[at],
            type == DataType::kF16 ? base::FloatToHalf(value) : base::FloatToBFloat16(value));
    }
  }
}

}  // namespace

std::vector<std::byte> RandomWeights(DataType type, int64_t rows, int64_t columns, uint32_t seed,
                                     Scales scales) {
  const base::DataTypeInfo& info = base::GetDataTypeInfo(type);
  const auto row_bytes = base::RowBytes(type, columns);
  EXPECT_OK(row_bytes);
  std::vector<std::byte> bytes(static_cast<size_t>(*row_bytes * rows));
  std::mt19937 random(seed);
  if (info.block_elements == 1) {
    FillPlain(type, scales, random, bytes);
    return bytes;
  }
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
  const std::vector<size_t> offsets = ScaleOffsets(type);
  EXPECT_FALSE(offsets.empty()) << info.name << " has no scales here: add them";
  for (size_t block = 0; block < bytes.size(); block += static_cast<size_t>(info.block_bytes)) {
    for (const size_t offset : offsets) Put16(&bytes[block + offset], RandomScale(random, scales));
  }
  return bytes;
}

void FillCodes(DataType type, std::byte value, std::vector<std::byte>& bytes) {
  const std::vector<std::byte> random = bytes;
  std::fill(bytes.begin(), bytes.end(), value);
  const auto width = static_cast<size_t>(base::GetDataTypeInfo(type).block_bytes);
  for (size_t block = 0; block < bytes.size(); block += width) {
    for (const size_t offset : ScaleOffsets(type)) {
      std::memcpy(&bytes[block + offset], &random[block + offset], 2);
    }
  }
}

}  // namespace renga::kernels::conformance
