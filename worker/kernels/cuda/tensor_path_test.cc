// The tensor cores' path: the model of the instruction against a plain product, and when a backend
// takes that path. That its products are right is the conformance suite's ("emulated-cuda-mma").
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "base/half_float.h"
#include "base/testing/status_matchers.h"
#include "worker/kernels/cuda/cuda_backend.h"
#include "worker/kernels/cuda/emulation/emulated_device.h"
#include "worker/kernels/cuda/emulation/tensor_model.h"

namespace renga::kernels::cuda {
namespace {

using emulation::ByteFragments;

void SetByte(int32_t& word, int i, int value) {
  word = static_cast<int32_t>(static_cast<uint32_t>(word) | static_cast<uint32_t>(value & 255)
                                                                << (8 * i));
}

// Matrices of bytes, and where the PTX ISA says that each number lies: with group = lane / 4 and
// member = lane % 4,
//   A: number i of a lane is (row, k) = (group, or group + 8 where i % 8 >= 4; member * 4 + i % 4,
//      and 16 more where i >= 8);
//   B: number i is (k, column) = (member * 4 + i % 4, and 16 more where i >= 4; group);
//   D: number i is (row, column) = (group, or group + 8 where i >= 2; member * 2 + i % 2).
struct Product {
  int depth;
  std::vector<int> a, b;  // 16 x depth, depth x 8
  ByteFragments lanes[32] = {};

  explicit Product(int k_depth) : depth(k_depth) {
    std::mt19937 random(static_cast<uint32_t>(depth));
    std::uniform_int_distribution<int> bytes(-128, 127);
    for (int i = 0; i < 16 * depth; ++i) a.push_back(bytes(random));
    for (int i = 0; i < 8 * depth; ++i) b.push_back(bytes(random));
    for (int lane = 0; lane < 32; ++lane) {
      const int group = lane / 4;
      const int member = lane % 4;
      for (int i = 0; i < depth / 2; ++i) {
        const int row = i % 8 < 4 ? group : group + 8;
        const int k = member * 4 + i % 4 + (i < 8 ? 0 : 16);
        SetByte(lanes[lane].a[i / 4], i % 4, a[static_cast<size_t>(row * depth + k)]);
      }
      for (int i = 0; i < depth / 4; ++i) {
        const int k = member * 4 + i % 4 + (i < 4 ? 0 : 16);
        SetByte(lanes[lane].b[i / 4], i % 4, b[static_cast<size_t>(k * 8 + group)]);
      }
    }
  }
  int Element(int row, int column) const {
    int sum = 0;
    for (int k = 0; k < depth; ++k) {
      sum += a[static_cast<size_t>(row * depth + k)] * b[static_cast<size_t>(k * 8 + column)];
    }
    return sum;
  }
};

TEST(TensorModelTest, FragmentsOfBothDepthsMultiplyAsMatricesDo) {
  for (const int depth : {16, 32}) {
    const Product product(depth);
    for (int lane = 0; lane < 32; ++lane) {
      int32_t sums[4] = {1, 20, 300, -4000};
      const int32_t before[4] = {1, 20, 300, -4000};
      emulation::AddProducts(product.lanes, depth, lane, sums);
      for (int i = 0; i < 4; ++i) {
        const int row = lane / 4 + (i < 2 ? 0 : 8);
        const int column = lane % 4 * 2 + i % 2;
        EXPECT_EQ(sums[i], before[i] + product.Element(row, column))
            << "depth " << depth << ", lane " << lane << ", number " << i;
      }
    }
  }
}

// Rows 0-7 of a product with a depth of 16 are the small instruction's; its fragments are the first
// of each (PTX ISA, mma.m8n8k16).
TEST(TensorModelTest, TheSmallInstructionGivesTheFirstRows) {
  const Product product(16);
  for (int lane = 0; lane < 32; ++lane) {
    int32_t sums[2] = {7, -8};
    emulation::AddHalfProducts(product.lanes, lane, sums);
    for (int i = 0; i < 2; ++i) {
      EXPECT_EQ(sums[i], (i == 0 ? 7 : -8) + product.Element(lane / 4, lane % 4 * 2 + i));
    }
  }
}

// Halves: with group = lane / 4 and member = lane % 4, number i of a lane's A is (row, k) =
// (group, or group + 8 where i % 4 >= 2; member * 2 + i % 2, and 8 more where i >= 4), of its B
// (k, column) = (member * 2 + i % 2, and 8 more where i >= 2; group); D is that of bytes.
TEST(TensorModelTest, HalvesOfBothDepthsMultiplyAsMatricesDo) {
  std::mt19937 random(5);
  std::uniform_int_distribution<int> numbers(-64, 64);  // sums are whole numbers: exact
  for (const int depth : {8, 16}) {
    std::vector<int> a;
    std::vector<int> b;
    for (int i = 0; i < 16 * depth; ++i) a.push_back(numbers(random));
    for (int i = 0; i < 8 * depth; ++i) b.push_back(numbers(random));
    ByteFragments lanes[32] = {};
    const auto set = [](int32_t& word, int i, int value) {
      const uint32_t half = base::FloatToHalf(static_cast<float>(value));
      word = static_cast<int32_t>(static_cast<uint32_t>(word) | half << (16 * i));
    };
    for (int lane = 0; lane < 32; ++lane) {
      const int group = lane / 4;
      const int member = lane % 4;
      for (int i = 0; i < depth / 2; ++i) {
        const int row = i % 4 < 2 ? group : group + 8;
        const int k = member * 2 + i % 2 + (i < 4 ? 0 : 8);
        set(lanes[lane].a[i / 2], i % 2, a[static_cast<size_t>(row * depth + k)]);
      }
      for (int i = 0; i < depth / 4; ++i) {
        const int k = member * 2 + i % 2 + (i < 2 ? 0 : 8);
        set(lanes[lane].b[i / 2], i % 2, b[static_cast<size_t>(k * 8 + group)]);
      }
    }
    for (int lane = 0; lane < 32; ++lane) {
      float sums[4] = {1, 20, 300, -4000};
      const float before[4] = {1, 20, 300, -4000};
      emulation::AddHalvesProducts(lanes, depth, lane, sums);
      for (int i = 0; i < 4; ++i) {
        int product = 0;
        for (int k = 0; k < depth; ++k) {
          product += a[static_cast<size_t>((lane / 4 + i / 2 * 8) * depth + k)] *
                     b[static_cast<size_t>(k * 8 + lane % 4 * 2 + i % 2)];
        }
        EXPECT_EQ(sums[i], before[i] + static_cast<float>(product)) << depth << ", " << lane;
      }
    }
  }
}

// An emulated card that remembers what was launched.
class RecordingDevice : public Device {
 public:
  explicit RecordingDevice(bool tensor_cores)
      : device_(emulation::CreateEmulatedDevice(
            emulation::Turns::kForwards,
            tensor_cores ? emulation::TensorCores::kOf16Rows : emulation::TensorCores::kNone)) {}

  bool has_tensor_kernels() const override { return device_->has_tensor_kernels(); }
  bool has_tensor_cores() const override { return device_->has_tensor_cores(); }
  absl::StatusOr<std::byte*> Allocate(int64_t bytes) override { return device_->Allocate(bytes); }
  void Free(std::byte* memory) override { device_->Free(memory); }
  absl::Status Upload(std::span<const std::byte> host, std::byte* to) override {
    return device_->Upload(host, to);
  }
  absl::Status Copy(const std::byte* from, std::byte* to, int64_t bytes) override {
    return device_->Copy(from, to, bytes);
  }
  absl::Status Download(const std::byte* from, std::span<std::byte> host) override {
    return device_->Download(from, host);
  }
  absl::Status Launch(Kernel kernel, const LaunchShape& shape,
                      std::span<const std::byte> args) override {
    launched.push_back(kernel);
    return device_->Launch(kernel, shape, args);
  }
  absl::Status Synchronize() override { return device_->Synchronize(); }

  std::vector<Kernel> launched;

 private:
  const std::unique_ptr<Device> device_;
};

// The kernel that multiplied a matrix of that type with so many tokens.
Kernel MultipliedBy(bool tensor_cores, CudaPath path, base::DataType type, int64_t tokens) {
  constexpr int64_t kRows = 3;
  constexpr int64_t kColumns = 256;
  const auto device = std::make_shared<RecordingDevice>(tensor_cores);
  const auto backend = CreateCudaBackend(device, path);
  const auto matrix = backend->CreateMatrix(type, kRows, kColumns);
  const auto in = backend->Allocate(tokens * kColumns * 4);
  const auto out = backend->Allocate(tokens * kRows * 4);
  EXPECT_OK(matrix);
  const LinearOutput output{
      .matrix = matrix->get(),
      .bias = nullptr,
      .out = {reinterpret_cast<float*>((*out)->data()), tokens, kRows, kRows}};
  EXPECT_OK(backend->Linear(
      {reinterpret_cast<const float*>((*in)->data()), tokens, kColumns, kColumns}, {&output, 1}));
  return device->launched.back();
}

TEST(TensorPathTest, ManyTokensOfQuantisedTypesUnlessForcedOtherwise) {
  using base::DataType;
  const CudaPath best = CudaPath::kBest;
  EXPECT_EQ(MultipliedBy(true, best, DataType::kQ4_K, 9), Kernel::kTensor_Q4_K);
  EXPECT_EQ(MultipliedBy(true, best, DataType::kIQ4_XS, 65), Kernel::kTensor_IQ4_XS);
  EXPECT_EQ(MultipliedBy(true, best, DataType::kQ4_K, 8), Kernel::kVectorFew_Q4_K);
  EXPECT_EQ(MultipliedBy(true, best, DataType::kF16, 9), Kernel::kTiles_F16);
  EXPECT_EQ(MultipliedBy(true, CudaPath::kDp4a, DataType::kQ4_K, 9), Kernel::kTiles_Q4_K);
  for (const int64_t tokens : {1, 9}) {
    EXPECT_EQ(MultipliedBy(true, CudaPath::kHalf, DataType::kF16, tokens), Kernel::kHalfTiles_F16);
  }
  EXPECT_EQ(MultipliedBy(true, CudaPath::kHalf, DataType::kQ4_K, 9), Kernel::kTensor_Q4_K);
  EXPECT_EQ(MultipliedBy(false, best, DataType::kQ4_K, 9), Kernel::kTiles_Q4_K);
}

}  // namespace
}  // namespace renga::kernels::cuda
