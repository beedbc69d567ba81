// Tokens to the text that a user sees: whole characters only, and nothing of a stop string.
#ifndef RENGA_COORDINATOR_SERVING_TEXT_STREAM_H_
#define RENGA_COORDINATOR_SERVING_TEXT_STREAM_H_

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "model/tokenizer.h"

namespace renga::serving {

// Finds stop strings in text that comes in pieces. What may be the beginning of a stop string is
// held back until more is known.
class StopFilter {
 public:
  // Empty stop strings are ignored.
  explicit StopFilter(std::vector<std::string> stops);

  // The text that is certain to come before any stop string. Nothing once stopped().
  std::string Add(absl::string_view text);
  // What was held back: the text ended before it could become a stop string.
  std::string Finish();
  // A stop string was completed; it and what followed are dropped.
  bool stopped() const { return stopped_; }

 private:
  size_t HeldLength() const;

  std::vector<std::string> stops_;
  std::string held_;
  bool stopped_ = false;
};

// Not thread-safe.
class TextStream {
 public:
  // `tokenizer` outlives this. With `at_text_start` the prefix space of the vocabulary is dropped.
  TextStream(const model::Tokenizer* tokenizer, bool at_text_start, std::vector<std::string> stops)
      : detokenizer_(tokenizer, at_text_start), filter_(std::move(stops)) {}

  std::string Add(model::TokenId id) { return filter_.Add(detokenizer_.Add(id)); }
  std::string Finish() {
    std::string text = filter_.Add(detokenizer_.Finish());
    return text + filter_.Finish();
  }
  bool stopped() const { return filter_.stopped(); }

 private:
  model::StreamDetokenizer detokenizer_;
  StopFilter filter_;
};

}  // namespace renga::serving

#endif  // RENGA_COORDINATOR_SERVING_TEXT_STREAM_H_
