// Decides what the next step is: which sequences are on the stages, and which of them compute how
// many tokens. Continuous batching: sequences come and go between any two steps.
//
// Rules, in this order:
//   - Waiting sequences are let in as they came, once there are KV blocks for all tokens they have
//     and one to spare for each sequence that is already in.
//   - Answers first: every sequence that has a token to compute gets it, in groups of such a size
//     that each stage has one group, so that all stages are busy and none reads its weights twice.
//   - The rest of the step is prompt, at most `prefill_chunk` tokens of it while anyone's answer is
//     under way, taken in turns, so that a long prompt holds up neither answers nor short prompts.
//   - A sequence that needs a block when none is left makes the youngest one go back to waiting.
//   That
//     one is computed again later, from its journal. The oldest is never sent back, so there is
//     always one that gets to its end.
// Internal to serving/.
#ifndef RENGA_COORDINATOR_SERVING_BATCHER_H_
#define RENGA_COORDINATOR_SERVING_BATCHER_H_

#include <cstdint>
#include <deque>
#include <optional>
#include <vector>

#include "coordinator/serving/kv_blocks.h"
#include "coordinator/serving/sequence.h"
#include "model/step.h"

namespace renga::serving {

struct BatchLimits {
  int64_t kv_blocks = 0;
  int64_t max_step_tokens = 0;
  int64_t max_step_outputs = 0;
  int64_t max_full_rows = 0;  // output rows of a step that bring all logits
  int64_t vocab_size = 0;
  int64_t stage_count = 1;
  int64_t max_running = 0;  // sequences on the stages at once
};

struct PlannedStep {
  model::Step step;
  std::vector<TokenId> tokens;  // of all slots, in order
  bool decodes = false;         // some slot is a token of an answer
};

// Not thread-safe. Sequences outlive their stay: Remove before destroying one.
class Batcher {
 public:
  explicit Batcher(const BatchLimits& limits) : limits_(limits), blocks_(limits.kv_blocks) {}

  void Enqueue(Sequence* sequence) { waiting_.push_back(sequence); }
  // The sequence ended; its blocks are freed by the next step.
  void Remove(Sequence* sequence);
  // The sequence whose present stay has this id, or nullptr.
  Sequence* FindRun(model::SequenceId run) const;

  // The next step, or nullopt when no sequence can compute anything now. `prefill_chunk` >= 1.
  std::optional<PlannedStep> NextStep(int64_t decode_steps_in_flight, int64_t prefill_chunk);

  const KvBlocks& blocks() const { return blocks_; }
  int64_t waiting() const { return static_cast<int64_t>(waiting_.size()); }
  int64_t running() const { return static_cast<int64_t>(running_.size()); }
  int64_t decoding() const;
  // Times a sequence was sent back to wait.
  int64_t preemptions() const { return preemptions_; }

 private:
  // What is left of the step being planned.
  struct Room {
    int64_t tokens = 0;
    int64_t outputs = 0;
    int64_t full_rows = 0;
  };

  void Admit();
  std::vector<Sequence*> Ready(bool decoding) const;
  void AddDecodes(Room& room, PlannedStep& planned);
  void AddPrefills(int64_t chunk, Room& room, PlannedStep& planned);
  // Puts up to `count` tokens of the sequence into the step; returns how many found room.
  int64_t AddSlot(Sequence* sequence, int64_t count, Room& room, PlannedStep& planned);
  // Makes sure the sequence has a block for its next token. False: it can't be in this step.
  bool GrowForNextToken(Sequence* sequence);
  // Ends the sequence's stay on the stages.
  void EndRun(Sequence* sequence);

  const BatchLimits limits_;
  KvBlocks blocks_;
  std::vector<model::KvCommand> commands_;  // for the next step
  std::deque<Sequence*> waiting_;
  std::vector<Sequence*> running_;  // in the order they were let in
  model::SequenceId last_run_ = 0;
  uint64_t plan_number_ = 0;
  int64_t preemptions_ = 0;
};

}  // namespace renga::serving

#endif  // RENGA_COORDINATOR_SERVING_BATCHER_H_
