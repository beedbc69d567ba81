// What the backend takes of a card's memory against what budgets count: a file's bytes for
// matrices, model::ScratchParts for the rest.
#include <algorithm>
#include <map>
#include <memory>
#include <vector>

#include "base/data_type.h"
#include "base/testing/status_matchers.h"
#include "worker/kernels/cuda/cuda_backend.h"
#include "worker/kernels/cuda/emulation/emulated_device.h"
#include "worker/kernels/cuda/packed_weights.h"

namespace renga::kernels::cuda {
namespace {

using base::DataType;

constexpr DataType kTypes[] = {
#define RENGA_FORMAT(Format) DataType::k##Format,
    RENGA_CUDA_QUANTIZED_FORMATS(RENGA_FORMAT) RENGA_CUDA_PLAIN_FORMATS(RENGA_FORMAT)
#undef RENGA_FORMAT
};

// An emulated card that counts what is allocated.
class CountingDevice : public Device {
 public:
  int64_t most() const { return most_; }
  int64_t used() const { return used_; }

  bool has_tensor_kernels() const override { return device_->has_tensor_kernels(); }
  bool has_tensor_cores() const override { return device_->has_tensor_cores(); }
  absl::StatusOr<std::byte*> Allocate(int64_t bytes) override {
    const auto memory = device_->Allocate(bytes);
    if (memory.ok()) {
      pieces_[*memory] = bytes;
      most_ = std::max(most_, used_ += bytes);
    }
    return memory;
  }
  void Free(std::byte* memory) override {
    used_ -= pieces_[memory];
    pieces_.erase(memory);
    device_->Free(memory);
  }
  absl::Status Upload(std::span<const std::byte> host, std::byte* to) override {
    return device_->Upload(host, to);
  }
  absl::Status Copy(const std::byte* from, std::byte* to, int64_t bytes) override {
    return device_->Copy(from, to, bytes);
  }
  absl::Status Download(const std::byte* from, std::span<std::byte> host) override {
    return device_->Download(from, host);
  }
  absl::Status Launch(Kernel, const LaunchShape&, std::span<const std::byte>) override {
    return absl::OkStatus();  // what they compute is not looked at
  }
  absl::Status Synchronize() override { return device_->Synchronize(); }

 private:
  const std::unique_ptr<Device> device_ =
      emulation::CreateEmulatedDevice(emulation::Turns::kForwards);
  std::map<std::byte*, int64_t> pieces_;
  int64_t used_ = 0;
  int64_t most_ = 0;
};

TEST(CardBudgetTest, AMatrixTakesTheBytesOfItsFile) {
  constexpr int64_t kRows = 1000;
  for (const DataType type : kTypes) {
    for (const int64_t columns : {int64_t{256}, int64_t{2048}}) {
      const auto device = std::make_shared<CountingDevice>();
      const auto backend = CreateCudaBackend(device);
      ASSERT_OK_AND_ASSIGN(const auto matrix, backend->CreateMatrix(type, kRows, columns));
      ASSERT_OK_AND_ASSIGN(const int64_t row_bytes, base::RowBytes(type, columns));
      EXPECT_LE(device->most(), kRows * row_bytes + kMostPlanes * kPlaneAlignment)
          << base::GetDataTypeInfo(type).name;
      EXPECT_GE(device->most(), kRows * row_bytes);
      EXPECT_EQ(device->most(), backend->MatrixBytes(type, kRows, columns));
    }
  }
}

// ScratchParts::quantised: two bytes for each number of the widest input, of as many tokens as a
// step may have.
TEST(CardBudgetTest, ProductsTakeTwoBytesForEachNumberOfTheirInput) {
  constexpr int64_t kTokens = 256;
  constexpr int64_t kRows = 8;
  // A width that is no whole number of groups takes a copy of plain rows.
  for (const int64_t columns : {int64_t{512}, int64_t{500}}) {
    const auto device = std::make_shared<CountingDevice>();
    const auto backend = CreateCudaBackend(device);
    ASSERT_OK_AND_ASSIGN(const auto in, backend->Allocate(kTokens * columns * 4));
    ASSERT_OK_AND_ASSIGN(const auto out, backend->Allocate(kTokens * kRows * 4));
    std::vector<std::unique_ptr<WeightMatrix>> matrices;
    std::vector<LinearOutput> outputs;
    auto* const rows = reinterpret_cast<float*>(out->data());
    for (const DataType type : kTypes) {
      auto matrix = backend->CreateMatrix(type, kRows, columns);
      if (columns % base::GetDataTypeInfo(type).block_elements != 0) continue;
      ASSERT_OK(matrix);
      matrices.push_back(*std::move(matrix));
      outputs.push_back({.matrix = matrices.back().get(), .bias = nullptr, .out = {}});
    }
    ASSERT_GE(outputs.size(), 3u);
    const int64_t before = device->used();
    for (const int64_t tokens : {int64_t{1}, int64_t{64}, int64_t{100}, kTokens}) {
      for (LinearOutput& output : outputs) output.out = {rows, tokens, kRows, kRows};
      ASSERT_OK(backend->Linear(
          {reinterpret_cast<const float*>(in->data()), tokens, columns, columns}, outputs));
    }
    EXPECT_LE(device->most() - before, kTokens * 2 * (columns + 31) / 32 * 32);
  }
}

}  // namespace
}  // namespace renga::kernels::cuda
