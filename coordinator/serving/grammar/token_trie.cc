#include "coordinator/serving/grammar/token_trie.h"

#include <algorithm>

namespace renga::grammar {

TokenTrie::TokenTrie(const model::Tokenizer& tokenizer) {
  const auto count = static_cast<model::TokenId>(tokenizer.vocab_size());
  texts_.resize(static_cast<size_t>(count));
  for (model::TokenId token = 0; token < count; ++token) {
    if (tokenizer.IsEndOfGeneration(token)) {
      end_tokens_.push_back(token);
    } else if (!tokenizer.IsControl(token)) {
      texts_[static_cast<size_t>(token)] = tokenizer.Piece(token);
      if (!TextOf(token).empty()) tokens_.push_back(token);
    }
  }
  std::sort(tokens_.begin(), tokens_.end(), [&](model::TokenId a, model::TokenId b) {
    return TextOf(a) != TextOf(b) ? TextOf(a) < TextOf(b) : a < b;
  });
  std::vector<int32_t> path;  // the nodes of the text before, by depth
  for (size_t i = 0; i < tokens_.size(); ++i) {
    const std::string& text = TextOf(tokens_[i]);
    const std::string none;
    const std::string& before = i == 0 ? none : TextOf(tokens_[i - 1]);
    if (i > 0 && text == before) continue;
    const size_t common = static_cast<size_t>(
        std::mismatch(text.begin(), text.end(), before.begin(), before.end()).first - text.begin());
    for (; path.size() > common; path.pop_back()) {
      nodes_[static_cast<size_t>(path.back())].behind = static_cast<int32_t>(nodes_.size());
    }
    for (size_t depth = common; depth < text.size(); ++depth) {
      path.push_back(static_cast<int32_t>(nodes_.size()));
      nodes_.push_back({.byte = static_cast<uint8_t>(text[depth]),
                        .depth = static_cast<int32_t>(depth + 1),
                        .behind = 0,
                        .first_token = static_cast<int32_t>(i)});
      max_depth_ = std::max(max_depth_, nodes_.back().depth);
    }
  }
  for (const int32_t node : path) {
    nodes_[static_cast<size_t>(node)].behind = static_cast<int32_t>(nodes_.size());
  }
}

std::span<const model::TokenId> TokenTrie::TokensOf(size_t node) const {
  const auto first = static_cast<size_t>(nodes_[node].first_token);
  const size_t end =
      node + 1 < nodes_.size() ? static_cast<size_t>(nodes_[node + 1].first_token) : tokens_.size();
  return std::span(tokens_).subspan(first, end - first);
}

}  // namespace renga::grammar
