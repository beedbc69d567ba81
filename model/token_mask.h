// A set of tokens of a vocabulary: those that a grammar allows at some position.
#ifndef RENGA_MODEL_TOKEN_MASK_H_
#define RENGA_MODEL_TOKEN_MASK_H_

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/block_rows.h"

namespace renga::model {

// Immutable. Few tokens are kept as a list, many as one bit for each of the vocabulary.
class TokenMask {
 public:
  // `ids` are ascending, distinct and inside the vocabulary.
  static TokenMask Of(const std::vector<int32_t>& ids, int64_t vocab_size);
  // The lowest bit of the first byte is token 0; none is set behind the vocabulary's end.
  static TokenMask OfBits(std::vector<uint8_t> bits, int64_t vocab_size);
  // As they came from outside: kInvalidArgument for a list that is not ascending or holds ids below
  // 0, and for no token at all. One of the two is empty.
  static absl::StatusOr<TokenMask> FromParts(std::vector<int32_t> ids, std::vector<uint8_t> bits);

  // kInvalidArgument when the set is not one of a vocabulary of this size.
  absl::Status CheckFits(int64_t vocab_size) const;

  // `id` is at least 0.
  bool Contains(int32_t id) const;
  int64_t count() const { return count_; }
  // How many of the rows are in the set.
  int64_t CountIn(const BlockRows& rows) const;
  // Those of the rows that are in the set, as ids, ascending.
  std::vector<int32_t> IdsIn(const BlockRows& rows) const;

  // All of them, ascending; empty when they are kept as bits.
  std::span<const int32_t> ids() const { return ids_; }
  // The lowest bit of the first byte is token 0; empty when there is a list.
  std::span<const uint8_t> bits() const { return bits_; }

  friend bool operator==(const TokenMask&, const TokenMask&) = default;

 private:
  template <typename Action>
  void ForEachIn(const BlockRows& rows, Action action) const;

  std::vector<int32_t> ids_;
  std::vector<uint8_t> bits_;
  int64_t count_ = 0;
};

}  // namespace renga::model

#endif  // RENGA_MODEL_TOKEN_MASK_H_
