#include "worker/service/speed_probe.h"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/time/clock.h"
#include "base/data_type.h"
#include "base/status_macros.h"

namespace renga::worker {
namespace {

constexpr int64_t kMatrixBytes = int64_t{64} << 20;
constexpr int64_t kColumns = 4096;
constexpr int64_t kStagingBytes = int64_t{1} << 20;
// Every two bytes of it are a half-precision number near 0.004: block scales are ordinary numbers
// in every format, so no arithmetic runs into denormals or NaN.
constexpr std::byte kFill{0x1c};

// A matrix of about `bytes` with plausible content.
absl::StatusOr<std::unique_ptr<kernels::WeightMatrix>> MakeMatrix(kernels::Backend& backend,
                                                                  base::DataType type,
                                                                  int64_t bytes) {
  RENGA_ASSIGN_OR_RETURN(const int64_t row_bytes, base::RowBytes(type, kColumns));
  const int64_t rows = std::max<int64_t>(bytes / row_bytes, 1);
  RENGA_ASSIGN_OR_RETURN(auto matrix, backend.CreateMatrix(type, rows, kColumns));
  const int64_t rows_at_once = std::max<int64_t>(kStagingBytes / row_bytes, 1);
  const std::vector<std::byte> staging(static_cast<size_t>(rows_at_once * row_bytes), kFill);
  for (int64_t row = 0; row < rows; row += rows_at_once) {
    const int64_t count = std::min(rows_at_once, rows - row);
    RENGA_RETURN_IF_ERROR(
        backend.LoadRows(*matrix, row, std::span(staging).first(count * row_bytes)));
  }
  return matrix;
}

// A format with a fast path on every backend; plain numbers where there is none.
absl::StatusOr<std::unique_ptr<kernels::WeightMatrix>> MakeAnyMatrix(kernels::Backend& backend,
                                                                     int64_t bytes) {
  auto matrix = MakeMatrix(backend, base::DataType::kQ4_K, bytes);
  if (matrix.ok() || !absl::IsUnimplemented(matrix.status())) return matrix;
  return MakeMatrix(backend, base::DataType::kQ8_0, bytes);
}

}  // namespace

absl::StatusOr<double> MeasureWeightSpeed(kernels::Backend& backend, engine::MemoryBudget& budget,
                                          absl::Duration duration) {
  const int64_t allowed = std::min(kMatrixBytes, budget.total_bytes() / 4);
  RENGA_ASSIGN_OR_RETURN(const auto reservation, budget.Reserve(allowed, "the speed probe"));
  // A backend's layout may be larger than the file's: leave it room.
  RENGA_ASSIGN_OR_RETURN(const auto matrix, MakeAnyMatrix(backend, allowed / 2));
  RENGA_ASSIGN_OR_RETURN(const int64_t row_bytes, base::RowBytes(matrix->type(), kColumns));
  const int64_t weight_bytes = row_bytes * matrix->rows();

  constexpr auto kFloatBytes = static_cast<int64_t>(sizeof(float));
  RENGA_ASSIGN_OR_RETURN(const auto in, backend.Allocate(kColumns * kFloatBytes));
  RENGA_ASSIGN_OR_RETURN(const auto out, backend.Allocate(matrix->rows() * kFloatBytes));
  const std::vector<float> ones(kColumns, 1.0f);
  RENGA_RETURN_IF_ERROR(backend.Upload(std::as_bytes(std::span(ones)), *in, 0));
  const kernels::ConstRowsView row(reinterpret_cast<const float*>(in->data()), 1, kColumns,
                                   kColumns);
  const kernels::LinearOutput output = {.matrix = matrix.get(),
                                        .bias = nullptr,
                                        .out = {.data = reinterpret_cast<float*>(out->data()),
                                                .rows = 1,
                                                .columns = matrix->rows(),
                                                .stride = matrix->rows()}};

  // Once unmeasured: pages, threads and clocks come up.
  RENGA_RETURN_IF_ERROR(backend.Linear(row, {&output, 1}));
  RENGA_RETURN_IF_ERROR(backend.Synchronize());
  int64_t rounds = 0;
  const absl::Time begin = absl::Now();
  absl::Duration elapsed;
  do {
    RENGA_RETURN_IF_ERROR(backend.Linear(row, {&output, 1}));
    RENGA_RETURN_IF_ERROR(backend.Synchronize());
    ++rounds;
    elapsed = absl::Now() - begin;
  } while (elapsed < duration);
  const double seconds = std::max(absl::ToDoubleSeconds(elapsed), 1e-9);
  return static_cast<double>(rounds * weight_bytes) / seconds;
}

}  // namespace renga::worker
