#include "model/gumbel.h"

#include <cmath>

namespace renga::model {

// A counter-based generator: the seed, mixed so that neighbouring seeds are strangers, starts a
// SplitMix64 sequence, and the position is the index into it. What is there starts the sequence
// that tokens are indices into.
GumbelNoise::GumbelNoise(uint64_t seed, uint64_t position) {
  const uint64_t start = base::SplitMix(seed + base::kSplitMixStep);
  start_ = base::SplitMix(base::SplitMix(start + base::kSplitMixStep * (position + 1)) ^ start);
}

double GumbelNoise::Of(int32_t token) const {
  // The middle of one of 2^52 parts of (0, 1), which a double holds exactly.
  const double u = (static_cast<double>(Bits(token)) + 0.5) * 0x1p-52;
  return -std::log(-std::log(u));
}

}  // namespace renga::model
