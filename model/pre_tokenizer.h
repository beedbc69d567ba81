// How byte-level BPE vocabularies split text into words before merging: the published pattern of
// each model family, written as a scanner instead of a regular expression, in linear time.
#ifndef RENGA_MODEL_PRE_TOKENIZER_H_
#define RENGA_MODEL_PRE_TOKENIZER_H_

#include <cstddef>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace renga::model {

enum class SplitPattern {
  kGpt2,    // contractions; letters, numbers or other with a space in front; white space
  kLlama3,  // as GPT-2's, but numbers in groups of three and line ends apart from other space
  kQwen2,   // Llama 3's with every number character on its own
  kSmolLm,  // every number character apart, then GPT-2's on what lies between
};

// What a vocabulary's tokenizer.ggml.pre stands for.
struct PreTokenizer {
  SplitPattern pattern = SplitPattern::kGpt2;
  bool compose_nfc = false;    // the text is brought to NFC first
  bool ignore_merges = false;  // a word that is a token is that token, whatever the merges say
  bool adds_bos = false;       // when the metadata doesn't say
};

// nullopt is a vocabulary without the key, as old GPT-NeoX files are. kUnimplemented names one
// that isn't known.
absl::StatusOr<PreTokenizer> FindPreTokenizer(const std::optional<std::string>& name);

// Walks the words of a text that went through RepairUtf8; together they are the text.
class WordSplitter {
 public:
  // `text` must outlive this.
  WordSplitter(SplitPattern pattern, absl::string_view text) : pattern_(pattern), text_(text) {}

  // False at the end. Words are never empty.
  bool Next(absl::string_view* word);

 private:
  size_t WordEnd();

  const SplitPattern pattern_;
  const absl::string_view text_;
  size_t position_ = 0;
  size_t segment_end_ = 0;  // kSmolLm: where the next number character is
};

}  // namespace renga::model

#endif  // RENGA_MODEL_PRE_TOKENIZER_H_
