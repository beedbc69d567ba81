#include "worker/kernels/cuda/top_calls.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "base/status_macros.h"
#include "worker/kernels/cpu/top_rows.h"
#include "worker/kernels/cuda/kernel_list.h"
#include "worker/kernels/cuda/launch_shapes.h"
#include "worker/kernels/cuda/top_merge.h"
#include "worker/kernels/op_checks.h"

namespace renga::kernels::cuda {
namespace {

// Bytes of answers of one TopK launch.
constexpr int64_t kMostTopBytes = int64_t{1} << 20;

}  // namespace

absl::Status TopCalls::TopOfRows(ConstRowsView logits, int64_t k, std::span<TopRow> result) {
  const int64_t chunks = Ceil(logits.columns, kTopChunk);
  const int64_t items = logits.rows * chunks;
  // Sums, keys, maxima: in this order each is aligned.
  const int64_t bytes = items * (8 + 8 * k + 4);
  RENGA_ASSIGN_OR_RETURN(std::byte* const memory, top_.Reserve(launcher_.device(), bytes));
  RENGA_RETURN_IF_ERROR(
      launcher_.Launch(Kernel::kTopK, {items, 1, kTopThreads},
                       TopKArgs{.logits = logits.data,
                                .stride = logits.stride,
                                .rows = logits.rows,
                                .columns = logits.columns,
                                .k = k,
                                .keys = reinterpret_cast<uint64_t*>(memory + items * 8),
                                .largest = reinterpret_cast<float*>(memory + items * (8 + 8 * k)),
                                .sums = reinterpret_cast<double*>(memory)}));
  std::vector<std::byte> answers(static_cast<size_t>(bytes));
  RENGA_RETURN_IF_ERROR(launcher_.device()->Download(memory, answers));
  std::vector<double> sums(static_cast<size_t>(items));
  std::vector<uint64_t> keys(static_cast<size_t>(items * k));
  std::vector<float> largest(static_cast<size_t>(items));
  std::memcpy(sums.data(), answers.data(), sums.size() * 8);
  if (k > 0) std::memcpy(keys.data(), answers.data() + items * 8, keys.size() * 8);
  std::memcpy(largest.data(), answers.data() + items * (8 + 8 * k), largest.size() * 4);
  for (size_t r = 0; r < result.size(); ++r) {
    const auto width = static_cast<size_t>(chunks);
    MergeNormaliser(std::span(largest).subspan(r * width, width),
                    std::span(sums).subspan(r * width, width), result[r]);
    const size_t row_keys = width * static_cast<size_t>(k);
    MergeTop(std::span(keys).subspan(r * row_keys, row_keys), k, result[r]);
  }
  return absl::OkStatus();
}

// More columns than the kernel finds: seldom asked for.
absl::Status TopCalls::TopOnHost(ConstRowsView logits, int64_t k, std::span<TopRow> result) {
  std::vector<float> row(static_cast<size_t>(logits.columns));
  for (int64_t r = 0; r < logits.rows; ++r) {
    RENGA_RETURN_IF_ERROR(launcher_.device()->Download(
        reinterpret_cast<const std::byte*>(logits.data + r * logits.stride),
        std::as_writable_bytes(std::span(row))));
    TopRow& top = result[static_cast<size_t>(r)];
    top.indices = cpu::TopColumns(row, k);
    top.logits.clear();
    for (const int32_t i : top.indices) top.logits.push_back(row[static_cast<size_t>(i)]);
  }
  return absl::OkStatus();
}

absl::Status TopCalls::TopK(ConstRowsView logits, int64_t k, std::span<TopRow> result) {
  RENGA_RETURN_IF_ERROR(CheckTopK(logits, result));
  k = std::clamp<int64_t>(k, 0, logits.columns);
  const int64_t found = k <= kMostTop ? k : 0;
  const int64_t row_bytes = Ceil(logits.columns, kTopChunk) * (8 + 8 * found + 4);
  const int64_t step = std::max<int64_t>(1, kMostTopBytes / row_bytes);
  for (int64_t first = 0; first < logits.rows; first += step) {
    const int64_t count = std::min(step, logits.rows - first);
    const ConstRowsView part(logits.data + first * logits.stride, count, logits.columns,
                             logits.stride);
    RENGA_RETURN_IF_ERROR(TopOfRows(
        part, found, result.subspan(static_cast<size_t>(first), static_cast<size_t>(count))));
  }
  return found == k ? absl::OkStatus() : TopOnHost(logits, k, result);
}

}  // namespace renga::kernels::cuda
