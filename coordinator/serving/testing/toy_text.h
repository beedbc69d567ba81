// A vocabulary and a chat template for tests, small enough to work out by hand.
#ifndef RENGA_COORDINATOR_SERVING_TESTING_TOY_TEXT_H_
#define RENGA_COORDINATOR_SERVING_TESTING_TOY_TEXT_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "model/chat_template.h"
#include "model/tokenizer.h"

namespace renga::serving {

// Ids 0 and 1 are "<s>" (BOS) and "</s>" (EOS), 2 to 96 the printable characters of ASCII in order,
// 97 is a line feed, 98 and 99 the two bytes of "é", the others words of two letters.
class ToyTokenizer : public model::Tokenizer {
 public:
  static constexpr int64_t kVocabSize = 128;

  absl::StatusOr<std::vector<model::TokenId>> Encode(
      absl::string_view text, const model::EncodeOptions& options) const override;
  std::string Piece(model::TokenId id) const override;
  int64_t vocab_size() const override { return kVocabSize; }
  bool strips_leading_space() const override { return true; }
  std::optional<model::TokenId> bos() const override { return 0; }
  std::optional<model::TokenId> eos() const override { return 1; }
  bool adds_bos() const override { return true; }
  bool IsEndOfGeneration(model::TokenId id) const override { return id == 1; }
  bool IsControl(model::TokenId id) const override { return id < 2; }
};

// "<s>user:CONTENT</s>assistant:"; kInvalidArgument for a role other than the three.
class ToyChatTemplate : public model::ChatTemplate {
 public:
  absl::StatusOr<std::string> Render(
      const std::vector<model::ChatMessage>& messages) const override;
};

}  // namespace renga::serving

#endif  // RENGA_COORDINATOR_SERVING_TESTING_TOY_TEXT_H_
