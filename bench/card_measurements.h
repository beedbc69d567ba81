// What an NVIDIA card does per second: its own copies beside the backend's kernels, each a line of
// JSON for deploy/gpu-check.
//
// Times are the host's: batches of calls that wait once at their end, so that the wait's own cost
// vanishes in the mean. Weights are copies of one matrix used in turn, together larger than a
// card's cache.
#ifndef RENGA_BENCH_CARD_MEASUREMENTS_H_
#define RENGA_BENCH_CARD_MEASUREMENTS_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/data_type.h"
#include "worker/kernels/backend.h"
#include "worker/kernels/cuda/device.h"

namespace renga::bench {

struct CardBenchOptions {
  double seconds = 0.15;                           // for one figure, at least
  int64_t working_set_bytes = int64_t{192} << 20;  // of weights used in turn
  bool graphs = true;  // what the device was opened with; told beside steps
  bool small = false;  // tiny shapes, so that an imitated card gets through; figures mean nothing
};

// One model's matrices, as its layers have them.
struct ModelShape {
  const char* name;
  int64_t hidden;
  int64_t feed_forward;
  int64_t heads;
  int64_t kv_heads;
  int64_t head_dim;
  int64_t layers;
};

// Measures one backend on its device. Used by one thread; both must outlive it.
class CardMeasurements {
 public:
  CardMeasurements(kernels::cuda::Device& device, kernels::Backend& backend,
                   const CardBenchOptions& options)
      : device_(device), backend_(backend), options_(options) {}

  // Bytes read and written by copies on the card.
  absl::Status Copies();
  // What the instructions of a path, "dp4a" or "mma", give from registers alone.
  absl::Status Peak(const std::string& path);
  // Matrix times 1 and 8 vectors, for every quantised format.
  absl::Status Vectors();
  // Matrix times 512 tokens, for every quantised format; the path is the one that the backend was
  // made with.
  absl::Status Matrices(const std::string& path);
  // One query row over a long context.
  absl::Status Attentions();
  // A whole decode step's calls: of a model's size, and of so small a one that only launches count.
  absl::Status Steps();

 private:
  struct Layer;
  // Median seconds of call(i); i counts up from 0.
  absl::StatusOr<double> SecondsOf(absl::FunctionRef<absl::Status(int64_t)> call);
  absl::StatusOr<std::vector<std::unique_ptr<kernels::WeightMatrix>>> MakeMatrices(
      base::DataType type, int64_t rows, int64_t columns, int64_t most_bytes);
  absl::StatusOr<std::unique_ptr<kernels::Buffer>> Floats(int64_t count);
  absl::Status Vector(const ModelShape& model, base::DataType type, int64_t rows, int64_t columns);
  absl::Status Matrix(const std::string& path, const ModelShape& model, base::DataType type);
  absl::Status Attention(int64_t kv_heads, base::DataType type);
  absl::StatusOr<std::unique_ptr<Layer>> MakeLayer(const ModelShape& model);
  absl::Status RunLayer(const ModelShape& model, Layer& layer);
  absl::Status Step(const char* kind, const ModelShape& model);

  kernels::cuda::Device& device_;
  kernels::Backend& backend_;
  const CardBenchOptions options_;
};

}  // namespace renga::bench

#endif  // RENGA_BENCH_CARD_MEASUREMENTS_H_
