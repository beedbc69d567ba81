// What both kinds of tokenizer share: roles of tokens, and cutting a text at the tokens it names
// literally, so that only plain text is left to merge.
#ifndef RENGA_MODEL_VOCABULARY_TOKENIZER_H_
#define RENGA_MODEL_VOCABULARY_TOKENIZER_H_

#include <optional>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "model/special_tokens.h"
#include "model/tokenizer.h"
#include "model/vocabulary.h"

namespace renga::model {

class VocabularyTokenizer : public Tokenizer {
 public:
  absl::StatusOr<std::vector<TokenId>> Encode(absl::string_view text,
                                              const EncodeOptions& options) const final;

  int64_t vocab_size() const final { return vocabulary_.size(); }
  std::optional<TokenId> bos() const final { return vocabulary_.bos(); }
  std::optional<TokenId> eos() const final { return vocabulary_.eos(); }
  bool adds_bos() const final { return adds_bos_; }
  bool IsEndOfGeneration(TokenId id) const final { return vocabulary_.IsEndOfGeneration(id); }
  bool IsControl(TokenId id) const final {
    return vocabulary_.Contains(id) && vocabulary_.Type(id) == TokenType::kControl;
  }

 protected:
  enum class UserDefined {
    kCutFirst,     // found in the raw text, as control tokens are
    kWithinPlain,  // left for EncodePlain to find
  };
  VocabularyTokenizer(Vocabulary vocabulary, bool adds_bos_by_default, UserDefined user_defined);

  // Appends the tokens of a text in which nothing is named literally any more. `text` may be empty.
  virtual void EncodePlain(absl::string_view text, std::vector<TokenId>* ids) const = 0;

  const Vocabulary& vocabulary() const { return vocabulary_; }
  // White space after a token found by parse_special belongs to that token.
  void SwallowSpaceAfterSpecial() { swallows_space_ = true; }

 private:
  const Vocabulary vocabulary_;
  const bool adds_bos_;
  bool swallows_space_ = false;
  SpecialTokenMatcher always_;        // what is cut out of any text
  SpecialTokenMatcher when_parsing_;  // and with parse_special
};

}  // namespace renga::model

#endif  // RENGA_MODEL_VOCABULARY_TOKENIZER_H_
