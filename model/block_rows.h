// Which vocabulary rows a head block has.
//
// A plan cuts blocks from an order of all rows. As a rule that is the order of their ids. With
// RuntimeLimits::near_rows these come first, and behind them all others, both by ids: so a block
// may have the rows that texts use, wherever the tokenizer put them.
#ifndef RENGA_MODEL_BLOCK_ROWS_H_
#define RENGA_MODEL_BLOCK_ROWS_H_

#include <cstdint>
#include <memory>
#include <span>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "model/approximation.h"
#include "model/model_config.h"
#include "model/shard_spec.h"

namespace renga::model {

// Ascending, so that within a block the lower of two equal rows is the lower id, as in the whole
// vocabulary. Cheap to copy.
class BlockRows {
 public:
  BlockRows() = default;
  // The rows of a range. Implicit: as a rule blocks are ranges.
  BlockRows(const Range& rows) : range_(rows) {}  // NOLINT(google-explicit-constructor)
  BlockRows(int64_t begin, int64_t end) : range_{.begin = begin, .end = end} {}
  // The rows at `places` of the order; `near` may be null. `places` lies in [0, vocabulary), and
  // `near` is a RowSet of it.
  static BlockRows At(const Range& places, const RowSet* near, int64_t vocabulary);

  int64_t size() const { return ids_ == nullptr ? range_.size() : std::ssize(*ids_); }
  bool empty() const { return size() <= 0; }
  // Every row between the first and the last.
  bool contiguous() const { return ids_ == nullptr; }
  // From the first row to behind the last one.
  const Range& range() const { return range_; }
  // The block's row `index`, as an id.
  int32_t id(int64_t index) const {
    return ids_ == nullptr ? static_cast<int32_t>(range_.begin + index)
                           : (*ids_)[static_cast<size_t>(index)];
  }
  bool Contains(int32_t id) const;
  // All of them; empty when they are contiguous.
  std::span<const int32_t> ids() const {
    return ids_ == nullptr ? std::span<const int32_t>() : std::span<const int32_t>(*ids_);
  }

 private:
  Range range_;
  std::shared_ptr<const RowSet> ids_;  // null: contiguous
};

// kInvalidArgument for rows that are no RowSet of the model's vocabulary, or none at all. `what`
// begins the sentence.
absl::Status CheckRowSet(const RowSet& rows, const ModelConfig& config, absl::string_view what);

}  // namespace renga::model

#endif  // RENGA_MODEL_BLOCK_ROWS_H_
