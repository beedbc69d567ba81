#include "model/special_tokens.h"

namespace renga::model {
namespace {

uint64_t EdgeKey(int32_t node, unsigned char byte) {
  return static_cast<uint64_t>(node) << 8 | byte;
}

}  // namespace

void SpecialTokenMatcher::Add(absl::string_view text, TokenId id) {
  if (text.empty()) return;
  int32_t* slot = &first_[static_cast<unsigned char>(text[0])];
  for (size_t i = 1;; ++i) {
    if (*slot == kNone) {
      *slot = static_cast<int32_t>(nodes_.size());
      nodes_.push_back(kNone);
    }
    if (i == text.size()) break;
    slot = &next_.try_emplace(EdgeKey(*slot, static_cast<unsigned char>(text[i])), kNone)
                .first->second;
  }
  nodes_[static_cast<size_t>(*slot)] = id;
}

std::optional<SpecialTokenMatcher::Match> SpecialTokenMatcher::MatchAt(absl::string_view text,
                                                                       size_t position) const {
  std::optional<Match> best;
  int32_t node = first_[static_cast<unsigned char>(text[position])];
  for (size_t end = position + 1; node != kNone; ++end) {
    const TokenId id = nodes_[static_cast<size_t>(node)];
    if (id != kNone) best = Match{id, position, end - position};
    if (end == text.size()) break;
    const auto edge = next_.find(EdgeKey(node, static_cast<unsigned char>(text[end])));
    node = edge == next_.end() ? kNone : edge->second;
  }
  return best;
}

std::optional<SpecialTokenMatcher::Match> SpecialTokenMatcher::Find(absl::string_view text,
                                                                    size_t position) const {
  if (empty()) return std::nullopt;
  for (; position < text.size(); ++position) {
    if (std::optional<Match> match = MatchAt(text, position)) return match;
  }
  return std::nullopt;
}

}  // namespace renga::model
