// Rows of numbers in renga's own format of three bits (base::DataType::kR3), for neurons that
// hardly matter (model::Approximation::cold_neurons).
#ifndef RENGA_WORKER_ENGINE_THREE_BITS_H_
#define RENGA_WORKER_ENGINE_THREE_BITS_H_

#include <cstddef>
#include <span>

namespace renga::engine {

// `numbers` are whole blocks of 32, `out` has base::RowBytes(kR3) of them. The scale of a block is
// the best of a few by the sum of squared errors. Blocks with numbers that are not finite, or
// beyond what a half can scale, become zeros.
void StoreThreeBits(std::span<const float> numbers, std::span<std::byte> out);

}  // namespace renga::engine

#endif  // RENGA_WORKER_ENGINE_THREE_BITS_H_
