// The texts of a tokenizer's tokens as a tree of bytes, laid out in the order in which it is
// walked. Built once for a model.
#ifndef RENGA_COORDINATOR_SERVING_GRAMMAR_TOKEN_TRIE_H_
#define RENGA_COORDINATOR_SERVING_GRAMMAR_TOKEN_TRIE_H_

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "model/tokenizer.h"

namespace renga::grammar {

// Immutable. Without tokens that are no text: control tokens, and those that are empty.
class TokenTrie {
 public:
  // A text that some token begins with.
  struct Node {
    uint8_t byte = 0;         // its last one
    int32_t depth = 0;        // its length, from 1
    int32_t behind = 0;       // the first node that does not begin with this text
    int32_t first_token = 0;  // of tokens(): its tokens are those up to the next node's first
  };

  // `tokenizer` is not kept.
  explicit TokenTrie(const model::Tokenizer& tokenizer);

  int64_t vocab_size() const { return std::ssize(texts_); }
  // Each node stands before those whose texts begin with its own.
  std::span<const Node> nodes() const { return nodes_; }
  int32_t max_depth() const { return max_depth_; }
  // The tokens whose text is the node's.
  std::span<const model::TokenId> TokensOf(size_t node) const;
  // Empty for a token that is no text.
  const std::string& TextOf(model::TokenId token) const {
    return texts_[static_cast<size_t>(token)];
  }
  // Tokens that may end a text.
  const std::vector<model::TokenId>& end_tokens() const { return end_tokens_; }

 private:
  std::vector<std::string> texts_;  // by token
  std::vector<Node> nodes_;
  std::vector<model::TokenId> tokens_;  // as the nodes stand
  std::vector<model::TokenId> end_tokens_;
  int32_t max_depth_ = 0;
};

}  // namespace renga::grammar

#endif  // RENGA_COORDINATOR_SERVING_GRAMMAR_TOKEN_TRIE_H_
