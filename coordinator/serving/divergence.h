// How far an approximate model's predictions are from the exact one's, position by position.
#ifndef RENGA_COORDINATOR_SERVING_DIVERGENCE_H_
#define RENGA_COORDINATOR_SERVING_DIVERGENCE_H_

#include <cstdint>
#include <span>
#include <vector>

#include "model/tokenizer.h"

namespace renga::serving {

// -log softmax(logits)[target], in double.
double NegativeLogLikelihood(std::span<const float> logits, model::TokenId target);

// What was found over all positions. Numbers are in nats, shares from 0 to 1; NaN without any.
struct Divergence {
  int64_t positions = 0;
  double exact_perplexity = 0;
  double approximate_perplexity = 0;
  double kl_mean = 0;  // KL(exact || approximate)
  double kl_p99 = 0;   // at most this in 99 of 100 positions
  // KL(approximate || exact), which stays small when the approximation only refuses to say some of
  // what the exact model would.
  double reverse_kl_mean = 0;
  double same_top = 0;  // share of positions whose most likely token is the same (lowest id first)
};

class DivergenceMeter {
 public:
  // One position: the logits of both, equally many, and the token that came next.
  void Add(std::span<const float> exact, std::span<const float> approximate, model::TokenId target);
  // Those of another meter.
  void Add(const DivergenceMeter& other);
  Divergence Summary() const;

 private:
  std::vector<double> kl_;
  double reverse_kl_ = 0;
  double exact_nll_ = 0;
  double approximate_nll_ = 0;
  int64_t same_top_ = 0;
};

}  // namespace renga::serving

#endif  // RENGA_COORDINATOR_SERVING_DIVERGENCE_H_
