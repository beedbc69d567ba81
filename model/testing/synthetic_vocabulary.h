// A complete small SentencePiece-style vocabulary of any size. For tests and benchmarks only.
#ifndef RENGA_MODEL_TESTING_SYNTHETIC_VOCABULARY_H_
#define RENGA_MODEL_TESTING_SYNTHETIC_VOCABULARY_H_

#include <cstdint>

#include "model/gguf_file.h"

namespace renga::model {

// Sets the tokenizer.ggml keys: <unk>, <s>, </s>, the 256 byte tokens, then lower-case words with
// and without a space in front, shortest first. `size` >= 260.
void SetSyntheticVocabulary(int64_t size, GgufMetadata& metadata);

}  // namespace renga::model

#endif  // RENGA_MODEL_TESTING_SYNTHETIC_VOCABULARY_H_
