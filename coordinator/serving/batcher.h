// Decides what the next step is: which sequences are on the stages, and which of them compute how
// many tokens. Continuous batching: sequences come and go between any two steps.
//
// Rules, in this order:
//   - Waiting sequences are let in as they came, once there are KV blocks for all tokens they have
//     and one to spare for each sequence that is already in.
//   - Answers first: every sequence that has a token to compute gets it, in groups of such a size
//     that each stage has one group, so that all stages are busy and none reads its weights twice.
//   - Guesses of what an answer says next (speculation_policy.h) go with it where they are
//   predicted
//     to pay. They yield to everything else: to prompts, to other answers, and to KV blocks that
//     others may need.
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
#include "coordinator/serving/speculation_policy.h"
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
  int64_t max_frames = 1;   // steps of one answer under way at once
  bool optimistic = false;  // guesses come with early answers, one at a time, and go at once
};

struct PlannedStep {
  model::Step step;
  std::vector<TokenId> tokens;  // of all slots, in order
  std::vector<uint64_t> forks;  // per slot: the sequence's, when it was planned
  int64_t drafted = 0;          // of the tokens, those that are guesses
  bool decodes = false;         // some slot is a token of an answer
  bool prompts = false;         // some slot is a part of a prompt (or of a replay)
};

// Not thread-safe. Sequences outlive their stay: Remove before destroying one.
class Batcher {
 public:
  Batcher(const BatchLimits& limits, SpeculationMode mode)
      : limits_(limits), policy_(mode), blocks_(limits.kv_blocks) {}

  void Enqueue(Sequence* sequence) { waiting_.push_back(sequence); }
  // The sequence ended; its blocks are freed by the next step.
  void Remove(Sequence* sequence);
  // The sequence whose present stay has this id, or nullptr.
  Sequence* FindRun(model::SequenceId run) const;

  // The next step, or nullopt when no sequence can compute anything now. `prefill_chunk` >= 1.
  // Steps in flight whose rows are void do not count.
  std::optional<PlannedStep> NextStep(int64_t decode_steps_in_flight, int64_t prefill_chunk,
                                      absl::Time now);
  // The sequence's newest token was drawn from a row of a step. True when the stages already have
  // it, guessed: then the step's next row, if it has one, counts. Otherwise rows that are under way
  // are void, and the stages take back what they have beyond that token with the next step.
  bool Settle(Sequence* sequence);

  // Whether frames of guesses are being streamed, and when the next one may be sent.
  bool streaming() const { return stream_.frames.rows > 0; }
  absl::Time next_frame() const { return streaming() ? stream_.next : absl::InfiniteFuture(); }
  SpeculationPolicy& policy() { return policy_; }

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

  // One sequence's frames.
  struct Stream {
    model::SequenceId run = 0;
    FrameStream frames;
    absl::Time next;
  };

  bool CanAdmit() const;
  void Admit();
  std::vector<Sequence*> Ready(bool decoding) const;
  void AddDecodes(absl::Time now, Room& room, PlannedStep& planned);
  // The answers that this step goes on with, a row of the room taken for each.
  std::vector<Sequence*> ChooseDecodes(Room& room);
  // How many guesses each of them takes along, room and blocks taken for them.
  std::vector<int64_t> ChooseDrafts(const std::vector<Sequence*>& decodes, absl::Time now,
                                    Room& room);
  // Begins to stream where that is better than `length` guesses at a time; returns how many guesses
  // go with the present step.
  int64_t StartStream(Sequence* sequence, int64_t length, absl::Time now);
  // The next frame of guesses alone, when it is time for one.
  void AddFrame(int64_t decode_steps_in_flight, absl::Time now, Room& room, PlannedStep& planned);
  // Answers go on with the guess that an early answer brought.
  void AddEarly(Room& room, PlannedStep& planned);
  void AddPrefills(int64_t chunk, Room& room, PlannedStep& planned);
  // Puts up to `count` tokens of a prompt into the step; returns how many found room.
  int64_t AddPrompt(Sequence* sequence, int64_t count, Room& room, PlannedStep& planned);
  // Has guesses made, as Speculation::Propose. Of them it drops from the first on that the
  // sequence's grammar does not go on with.
  static void Propose(Sequence& sequence, int64_t sent, const GuessLimits& limits);
  // How many of the first guesses the sequence's grammar goes on with.
  static size_t AllowedGuesses(Sequence& sequence);
  // For each output of such a slot what the sequence's grammar allows; empty without one.
  static std::vector<std::shared_ptr<const model::TokenMask>> Allowed(Sequence& sequence,
                                                                      int64_t count,
                                                                      int64_t output_count);
  // The sequence's next `count` positions, tokens and then guesses.
  void AddSlot(Sequence* sequence, int64_t count, int64_t output_count, PlannedStep& planned);
  // Rows that may still be added for an answer of the sequence.
  int64_t OutputRoom(const Sequence& sequence, const Room& room) const;
  void TakeOutputs(const Sequence& sequence, int64_t count, Room& room) const;
  // Makes sure the sequence has a block for its next token. False: it can't be in this step.
  bool GrowForNextToken(Sequence* sequence);
  // As many of `count` guesses after `positions` as have a block, new ones only from what nobody
  // else may need soon.
  int64_t GrowForGuesses(Sequence* sequence, int64_t positions, int64_t count);
  // Ends the sequence's stay on the stages.
  void EndRun(Sequence* sequence);

  const BatchLimits limits_;
  SpeculationPolicy policy_;
  Stream stream_;
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
