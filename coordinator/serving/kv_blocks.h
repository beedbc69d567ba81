// Which KV block belongs to which sequence: the coordinator's side of the bookkeeping that every
// stage repeats when it carries out the commands (model/step.h).
//
// Each call that succeeds returns the command that makes the stages do the same. Commands must
// reach the stages in the order of the calls; then a block freed by one call may be handed out by
// the next, even while older steps are still in flight.
#ifndef RENGA_COORDINATOR_SERVING_KV_BLOCKS_H_
#define RENGA_COORDINATOR_SERVING_KV_BLOCKS_H_

#include <cstdint>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "model/step.h"

namespace renga::serving {

// Blocks that hold `tokens` positions.
int64_t BlocksFor(int64_t tokens);

// Not thread-safe.
class KvBlocks {
 public:
  explicit KvBlocks(int64_t block_count);

  // `count` free blocks join the end of the sequence's table. kResourceExhausted, with nothing
  // changed, when there are not as many.
  absl::StatusOr<model::KvCommand> Append(model::SequenceId sequence, int64_t count);

  // The sequence keeps the blocks of its first `tokens` positions. kInvalidArgument when it has
  // fewer; kFailedPrecondition when the last one kept would be partly filled and another sequence
  // shares it: the next append would write into both.
  absl::StatusOr<model::KvCommand> Truncate(model::SequenceId sequence, int64_t tokens);

  // `sequence`, which must be new, begins with `source`'s first `tokens` positions: whole blocks.
  absl::StatusOr<model::KvCommand> Share(model::SequenceId sequence, model::SequenceId source,
                                         int64_t tokens);

  // The sequence ends.
  absl::StatusOr<model::KvCommand> Free(model::SequenceId sequence);

  int64_t free_blocks() const { return static_cast<int64_t>(free_.size()); }
  int64_t block_count() const { return static_cast<int64_t>(users_.size()); }
  // Blocks in the sequence's table; 0 when unknown.
  int64_t BlocksOf(model::SequenceId sequence) const;

 private:
  void Release(int32_t block);

  std::vector<int32_t> users_;  // per block: how many tables it is in
  std::vector<int32_t> free_;   // taken from the back
  absl::flat_hash_map<model::SequenceId, std::vector<int32_t>> tables_;
};

}  // namespace renga::serving

#endif  // RENGA_COORDINATOR_SERVING_KV_BLOCKS_H_
