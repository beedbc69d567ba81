// The noise of seeded draws.
//
// A token drawn with probability exp(logit / T) / sum of all of these is also the one with the
// largest logit + T * g, where every token has a g of its own, drawn from the Gumbel distribution
// (Gumbel 1954; Maddison et al. 2014, arXiv 1411.0030). With g a function of (seed, position,
// token) a draw becomes a search for the best: no sum over the vocabulary is needed, tokens that
// are out change nothing for the others, and whoever knows bounds of logits can prove who wins.
#ifndef RENGA_MODEL_GUMBEL_H_
#define RENGA_MODEL_GUMBEL_H_

#include <cstdint>

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
  // Uniform in [0, 2^52).
  uint64_t Bits(int32_t token) const;

  uint64_t start_;
};

}  // namespace renga::model

#endif  // RENGA_MODEL_GUMBEL_H_
