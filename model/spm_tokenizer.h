// SentencePiece-style BPE ("llama" in GGUF): of all neighbours whose joined text is a token, the
// pair whose token has the highest score is merged first. Characters without a token become byte
// tokens.
#ifndef RENGA_MODEL_SPM_TOKENIZER_H_
#define RENGA_MODEL_SPM_TOKENIZER_H_

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "model/vocabulary_tokenizer.h"

namespace renga::model {

class SpmTokenizer final : public VocabularyTokenizer {
 public:
  // kDataLoss when the scores do not match the vocabulary or are not numbers.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Create(const GgufMetadata& metadata,
                                                           Vocabulary vocabulary);

  std::string Piece(TokenId id) const override;
  bool strips_leading_space() const override { return adds_space_prefix_; }

 private:
  // One EncodePlain: the symbols of a stretch of text and the queue of possible merges.
  class Merger;

  SpmTokenizer(Vocabulary vocabulary, std::vector<float> scores);
  void IndexTokens();
  void EncodePlain(absl::string_view text, std::vector<TokenId>* ids) const override;

  static constexpr TokenId kNone = -1;

  const std::vector<float> scores_;
  const bool adds_space_prefix_;
  TextIndex mergeable_;               // normal and unused tokens
  size_t longest_mergeable_ = 0;      // bytes
  SpecialTokenMatcher user_defined_;  // with U+2581 for spaces
  std::array<TokenId, 256> byte_tokens_;
  bool has_unused_ = false;
  // No token holds a U+2581 after another character, so no merge reaches over the start of a word.
  bool words_are_apart_ = true;
};

}  // namespace renga::model

#endif  // RENGA_MODEL_SPM_TOKENIZER_H_
