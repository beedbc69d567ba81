#include "worker/kernels/cpu/rope_table.h"

#include <algorithm>
#include <cmath>

namespace renga::kernels::cpu {

bool RopeTable::Matches(std::span<const int64_t> positions, const RopeArgs& args) const {
  if (pairs_ != args.dims / 2 || args_.base != args.base ||
      args_.position_scale != args.position_scale ||
      !std::equal(positions.begin(), positions.end(), positions_.begin(), positions_.end())) {
    return false;
  }
  if (args.factors == nullptr) return factors_.empty();
  return std::equal(args.factors, args.factors + pairs_, factors_.begin(), factors_.end());
}

void RopeTable::Prepare(std::span<const int64_t> positions, const RopeArgs& args) {
  if (Matches(positions, args)) return;
  positions_.assign(positions.begin(), positions.end());
  args_ = args;
  pairs_ = args.dims / 2;
  factors_.clear();
  if (args.factors != nullptr) factors_.assign(args.factors, args.factors + pairs_);

  std::vector<double> frequencies(static_cast<size_t>(pairs_));
  for (size_t i = 0; i < frequencies.size(); ++i) {
    const double exponent = -2.0 * static_cast<double>(i) / static_cast<double>(args.dims);
    const double factor = factors_.empty() ? 1.0 : factors_[i];
    frequencies[i] = std::pow(args.base, exponent) / args.position_scale / factor;
  }
  cosines_.clear();
  sines_.clear();
  cosines_.reserve(positions.size() * frequencies.size());
  sines_.reserve(positions.size() * frequencies.size());
  for (const int64_t position : positions) {
    for (const double frequency : frequencies) {
      const double angle = static_cast<double>(position) * frequency;
      cosines_.push_back(static_cast<float>(std::cos(angle)));
      sines_.push_back(static_cast<float>(std::sin(angle)));
    }
  }
}

}  // namespace renga::kernels::cpu
