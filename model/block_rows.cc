#include "model/block_rows.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace renga::model {
namespace {

// The rows at `places` of those that are not in `near`.
void AddOthers(const Range& places, const RowSet& near, int64_t vocabulary, RowSet& rows) {
  int64_t place = 0;
  auto next = near.begin();
  for (int64_t row = 0; row < vocabulary && place < places.end; ++row) {
    if (next != near.end() && *next == row) {
      ++next;
      continue;
    }
    if (place++ >= places.begin) rows.push_back(static_cast<int32_t>(row));
  }
}

}  // namespace

BlockRows BlockRows::At(const Range& places, const RowSet* near, int64_t vocabulary) {
  if (near == nullptr || places.empty()) return places;
  const auto first = std::ssize(*near);
  RowSet rows;
  rows.reserve(static_cast<size_t>(places.size()));
  if (places.begin < first) {
    rows.assign(near->begin() + places.begin, near->begin() + std::min(first, places.end));
  }
  if (places.end > first) {
    const auto middle = std::ssize(rows);
    AddOthers({.begin = std::max<int64_t>(0, places.begin - first), .end = places.end - first},
              *near, vocabulary, rows);
    std::inplace_merge(rows.begin(), rows.begin() + middle, rows.end());
  }
  BlockRows block(rows.front(), int64_t{rows.back()} + 1);
  if (block.range_.size() == std::ssize(rows)) return block;
  block.ids_ = std::make_shared<const RowSet>(std::move(rows));
  return block;
}

bool BlockRows::Contains(int32_t id) const {
  if (id < range_.begin || id >= range_.end) return false;
  return ids_ == nullptr || std::binary_search(ids_->begin(), ids_->end(), id);
}

absl::Status CheckRowSet(const RowSet& rows, const ModelConfig& config, absl::string_view what) {
  if (rows.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(what, " of the vocabulary: there are none"));
  }
  int64_t last = -1;
  for (const int32_t row : rows) {
    if (row <= last || row >= config.vocab_size) {
      return absl::InvalidArgumentError(
          absl::StrCat(what, " of a vocabulary of ", config.vocab_size,
                       " are not in order or not in it: ", row, " after ", last));
    }
    last = row;
  }
  return absl::OkStatus();
}

}  // namespace renga::model
