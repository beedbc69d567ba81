// Numbers of a stored row rounded to three bits each, for neurons that hardly matter
// (model::Approximation::cold_neurons). They stay in the format of their row: this is what fewer
// bits cost, not yet what they save.
#ifndef RENGA_WORKER_ENGINE_LOW_BITS_H_
#define RENGA_WORKER_ENGINE_LOW_BITS_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "base/data_type.h"

namespace renga::engine {

// Rounds the numbers of the columns in `cold` (ascending, inside the row) to at most eight values
// for each block of the format, by its own scale: the code of a quantised number keeps its three
// highest bits, rounded, and numbers of plain formats become one of seven, even on both sides of
// zero, in each 32 columns. Everything else stays, bit for bit, and so do formats that have three
// bits or fewer. kUnimplemented for formats whose codes are no numbers.
absl::Status RoundToThreeBits(base::DataType type, std::span<std::byte> row,
                              std::span<const int32_t> cold);

}  // namespace renga::engine

#endif  // RENGA_WORKER_ENGINE_LOW_BITS_H_
