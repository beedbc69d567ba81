// Cosines and sines of a step's positions.
#ifndef RENGA_WORKER_KERNELS_CPU_ROPE_TABLE_H_
#define RENGA_WORKER_KERNELS_CPU_ROPE_TABLE_H_

#include <cstdint>
#include <span>
#include <vector>

#include "worker/kernels/backend.h"

namespace renga::kernels::cpu {

// Remembers the last positions it was made for: all layers of a step rotate by the same angles, so
// the table is computed once per step. Each entry depends on its position and the arguments only.
class RopeTable {
 public:
  // Makes the table of these rows, if it is not the one it has.
  void Prepare(std::span<const int64_t> positions, const RopeArgs& args);
  // dims / 2 numbers of row `row`.
  const float* cosines(int64_t row) const { return cosines_.data() + row * pairs_; }
  const float* sines(int64_t row) const { return sines_.data() + row * pairs_; }

 private:
  bool Matches(std::span<const int64_t> positions, const RopeArgs& args) const;

  std::vector<int64_t> positions_;
  std::vector<float> factors_;  // empty: none
  RopeArgs args_;
  int64_t pairs_ = -1;
  std::vector<float> cosines_;
  std::vector<float> sines_;
};

}  // namespace renga::kernels::cpu

#endif  // RENGA_WORKER_KERNELS_CPU_ROPE_TABLE_H_
