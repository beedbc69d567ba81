// Random weights in every stored format, for synthetic models: blocks whose numbers have a chosen
// spread and mean 0, so that a model made of them computes finite, varied logits. For tests and
// benchmarks only.
#ifndef RENGA_MODEL_TESTING_RANDOM_BLOCKS_H_
#define RENGA_MODEL_TESTING_RANDOM_BLOCKS_H_

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/data_type.h"

namespace renga::model {

// SplitMix64: small, fast, and the same on every machine. Not thread-safe.
class RandomSource {
 public:
  explicit RandomSource(uint64_t seed) : state_(seed) {}
  uint64_t Next();
  // Uniform in [-1, 1).
  float NextSigned();
  void Fill(std::span<std::byte> out);

 private:
  uint64_t state_;
};

// Fills `out`, whole blocks of `type`, with numbers of standard deviation about `deviation`.
void FillRandomBlocks(base::DataType type, float deviation, RandomSource& random,
                      std::span<std::byte> out);

}  // namespace renga::model

#endif  // RENGA_MODEL_TESTING_RANDOM_BLOCKS_H_
