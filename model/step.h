// A step: one pass of a batch of sequences through the stages, and all a stage must do for it, in
// order. Stages keep no conversation logic; replaying a sequence's steps from its start rebuilds
// its state exactly.
//
// KV memory is paged: a block holds the keys and values of kKvBlockTokens consecutive positions
// of one sequence, for every layer of a stage. Blocks are numbered by the coordinator, the same
// number on every stage.
#ifndef RENGA_MODEL_STEP_H_
#define RENGA_MODEL_STEP_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "model/token_mask.h"

namespace renga::model {

using SequenceId = uint64_t;

inline constexpr int64_t kKvBlockTokens = 32;

// What happens to KV state before the step's slots are computed.
struct KvCommand {
  enum class Kind {
    kAppendBlocks,  // `blocks` join the end of the sequence's table (created when unknown)
    kTruncate,  // the sequence keeps its first `tokens` positions; whole blocks beyond are freed
    kShare,     // `sequence` (new) begins with `source`'s first `tokens` positions; whole
                // blocks only: tokens % kKvBlockTokens == 0
    kFree,      // the sequence ends; its blocks are freed where no other shares them
  };
  Kind kind = Kind::kFree;
  SequenceId sequence = 0;
  SequenceId source = 0;
  int64_t tokens = 0;
  std::vector<int32_t> blocks;
};

// Consecutive tokens of one sequence. `first_position` equals the positions the sequence already
// has: state is only appended to.
struct StepSlot {
  SequenceId sequence = 0;
  int64_t first_position = 0;
  int64_t token_count = 0;
  // The last `output_count` tokens go through the head (0 for all but the last prefill chunk).
  int64_t output_count = 0;
  // What the head answers for each output: the best `top_k` rows, or with top_k == 0 every logit.
  int64_t top_k = 0;
  // Without it, and with top_k > 0, a head need not know HeadRow::sum_exp: it may find the best
  // rows without looking at all of them.
  bool sum_wanted = true;
  // Above 0, with top_k == 0: only rows whose logits are no further than this from the best one are
  // wanted, and `ids` says which they are. A head block knows its own best alone, so it may answer
  // more than that.
  float within = 0;
  // Above 0: `within` counts from logits with the noise of a seeded draw, logit + temperature *
  // GumbelNoise(draw_seed, position).Of(id), the position being that of the token that comes next.
  double draw_temperature = 0;
  uint64_t draw_seed = 0;
  // Hot rows alone (Approximation::hot_rows) do not do for this sequence.
  bool all_rows = false;
  // For each output the tokens that may come next: a head answers as if it had only their rows,
  // unless it answers every logit. Fewer than top_k of them are all answered. Sums of exponentials
  // are of all rows as ever. Empty: any token may.
  std::vector<std::shared_ptr<const TokenMask>> allowed = {};

  // Of the output `index`; null: any token.
  const TokenMask* allowed_at(int64_t index) const {
    return allowed.empty() ? nullptr : allowed[static_cast<size_t>(index)].get();
  }
};

struct Step {
  uint64_t epoch = 0;
  uint64_t number = 0;  // 1, 2, 3 ... within the epoch
  std::vector<KvCommand> commands;
  std::vector<StepSlot> slots;

  // Rows of the step's activation matrix: the sum of token counts, slots in order.
  int64_t token_count() const {
    int64_t total = 0;
    for (const StepSlot& slot : slots) total += slot.token_count;
    return total;
  }
  int64_t output_count() const {
    int64_t total = 0;
    for (const StepSlot& slot : slots) total += slot.output_count;
    return total;
  }
};

// What a head block says of one output row. Ids are absolute vocabulary ids.
struct HeadRow {
  // Best first (ties: lower id first); empty when all logits are given, and when no row of the
  // block is allowed.
  std::vector<int32_t> ids;
  std::vector<float> logits;  // of `ids`, or of every row of the block
  // log(sum(exp(logit))) of the block's rows = max_logit + log(sum_exp). A sum of 0: not known, as
  // the slot did not want it.
  float max_logit = 0;
  double sum_exp = 0;
};

}  // namespace renga::model

#endif  // RENGA_MODEL_STEP_H_
