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

std::optional<PlannedStep> Batcher::NextStep(int64_t decode_steps_in_flight, int64_t prefill_chunk,
                                             absl::Time now) {
  ++plan_number_;
  PlannedStep planned;
  Room room{limits_.max_step_tokens, limits_.max_step_outputs, limits_.max_full_rows};
  if (limits_.optimistic) AddEarly(room, planned);
  // Steps whose near rows have answered keep no stage busy, so their number says nothing.
  if (limits_.optimistic || decode_steps_in_flight < limits_.stage_count) {
    AddDecodes(now, room, planned);
  }
  Admit();
  const bool alone = limits_.stage_count == 1 && decoding() == 0;
  AddPrefills(alone ? limits_.max_step_tokens : prefill_chunk, room, planned);
  if (planned.step.slots.empty()) AddFrame(decode_steps_in_flight, now, room, planned);
  if (planned.step.slots.empty()) return std::nullopt;
  planned.step.commands = std::exchange(commands_, {});
  return planned;
}

bool Batcher::CanAdmit() const {
  if (waiting_.empty() || running() >= limits_.max_running) return false;
  const auto needed = BlocksFor(static_cast<int64_t>(waiting_.front()->tokens.size()));
  return needed + running() <= blocks_.free_blocks();
}

void Batcher::Admit() {
  while (CanAdmit()) {
    Sequence* sequence = waiting_.front();
    const model::SequenceId run = ++last_run_;
    absl::StatusOr<model::KvCommand> command =
        blocks_.Append(run, BlocksFor(static_cast<int64_t>(sequence->tokens.size())));
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

void Batcher::AddDecodes(absl::Time now, Room& room, PlannedStep& planned) {
  const std::vector<Sequence*> decodes = ChooseDecodes(room);
  const std::vector<int64_t> drafts = ChooseDrafts(decodes, now, room);
  for (size_t i = 0; i < decodes.size(); ++i) {
    AddSlot(decodes[i], 1 + drafts[i], 1 + drafts[i], planned);
  }
  planned.decodes = planned.decodes || !decodes.empty();
}

std::vector<Sequence*> Batcher::ChooseDecodes(Room& room) {
  const int64_t group = (decoding() + limits_.stage_count - 1) / limits_.stage_count;
  std::vector<Sequence*> chosen;
  for (Sequence* sequence : Ready(/*decoding=*/true)) {
    if (static_cast<int64_t>(chosen.size()) == group || room.tokens == 0) break;
    // One that was served a moment ago may have been sent back to wait for the sake of another.
    if (sequence->run == 0 || OutputRoom(*sequence, room) == 0) continue;
    if (!GrowForNextToken(sequence)) continue;
    TakeOutputs(*sequence, 1, room);
    room.tokens -= 1;
    sequence->last_served = plan_number_;
    chosen.push_back(sequence);
  }
  return chosen;
}

std::vector<int64_t> Batcher::ChooseDrafts(const std::vector<Sequence*>& decodes, absl::Time now,
                                           Room& room) {
  std::vector<int64_t> lengths(decodes.size(), 0);
  if (decodes.empty() || limits_.optimistic) return lengths;
  stream_ = {};
  const bool full_rows = std::any_of(decodes.begin(), decodes.end(), [&](const Sequence* sequence) {
    return sequence->head_top_k(limits_.vocab_size) == 0;
  });
  std::vector<std::vector<double>> chances(decodes.size());
  for (size_t i = 0; i < decodes.size(); ++i) {
    Speculation* speculation = decodes[i]->speculation.get();
    if (speculation == nullptr) continue;
    // Found ones also where none will be sent: that is how their acceptance is known.
    const int64_t computed =
        policy_.WorthComputing(speculation->ComputedChance(), speculation->guess_us(),
                               static_cast<int64_t>(decodes.size()), full_rows);
    Propose(*decodes[i], 0,
            {.found = kMaxDraftTokens, .computed = std::min(computed, decodes[i]->most_guesses())});
    chances[i] = speculation->Chances(decodes[i]->most_guesses());
  }
  if (CanAdmit() || !Ready(/*decoding=*/false).empty()) return lengths;
  lengths = policy_.Lengths(chances, full_rows, std::min(room.outputs, room.tokens));
  for (size_t i = 0; i < decodes.size(); ++i) {
    if (running() == 1 && waiting_.empty() && !full_rows) {
      lengths[i] = StartStream(decodes[i], lengths[i], now);
    }
    lengths[i] = std::min({lengths[i], OutputRoom(*decodes[i], room), room.tokens});
    lengths[i] = GrowForGuesses(decodes[i], decodes[i]->submitted + 1, lengths[i]);
    TakeOutputs(*decodes[i], lengths[i], room);
    room.tokens -= lengths[i];
  }
  return lengths;
}

int64_t Batcher::StartStream(Sequence* sequence, int64_t length, absl::Time now) {
  if (sequence->speculation == nullptr) return length;
  const std::vector<double> chances = sequence->speculation->Chances(sequence->most_guesses());
  const std::span<const Guess> guesses = sequence->speculation->guesses();
  const bool computed = !guesses.empty() && guesses.front().computed();
  const double guess_us = computed ? sequence->speculation->guess_us() : 0;
  const FrameStream frames = policy_.Stream(chances, guess_us, length, limits_.max_frames);
  if (frames.rows == 0) return length;
  stream_ = {sequence->run, frames, now + frames.interval};
  return std::min(frames.rows - 1, static_cast<int64_t>(chances.size()));
}

void Batcher::AddFrame(int64_t decode_steps_in_flight, absl::Time now, Room& room,
                       PlannedStep& planned) {
  if (!streaming() || now < stream_.next) return;
  Sequence* sequence = FindRun(stream_.run);
  if (sequence == nullptr || sequence->remaining() > 0 || running() > 1 || !waiting_.empty()) {
    stream_ = {};
    return;
  }
  if (decode_steps_in_flight >= stream_.frames.frames) return;
  const int64_t sent = -sequence->remaining();
  int64_t count = std::min({stream_.frames.rows, sequence->most_guesses() - sent, room.tokens,
                            OutputRoom(*sequence, room)});
  count = std::max<int64_t>(0, count);
  Propose(*sequence, sent, {.found = count, .computed = count});
  count = static_cast<int64_t>(sequence->speculation->guesses().size()) - sent;
  count = GrowForGuesses(sequence, sequence->submitted, count);
  if (count <= 0) return;
  AddSlot(sequence, count, count, planned);
  planned.decodes = true;
  stream_.next = now + stream_.frames.interval;
}

void Batcher::AddEarly(Room& room, PlannedStep& planned) {
  for (Sequence* sequence : running_) {
    if (sequence->speculation == nullptr) continue;
    const int64_t sent = -sequence->remaining();
    const auto known = static_cast<int64_t>(sequence->speculation->guesses().size());
    if (sent < 0 || known != sent + 1 || sent >= sequence->most_guesses()) continue;
    if (sent >= limits_.max_frames || room.tokens == 0) continue;
    if (AllowedGuesses(*sequence) <= static_cast<size_t>(sent)) continue;
    if (OutputRoom(*sequence, room) == 0) continue;
    if (GrowForGuesses(sequence, sequence->submitted, 1) == 0) continue;
    TakeOutputs(*sequence, 1, room);
    room.tokens -= 1;
    AddSlot(sequence, 1, 1, planned);
    planned.decodes = true;
  }
}

bool Batcher::Settle(Sequence* sequence) {
  // Positions that were sent beyond the newest token's predecessor: guesses for its place and on.
  const int64_t known = static_cast<int64_t>(sequence->tokens.size()) - 1;
  const bool guessed = sequence->submitted > known;
  const bool right =
      sequence->speculation != nullptr && sequence->speculation->Confirm(sequence->tokens.back());
  if (!guessed) return false;
  if (right) return true;
  ++sequence->forks;
  ++sequence->counts.refuted;
  sequence->submitted = known;
  absl::StatusOr<model::KvCommand> command = blocks_.Truncate(sequence->run, known);
  if (command.ok()) {
    commands_.push_back(*std::move(command));
  } else {
    // The journal is always a way out.
    EndRun(sequence);
    waiting_.push_front(sequence);
  }
  return false;
}

void Batcher::AddPrefills(int64_t chunk, Room& room, PlannedStep& planned) {
  for (Sequence* sequence : Ready(/*decoding=*/false)) {
    const int64_t own = sequence->chunk_tokens();
    const int64_t wanted = std::min(chunk, own > 0 ? own : limits_.max_step_tokens);
    chunk -= AddPrompt(sequence, wanted, room, planned);
    if (chunk <= 0) return;
  }
}

int64_t Batcher::AddPrompt(Sequence* sequence, int64_t count, Room& room, PlannedStep& planned) {
  const int64_t begin = sequence->submitted;
  count = std::min({count, sequence->remaining(), room.tokens});
  // The outputs are the slot's last tokens: with less room for them, those are left for later.
  const auto outputs = [&] {
    return std::max<int64_t>(0, begin + count - std::max(begin, sequence->first_output()));
  };
  count -= std::max<int64_t>(0, outputs() - OutputRoom(*sequence, room));
  if (count <= 0) return 0;
  const int64_t output_count = outputs();
  room.tokens -= count;
  TakeOutputs(*sequence, output_count, room);
  AddSlot(sequence, count, output_count, planned);
  // A draft model reads the prompt at the same time.
  if (sequence->speculation != nullptr && !limits_.optimistic) {
    sequence->speculation->Propose(sequence->tokens, 0, {});
  }
  sequence->last_served = plan_number_;
  planned.prompts = true;
  return count;
}

void Batcher::Propose(Sequence& sequence, int64_t sent, const GuessLimits& limits) {
  sequence.speculation->Propose(sequence.tokens, sent, limits);
  sequence.speculation->Keep(AllowedGuesses(sequence));
}

size_t Batcher::AllowedGuesses(Sequence& sequence) {
  const std::span<const Guess> guesses = sequence.speculation->guesses();
  if (sequence.grammar == nullptr) return guesses.size();
  grammar::GrammarWalk::Place place = sequence.grammar->place();
  size_t allowed = 0;
  for (; allowed < guesses.size(); ++allowed) {
    place = sequence.grammar->Next(place, guesses[allowed].token);
    if (!sequence.grammar->GoesOn(place)) break;
  }
  return allowed;
}

std::vector<std::shared_ptr<const model::TokenMask>> Batcher::Allowed(Sequence& sequence,
                                                                      int64_t count,
                                                                      int64_t output_count) {
  std::vector<std::shared_ptr<const model::TokenMask>> allowed;
  if (sequence.grammar == nullptr || output_count == 0) return allowed;
  // An output says what comes after its token. Those before the last known one are not asked for.
  const int64_t guesses = sequence.submitted + count - static_cast<int64_t>(sequence.tokens.size());
  grammar::GrammarWalk::Place place = sequence.grammar->place();
  for (int64_t guess = 0; guess <= guesses; ++guess) {
    if (guess > guesses - output_count) allowed.push_back(sequence.grammar->Allowed(place));
    if (guess == guesses) break;
    place = sequence.grammar->Next(
        place, sequence.speculation->guesses()[static_cast<size_t>(guess)].token);
  }
  return allowed;
}

void Batcher::AddSlot(Sequence* sequence, int64_t count, int64_t output_count,
                      PlannedStep& planned) {
  const int64_t top_k = output_count == 0 ? 0 : sequence->head_top_k(limits_.vocab_size);
  planned.step.slots.push_back({.sequence = sequence->run,
                                .first_position = sequence->submitted,
                                .token_count = count,
                                .output_count = output_count,
                                .top_k = top_k,
                                .sum_wanted = sequence->sum_wanted(),
                                .within = output_count == 0 ? 0 : sequence->head_within(),
                                .draw_temperature = output_count == 0 ? 0 : sequence->head_draw(),
                                .draw_seed = sequence->seed(),
                                .all_rows = sequence->all_rows,
                                .allowed = Allowed(*sequence, count, output_count)});
  planned.forks.push_back(sequence->forks);
  const auto known = static_cast<int64_t>(sequence->tokens.size());
  for (int64_t i = sequence->submitted; i < sequence->submitted + count; ++i) {
    planned.tokens.push_back(i < known ? sequence->tokens[i]
                                       : sequence->speculation->guesses()[i - known].token);
  }
  const int64_t guesses =
      std::max<int64_t>(0, sequence->submitted + count - std::max(sequence->submitted, known));
  sequence->submitted += count;
  sequence->counts.drafted += guesses;
  planned.drafted += guesses;
}

int64_t Batcher::OutputRoom(const Sequence& sequence, const Room& room) const {
  const bool full = sequence.head_top_k(limits_.vocab_size) == 0;
  return full ? std::min(room.outputs, room.full_rows) : room.outputs;
}

void Batcher::TakeOutputs(const Sequence& sequence, int64_t count, Room& room) const {
  room.outputs -= count;
  if (sequence.head_top_k(limits_.vocab_size) == 0) room.full_rows -= count;
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

int64_t Batcher::GrowForGuesses(Sequence* sequence, int64_t positions, int64_t count) {
  count = std::max<int64_t>(0, count);
  int64_t held = blocks_.BlocksOf(sequence->run);
  while (BlocksFor(positions + count) > held && blocks_.free_blocks() > running()) {
    absl::StatusOr<model::KvCommand> command = blocks_.Append(sequence->run, 1);
    if (!command.ok()) break;
    commands_.push_back(*std::move(command));
    ++held;
  }
  return std::clamp<int64_t>(held * model::kKvBlockTokens - positions, 0, count);
}

void Batcher::EndRun(Sequence* sequence) {
  absl::StatusOr<model::KvCommand> command = blocks_.Free(sequence->run);
  if (command.ok()) commands_.push_back(*std::move(command));
  std::erase(running_, sequence);
  sequence->run = 0;
  sequence->submitted = 0;
  if (sequence->speculation != nullptr) sequence->speculation->Clear();
}

}  // namespace renga::serving
