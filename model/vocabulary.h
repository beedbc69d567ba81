// The part of a model's metadata that lists its tokens, read and checked: their texts, their types
// and the roles some of them play. What both kinds of tokenizer stand on.
#ifndef RENGA_MODEL_VOCABULARY_H_
#define RENGA_MODEL_VOCABULARY_H_

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/hash/hash.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "model/gguf_file.h"
#include "model/tokenizer.h"

namespace renga::model {

// The numbers are those of tokenizer.ggml.token_type.
enum class TokenType : uint8_t {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,      // never made from plain text
  kUserDefined = 4,  // found in plain text before anything is merged
  kUnused = 5,
  kByte = 6,  // "<0x0A>"
};

// Many short texts in one block of memory, numbered from 0.
class TextTable {
 public:
  void Reserve(size_t texts, size_t bytes);
  void Add(absl::string_view text);
  size_t size() const { return ends_.size(); }
  absl::string_view operator[](size_t index) const {
    const size_t begin = index == 0 ? 0 : ends_[index - 1];
    return absl::string_view(bytes_.data() + begin, ends_[index] - begin);
  }

 private:
  std::vector<char> bytes_;     // not a std::string: views stay valid when the table is moved
  std::vector<uint32_t> ends_;  // all texts together stay below 4 GiB
};

// Finds entries of a TextTable by their text. It holds numbers only, so that a search touches
// little memory: loading a large vocabulary is mostly searching.
class TextIndex {
 public:
  // `table` must outlive this.
  explicit TextIndex(const TextTable* table) : entries_(0, Hash{table}, Equal{table}) {}
  void Reserve(size_t entries) { entries_.reserve(entries); }
  // Of equal texts the last one added counts. The index is one of the table's.
  void Add(TokenId id);
  // -1 when there is none.
  TokenId Find(absl::string_view text) const {
    const auto entry = entries_.find(text);
    return entry == entries_.end() ? -1 : *entry;
  }

 private:
  struct Hash {
    using is_transparent = void;
    size_t operator()(absl::string_view text) const { return absl::HashOf(text); }
    size_t operator()(TokenId id) const { return (*this)((*table)[static_cast<size_t>(id)]); }
    const TextTable* table;
  };
  struct Equal {
    using is_transparent = void;
    bool operator()(TokenId a, absl::string_view b) const {
      return (*table)[static_cast<size_t>(a)] == b;
    }
    bool operator()(TokenId a, TokenId b) const {
      return (*this)(a, (*table)[static_cast<size_t>(b)]);
    }
    const TextTable* table;
  };
  absl::flat_hash_set<TokenId, Hash, Equal> entries_;
};

// Immutable after Read.
class Vocabulary {
 public:
  // kDataLoss when lists have different lengths, a token is absurdly long, a type is none of the
  // six, or a special id is outside the vocabulary.
  static absl::StatusOr<Vocabulary> Read(const GgufMetadata& metadata);

  int64_t size() const { return static_cast<int64_t>(texts_.size()); }
  bool Contains(TokenId id) const { return id >= 0 && id < size(); }
  // As stored: U+2581 for spaces, or the byte alphabet. `id` must be in the vocabulary.
  absl::string_view Text(TokenId id) const { return texts_[static_cast<size_t>(id)]; }
  const TextTable& texts() const { return texts_; }
  TokenType Type(TokenId id) const { return types_[static_cast<size_t>(id)]; }

  std::optional<TokenId> bos() const { return bos_; }
  std::optional<TokenId> eos() const { return eos_; }
  std::optional<TokenId> unknown() const { return unknown_; }
  // tokenizer.ggml.add_bos_token, when the metadata says.
  std::optional<bool> adds_bos() const { return adds_bos_; }
  std::optional<bool> adds_space_prefix() const { return adds_space_prefix_; }
  bool IsEndOfGeneration(TokenId id) const;

 private:
  absl::Status ReadTexts(const GgufMetadata& metadata);
  absl::Status ReadTypes(const GgufMetadata& metadata);
  absl::Status ReadRoles(const GgufMetadata& metadata);
  void RestoreSentencePieceEnd();
  void FindEndsByName();

  TextTable texts_;
  std::vector<TokenType> types_;
  std::optional<TokenId> bos_;
  std::optional<TokenId> eos_;
  std::optional<TokenId> unknown_;
  std::optional<bool> adds_bos_;
  std::optional<bool> adds_space_prefix_;
  std::vector<TokenId> ends_of_generation_;  // sorted
};

}  // namespace renga::model

#endif  // RENGA_MODEL_VOCABULARY_H_
