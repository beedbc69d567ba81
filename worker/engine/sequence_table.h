// Which KV blocks belong to which sequence on one stage: pure bookkeeping, no KV data.
//
// The coordinator numbers the blocks and sends every change as a KvCommand; the table only carries
// them out and refuses what would corrupt state: a block given to two sequences, a position
// skipped or repeated, a write into a block that another sequence shares.
#ifndef RENGA_WORKER_ENGINE_SEQUENCE_TABLE_H_
#define RENGA_WORKER_ENGINE_SEQUENCE_TABLE_H_

#include <cstdint>
#include <span>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "model/shard_spec.h"
#include "model/step.h"

namespace renga::engine {

// Bounds on what a stage keeps and reads, whatever a peer sends.
inline constexpr int64_t kMaxSequences = 1 << 16;
inline constexpr int64_t kMaxCommandsPerStep = 1 << 16;

// Checks the sizes of a step's slots against the limits: at least one token in each, no more
// outputs than tokens, sums within max_step_tokens and max_step_outputs. After it is OK,
// Step::token_count() and output_count() cannot overflow. kInvalidArgument says which is wrong.
absl::Status CheckStepSize(const model::Step& step, const model::RuntimeLimits& limits);

// Not thread-safe.
class SequenceTable {
 public:
  struct Sequence {
    int64_t length = 0;           // positions whose keys and values are stored
    std::vector<int32_t> blocks;  // of kKvBlockTokens positions each, in order of position
  };

  // Blocks are numbered [0, limits.kv_blocks).
  explicit SequenceTable(const model::RuntimeLimits& limits);

  // Carries out the step's commands in order, then lets each slot's sequence grow by its tokens.
  // All or nothing: kInvalidArgument leaves the table as it was.
  absl::Status Apply(const model::Step& step);

  // nullptr when unknown. Valid until the next Apply or Reset.
  const Sequence* Find(model::SequenceId id) const;

  // Forgets every sequence.
  void Reset();

  int64_t sequence_count() const { return static_cast<int64_t>(sequences_.size()); }
  int64_t free_block_count() const;
  // How many sequences hold `block`.
  int32_t reference_count(int32_t block) const { return references_[block]; }

 private:
  class Draft;

  const model::RuntimeLimits limits_;
  absl::flat_hash_map<model::SequenceId, Sequence> sequences_;
  std::vector<int32_t> references_;  // per block
};

}  // namespace renga::engine

#endif  // RENGA_WORKER_ENGINE_SEQUENCE_TABLE_H_
