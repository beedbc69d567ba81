#include "coordinator/cluster/head_merge.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace renga::cluster {
namespace {

// Whether (logit a, id a) is better than (logit b, id b).
bool Better(float logit_a, int32_t id_a, float logit_b, int32_t id_b) {
  if (logit_a != logit_b) return logit_a > logit_b;
  return id_a < id_b;
}

// `wanted` ids of the block, best first.
absl::Status CheckBestRows(const model::HeadRow& row, const model::BlockRows& rows,
                           const model::TokenMask* allowed, size_t wanted) {
  if (row.ids.size() != wanted || row.logits.size() != wanted) {
    return absl::InternalError(absl::StrCat("a head block of ", rows.size(), " rows answered ",
                                            row.ids.size(), " ids and ", row.logits.size(),
                                            " logits where ", wanted, " were asked"));
  }
  for (size_t i = 0; i < wanted; ++i) {
    if (allowed != nullptr && row.ids[i] >= 0 && !allowed->Contains(row.ids[i])) {
      return absl::InternalError(
          absl::StrCat("a head block answered id ", row.ids[i], ", which is not allowed there"));
    }
    if (!rows.Contains(row.ids[i])) {
      return absl::InternalError(absl::StrCat("a head block of ", rows.size(), " of the rows ",
                                              rows.range().begin, " to ", rows.range().end,
                                              " answered id ", row.ids[i]));
    }
    if (std::isnan(row.logits[i])) {
      return absl::DataLossError("a head block answered a logit that is not a number");
    }
    if (i > 0 && !Better(row.logits[i - 1], row.ids[i - 1], row.logits[i], row.ids[i])) {
      return absl::InternalError("a head block's ids are not ordered best first");
    }
  }
  // The order does not tell: one id may stand at two places with different logits.
  std::vector<int32_t> ids = row.ids;
  std::sort(ids.begin(), ids.end());
  if (std::adjacent_find(ids.begin(), ids.end()) != ids.end()) {
    return absl::InternalError("a head block answered one id twice");
  }
  return absl::OkStatus();
}

absl::Status CheckTopRows(const model::HeadRow& row, const model::BlockRows& rows,
                          const model::TokenMask* allowed, int64_t top_k) {
  const int64_t most = allowed == nullptr ? rows.size() : allowed->CountIn(rows);
  return CheckBestRows(row, rows, allowed, static_cast<size_t>(std::min(top_k, most)));
}

absl::Status CheckAllRows(const model::HeadRow& row, const model::BlockRows& rows) {
  if (!row.ids.empty() || row.logits.size() != static_cast<size_t>(rows.size())) {
    return absl::InternalError(absl::StrCat("a head block of ", rows.size(), " rows answered ",
                                            row.ids.size(), " ids and ", row.logits.size(),
                                            " logits where all logits were asked"));
  }
  return absl::OkStatus();
}

// Rows near the block's best one, or all of them; none where none is allowed.
absl::Status CheckNearRows(const model::HeadRow& row, const model::BlockRows& rows,
                           const model::TokenMask* allowed) {
  if (row.ids.empty()) {
    const bool none = allowed != nullptr && allowed->CountIn(rows) == 0;
    return none && row.logits.empty() ? absl::OkStatus() : CheckAllRows(row, rows);
  }
  return CheckBestRows(row, rows, allowed, row.ids.size());
}

int64_t VocabularyOf(const std::vector<HeadBlock>& blocks) {
  int64_t rows = 0;
  for (const HeadBlock& block : blocks) rows += block.rows.size();
  return rows;
}

// All logits of the block's output `index`, to where their ids say.
void Scatter(const HeadBlock& block, size_t index, std::vector<float>& logits) {
  const std::vector<float>& part = block.outputs[index].logits;
  if (block.rows.contiguous()) {
    std::copy(part.begin(), part.end(), logits.begin() + block.rows.range().begin);
    return;
  }
  for (size_t i = 0; i < part.size(); ++i) {
    logits[static_cast<size_t>(block.rows.ids()[i])] = part[i];
  }
}

// Output `index` of every block.
void MergeSums(const std::vector<HeadBlock>& blocks, size_t index, model::HeadRow& merged) {
  merged.max_logit = blocks.front().outputs[index].max_logit;
  for (const HeadBlock& block : blocks) {
    merged.max_logit = std::max(merged.max_logit, block.outputs[index].max_logit);
  }
  merged.sum_exp = 0;
  for (const HeadBlock& block : blocks) {
    const model::HeadRow& part = block.outputs[index];
    const bool silent = part.max_logit == -std::numeric_limits<float>::infinity();
    if (part.sum_exp == 0 && !silent) {  // not known, so neither is the whole
      merged.sum_exp = 0;
      return;
    }
    // Minus infinity minus itself is not a number; such a block adds nothing.
    if (part.max_logit == merged.max_logit) {
      merged.sum_exp += part.sum_exp;
    } else {
      merged.sum_exp += part.sum_exp * std::exp(static_cast<double>(part.max_logit) -
                                                static_cast<double>(merged.max_logit));
    }
  }
}

void MergeBestRows(const std::vector<HeadBlock>& blocks, size_t index, int64_t most,
                   model::HeadRow& merged) {
  std::vector<std::pair<float, int32_t>> candidates;
  for (const HeadBlock& block : blocks) {
    const model::HeadRow& part = block.outputs[index];
    for (size_t i = 0; i < part.logits.size(); ++i) {
      const int32_t id = part.ids.empty() ? block.rows.id(static_cast<int64_t>(i)) : part.ids[i];
      if (!std::isnan(part.logits[i])) candidates.emplace_back(part.logits[i], id);
    }
  }
  const size_t kept = std::min(candidates.size(), static_cast<size_t>(most));
  std::partial_sort(
      candidates.begin(), candidates.begin() + static_cast<ptrdiff_t>(kept), candidates.end(),
      [](const auto& a, const auto& b) { return Better(a.first, a.second, b.first, b.second); });
  for (size_t i = 0; i < kept; ++i) {
    merged.logits.push_back(candidates[i].first);
    merged.ids.push_back(candidates[i].second);
  }
}

void MergeAllRows(const std::vector<HeadBlock>& blocks, size_t index, model::HeadRow& merged) {
  merged.logits.resize(static_cast<size_t>(VocabularyOf(blocks)));
  for (const HeadBlock& block : blocks) Scatter(block, index, merged.logits);
}

}  // namespace

absl::Status CheckHeadBlock(const model::Step& step, const HeadBlock& block) {
  if (block.outputs.size() != static_cast<size_t>(step.output_count())) {
    return absl::InternalError(absl::StrCat("a head block answered ", block.outputs.size(),
                                            " rows to a step with ", step.output_count(),
                                            " outputs"));
  }
  size_t index = 0;
  for (const model::StepSlot& slot : step.slots) {
    for (int64_t i = 0; i < slot.output_count; ++i) {
      const model::HeadRow& row = block.outputs[index++];
      if (std::isnan(row.max_logit) || std::isnan(row.sum_exp)) {
        return absl::DataLossError("a head block answered a sum that is not a number");
      }
      const model::TokenMask* allowed = slot.allowed_at(i);
      RENGA_RETURN_IF_ERROR(slot.top_k > 0    ? CheckTopRows(row, block.rows, allowed, slot.top_k)
                            : slot.within > 0 ? CheckNearRows(row, block.rows, allowed)
                                              : CheckAllRows(row, block.rows));
    }
  }
  return absl::OkStatus();
}

std::vector<model::HeadRow> MergeHeadBlocks(const model::Step& step,
                                            std::vector<HeadBlock> blocks) {
  if (blocks.size() == 1) return std::move(blocks.front().outputs);
  std::vector<model::HeadRow> merged(static_cast<size_t>(step.output_count()));
  size_t index = 0;
  for (const model::StepSlot& slot : step.slots) {
    for (int64_t i = 0; i < slot.output_count; ++i, ++index) {
      // Some block answered fewer than all of its rows.
      const bool near =
          slot.within > 0 && std::any_of(blocks.begin(), blocks.end(), [&](const HeadBlock& block) {
            const model::HeadRow& part = block.outputs[index];
            return !part.ids.empty() || std::ssize(part.logits) != block.rows.size();
          });
      if (slot.top_k > 0 || near) {
        const int64_t most = slot.top_k > 0 ? slot.top_k : VocabularyOf(blocks);
        MergeBestRows(blocks, index, most, merged[index]);
      } else {
        MergeAllRows(blocks, index, merged[index]);
      }
      MergeSums(blocks, index, merged[index]);
    }
  }
  return merged;
}

std::vector<model::HeadRow> BlockAlone(const model::Step& step, const HeadBlock& block,
                                       int64_t vocabulary) {
  std::vector<model::HeadRow> rows = block.outputs;
  size_t index = 0;
  for (const model::StepSlot& slot : step.slots) {
    for (int64_t i = 0; i < slot.output_count; ++i, ++index) {
      model::HeadRow& row = rows[index];
      if (slot.top_k > 0 && std::min(slot.top_k, vocabulary) > block.rows.size()) row = {};
      if (slot.top_k > 0 || !row.ids.empty()) continue;
      row.logits.assign(static_cast<size_t>(vocabulary), -std::numeric_limits<float>::infinity());
      Scatter(block, index, row.logits);
    }
  }
  return rows;
}

}  // namespace renga::cluster
