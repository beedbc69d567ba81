#include "partition/expert_replay.h"

#include <algorithm>

namespace renga::partition {

ExpertReplay::ExpertReplay(int64_t layers, int64_t experts_per_layer, int64_t places,
                           double half_life_steps)
    : per_layer_(static_cast<size_t>(experts_per_layer)),
      layers_(static_cast<size_t>(layers)),
      places_(places),
      uses_(layers_ * per_layer_, half_life_steps),
      place_of_(layers_ * per_layer_, -1) {}

void ExpertReplay::Put(size_t expert, double uses) {
  const double counted = uses_.Count(expert, uses);
  if (taken_ == places_ || place_of_[expert] >= 0) return;
  place_of_[expert] = taken_++;
  order_.emplace(counted, place_of_[expert], expert);
}

int64_t ExpertReplay::Use(std::span<const uint16_t> chosen) {
  if (uses_.BeginStep()) LookAgain();
  const size_t used = chosen.size() / layers_;
  int64_t here = 0;
  for (size_t layer = 0; layer < layers_; ++layer) {
    const size_t first = layer * per_layer_;
    const auto of_layer = chosen.subspan(layer * used, used);
    for (const uint16_t expert : of_layer) uses_.Count(first + expert, 1);
    std::vector<size_t> missing;
    for (const uint16_t expert : of_layer) {
      if (!IsHere(first + expert)) missing.push_back(first + expert);
    }
    here += static_cast<int64_t>(used - missing.size());
    for (const size_t expert : missing) Bring(expert, first, of_layer);
  }
  return here;
}

void ExpertReplay::Bring(size_t expert, size_t first, std::span<const uint16_t> chosen) {
  int64_t place = taken_;
  if (taken_ < places_) ++taken_;
  std::vector<Entry> stay;
  while (place == places_) {
    const auto [uses, held, other] = order_.top();
    order_.pop();
    const bool wanted =
        other >= first && std::find(chosen.begin(), chosen.end(), other - first) != chosen.end();
    if (wanted) {
      stay.emplace_back(uses, held, other);
    } else if (uses_.of(other) > uses) {
      order_.emplace(uses_.of(other), held, other);
    } else {
      place_of_[other] = -1;
      place = held;
    }
  }
  for (const Entry& entry : stay) order_.push(entry);
  place_of_[expert] = place;
  order_.emplace(uses_.of(expert), place, expert);
}

void ExpertReplay::LookAgain() {
  order_ = {};
  for (size_t expert = 0; expert < place_of_.size(); ++expert) {
    if (IsHere(expert)) order_.emplace(uses_.of(expert), place_of_[expert], expert);
  }
}

}  // namespace renga::partition
