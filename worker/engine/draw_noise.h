// What a seeded draw adds to logits: the row with the largest sum is the one drawn
// (model/gumbel.h).
#ifndef RENGA_WORKER_ENGINE_DRAW_NOISE_H_
#define RENGA_WORKER_ENGINE_DRAW_NOISE_H_

#include <cstdint>

#include "model/gumbel.h"

namespace renga::engine {

struct DrawNoise {
  model::GumbelNoise gumbel;
  double temperature = 1;  // above 0

  // By vocabulary id.
  double Of(int32_t id) const { return temperature * gumbel.Of(id); }
  // No less than that, without a logarithm.
  double AtMost(int32_t id) const { return temperature * gumbel.AtMost(id); }
};

}  // namespace renga::engine

#endif  // RENGA_WORKER_ENGINE_DRAW_NOISE_H_
