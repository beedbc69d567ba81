#include "model/token_mask.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "absl/strings/str_cat.h"

namespace renga::model {

TokenMask TokenMask::Of(const std::vector<int32_t>& ids, int64_t vocab_size) {
  std::vector<uint8_t> bits(static_cast<size_t>((vocab_size + 7) / 8));
  for (const int32_t id : ids) {
    bits[static_cast<size_t>(id / 8)] |= static_cast<uint8_t>(1 << id % 8);
  }
  return OfBits(std::move(bits), vocab_size);
}

TokenMask TokenMask::OfBits(std::vector<uint8_t> bits, int64_t vocab_size) {
  TokenMask mask;
  for (const uint8_t byte : bits) mask.count_ += std::popcount(byte);
  mask.bits_ = std::move(bits);
  // Where a list takes less room than bits.
  if (mask.count_ * static_cast<int64_t>(8 * sizeof(int32_t)) < vocab_size) {
    mask.ids_ = mask.IdsIn({0, vocab_size});
    mask.bits_.clear();
  }
  return mask;
}

absl::StatusOr<TokenMask> TokenMask::FromParts(std::vector<int32_t> ids,
                                               std::vector<uint8_t> bits) {
  TokenMask mask;
  if (!ids.empty() && !bits.empty()) {
    return absl::InvalidArgumentError("a set of tokens that is a list and bits");
  }
  if (!ids.empty() && ids.front() < 0) {
    return absl::InvalidArgumentError(absl::StrCat("a set of tokens with token ", ids.front()));
  }
  if (std::adjacent_find(ids.begin(), ids.end(), std::greater_equal<>()) != ids.end()) {
    return absl::InvalidArgumentError("a set of tokens whose list is not ascending");
  }
  mask.count_ = std::ssize(ids);
  for (const uint8_t byte : bits) mask.count_ += std::popcount(byte);
  if (mask.count_ == 0) return absl::InvalidArgumentError("a set of tokens with none in it");
  mask.ids_ = std::move(ids);
  mask.bits_ = std::move(bits);
  return mask;
}

absl::Status TokenMask::CheckFits(int64_t vocab_size) const {
  const bool list_fits = bits_.empty() && (ids_.empty() || ids_.back() < vocab_size);
  const bool bits_fit = std::ssize(bits_) == (vocab_size + 7) / 8 &&
                        (vocab_size % 8 == 0 || bits_.back() >> vocab_size % 8 == 0);
  if (list_fits || bits_fit) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("a set of tokens that is none of a vocabulary of ", vocab_size));
}

bool TokenMask::Contains(int32_t id) const {
  if (bits_.empty()) return std::binary_search(ids_.begin(), ids_.end(), id);
  const auto byte = static_cast<size_t>(id / 8);
  return byte < bits_.size() && (bits_[byte] >> id % 8 & 1) != 0;
}

template <typename Action>
void TokenMask::ForEachIn(const BlockRows& rows, Action action) const {
  if (!rows.contiguous()) {
    for (const int32_t id : rows.ids()) {
      if (Contains(id)) action(id);
    }
    return;
  }
  if (bits_.empty()) {
    const auto first = std::lower_bound(ids_.begin(), ids_.end(), rows.range().begin);
    for (auto it = first; it != ids_.end() && *it < rows.range().end; ++it) action(*it);
    return;
  }
  const int64_t end = std::min(rows.range().end, 8 * static_cast<int64_t>(bits_.size()));
  for (int64_t id = rows.range().begin; id < end; ++id) {
    // Eight at a time where there is nothing.
    const bool nothing = id % 8 == 0 && bits_[static_cast<size_t>(id / 8)] == 0;
    if (nothing) {
      id += 7;
    } else if (Contains(static_cast<int32_t>(id))) {
      action(static_cast<int32_t>(id));
    }
  }
}

int64_t TokenMask::CountIn(const BlockRows& rows) const {
  int64_t count = 0;
  ForEachIn(rows, [&](int32_t) { ++count; });
  return count;
}

std::vector<int32_t> TokenMask::IdsIn(const BlockRows& rows) const {
  std::vector<int32_t> ids;
  ForEachIn(rows, [&](int32_t id) { ids.push_back(id); });
  return ids;
}

}  // namespace renga::model
