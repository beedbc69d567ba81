// Builds the screen of an output matrix from its rows and from the hidden states of a text.
#ifndef RENGA_WORKER_ENGINE_SCREEN_BUILDER_H_
#define RENGA_WORKER_ENGINE_SCREEN_BUILDER_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/thread_pool.h"
#include "worker/engine/head_screen.h"

namespace renga::engine {

// The sum of h h' over hidden states, as the head's rows meet them: after the final norm.
class HiddenMoments {
 public:
  explicit HiddenMoments(int64_t width)
      : width_(width), sums_(static_cast<size_t>(width * width), 0.0) {}

  // Whole rows of `width` numbers; one with a number that is not finite is left out.
  void Add(std::span<const float> rows);

  int64_t width() const { return width_; }
  int64_t count() const { return count_; }
  // Their mean, width x width. Without any, the identity.
  std::vector<double> Mean() const;

 private:
  const int64_t width_;
  int64_t count_ = 0;
  std::vector<double> sums_;  // the lower triangle
};

struct HeadScreen {
  ScreenBasis basis;
  int64_t rows = 0;
  std::vector<std::byte> blocks;  // of 32 rows; the last one is filled up with zeros
  std::vector<std::byte> fine;    // rows x basis.fine_bytes()
};

// Fills `out` with whole rows from `first` on, as numbers.
using RowReader = std::function<absl::Status(int64_t first, std::span<float> out)>;

struct ScreenOptions {
  double bits = 3;  // of the first level for each number of a row, on average; 1 to 8
};

// kInvalidArgument when the rows hold numbers that are not finite; errors of `read`, which is
// called from one thread at a time. Costs rows * width^2 multiplications and the memory of the
// result.
absl::StatusOr<HeadScreen> BuildScreen(int64_t rows, const RowReader& read,
                                       const HiddenMoments& moments, const ScreenOptions& options,
                                       base::ThreadPool& pool);

}  // namespace renga::engine

#endif  // RENGA_WORKER_ENGINE_SCREEN_BUILDER_H_
