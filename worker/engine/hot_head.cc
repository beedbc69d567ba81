#include "worker/engine/hot_head.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>
#include <utility>

#include "base/status_macros.h"

namespace renga::engine {
namespace {

constexpr int64_t kLogitBytes = sizeof(float);
constexpr size_t kHot = 0;
constexpr size_t kCold = 1;

// The hot rows inside the range.
std::span<const int32_t> Inside(const model::RowSet& hot, const model::Range& rows) {
  const auto begin = std::lower_bound(hot.begin(), hot.end(), rows.begin);
  const auto end = std::lower_bound(begin, hot.end(), rows.end);
  return std::span(hot).subspan(static_cast<size_t>(begin - hot.begin()),
                                static_cast<size_t>(end - begin));
}

// What rows that were not multiplied count as.
float Below(float least) { return std::nextafter(least, -std::numeric_limits<float>::infinity()); }

// The best rows of two parts together.
void Merge(const kernels::TopRow& hot, const kernels::TopRow& cold, size_t wanted,
           model::HeadRow& answer) {
  size_t h = 0;
  size_t c = 0;
  while (answer.ids.size() < wanted) {
    const bool take_hot = c == cold.indices.size() ||
                          (h < hot.indices.size() &&
                           (hot.logits[h] != cold.logits[c] ? hot.logits[h] > cold.logits[c]
                                                            : hot.indices[h] < cold.indices[c]));
    const kernels::TopRow& from = take_hot ? hot : cold;
    size_t& next = take_hot ? h : c;
    answer.ids.push_back(from.indices[next]);
    answer.logits.push_back(from.logits[next]);
    ++next;
  }
}

void AddSum(const kernels::TopRow& part, model::HeadRow& answer) {
  const double max = std::max(answer.max_logit, part.max_logit);
  answer.sum_exp = answer.sum_exp * std::exp(answer.max_logit - max) +
                   part.sum_exp * std::exp(part.max_logit - max);
  answer.max_logit = static_cast<float>(max);
}

}  // namespace

bool HotHead::Divides(const model::RowSet& hot, const model::Range& rows) {
  const auto count = static_cast<int64_t>(Inside(hot, rows).size());
  return count > 0 && count < rows.size();
}

absl::StatusOr<std::unique_ptr<HotHead>> HotHead::Load(
    const model::TensorSpec& output, const model::RowSet& hot, const model::Range& rows,
    int64_t max_outputs, kernels::Backend* backend, WeightLoader& loader) {
  std::unique_ptr<HotHead> head(new HotHead(rows, backend));
  const std::span<const int32_t> inside = Inside(hot, rows);
  head->parts_[kHot].ids.assign(inside.begin(), inside.end());
  for (int64_t row = rows.begin, next = 0; row < rows.end; ++row) {
    if (next < static_cast<int64_t>(inside.size()) && inside[static_cast<size_t>(next)] == row) {
      ++next;
    } else {
      head->parts_[kCold].ids.push_back(static_cast<int32_t>(row));
    }
  }
  for (Part& part : head->parts_) {
    RENGA_ASSIGN_OR_RETURN(part.matrix, loader.LoadRowSet(output, rows, part.ids));
    RENGA_ASSIGN_OR_RETURN(
        part.logits,
        backend->Allocate(max_outputs * static_cast<int64_t>(part.ids.size()) * kLogitBytes));
  }
  return head;
}

absl::Status HotHead::Answer(kernels::ConstRowsView input, int64_t top_k, bool hot_only,
                             std::vector<model::HeadRow>& answers) {
  const int64_t count = input.rows;
  for (size_t p = 0; p < (hot_only ? 1 : parts_.size()); ++p) {
    const kernels::LinearOutput output{
        .matrix = parts_[p].matrix.get(), .bias = nullptr, .out = Logits(parts_[p], count)};
    RENGA_RETURN_IF_ERROR(backend_->Linear(input, std::span(&output, 1)));
  }
  RENGA_ASSIGN_OR_RETURN(const std::vector<kernels::TopRow> hot, Best(parts_[kHot], count, top_k));
  std::vector<kernels::TopRow> cold(static_cast<size_t>(count));
  if (!hot_only) {
    RENGA_ASSIGN_OR_RETURN(cold, Best(parts_[kCold], count, top_k));
  }
  const auto wanted = static_cast<size_t>(std::min(top_k, rows_.size()));
  for (int64_t i = 0; i < count; ++i) {
    const auto row = static_cast<size_t>(i);
    model::HeadRow& answer = answers.emplace_back();
    answer.max_logit = hot[row].max_logit;
    answer.sum_exp = hot[row].sum_exp;
    if (!hot_only) AddSum(cold[row], answer);
    if (top_k == 0) {
      RENGA_ASSIGN_OR_RETURN(answer.logits, AllLogits(i, hot_only));
    } else {
      const size_t known = hot_only ? std::min(wanted, hot[row].indices.size()) : wanted;
      Merge(hot[row], cold[row], known, answer);
      AddColdRows(wanted, answer);
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<kernels::TopRow>> HotHead::Best(const Part& part, int64_t count,
                                                           int64_t top_k) const {
  std::vector<kernels::TopRow> best(static_cast<size_t>(count));
  const int64_t wanted = std::min(top_k, static_cast<int64_t>(part.ids.size()));
  RENGA_RETURN_IF_ERROR(backend_->TopK(Logits(part, count), wanted, best));
  for (kernels::TopRow& row : best) {
    for (int32_t& index : row.indices) index = part.ids[static_cast<size_t>(index)];
  }
  return best;
}

absl::StatusOr<std::vector<float>> HotHead::AllLogits(int64_t output, bool hot_only) const {
  std::vector<float> all(static_cast<size_t>(rows_.size()));
  std::vector<float> logits;
  for (size_t p = 0; p < (hot_only ? 1 : parts_.size()); ++p) {
    const Part& part = parts_[p];
    logits.resize(part.ids.size());
    const int64_t offset = output * static_cast<int64_t>(part.ids.size()) * kLogitBytes;
    RENGA_RETURN_IF_ERROR(
        backend_->Download(*part.logits, offset, std::as_writable_bytes(std::span(logits))));
    if (hot_only) {
      std::fill(all.begin(), all.end(), Below(*std::min_element(logits.begin(), logits.end())));
    }
    for (size_t i = 0; i < logits.size(); ++i) {
      all[static_cast<size_t>(part.ids[i] - rows_.begin)] = logits[i];
    }
  }
  return all;
}

void HotHead::AddColdRows(size_t wanted, model::HeadRow& answer) const {
  if (answer.ids.size() >= wanted) return;
  const float logit = Below(answer.logits.back());
  const size_t missing = wanted - answer.ids.size();
  const std::vector<int32_t>& cold = parts_[kCold].ids;
  answer.ids.insert(answer.ids.end(), cold.begin(), cold.begin() + static_cast<int64_t>(missing));
  answer.logits.insert(answer.logits.end(), missing, logit);
}

kernels::RowsView HotHead::Logits(const Part& part, int64_t count) const {
  const auto width = static_cast<int64_t>(part.ids.size());
  return {.data = reinterpret_cast<float*>(part.logits->data()),
          .rows = count,
          .columns = width,
          .stride = width};
}

}  // namespace renga::engine
