#include "model/vocabulary_tokenizer.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "model/unicode.h"

namespace renga::model {
namespace {

constexpr size_t kMaxTextBytes = size_t{1} << 30;

size_t SkipSpace(absl::string_view text, size_t position) {
  while (position < text.size()) {
    const DecodedChar c = DecodeChar(text.substr(position));
    if (ClassifyChar(c.code_point) != CharClass::kSpace) break;
    position += c.length;
  }
  return position;
}

}  // namespace

VocabularyTokenizer::VocabularyTokenizer(Vocabulary vocabulary, bool adds_bos_by_default,
                                         UserDefined user_defined)
    : vocabulary_(std::move(vocabulary)),
      adds_bos_(vocabulary_.adds_bos().value_or(adds_bos_by_default) &&
                vocabulary_.bos().has_value()) {
  for (TokenId id = 0; id < vocabulary_.size(); ++id) {
    const TokenType type = vocabulary_.Type(id);
    const bool control = type == TokenType::kControl || type == TokenType::kUnknown;
    const bool user = type == TokenType::kUserDefined && user_defined == UserDefined::kCutFirst;
    if (control || user) when_parsing_.Add(vocabulary_.Text(id), id);
    if (user) always_.Add(vocabulary_.Text(id), id);
  }
}

absl::StatusOr<std::vector<TokenId>> VocabularyTokenizer::Encode(
    absl::string_view text, const EncodeOptions& options) const {
  if (text.size() > kMaxTextBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("the text is ", text.size(), " bytes long; the most is ", kMaxTextBytes));
  }
  std::vector<TokenId> ids;
  if (options.add_bos && adds_bos_) ids.push_back(*vocabulary_.bos());
  const SpecialTokenMatcher& matcher = options.parse_special ? when_parsing_ : always_;
  size_t position = 0;
  while (position < text.size()) {
    const std::optional<SpecialTokenMatcher::Match> match = matcher.Find(text, position);
    if (!match.has_value()) {
      EncodePlain(text.substr(position), &ids);
      break;
    }
    EncodePlain(text.substr(position, match->position - position), &ids);
    ids.push_back(match->id);
    position = match->position + match->length;
    if (swallows_space_) position = SkipSpace(text, position);
  }
  return ids;
}

}  // namespace renga::model
