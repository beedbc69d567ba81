// Byte-level BPE ("gpt2" in GGUF): text is split into words by the model's pattern, every byte of a
// word is a token, and neighbours are merged in the order of the list of merges.
#ifndef RENGA_MODEL_BPE_TOKENIZER_H_
#define RENGA_MODEL_BPE_TOKENIZER_H_

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "model/pre_tokenizer.h"
#include "model/vocabulary_tokenizer.h"

namespace renga::model {

class BpeTokenizer final : public VocabularyTokenizer {
 public:
  // kDataLoss when there are no merges or one is no pair; kUnimplemented names a pre-tokenizer
  // that isn't known.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Create(const GgufMetadata& metadata,
                                                           Vocabulary vocabulary);

  std::string Piece(TokenId id) const override;
  bool strips_leading_space() const override { return false; }

 private:
  // One EncodePlain: merges word after word with the same memory.
  class Merger;
  struct Merge {
    int32_t rank;    // lower is merged first
    TokenId merged;  // what the pair becomes
  };

  BpeTokenizer(Vocabulary vocabulary, const PreTokenizer& rules);
  // Says of every token whether words can become it.
  std::vector<bool> IndexTokens();
  absl::Status IndexMerges(const std::vector<std::string>& merges,
                           const std::vector<bool>& spelled);
  TokenId FindPiece(absl::string_view bytes) const;
  void EncodePlain(absl::string_view text, std::vector<TokenId>* ids) const override;

  static constexpr TokenId kNone = -1;
  static uint64_t PairKey(TokenId left, TokenId right) {
    return static_cast<uint64_t>(left) << 32 | static_cast<uint32_t>(right);
  }

  const PreTokenizer rules_;
  TextTable pieces_;  // the bytes of every token, specials by name
  std::array<TokenId, 256> byte_tokens_;
  // Tokens that words can become, by their bytes: those spelled in the byte alphabet.
  TextIndex by_bytes_;
  absl::flat_hash_map<uint64_t, Merge> merges_;
};

}  // namespace renga::model

#endif  // RENGA_MODEL_BPE_TOKENIZER_H_
