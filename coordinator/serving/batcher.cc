#include "coordinator/serving/batcher.h"

#include <algorithm>
#include <utility>

namespace renga::serving {

void Batcher::Remove(Sequence* sequence) {
  if (sequence->run != 0) {
    EndRun(sequence);
  } else {
    std::erase(waiting_, sequence);
  }
}

Sequence* Batcher::FindRun(model::SequenceId run) const {
  for (Sequence* sequence : running_) {
    if (sequence->run == run) return sequence;
  }
  return nullptr;
}

int64_t Batcher::decoding() const {
  return std::count_if(running_.begin(), running_.end(),
                       [](const Sequence* sequence) { return sequence->decoding(); });
}

std::optional<PlannedStep> Batcher::NextStep(int64_t decode_steps_in_flight,
                                             int64_t prefill_chunk) {
  ++plan_number_;
  PlannedStep planned;
  Room room{limits_.max_step_tokens, limits_.max_step_outputs, limits_.max_full_rows};
  if (decode_steps_in_flight < limits_.stage_count) AddDecodes(room, planned);
  Admit();
  const bool alone = limits_.stage_count == 1 && decoding() == 0;
  AddPrefills(alone ? limits_.max_step_tokens : prefill_chunk, room, planned);
  if (planned.step.slots.empty()) return std::nullopt;
  planned.step.commands = std::exchange(commands_, {});
  return planned;
}

void Batcher::Admit() {
  while (!waiting_.empty() && running() < limits_.max_running) {
    Sequence* sequence = waiting_.front();
    const int64_t needed = BlocksFor(static_cast<int64_t>(sequence->tokens.size()));
    if (needed + running() > blocks_.free_blocks()) return;
    const model::SequenceId run = ++last_run_;
    absl::StatusOr<model::KvCommand> command = blocks_.Append(run, needed);
    if (!command.ok()) return;
    commands_.push_back(*std::move(command));
    sequence->run = run;
    sequence->submitted = 0;
    waiting_.pop_front();
    running_.push_back(sequence);
  }
}

std::vector<Sequence*> Batcher::Ready(bool decoding) const {
  std::vector<Sequence*> ready;
  for (Sequence* sequence : running_) {
    if (sequence->remaining() > 0 && sequence->decoding() == decoding) ready.push_back(sequence);
  }
  std::stable_sort(ready.begin(), ready.end(), [](const Sequence* a, const Sequence* b) {
    return a->last_served < b->last_served;
  });
  return ready;
}

void Batcher::AddDecodes(Room& room, PlannedStep& planned) {
  const int64_t group = (decoding() + limits_.stage_count - 1) / limits_.stage_count;
  for (Sequence* sequence : Ready(/*decoding=*/true)) {
    if (static_cast<int64_t>(planned.step.slots.size()) == group) return;
    // One that was served a moment ago may have been sent back to wait for the sake of another.
    if (sequence->run == 0 || !GrowForNextToken(sequence)) continue;
    if (AddSlot(sequence, 1, room, planned) > 0) planned.decodes = true;
  }
}

void Batcher::AddPrefills(int64_t chunk, Room& room, PlannedStep& planned) {
  for (Sequence* sequence : Ready(/*decoding=*/false)) {
    const int64_t own = sequence->chunk_tokens();
    const int64_t wanted = std::min(chunk, own > 0 ? own : limits_.max_step_tokens);
    chunk -= AddSlot(sequence, wanted, room, planned);
    if (chunk <= 0) return;
  }
}

int64_t Batcher::AddSlot(Sequence* sequence, int64_t count, Room& room, PlannedStep& planned) {
  const int64_t begin = sequence->submitted;
  const int64_t top_k = sequence->head_top_k(limits_.vocab_size);
  count = std::min({count, sequence->remaining(), room.tokens});
  // The outputs are the slot's last tokens: with less room for them, those are left for later.
  const auto outputs = [&] {
    return std::max<int64_t>(0, begin + count - std::max(begin, sequence->first_output()));
  };
  const int64_t output_room = top_k == 0 ? std::min(room.outputs, room.full_rows) : room.outputs;
  count -= std::max<int64_t>(0, outputs() - output_room);
  if (count <= 0) return 0;

  const int64_t output_count = outputs();
  room.tokens -= count;
  room.outputs -= output_count;
  if (top_k == 0) room.full_rows -= output_count;
  planned.step.slots.push_back({.sequence = sequence->run,
                                .first_position = begin,
                                .token_count = count,
                                .output_count = output_count,
                                .top_k = output_count == 0 ? 0 : top_k});
  planned.tokens.insert(planned.tokens.end(), sequence->tokens.begin() + begin,
                        sequence->tokens.begin() + begin + count);
  sequence->submitted += count;
  sequence->last_served = plan_number_;
  return count;
}

bool Batcher::GrowForNextToken(Sequence* sequence) {
  if (BlocksFor(sequence->submitted + 1) <= blocks_.BlocksOf(sequence->run)) return true;
  while (blocks_.free_blocks() == 0) {
    // A sequence that has a slot in this very step can't be sent back: commands come before slots.
    const auto youngest = std::find_if(running_.rbegin(), running_.rend(), [&](Sequence* other) {
      return other == sequence || other->last_served != plan_number_;
    });
    Sequence* victim = *youngest;
    EndRun(victim);
    waiting_.push_front(victim);
    ++preemptions_;
    if (victim == sequence) return false;
  }
  absl::StatusOr<model::KvCommand> command = blocks_.Append(sequence->run, 1);
  if (!command.ok()) return false;
  commands_.push_back(*std::move(command));
  return true;
}

void Batcher::EndRun(Sequence* sequence) {
  absl::StatusOr<model::KvCommand> command = blocks_.Free(sequence->run);
  if (command.ok()) commands_.push_back(*std::move(command));
  std::erase(running_, sequence);
  sequence->run = 0;
  sequence->submitted = 0;
}

}  // namespace renga::serving
