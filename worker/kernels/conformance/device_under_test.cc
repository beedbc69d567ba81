#include "worker/kernels/conformance/device_under_test.h"
#include "worker/kernels/conformance/emulated_paths.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include "absl/strings/ascii.h"
#include "base/testing/status_matchers.h"
#include "worker/kernels/conformance/emulated_paths.h"

namespace renga::kernels::conformance {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

std::unique_ptr<Buffer> NewBuffer(Backend& backend, int64_t bytes) {
  auto buffer = backend.Allocate(bytes);
  EXPECT_OK(buffer);
  return std::move(buffer).value();
}

bool SameBits(float a, float b) { return std::bit_cast<uint32_t>(a) == std::bit_cast<uint32_t>(b); }

}  // namespace

DeviceRows::DeviceRows(Backend& backend, int64_t rows, int64_t columns, Layout layout)
    : DeviceRows(backend, rows, columns,
                 std::vector<float>(static_cast<size_t>(rows * columns), kNan), layout) {}

DeviceRows::DeviceRows(Backend& backend, int64_t rows, int64_t columns,
                       const std::vector<float>& values, Layout layout)
    : backend_(backend),
      rows_(rows),
      columns_(columns),
      stride_(layout == Layout::kTight ? columns : columns + 3),
      offset_(layout == Layout::kTight ? 0 : 1),
      buffer_(NewBuffer(backend, (offset_ + rows * stride_) * 4)) {
  Set(values);
}

void DeviceRows::Set(const std::vector<float>& values) {
  ASSERT_EQ(static_cast<int64_t>(values.size()), rows_ * columns_);
  std::vector<float> memory(static_cast<size_t>(offset_ + rows_ * stride_), kNan);
  for (int64_t r = 0; r < rows_; ++r) {
    std::copy_n(values.begin() + r * columns_, columns_, memory.begin() + offset_ + r * stride_);
  }
  ASSERT_OK(backend_.Upload(std::as_bytes(std::span(memory)), *buffer_, 0));
}

RowsView DeviceRows::view(int64_t first_row, int64_t row_count) {
  float* data = reinterpret_cast<float*>(buffer_->data()) + offset_ + first_row * stride_;
  return {.data = data, .rows = row_count, .columns = columns_, .stride = stride_};
}

std::vector<float> DeviceRows::Get() {
  EXPECT_OK(backend_.Synchronize());
  std::vector<float> memory(static_cast<size_t>(offset_ + rows_ * stride_));
  EXPECT_OK(backend_.Download(*buffer_, 0, std::as_writable_bytes(std::span(memory))));
  std::vector<float> values;
  values.reserve(static_cast<size_t>(rows_ * columns_));
  for (int64_t i = 0; i < static_cast<int64_t>(memory.size()); ++i) {
    const float value = memory[static_cast<size_t>(i)];
    if (i >= offset_ && (i - offset_) % stride_ < columns_) {
      values.push_back(value);
    } else {
      EXPECT_TRUE(SameBits(value, kNan)) << "written outside of the rows, at float " << i;
    }
  }
  return values;
}

std::unique_ptr<Buffer> ToDevice(Backend& backend, const std::vector<std::byte>& bytes) {
  auto buffer = NewBuffer(backend, static_cast<int64_t>(bytes.size()));
  EXPECT_OK(backend.Upload(bytes, *buffer, 0));
  return buffer;
}

std::unique_ptr<Buffer> ToDevice(Backend& backend, const std::vector<float>& values) {
  auto buffer = NewBuffer(backend, static_cast<int64_t>(values.size()) * 4);
  EXPECT_OK(backend.Upload(std::as_bytes(std::span(values)), *buffer, 0));
  return buffer;
}

const float* Floats(const std::unique_ptr<Buffer>& buffer) {
  return reinterpret_cast<const float*>(buffer->data());
}

std::vector<std::byte> FromDevice(Backend& backend, Buffer& buffer) {
  EXPECT_OK(backend.Synchronize());
  std::vector<std::byte> bytes(static_cast<size_t>(buffer.size_bytes()));
  EXPECT_OK(backend.Download(buffer, 0, bytes));
  return bytes;
}

std::vector<float> Normal(int64_t n, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> distribution;
  std::vector<float> values(static_cast<size_t>(n));
  for (float& value : values) value = distribution(random);
  return values;
}

std::vector<float> Slice(const std::vector<float>& rows, int64_t columns, int64_t first,
                         int64_t count) {
  return {rows.begin() + first * columns, rows.begin() + (first + count) * columns};
}

void ExpectClose(const std::vector<float>& got, const std::vector<float>& want, double tolerance) {
  ASSERT_EQ(got.size(), want.size());
  double error = 0;
  double power = 0;
  double worst = 0;
  size_t worst_index = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    ASSERT_TRUE(std::isfinite(got[i])) << "number " << i << " is " << got[i];
    const double difference = static_cast<double>(got[i]) - want[i];
    error += difference * difference;
    power += static_cast<double>(want[i]) * want[i];
    if (std::abs(difference) > worst) {
      worst = std::abs(difference);
      worst_index = i;
    }
  }
  EXPECT_LE(error, tolerance * power) << "normalised mean squared error " << error / power;
  if (got.empty()) return;
  const double deviation = std::sqrt(tolerance * power / static_cast<double>(got.size()));
  EXPECT_LE(worst, 12 * deviation)
      << "number " << worst_index << " is " << got[worst_index] << ", not " << want[worst_index];
}

void ExpectSameBits(const std::vector<float>& got, const std::vector<float>& want) {
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < got.size(); ++i) {
    ASSERT_TRUE(SameBits(got[i], want[i]))
        << "number " << i << " is " << got[i] << ", not " << want[i];
  }
}

Devices::Devices(const std::string& name)
    : three(CreateTestedBackend(name, 3)),
      one(CreateTestedBackend(name, 1)),
      reference(CreateTestedBackend("reference", 1)) {
  if (const std::string name_of_twin = TwinOf(name); !name_of_twin.empty()) {
    twin = CreateTestedBackend(name_of_twin, 1);
  }
}

void ConformanceTest::SetUp() { ASSERT_TRUE(devices_.three && devices_.one && devices_.reference); }

std::string TestName(const std::string& device) {
  std::string name = device;
  std::erase_if(name, [](char c) { return !absl::ascii_isalnum(static_cast<unsigned char>(c)); });
  return name;
}

}  // namespace renga::kernels::conformance
