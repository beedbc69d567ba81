#include "worker/kernels/cuda/emulation/tensor_model.h"

#include "base/half_float.h"

namespace renga::kernels::cuda::emulation {
namespace {

// The sum of the products of two registers' bytes.
int32_t DotBytes(int32_t a, int32_t b) {
  int32_t sum = 0;
  for (int i = 0; i < 32; i += 8) {
    sum += static_cast<int32_t>(static_cast<int8_t>(static_cast<uint32_t>(a) >> i)) *
           static_cast<int8_t>(static_cast<uint32_t>(b) >> i);
  }
  return sum;
}

// The sum of the products of two registers' halves.
double DotHalves(int32_t a, int32_t b) {
  double sum = 0;
  for (int i = 0; i < 32; i += 16) {
    sum += static_cast<double>(
               base::HalfToFloat(static_cast<uint16_t>(static_cast<uint32_t>(a) >> i))) *
           static_cast<double>(
               base::HalfToFloat(static_cast<uint16_t>(static_cast<uint32_t>(b) >> i)));
  }
  return sum;
}

}  // namespace

// A row of A, or a column of B, lies in four neighbouring lanes: 4 numbers of each half of the
// depth in each. Lanes have two rows of A, 8 apart, in alternate registers.
void AddProducts(const ByteFragments (&lanes)[32], int depth, int lane, int32_t (&sums)[4]) {
  for (int i = 0; i < 4; ++i) {
    const int row = lane / 4 + i / 2 * 8;
    const int column = lane % 4 * 2 + i % 2;
    for (int member = 0; member < 4; ++member) {
      const ByteFragments& a = lanes[row % 8 * 4 + member];
      const ByteFragments& b = lanes[column * 4 + member];
      for (int half = 0; half < depth / 16; ++half) {
        sums[i] += DotBytes(a.a[row / 8 + half * 2], b.b[half]);
      }
    }
  }
}

void AddHalvesProducts(const ByteFragments (&lanes)[32], int depth, int lane, float (&sums)[4]) {
  for (int i = 0; i < 4; ++i) {
    const int row = lane / 4 + i / 2 * 8;
    const int column = lane % 4 * 2 + i % 2;
    for (int half = 0; half < depth / 8; ++half) {
      double sum = static_cast<double>(sums[i]);
      for (int member = 0; member < 4; ++member) {
        sum += DotHalves(lanes[row % 8 * 4 + member].a[row / 8 + half * 2],
                         lanes[column * 4 + member].b[half]);
      }
      sums[i] = static_cast<float>(sum);
    }
  }
}

void AddHalfProducts(const ByteFragments (&lanes)[32], int lane, int32_t (&sums)[2]) {
  for (int i = 0; i < 2; ++i) {
    const int row = lane / 4;
    const int column = lane % 4 * 2 + i;
    for (int member = 0; member < 4; ++member) {
      sums[i] += DotBytes(lanes[row * 4 + member].a[0], lanes[column * 4 + member].b[0]);
    }
  }
}

}  // namespace renga::kernels::cuda::emulation
