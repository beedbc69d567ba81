// What every conformance test needs: the device under test with one thread and with three, the
// reference beside it, rows in device memory, and the two ways to compare.
//
// The suite runs over TestedDevices(), the reference among them: it must keep the promises too.
#ifndef RENGA_WORKER_KERNELS_CONFORMANCE_DEVICE_UNDER_TEST_H_
#define RENGA_WORKER_KERNELS_CONFORMANCE_DEVICE_UNDER_TEST_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "worker/kernels/backend.h"

namespace renga::kernels::conformance {

// Float arithmetic in another order, with fused multiply-adds or an approximate exp: relative
// errors of about 1e-6 at these sizes, so 1e-12 squared. A wrong term, an angle computed in float
// or a sum in half precision is far above.
inline constexpr double kFloatTolerance = 1e-10;

// Weights of a quantised type may meet activations rounded to 8 bits. With a step of a block's
// largest activation / 127, normally distributed activations (largest of 32: 2.1 deviations, of
// 256: 2.8) get an error of (2.1 / 127)^2 / 12 = 2.3e-5 to (2.8 / 127)^2 / 12 = 4.1e-5 of their
// square, and so does the result. Room for sampling and for unluckier blocks: 5 times that.
inline constexpr double kQuantizedTolerance = 2e-4;

// How rows lie in memory: tightly from an aligned address, or after one float and with three more
// between rows, so that only the first column's address is a multiple of 4 bytes.
enum class Layout { kTight, kLoose };

// rows x columns floats in a backend's memory. Whatever lies around the rows is NaN: an op that
// reads it shows in its result, one that writes it shows in Get().
class DeviceRows {
 public:
  // Filled with NaN: an op must write every number of its output.
  DeviceRows(Backend& backend, int64_t rows, int64_t columns, Layout layout);
  DeviceRows(Backend& backend, int64_t rows, int64_t columns, const std::vector<float>& values,
             Layout layout);

  RowsView view() { return view(0, rows_); }
  RowsView view(int64_t first_row, int64_t row_count);
  // rows x columns, without what lies around them (which is checked to be untouched).
  std::vector<float> Get();

 private:
  void Set(const std::vector<float>& values);

  Backend& backend_;
  const int64_t rows_;
  const int64_t columns_;
  const int64_t stride_;
  const int64_t offset_;
  std::unique_ptr<Buffer> buffer_;
};

// Bytes or floats in device memory.
std::unique_ptr<Buffer> ToDevice(Backend& backend, const std::vector<float>& values);
std::unique_ptr<Buffer> ToDevice(Backend& backend, const std::vector<std::byte>& bytes);
const float* Floats(const std::unique_ptr<Buffer>& buffer);
std::vector<std::byte> FromDevice(Backend& backend, Buffer& buffer);

// n numbers, normally distributed with deviation 1.
std::vector<float> Normal(int64_t n, uint32_t seed);
// Rows [first, first + count) of a compact matrix.
std::vector<float> Slice(const std::vector<float>& rows, int64_t columns, int64_t first,
                         int64_t count);

// Finite, with a normalised mean squared error of at most `tolerance`, and no single number off by
// more than that allows one of them (a wrong number among many would drown in the mean).
void ExpectClose(const std::vector<float>& got, const std::vector<float>& want, double tolerance);
void ExpectSameBits(const std::vector<float>& got, const std::vector<float>& want);

// A device by name with one thread and with three, the reference, and the device's twin if it has
// one (TwinOf).
struct Devices {
  explicit Devices(const std::string& name);
  std::unique_ptr<Backend> three;
  std::unique_ptr<Backend> one;
  std::unique_ptr<Backend> reference;
  std::unique_ptr<Backend> twin;
};

class ConformanceTest : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override;

  Backend& three() { return *devices_.three; }
  Backend& one() { return *devices_.one; }
  Backend& reference() { return *devices_.reference; }

  // Runs op(backend), a function that returns floats: on three threads, on one and on the twin (the
  // same bits) and on the reference (within the tolerance). Returns what the device gave.
  template <typename Op>
  std::vector<float> ExpectConforms(const Op& op, double tolerance = kFloatTolerance) {
    const std::vector<float> got = op(three());
    ExpectSameBits(op(one()), got);
    if (devices_.twin != nullptr) ExpectSameBits(op(*devices_.twin), got);
    ExpectClose(got, op(reference()), tolerance);
    return got;
  }

 private:
  Devices devices_{GetParam()};
};

// "cpu-avx2" as part of a test's name: letters and digits only.
std::string TestName(const std::string& device);
inline std::string DeviceTestName(const ::testing::TestParamInfo<std::string>& info) {
  return TestName(info.param);
}

}  // namespace renga::kernels::conformance

#endif  // RENGA_WORKER_KERNELS_CONFORMANCE_DEVICE_UNDER_TEST_H_
