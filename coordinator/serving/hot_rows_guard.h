// When a few hot rows of the vocabulary do not do for a text.
#ifndef RENGA_COORDINATOR_SERVING_HOT_ROWS_GUARD_H_
#define RENGA_COORDINATOR_SERVING_HOT_ROWS_GUARD_H_

#include <cstdint>
#include <span>

#include "model/approximation.h"
#include "model/tokenizer.h"

namespace renga::serving {

// Tokens at the end of a prompt that are looked at.
inline constexpr int64_t kGuardTokens = 256;
// Of these, the largest share that may be outside the hot rows. With the first quarter of the
// vocabulary hot, English prose has 9% (SmolLM2) and 12% (Gemma 3) outside, Japanese 27% and 74%
// (the texts of `renga perplexity`).
inline constexpr double kMostColdTokens = 0.25;

// Whether a request with this prompt is answered from all rows. It is decided once, by the prompt
// alone: guesses, batches and replays change nothing.
bool NeedsAllRows(std::span<const model::TokenId> prompt, const model::RowSet& hot);

}  // namespace renga::serving

#endif  // RENGA_COORDINATOR_SERVING_HOT_ROWS_GUARD_H_
