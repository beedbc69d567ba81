// Weights of any type made without a quantiser: random bytes with sensible scales. Every bit of
// every field matters then, which quantised normal numbers would not give.
#ifndef RENGA_WORKER_KERNELS_CONFORMANCE_RANDOM_WEIGHTS_H_
#define RENGA_WORKER_KERNELS_CONFORMANCE_RANDOM_WEIGHTS_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/data_type.h"

namespace renga::kernels::conformance {

enum class Scales {
  kUsual,      // scales of either sign around 1/100, here and there one that is zero
  kSubnormal,  // every half is below 2^-14: hardware and software conversions must agree
};

// rows x columns numbers in the file's format; columns is a multiple of the type's block.
std::vector<std::byte> RandomWeights(base::DataType type, int64_t rows, int64_t columns,
                                     uint32_t seed, Scales scales = Scales::kUsual);

// Sets every byte of quantised weights but those of their half-precision scales.
void FillCodes(base::DataType type, std::byte value, std::vector<std::byte>& bytes);

}  // namespace renga::kernels::conformance

#endif  // RENGA_WORKER_KERNELS_CONFORMANCE_RANDOM_WEIGHTS_H_
