// Finding tokens that are named literally in a text: control tokens and user-defined ones.
#ifndef RENGA_MODEL_SPECIAL_TOKENS_H_
#define RENGA_MODEL_SPECIAL_TOKENS_H_

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include "model/tokenizer.h"

namespace renga::model {

// A set of texts, each with a token. Immutable after the last Add; then safe from any thread.
class SpecialTokenMatcher {
 public:
  struct Match {
    TokenId id;
    size_t position;
    size_t length;
  };

  SpecialTokenMatcher() { first_.fill(kNone); }

  // Empty texts are passed over; of equal texts the last one counts.
  void Add(absl::string_view text, TokenId id);
  bool empty() const { return nodes_.empty(); }

  // The longest of the texts that stands at `position`.
  std::optional<Match> MatchAt(absl::string_view text, size_t position) const;
  // The leftmost, and of those the longest, at or after `position`.
  std::optional<Match> Find(absl::string_view text, size_t position) const;

 private:
  static constexpr int32_t kNone = -1;

  // A tree of prefixes. The first byte is an array, because nearly every search ends there.
  std::array<int32_t, 256> first_;
  absl::flat_hash_map<uint64_t, int32_t> next_;  // node << 8 | byte -> node
  std::vector<TokenId> nodes_;                   // the token that ends at the node, or kNone
};

}  // namespace renga::model

#endif  // RENGA_MODEL_SPECIAL_TOKENS_H_
