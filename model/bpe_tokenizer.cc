#include "model/bpe_tokenizer.h"

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "model/byte_alphabet.h"
#include "model/unicode.h"

namespace renga::model {
namespace {

// Positions in a word are int32, and repairing a text can make it three times as long.
constexpr size_t kMaxWordBytes = size_t{1} << 30;

}  // namespace

// Symbols form a doubly linked list in an array; a merge changes the left one and drops the right.
class BpeTokenizer::Merger {
 public:
  explicit Merger(const BpeTokenizer& tokenizer) : tokenizer_(tokenizer) {}

  void EncodeWord(absl::string_view word, std::vector<TokenId>* ids);

 private:
  struct Symbol {
    TokenId id;  // kDropped once merged away
    int32_t previous;
    int32_t next;  // -1 at the ends
  };
  struct Candidate {
    int32_t rank;
    int32_t left;
    TokenId left_id, right_id;  // what the pair was; a candidate whose symbols changed is stale
    TokenId merged;

    // The heap's top has the lowest rank, and of equal ones is the leftmost.
    bool operator<(const Candidate& other) const {
      return rank != other.rank ? rank > other.rank : left > other.left;
    }
  };
  static constexpr TokenId kDropped = -2;

  void Consider(int32_t left);
  void Apply(const Candidate& candidate);

  const BpeTokenizer& tokenizer_;
  std::vector<Symbol> symbols_;
  std::vector<Candidate> heap_;
};

void BpeTokenizer::Merger::EncodeWord(absl::string_view word, std::vector<TokenId>* ids) {
  if (tokenizer_.rules_.ignore_merges) {
    if (const TokenId id = tokenizer_.FindPiece(word); id != kNone) {
      ids->push_back(id);
      return;
    }
  }
  symbols_.clear();
  const int32_t size = static_cast<int32_t>(word.size());
  for (int32_t i = 0; i < size; ++i) {
    const auto byte = static_cast<unsigned char>(word[static_cast<size_t>(i)]);
    symbols_.push_back({tokenizer_.byte_tokens_[byte], i - 1, i + 1 < size ? i + 1 : -1});
  }
  for (int32_t i = 0; i + 1 < size; ++i) Consider(i);
  while (!heap_.empty()) {
    std::pop_heap(heap_.begin(), heap_.end());
    const Candidate candidate = heap_.back();
    heap_.pop_back();
    Apply(candidate);
  }
  // A byte without a token is left out, as the models' own tokenizers do.
  for (const Symbol& symbol : symbols_) {
    if (symbol.id >= 0) ids->push_back(symbol.id);
  }
}

void BpeTokenizer::Merger::Consider(int32_t left) {
  if (left < 0) return;
  const Symbol& a = symbols_[static_cast<size_t>(left)];
  if (a.next < 0) return;
  const Symbol& b = symbols_[static_cast<size_t>(a.next)];
  const auto merge = tokenizer_.merges_.find(PairKey(a.id, b.id));
  if (merge == tokenizer_.merges_.end()) return;
  heap_.push_back({merge->second.rank, left, a.id, b.id, merge->second.merged});
  std::push_heap(heap_.begin(), heap_.end());
}

void BpeTokenizer::Merger::Apply(const Candidate& candidate) {
  Symbol& left = symbols_[static_cast<size_t>(candidate.left)];
  if (left.id != candidate.left_id || left.next < 0) return;
  Symbol& right = symbols_[static_cast<size_t>(left.next)];
  if (right.id != candidate.right_id) return;
  left.id = candidate.merged;
  right.id = kDropped;
  left.next = right.next;
  if (left.next >= 0) symbols_[static_cast<size_t>(left.next)].previous = candidate.left;
  Consider(left.previous);
  Consider(candidate.left);
}

absl::StatusOr<std::unique_ptr<Tokenizer>> BpeTokenizer::Create(const GgufMetadata& metadata,
                                                                Vocabulary vocabulary) {
  RENGA_ASSIGN_OR_RETURN(const std::optional<std::string> pre,
                         metadata.GetString("tokenizer.ggml.pre"));
  RENGA_ASSIGN_OR_RETURN(const PreTokenizer rules, FindPreTokenizer(pre));
  RENGA_ASSIGN_OR_RETURN(const std::vector<std::string>* merges,
                         metadata.GetStrings("tokenizer.ggml.merges"));
  if (merges == nullptr) {
    return absl::DataLossError("the vocabulary has no merges (tokenizer.ggml.merges)");
  }
  std::unique_ptr<BpeTokenizer> tokenizer(new BpeTokenizer(std::move(vocabulary), rules));
  const std::vector<bool> spelled = tokenizer->IndexTokens();
  RENGA_RETURN_IF_ERROR(tokenizer->IndexMerges(*merges, spelled));
  return tokenizer;
}

BpeTokenizer::BpeTokenizer(Vocabulary vocabulary, const PreTokenizer& rules)
    : VocabularyTokenizer(std::move(vocabulary), rules.adds_bos, UserDefined::kCutFirst),
      rules_(rules),
      by_bytes_(&pieces_) {}

std::vector<bool> BpeTokenizer::IndexTokens() {
  const size_t count = static_cast<size_t>(vocabulary().size());
  std::vector<bool> spelled(count, false);
  std::string bytes;
  pieces_.Reserve(count, 0);
  for (size_t i = 0; i < count; ++i) {
    const TokenId id = static_cast<TokenId>(i);
    bytes.clear();
    spelled[i] = vocabulary().Type(id) == TokenType::kNormal &&
                 AppendSpelledBytes(vocabulary().Text(id), &bytes);
    pieces_.Add(spelled[i] ? absl::string_view(bytes) : vocabulary().Text(id));
  }
  by_bytes_.Reserve(count);
  for (size_t i = 0; i < count; ++i) {
    if (spelled[i] && !pieces_[i].empty()) by_bytes_.Add(static_cast<TokenId>(i));
  }
  for (size_t b = 0; b < byte_tokens_.size(); ++b) {
    const char c = static_cast<char>(b);
    byte_tokens_[b] = by_bytes_.Find(absl::string_view(&c, 1));
  }
  return spelled;
}

TokenId BpeTokenizer::FindPiece(absl::string_view bytes) const {
  if (bytes.size() == 1) return byte_tokens_[static_cast<unsigned char>(bytes[0])];
  return by_bytes_.Find(bytes);
}

absl::Status BpeTokenizer::IndexMerges(const std::vector<std::string>& merges,
                                       const std::vector<bool>& spelled) {
  merges_.reserve(merges.size());
  std::string joined;
  TokenId previous = 0;
  for (size_t rank = 0; rank < merges.size(); ++rank) {
    const absl::string_view merge = merges[rank];
    // From 1, so that a left part may begin with a space.
    const size_t space = merge.find(' ', 1);
    if (space == absl::string_view::npos || space + 1 == merge.size()) {
      return absl::DataLossError(
          absl::StrCat("merge ", rank, " of tokenizer.ggml.merges is no pair"));
    }
    joined.clear();
    if (!AppendSpelledBytes(merge.substr(0, space), &joined)) continue;
    const size_t left_size = joined.size();
    if (!AppendSpelledBytes(merge.substr(space + 1), &joined)) continue;
    // Lists are mostly in the order of the tokens they make, which saves the search.
    TokenId merged = kNone;
    for (TokenId guess : {previous, previous + 1}) {
      const size_t index = static_cast<size_t>(guess);
      if (index < spelled.size() && spelled[index] && pieces_[index] == joined) {
        merged = guess;
      }
    }
    if (merged == kNone) merged = FindPiece(joined);
    const TokenId left = FindPiece(absl::string_view(joined).substr(0, left_size));
    const TokenId right = FindPiece(absl::string_view(joined).substr(left_size));
    // A merge of or into something that is no token can never apply.
    if (merged == kNone || left == kNone || right == kNone) continue;
    merges_.try_emplace(PairKey(left, right), Merge{static_cast<int32_t>(rank), merged});
    previous = merged;
  }
  return absl::OkStatus();
}

void BpeTokenizer::EncodePlain(absl::string_view text, std::vector<TokenId>* ids) const {
  std::string changed;
  if (!IsValidUtf8(text)) {
    changed = RepairUtf8(text);
    text = changed;
  }
  if (rules_.compose_nfc) {
    changed = ComposeNfc(text);
    text = changed;
  }
  Merger merger(*this);
  WordSplitter words(rules_.pattern, text);
  for (absl::string_view word; words.Next(&word);) {
    for (; word.size() > kMaxWordBytes; word.remove_prefix(kMaxWordBytes)) {
      merger.EncodeWord(word.substr(0, kMaxWordBytes), ids);
    }
    merger.EncodeWord(word, ids);
  }
}

std::string BpeTokenizer::Piece(TokenId id) const {
  if (!vocabulary().Contains(id)) return "";
  return std::string(pieces_[static_cast<size_t>(id)]);
}

}  // namespace renga::model
