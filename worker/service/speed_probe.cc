#include "worker/service/speed_probe.h"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/cache_flush.h"
#include "base/status_macros.h"
#include "worker/service/disk_probe.h"
#include "worker/service/layer_probe.h"

namespace renga::worker {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t kMostWeightBytes = int64_t{32} << 20;
constexpr int64_t kColumns = 4096;
// Decode is measured with as many matrices, one after the other: each has a beginning, in which
// memory is not asked for early enough, and an end, at which threads wait for each other.
constexpr int64_t kMatrices = 8;
// Prefill computes more than it reads: a matrix that is soon through measures the same.
constexpr int64_t kPrefillRows = 512;
constexpr int64_t kStagingBytes = int64_t{1} << 20;
// This many runs may take some times their share of the time.
constexpr size_t kFewestRuns = 5;
constexpr double kLongestOverrun = 4;
constexpr auto kFloatBytes = static_cast<int64_t>(sizeof(float));
// Every two bytes of it are a half-precision number near 0.004: block scales are ordinary numbers
// in every format, so no arithmetic runs into denormals or NaN.
constexpr std::byte kFill{0x1c};

// A fast path for the first is what most models need; every backend has at least the plain ones.
constexpr base::DataType kTypes[] = {base::DataType::kQ4_K, base::DataType::kQ4_0,
                                     base::DataType::kQ6_K, base::DataType::kQ8_0,
                                     base::DataType::kF16};

double SecondsSince(Clock::time_point begin) {
  return std::max(std::chrono::duration<double>(Clock::now() - begin).count(), 1e-9);
}

absl::Status GoOn(const GiveWay& give_way) {
  if (give_way && give_way()) return absl::CancelledError("there is something better to do");
  return absl::OkStatus();
}

// Memory that is read to make room in the processor's caches, where these cannot be told to give up
// matrices: taken when that is found out. Its pages are its own.
class Eviction {
 public:
  Eviction(engine::MemoryBudget& budget, int64_t bytes)
      : budget_(budget), chunks_(static_cast<size_t>(bytes / kStagingBytes)) {}

  absl::Status Evict(const GiveWay& give_way) {
    constexpr size_t kWords = kStagingBytes / sizeof(uint64_t);
    if (reservation_.bytes() == 0) {
      const auto bytes = static_cast<int64_t>(chunks_.size()) * kStagingBytes;
      RENGA_ASSIGN_OR_RETURN(reservation_, budget_.Reserve(bytes, "the speed probe"));
    }
    uint64_t sum = 0;
    for (std::vector<uint64_t>& words : chunks_) {
      RENGA_RETURN_IF_ERROR(GoOn(give_way));
      if (words.empty()) words.assign(kWords, 1);
      for (size_t i = 0; i < kWords; i += 64 / sizeof(uint64_t)) sum += words[i];
    }
    // Nobody wants the sum, but the compiler must not know.
    [[maybe_unused]] static volatile uint64_t sink;
    sink = sum;
    return absl::OkStatus();
  }

 private:
  engine::MemoryBudget& budget_;
  engine::MemoryBudget::Reservation reservation_;
  std::vector<std::vector<uint64_t>> chunks_;
};

// Seconds of a fast run of `work`, which runs until `seconds` are over; once unmeasured before, so
// that pages, threads and clocks come up. `prepare` goes before each run, unmeasured. Half of the
// runs are faster: a mean says how busy this machine was just then (over some milliseconds, in
// which another process had the core, it has been seen to be a hundredth of the speed, and its
// worker was left out of the plan), and the fast ones are more than a model gets.
absl::StatusOr<double> TimeOf(
    const std::function<absl::Status()>& work, double seconds,
    const std::function<absl::Status()>& prepare = [] { return absl::OkStatus(); }) {
  RENGA_RETURN_IF_ERROR(work());
  const Clock::time_point begin = Clock::now();
  std::vector<double> times;
  const auto wants_more = [&] {
    const double elapsed = SecondsSince(begin);
    return elapsed < seconds || (times.size() < kFewestRuns && elapsed < kLongestOverrun * seconds);
  };
  do {
    RENGA_RETURN_IF_ERROR(prepare());
    const Clock::time_point run_begin = Clock::now();
    RENGA_RETURN_IF_ERROR(work());
    times.push_back(SecondsSince(run_begin));
  } while (wants_more());
  const auto half = times.begin() + static_cast<int64_t>(times.size() / 2);
  std::nth_element(times.begin(), half, times.end());
  return *half;
}

// A matrix with plausible content.
absl::StatusOr<std::unique_ptr<kernels::WeightMatrix>> MakeMatrix(kernels::Backend& backend,
                                                                  base::DataType type, int64_t rows,
                                                                  const GiveWay& give_way) {
  RENGA_ASSIGN_OR_RETURN(const int64_t row_bytes, base::RowBytes(type, kColumns));
  RENGA_ASSIGN_OR_RETURN(auto matrix, backend.CreateMatrix(type, rows, kColumns));
  const int64_t rows_at_once = std::max<int64_t>(kStagingBytes / row_bytes, 1);
  const std::vector<std::byte> staging(static_cast<size_t>(rows_at_once * row_bytes), kFill);
  for (int64_t row = 0; row < rows; row += rows_at_once) {
    RENGA_RETURN_IF_ERROR(GoOn(give_way));
    const int64_t count = std::min(rows_at_once, rows - row);
    RENGA_RETURN_IF_ERROR(
        backend.LoadRows(*matrix, row, std::span(staging).first(count * row_bytes)));
  }
  return matrix;
}

using Matrices = std::vector<std::unique_ptr<kernels::WeightMatrix>>;

// Sees to it that nothing of the matrices is in a cache. A last-level cache may be larger than what
// this probe may take, so that reading something else is the second choice.
absl::Status EmptyCaches(const kernels::Backend& backend, const Matrices& matrices,
                         Eviction& eviction, const GiveWay& give_way) {
  for (const auto& matrix : matrices) {
    RENGA_RETURN_IF_ERROR(GoOn(give_way));
    const std::span<const std::byte> bytes = backend.BytesOf(*matrix);
    if (bytes.empty() || !base::FlushFromCaches(bytes)) return eviction.Evict(give_way);
  }
  return absl::OkStatus();
}

// Weight bytes times tokens per second of products of `tokens` rows with one matrix after the
// other, all of one size and format.
absl::StatusOr<double> ProductSpeed(
    kernels::Backend& backend, const Matrices& matrices, int64_t tokens, double seconds,
    const GiveWay& give_way,
    const std::function<absl::Status()>& prepare = [] { return absl::OkStatus(); }) {
  const base::DataType type = matrices.front()->type();
  const int64_t matrix_rows = matrices.front()->rows();
  RENGA_ASSIGN_OR_RETURN(const int64_t row_bytes, base::RowBytes(type, kColumns));
  RENGA_ASSIGN_OR_RETURN(const auto in, backend.Allocate(tokens * kColumns * kFloatBytes));
  RENGA_ASSIGN_OR_RETURN(const auto out, backend.Allocate(tokens * matrix_rows * kFloatBytes));
  const std::vector<float> ones(static_cast<size_t>(tokens * kColumns), 1.0f);
  RENGA_RETURN_IF_ERROR(backend.Upload(std::as_bytes(std::span(ones)), *in, 0));
  const kernels::ConstRowsView rows(reinterpret_cast<const float*>(in->data()), tokens, kColumns,
                                    kColumns);
  kernels::LinearOutput output = {.out = {.data = reinterpret_cast<float*>(out->data()),
                                          .rows = tokens,
                                          .columns = matrix_rows,
                                          .stride = matrix_rows}};
  const auto products = [&]() -> absl::Status {
    for (const auto& matrix : matrices) {
      RENGA_RETURN_IF_ERROR(GoOn(give_way));
      output.matrix = matrix.get();
      RENGA_RETURN_IF_ERROR(backend.Linear(rows, {&output, 1}));
    }
    return backend.Synchronize();
  };
  RENGA_ASSIGN_OR_RETURN(const double time, TimeOf(products, seconds, prepare));
  const auto bytes = static_cast<int64_t>(matrices.size()) * matrix_rows * row_bytes;
  return static_cast<double>(tokens * bytes) / time;
}

absl::StatusOr<KernelSpeed> MeasureKernel(kernels::Backend& backend, base::DataType type,
                                          int64_t bytes, double seconds, Eviction& eviction,
                                          const GiveWay& give_way) {
  RENGA_ASSIGN_OR_RETURN(const int64_t row_bytes, base::RowBytes(type, kColumns));
  KernelSpeed speed = {.type = type};
  Matrices matrices(kMatrices);
  for (auto& matrix : matrices) {
    RENGA_ASSIGN_OR_RETURN(
        matrix,
        MakeMatrix(backend, type, std::max<int64_t>(bytes / kMatrices / row_bytes, 1), give_way));
  }
  RENGA_ASSIGN_OR_RETURN(speed.decode_bytes_per_second,
                         ProductSpeed(backend, matrices, 1, seconds * 2 / 3, give_way, [&] {
                           return EmptyCaches(backend, matrices, eviction, give_way);
                         }));
  matrices.clear();
  const int64_t rows = std::clamp<int64_t>(bytes / row_bytes, 1, kPrefillRows);
  RENGA_ASSIGN_OR_RETURN(matrices.emplace_back(), MakeMatrix(backend, type, rows, give_way));
  RENGA_ASSIGN_OR_RETURN(
      speed.prefill_bytes_per_second,
      ProductSpeed(backend, matrices, kProbePrefillTokens, seconds / 3, give_way));
  return speed;
}

absl::StatusOr<double> CopySpeed(kernels::Backend& backend, int64_t bytes, double seconds,
                                 const GiveWay& give_way) {
  const std::vector<std::byte> host(static_cast<size_t>(bytes), kFill);
  RENGA_ASSIGN_OR_RETURN(const auto device, backend.Allocate(bytes));
  const auto copy = [&]() -> absl::Status {
    RENGA_RETURN_IF_ERROR(GoOn(give_way));
    RENGA_RETURN_IF_ERROR(backend.Upload(host, *device, 0));
    return backend.Synchronize();
  };
  RENGA_ASSIGN_OR_RETURN(const double time, TimeOf(copy, seconds));
  return static_cast<double>(bytes) / time;
}

}  // namespace

absl::StatusOr<DeviceSpeed> MeasureComputing(kernels::Backend& backend,
                                             engine::MemoryBudget& budget, absl::Duration duration,
                                             const GiveWay& give_way) {
  const Clock::time_point begin = Clock::now();
  const double seconds = absl::ToDoubleSeconds(duration);
  const int64_t weight_bytes = std::min(kMostWeightBytes, budget.total_bytes() / 16);
  // A backend's layout may be larger than the file's, and rows of activations are beside it. Twice
  // the matrices empties the caches of them, too.
  RENGA_ASSIGN_OR_RETURN(const auto reservation,
                         budget.Reserve(2 * weight_bytes, "the speed probe"));
  Eviction eviction(budget, 2 * weight_bytes);
  DeviceSpeed speed;
  for (const base::DataType type : kTypes) {
    // What is left is for the copy. Making a matrix takes about as long as measuring.
    if (!speed.kernels.empty() && SecondsSince(begin) > 0.8 * seconds) break;
    absl::StatusOr<KernelSpeed> kernel =
        MeasureKernel(backend, type, weight_bytes,
                      seconds / 2 / static_cast<double>(std::size(kTypes)), eviction, give_way);
    if (absl::IsUnimplemented(kernel.status())) continue;
    if (!kernel.ok()) return kernel.status();
    speed.kernels.push_back(*kernel);
  }
  if (speed.kernels.empty()) {
    return absl::UnimplementedError(
        absl::StrCat("the device ", backend.path_name(), " has no products for any usual format"));
  }
  RENGA_ASSIGN_OR_RETURN(speed.layer_us, MeasureLayer(backend, budget, duration / 20, give_way));
  RENGA_ASSIGN_OR_RETURN(speed.copy_bytes_per_second,
                         CopySpeed(backend, weight_bytes / 2, seconds / 50, give_way));
  return speed;
}

absl::StatusOr<DeviceSpeed> MeasureDevice(kernels::Backend& backend, engine::MemoryBudget& budget,
                                          const std::string& folder, absl::Duration duration) {
  RENGA_ASSIGN_OR_RETURN(DeviceSpeed speed, MeasureComputing(backend, budget, duration, {}));
  speed.disk_bytes_per_second = MeasureDisk(folder, std::min(duration, kDiskProbe));
  return speed;
}

}  // namespace renga::worker
