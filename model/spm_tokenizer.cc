#include "model/spm_tokenizer.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "base/status_macros.h"
#include "model/unicode.h"

namespace renga::model {
namespace {

constexpr absl::string_view kSpaceMark = "\xE2\x96\x81";  // U+2581, a space inside tokens

std::string MarkSpaces(absl::string_view text) {
  return absl::StrReplaceAll(text, {{" ", kSpaceMark}});
}

// The byte of a token named "<0x0A>".
std::optional<unsigned char> ParseByteToken(absl::string_view text) {
  uint32_t value = 0;
  if (text.size() != 6 || !absl::StartsWith(text, "<0x") || text[5] != '>' ||
      !absl::SimpleHexAtoi(text.substr(1, 4), &value)) {
    return std::nullopt;
  }
  return static_cast<unsigned char>(value);
}

// Whether a space mark follows something other than a space mark.
bool HoldsWordStart(absl::string_view text) {
  for (size_t at = text.find(kSpaceMark, 1); at != absl::string_view::npos;
       at = text.find(kSpaceMark, at + 1)) {
    if (!absl::EndsWith(text.substr(0, at), kSpaceMark)) return true;
  }
  return false;
}

// Phi-3's own tokenizer gives the white space after its special tokens to them. Metadata has no
// flag for it, so the vocabulary is known by its placeholder tokens.
bool IsPhi3(const Vocabulary& vocabulary) {
  for (TokenId id = 0; id < vocabulary.size(); ++id) {
    if (vocabulary.Type(id) == TokenType::kControl && vocabulary.Text(id) == "<|placeholder1|>") {
      return true;
    }
  }
  return false;
}

}  // namespace

// Symbols form a doubly linked list in an array; a merge grows the left one and drops the right.
class SpmTokenizer::Merger {
 public:
  explicit Merger(const SpmTokenizer& tokenizer) : tokenizer_(tokenizer) {}

  // `text` has its spaces marked.
  void Encode(absl::string_view text, std::vector<TokenId>* ids);

 private:
  struct Symbol {
    absl::string_view text;  // empty once merged away
    int32_t previous;
    int32_t next;          // -1 at the ends
    TokenId user_defined;  // such a symbol never merges
  };
  struct Candidate {
    float score;
    int32_t left;
    int32_t right;
    size_t length;  // bytes of both; a candidate whose symbols have changed is stale

    // The heap's top has the highest score, and of equal ones is the leftmost.
    bool operator<(const Candidate& other) const {
      return score != other.score ? score < other.score : left > other.left;
    }
  };

  void AddSymbol(absl::string_view text, TokenId user_defined);
  void Flush(std::vector<TokenId>* ids);
  void Consider(int32_t left, int32_t right);
  void Merge(const Candidate& candidate);
  void Emit(const Symbol& symbol, std::vector<TokenId>* ids);
  void EmitBytes(absl::string_view text, std::vector<TokenId>* ids);

  const SpmTokenizer& tokenizer_;
  std::vector<Symbol> symbols_;
  std::vector<Candidate> heap_;
  // Where an unused token's text was last put together from two parts: the first one's length.
  absl::flat_hash_map<absl::string_view, size_t> unused_parts_;
};

void SpmTokenizer::Merger::Encode(absl::string_view text, std::vector<TokenId>* ids) {
  size_t position = 0;
  while (position < text.size()) {
    const absl::string_view rest = text.substr(position);
    if (tokenizer_.words_are_apart_ && !symbols_.empty() && absl::StartsWith(rest, kSpaceMark) &&
        !absl::EndsWith(symbols_.back().text, kSpaceMark)) {
      Flush(ids);
    }
    size_t length = std::min<size_t>(
        static_cast<size_t>(AnnouncedUtf8Length(static_cast<unsigned char>(rest[0]))), rest.size());
    TokenId user_defined = kNone;
    if (!tokenizer_.user_defined_.empty()) {
      if (const auto match = tokenizer_.user_defined_.MatchAt(text, position)) {
        user_defined = match->id;
        length = match->length;
      }
    }
    AddSymbol(rest.substr(0, length), user_defined);
    position += length;
  }
  Flush(ids);
}

void SpmTokenizer::Merger::AddSymbol(absl::string_view text, TokenId user_defined) {
  const int32_t index = static_cast<int32_t>(symbols_.size());
  if (index > 0) symbols_.back().next = index;
  symbols_.push_back({text, index - 1, -1, user_defined});
}

// Merges what was collected, appends its tokens and starts afresh.
void SpmTokenizer::Merger::Flush(std::vector<TokenId>* ids) {
  for (int32_t i = 1; i < static_cast<int32_t>(symbols_.size()); ++i) Consider(i - 1, i);
  while (!heap_.empty()) {
    std::pop_heap(heap_.begin(), heap_.end());
    const Candidate candidate = heap_.back();
    heap_.pop_back();
    Merge(candidate);
  }
  for (const Symbol& symbol : symbols_) {
    if (!symbol.text.empty()) Emit(symbol, ids);
  }
  symbols_.clear();
  unused_parts_.clear();
}

void SpmTokenizer::Merger::Consider(int32_t left, int32_t right) {
  if (left < 0 || right < 0) return;
  const Symbol& a = symbols_[static_cast<size_t>(left)];
  const Symbol& b = symbols_[static_cast<size_t>(right)];
  const size_t length = a.text.size() + b.text.size();
  if (a.user_defined != kNone || b.user_defined != kNone ||
      length > tokenizer_.longest_mergeable_) {
    return;
  }
  // Neighbours are neighbours in the text too.
  const absl::string_view joined(a.text.data(), length);
  const TokenId token = tokenizer_.mergeable_.Find(joined);
  if (token == kNone) return;
  heap_.push_back({tokenizer_.scores_[static_cast<size_t>(token)], left, right, length});
  std::push_heap(heap_.begin(), heap_.end());
  if (tokenizer_.has_unused_ && tokenizer_.vocabulary().Type(token) == TokenType::kUnused) {
    unused_parts_[joined] = a.text.size();
  }
}

void SpmTokenizer::Merger::Merge(const Candidate& candidate) {
  Symbol& left = symbols_[static_cast<size_t>(candidate.left)];
  Symbol& right = symbols_[static_cast<size_t>(candidate.right)];
  if (left.text.empty() || right.text.empty() ||
      left.text.size() + right.text.size() != candidate.length) {
    return;
  }
  left.text = absl::string_view(left.text.data(), candidate.length);
  right.text = absl::string_view();
  left.next = right.next;
  if (left.next >= 0) symbols_[static_cast<size_t>(left.next)].previous = candidate.left;
  Consider(left.previous, candidate.left);
  Consider(candidate.left, left.next);
}

void SpmTokenizer::Merger::Emit(const Symbol& symbol, std::vector<TokenId>* ids) {
  if (symbol.user_defined != kNone) {
    ids->push_back(symbol.user_defined);
    return;
  }
  // Unused tokens are only steps on the way: they are taken apart as they were put together.
  std::vector<absl::string_view> pending = {symbol.text};
  while (!pending.empty()) {
    const absl::string_view text = pending.back();
    pending.pop_back();
    const TokenId token = tokenizer_.mergeable_.Find(text);
    if (token == kNone) {
      EmitBytes(text, ids);
      continue;
    }
    const auto parts = unused_parts_.find(text);
    if (parts == unused_parts_.end()) {
      ids->push_back(token);
    } else {
      pending.push_back(text.substr(parts->second));
      pending.push_back(text.substr(0, parts->second));
    }
  }
}

void SpmTokenizer::Merger::EmitBytes(absl::string_view text, std::vector<TokenId>* ids) {
  for (char c : text) {
    TokenId id = tokenizer_.byte_tokens_[static_cast<unsigned char>(c)];
    if (id == kNone) {
      // A vocabulary without byte tokens has one "unknown" for the whole character.
      id = tokenizer_.vocabulary().unknown().value_or(kNone);
      if (id != kNone) ids->push_back(id);
      return;
    }
    ids->push_back(id);
  }
}

absl::StatusOr<std::unique_ptr<Tokenizer>> SpmTokenizer::Create(const GgufMetadata& metadata,
                                                                Vocabulary vocabulary) {
  if (metadata.Find("tokenizer.ggml.token_type") == nullptr) {
    return absl::DataLossError(
        "the vocabulary has no token types (tokenizer.ggml.token_type), which tell its byte "
        "tokens");
  }
  RENGA_ASSIGN_OR_RETURN(const auto given, metadata.GetFloats("tokenizer.ggml.scores"));
  if (!given.has_value()) {
    return absl::DataLossError("the vocabulary has no scores (tokenizer.ggml.scores)");
  }
  if (static_cast<int64_t>(given->size()) != vocabulary.size()) {
    return absl::DataLossError(absl::StrCat("tokenizer.ggml.scores has ", given->size(),
                                            " entries for ", vocabulary.size(), " tokens"));
  }
  std::vector<float> scores(given->begin(), given->end());
  if (std::any_of(scores.begin(), scores.end(), [](float s) { return std::isnan(s); })) {
    return absl::DataLossError("tokenizer.ggml.scores holds a score that is not a number");
  }
  return std::unique_ptr<Tokenizer>(new SpmTokenizer(std::move(vocabulary), std::move(scores)));
}

SpmTokenizer::SpmTokenizer(Vocabulary vocabulary, std::vector<float> scores)
    : VocabularyTokenizer(std::move(vocabulary), /*adds_bos_by_default=*/true,
                          UserDefined::kWithinPlain),
      scores_(std::move(scores)),
      adds_space_prefix_(this->vocabulary().adds_space_prefix().value_or(true)),
      mergeable_(&this->vocabulary().texts()) {
  byte_tokens_.fill(kNone);
  IndexTokens();
  if (IsPhi3(this->vocabulary())) SwallowSpaceAfterSpecial();
}

void SpmTokenizer::IndexTokens() {
  mergeable_.Reserve(static_cast<size_t>(vocabulary().size()));
  for (TokenId id = 0; id < vocabulary().size(); ++id) {
    const absl::string_view text = vocabulary().Text(id);
    const TokenType type = vocabulary().Type(id);
    if (type == TokenType::kUserDefined) {
      user_defined_.Add(MarkSpaces(text), id);
    } else if (type == TokenType::kByte) {
      if (const auto byte = ParseByteToken(text)) byte_tokens_[*byte] = id;
    } else if (!text.empty() && (type == TokenType::kNormal || type == TokenType::kUnused)) {
      mergeable_.Add(id);
      longest_mergeable_ = std::max(longest_mergeable_, text.size());
      has_unused_ = has_unused_ || type == TokenType::kUnused;
      words_are_apart_ = words_are_apart_ && !HoldsWordStart(text);
    }
  }
}

void SpmTokenizer::EncodePlain(absl::string_view text, std::vector<TokenId>* ids) const {
  if (text.empty()) return;
  const std::string marked = absl::StrCat(adds_space_prefix_ ? kSpaceMark : "", MarkSpaces(text));
  Merger(*this).Encode(marked, ids);
}

std::string SpmTokenizer::Piece(TokenId id) const {
  if (!vocabulary().Contains(id)) return "";
  const absl::string_view text = vocabulary().Text(id);
  switch (vocabulary().Type(id)) {
    case TokenType::kByte:
      if (const auto byte = ParseByteToken(text)) return std::string(1, static_cast<char>(*byte));
      return std::string(text);
    case TokenType::kNormal:
    case TokenType::kUserDefined:
    case TokenType::kUnused:
      return absl::StrReplaceAll(text, {{kSpaceMark, " "}});
    case TokenType::kUnknown:
    case TokenType::kControl:
      break;
  }
  return std::string(text);
}

}  // namespace renga::model
