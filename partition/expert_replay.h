// What a worker's cache of experts would have had, over choices that were recorded: the policy of
// worker/engine/expert_cache.h, one token a step, without a disk.
#ifndef RENGA_PARTITION_EXPERT_REPLAY_H_
#define RENGA_PARTITION_EXPERT_REPLAY_H_

#include <cstddef>
#include <cstdint>
#include <queue>
#include <span>
#include <tuple>
#include <vector>

#include "model/expert_uses.h"

namespace renga::partition {

// Not thread-safe. Experts are counted over all layers, those of one layer side by side.
class ExpertReplay {
 public:
  // `places` of experts in memory, at least as many as a token uses of one layer. All are free.
  ExpertReplay(int64_t layers, int64_t experts_per_layer, int64_t places,
               double half_life_steps = model::kExpertHalfLifeSteps);

  // Before the first token: the expert takes a place if one is free, and counts as if it had been
  // used so often in one step.
  void Put(size_t expert, double uses);
  // A token that has chosen so many experts of each layer, layer after layer: how many were there.
  // Those that were not take the places of others.
  int64_t Use(std::span<const uint16_t> chosen);

  bool IsHere(size_t expert) const { return place_of_[expert] >= 0; }

 private:
  // The uses that an expert in memory had when it was looked at last, its place, and its number.
  using Entry = std::tuple<double, int64_t, size_t>;

  // `chosen` are the layer's experts that must stay, `first` is its first one.
  void Bring(size_t expert, size_t first, std::span<const uint16_t> chosen);
  void LookAgain();

  const size_t per_layer_;
  const size_t layers_;
  const int64_t places_;
  int64_t taken_ = 0;
  model::ExpertUses uses_;
  std::vector<int64_t> place_of_;  // by expert; -1: not in memory
  // Uses only grow while an expert is here, so the least one that is as it was said is the least.
  std::priority_queue<Entry, std::vector<Entry>, std::greater<>> order_;
};

}  // namespace renga::partition

#endif  // RENGA_PARTITION_EXPERT_REPLAY_H_
