#include "model/tokenizer.h"

#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "model/bpe_tokenizer.h"
#include "model/spm_tokenizer.h"
#include "model/vocabulary.h"

namespace renga::model {

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::Create(const GgufMetadata& metadata) {
  RENGA_ASSIGN_OR_RETURN(const std::optional<std::string> kind,
                         metadata.GetString("tokenizer.ggml.model"));
  if (!kind.has_value()) {
    return absl::DataLossError("the file has no tokenizer (tokenizer.ggml.model)");
  }
  const std::string& name = *kind;
  const bool sentence_piece = absl::string_view(name) == "llama";
  if (!sentence_piece && absl::string_view(name) != "gpt2") {
    return absl::UnimplementedError(
        absl::StrCat("the tokenizer kind \"", name.substr(0, 64),
                     "\" (tokenizer.ggml.model) is not known; known are llama, gpt2"));
  }
  RENGA_ASSIGN_OR_RETURN(Vocabulary vocabulary, Vocabulary::Read(metadata));
  if (sentence_piece) return SpmTokenizer::Create(metadata, std::move(vocabulary));
  return BpeTokenizer::Create(metadata, std::move(vocabulary));
}

}  // namespace renga::model
