// Weights for benchmarks of kernels: what they are does not matter, but arithmetic on them must be
// ordinary.
#ifndef RENGA_BENCH_PLAIN_WEIGHTS_H_
#define RENGA_BENCH_PLAIN_WEIGHTS_H_

#include <cstddef>
#include <cstdint>
#include <vector>

namespace renga::bench {

// Bytes that are ordinary weights in every format: as halves and floats, small positive numbers.
// The same at every call.
inline std::vector<std::byte> PlainWeights(int64_t bytes) {
  std::vector<std::byte> weights(static_cast<size_t>(bytes));
  uint32_t state = 1;
  for (std::byte& b : weights) {
    state = state * 1664525 + 1013904223;
    b = static_cast<std::byte>(state >> 24) & std::byte{0x33};
  }
  return weights;
}

}  // namespace renga::bench

#endif  // RENGA_BENCH_PLAIN_WEIGHTS_H_
