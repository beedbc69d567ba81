// The noise of seeded draws.
//
// A token drawn with probability exp(logit / T) / sum of all of these is also the one with the
// largest logit + T * g, where every token has a g of its own, drawn from the Gumbel distribution
// (Gumbel 1954; Maddison et al. 2014, arXiv 1411.0030). With g a function of (seed, position,
// token) a draw becomes a search for the best: no sum over the vocabulary is needed, tokens that
// are out change nothing for the others, and whoever knows bounds of logits can prove who wins.
#ifndef RENGA_MODEL_GUMBEL_H_
#define RENGA_MODEL_GUMBEL_H_

#include <bit>
#include <cstdint>

#include "base/split_mix.h"

namespace renga::model {

// Of the draw of one token. Two machines may differ in the last bits of a logarithm, and in no
// more.
class GumbelNoise {
 public:
  // `position` is where in its sequence the token will stand.
  GumbelNoise(uint64_t seed, uint64_t position);

  // Between -3.7 and 36.8.
  double Of(int32_t token) const;
  // No less than Of, in a few operations on whole numbers, and at most 1.4 more where Of is above
  // 3; so most tokens are out without a logarithm.
  double AtMost(int32_t token) const;

 private:
  static constexpr uint64_t kNumbers = uint64_t{1} << 52;

  // Uniform in [0, kNumbers).
  uint64_t Bits(int32_t token) const;

  uint64_t start_;
};

// Here, since heads ask for every row of a vocabulary.

inline uint64_t GumbelNoise::Bits(int32_t token) const {
  const auto index = static_cast<uint64_t>(static_cast<uint32_t>(token));
  return base::SplitMix(start_ + base::kSplitMixStep * (index + 1)) >> 12;
}

// With y = 1 - u: -ln(1 - y) >= y, so the noise is at most -ln y. And y is at least half of
// 2^-52 times the power of two below the number of parts that are left.
inline double GumbelNoise::AtMost(int32_t token) const {
  // ln 2, rounded up.
  constexpr double kLn2 = 0.6931471805599454;
  const int left = std::bit_width(kNumbers - Bits(token)) - 1;
  return static_cast<double>(53 - left) * kLn2;
}

}  // namespace renga::model

#endif  // RENGA_MODEL_GUMBEL_H_
