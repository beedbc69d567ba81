#include "model/vocabulary.h"

#include <algorithm>
#include <limits>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace renga::model {
namespace {

// Real vocabularies stay below 1100 bytes (runs of spaces). The bound keeps a hostile file from
// making every text search long.
constexpr size_t kMaxTokenBytes = 16384;
constexpr size_t kMaxVocabularyBytes = size_t{1} << 30;

// Ends of a turn or text, known by name: files often give just one of theirs by id.
constexpr absl::string_view kEndNames[] = {"<|im_end|>",    "<|eot_id|>",    "<|end|>",
                                           "<|eom_id|>",    "<|endoftext|>", "<|end_of_text|>",
                                           "<end_of_turn>", "<|eot|>"};
// In some vocabularies this is the HTML tag that ends strike-through: an end only as a control
// token.
constexpr absl::string_view kSentencePieceEnd = "</s>";

absl::StatusOr<std::optional<TokenId>> ReadId(const GgufMetadata& metadata, absl::string_view name,
                                              int64_t vocab_size) {
  const std::string key = absl::StrCat("tokenizer.ggml.", name, "_token_id");
  // Writers store -1, as a signed or an unsigned number, for a role that no token has.
  RENGA_ASSIGN_OR_RETURN(const std::optional<int64_t> value,
                         metadata.GetInt(key, -1, std::numeric_limits<uint32_t>::max()));
  if (!value.has_value() || *value == -1 || *value == std::numeric_limits<uint32_t>::max()) {
    return std::nullopt;
  }
  if (*value >= vocab_size) {
    return absl::DataLossError(
        absl::StrCat(key, " is ", *value, ", outside the vocabulary of ", vocab_size, " tokens"));
  }
  return static_cast<TokenId>(*value);
}

}  // namespace

void TextTable::Reserve(size_t texts, size_t bytes) {
  ends_.reserve(texts);
  bytes_.reserve(bytes);
}

void TextTable::Add(absl::string_view text) {
  bytes_.insert(bytes_.end(), text.begin(), text.end());
  ends_.push_back(static_cast<uint32_t>(bytes_.size()));
}

void TextIndex::Add(TokenId id) {
  const auto [entry, is_new] = entries_.insert(id);
  if (is_new) return;
  entries_.erase(entry);
  entries_.insert(id);
}

absl::StatusOr<Vocabulary> Vocabulary::Read(const GgufMetadata& metadata) {
  Vocabulary vocabulary;
  RENGA_RETURN_IF_ERROR(vocabulary.ReadTexts(metadata));
  RENGA_RETURN_IF_ERROR(vocabulary.ReadTypes(metadata));
  RENGA_RETURN_IF_ERROR(vocabulary.ReadRoles(metadata));
  vocabulary.RestoreSentencePieceEnd();
  vocabulary.FindEndsByName();
  return vocabulary;
}

absl::Status Vocabulary::ReadTexts(const GgufMetadata& metadata) {
  RENGA_ASSIGN_OR_RETURN(const std::vector<std::string>* tokens,
                         metadata.GetStrings("tokenizer.ggml.tokens"));
  if (tokens == nullptr || tokens->empty()) {
    return absl::DataLossError("the file has no vocabulary (tokenizer.ggml.tokens)");
  }
  if (tokens->size() > static_cast<size_t>(std::numeric_limits<TokenId>::max())) {
    return absl::DataLossError(absl::StrCat("a vocabulary of ", tokens->size(), " tokens"));
  }
  size_t bytes = 0;
  for (size_t i = 0; i < tokens->size(); ++i) {
    const size_t size = (*tokens)[i].size();
    if (size > kMaxTokenBytes) {
      return absl::DataLossError(absl::StrCat("token ", i, " is ", size, " bytes long"));
    }
    bytes += size;
  }
  if (bytes > kMaxVocabularyBytes) {
    return absl::DataLossError(absl::StrCat("the vocabulary's texts take ", bytes, " bytes"));
  }
  texts_.Reserve(tokens->size(), bytes);
  for (const std::string& token : *tokens) texts_.Add(token);
  return absl::OkStatus();
}

absl::Status Vocabulary::ReadTypes(const GgufMetadata& metadata) {
  RENGA_ASSIGN_OR_RETURN(const std::optional<std::vector<int64_t>> types,
                         metadata.GetInts("tokenizer.ggml.token_type"));
  types_.assign(texts_.size(), TokenType::kNormal);
  if (!types.has_value()) return absl::OkStatus();
  if (types->size() != texts_.size()) {
    return absl::DataLossError(absl::StrCat("tokenizer.ggml.token_type has ", types->size(),
                                            " entries for ", texts_.size(), " tokens"));
  }
  for (size_t i = 0; i < types->size(); ++i) {
    const int64_t type = (*types)[i];
    if (type < 1 || type > 6) {
      return absl::DataLossError(
          absl::StrCat("token ", i, " has type ", type, "; types are 1 to 6"));
    }
    types_[i] = static_cast<TokenType>(type);
  }
  return absl::OkStatus();
}

absl::Status Vocabulary::ReadRoles(const GgufMetadata& metadata) {
  RENGA_ASSIGN_OR_RETURN(bos_, ReadId(metadata, "bos", size()));
  RENGA_ASSIGN_OR_RETURN(eos_, ReadId(metadata, "eos", size()));
  RENGA_ASSIGN_OR_RETURN(unknown_, ReadId(metadata, "unknown", size()));
  RENGA_ASSIGN_OR_RETURN(adds_bos_, metadata.GetBool("tokenizer.ggml.add_bos_token"));
  RENGA_ASSIGN_OR_RETURN(adds_space_prefix_, metadata.GetBool("tokenizer.ggml.add_space_prefix"));
  if (eos_.has_value()) ends_of_generation_.push_back(*eos_);
  for (absl::string_view name : {"eot", "eom"}) {
    RENGA_ASSIGN_OR_RETURN(const std::optional<TokenId> id, ReadId(metadata, name, size()));
    if (id.has_value()) ends_of_generation_.push_back(*id);
  }
  if (metadata.Find("tokenizer.ggml.token_type") == nullptr) {
    // Without types, the roles are all that tells control tokens from words.
    if (bos_.has_value()) types_[static_cast<size_t>(*bos_)] = TokenType::kControl;
    for (TokenId id : ends_of_generation_) types_[static_cast<size_t>(id)] = TokenType::kControl;
  }
  return absl::OkStatus();
}

// Phi-3 files call Llama's end token user-defined, though in the SentencePiece model below it is a
// control token that plain text never gives. It stands right after "<s>"; tags that just look like
// it, as in Gemma's vocabulary, stand elsewhere.
void Vocabulary::RestoreSentencePieceEnd() {
  for (TokenId id = 1; id < size(); ++id) {
    if (Type(id) == TokenType::kUserDefined && Text(id) == kSentencePieceEnd &&
        Type(id - 1) == TokenType::kControl && Text(id - 1) == "<s>") {
      types_[static_cast<size_t>(id)] = TokenType::kControl;
    }
  }
}

void Vocabulary::FindEndsByName() {
  for (TokenId id = 0; id < size(); ++id) {
    const TokenType type = Type(id);
    if (type == TokenType::kNormal || type == TokenType::kByte) continue;
    const absl::string_view text = Text(id);
    const bool named =
        std::find(std::begin(kEndNames), std::end(kEndNames), text) != std::end(kEndNames);
    if (named || (text == kSentencePieceEnd && type == TokenType::kControl)) {
      ends_of_generation_.push_back(id);
    }
  }
  std::sort(ends_of_generation_.begin(), ends_of_generation_.end());
}

bool Vocabulary::IsEndOfGeneration(TokenId id) const {
  return std::binary_search(ends_of_generation_.begin(), ends_of_generation_.end(), id);
}

}  // namespace renga::model
