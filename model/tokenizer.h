// Text to token ids and back, exactly as the model was trained.
#ifndef RENGA_MODEL_TOKENIZER_H_
#define RENGA_MODEL_TOKENIZER_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "model/gguf_file.h"

namespace renga::model {

using TokenId = int32_t;

struct EncodeOptions {
  bool add_bos = false;        // put BOS in front where the vocabulary says so
  bool parse_special = false;  // control tokens named in the text become those tokens
};

// Immutable; safe from any thread.
class Tokenizer {
 public:
  // Builds the tokenizer the metadata describes (tokenizer.ggml.*): SentencePiece-style BPE
  // ("llama") or byte-level BPE ("gpt2") with its pre-tokenizer. kUnimplemented names an unknown
  // kind or pre-tokenizer; kDataLoss says what is inconsistent.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Create(const GgufMetadata& metadata);
  virtual ~Tokenizer() = default;

  // Any bytes, UTF-8 or not. kInvalidArgument only when the text is larger than 1 GiB.
  virtual absl::StatusOr<std::vector<TokenId>> Encode(absl::string_view text,
                                                      const EncodeOptions& options) const = 0;

  // The bytes a token stands for in running text (space and byte tokens resolved). Control tokens
  // by name. Empty for an id outside the vocabulary.
  virtual std::string Piece(TokenId id) const = 0;

  virtual int64_t vocab_size() const = 0;
  // Whether a decoder drops one leading space of a whole text (SentencePiece's prefix).
  virtual bool strips_leading_space() const = 0;

  virtual std::optional<TokenId> bos() const = 0;
  virtual std::optional<TokenId> eos() const = 0;
  // Whether EncodeOptions::add_bos adds one.
  virtual bool adds_bos() const = 0;
  // True for tokens after which generation ends: eos, eot, end-of-turn by name.
  virtual bool IsEndOfGeneration(TokenId id) const = 0;
  virtual bool IsControl(TokenId id) const = 0;
};

// Turns a stream of ids into text that is always whole UTF-8: bytes of a character that is not
// complete yet are held back; bytes that can never become a character come out as U+FFFD.
class StreamDetokenizer {
 public:
  // `tokenizer` must outlive this. With `at_text_start` the prefix space is dropped.
  StreamDetokenizer(const Tokenizer* tokenizer, bool at_text_start)
      : tokenizer_(tokenizer), at_text_start_(at_text_start) {}

  // The text that became certain with this token; may be empty. Control tokens give none.
  std::string Add(TokenId id);
  // What was held back, as U+FFFD for incomplete characters.
  std::string Finish();

 private:
  const Tokenizer* tokenizer_;
  bool at_text_start_;
  std::string pending_;
};

}  // namespace renga::model

#endif  // RENGA_MODEL_TOKENIZER_H_
