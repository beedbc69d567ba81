#include "model/testing/synthetic_vocabulary.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace renga::model {
namespace {

constexpr absl::string_view kSpace = "\u2581";

// 0: "a", 25: "z", 26: "aa", 27: "ab" ...: every word's prefix is a word too, so that merging
// pairs can reach all of them.
std::string Word(int64_t number) {
  std::string word;
  for (int64_t rest = number + 1; rest > 0; rest = (rest - 1) / 26) {
    word.push_back(static_cast<char>('a' + (rest - 1) % 26));
  }
  std::reverse(word.begin(), word.end());
  return word;
}

// GGUF's token types.
constexpr int64_t kNormal = 1;
constexpr int64_t kUnknown = 2;
constexpr int64_t kControl = 3;
constexpr int64_t kByte = 6;

}  // namespace

void SetSyntheticVocabulary(int64_t size, GgufMetadata& metadata) {
  std::vector<std::string> tokens;
  std::vector<double> scores;
  std::vector<int64_t> types;
  const auto add = [&](std::string token, double score, int64_t type) {
    tokens.push_back(std::move(token));
    scores.push_back(score);
    types.push_back(type);
  };
  add("<unk>", 0, kUnknown);
  add("<s>", 0, kControl);
  add("</s>", 0, kControl);
  for (int byte = 0; byte < 256; ++byte) add(absl::StrFormat("<0x%02X>", byte), 0, kByte);
  for (int64_t i = 0; static_cast<int64_t>(tokens.size()) < size; ++i) {
    // Earlier pieces have higher scores and so merge first.
    const double score = static_cast<double>(-i);
    if (i == 0) {
      add(std::string(kSpace), score, kNormal);
    } else {
      const std::string word = Word((i - 1) / 2);
      add(i % 2 == 1 ? word : absl::StrCat(kSpace, word), score, kNormal);
    }
  }
  metadata.Set("tokenizer.ggml.model", std::string("llama"));
  metadata.Set("tokenizer.ggml.pre", std::string("default"));
  metadata.Set("tokenizer.ggml.tokens", GgufArray(std::move(tokens)));
  metadata.Set("tokenizer.ggml.scores", GgufArray(std::move(scores)));
  metadata.Set("tokenizer.ggml.token_type", GgufArray(std::move(types)));
  metadata.Set("tokenizer.ggml.bos_token_id", uint64_t{1});
  metadata.Set("tokenizer.ggml.eos_token_id", uint64_t{2});
  metadata.Set("tokenizer.ggml.unknown_token_id", uint64_t{0});
  metadata.Set("tokenizer.ggml.add_bos_token", true);
  metadata.Set("tokenizer.ggml.add_eos_token", false);
}

}  // namespace renga::model
