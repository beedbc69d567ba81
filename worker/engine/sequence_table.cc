#include "worker/engine/sequence_table.h"

#include <algorithm>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace renga::engine {
namespace {

using model::kKvBlockTokens;
using model::KvCommand;
using model::SequenceId;
using model::Step;
using model::StepSlot;

int64_t BlocksFor(int64_t tokens) { return (tokens + kKvBlockTokens - 1) / kKvBlockTokens; }

template <typename... Args>
absl::Status Bad(SequenceId sequence, const Args&... what) {
  return absl::InvalidArgumentError(absl::StrCat("sequence ", sequence, ": ", what...));
}

}  // namespace

absl::Status CheckStepSize(const Step& step, const model::RuntimeLimits& limits) {
  if (static_cast<int64_t>(step.commands.size()) > kMaxCommandsPerStep) {
    return absl::InvalidArgumentError(absl::StrCat("step has ", step.commands.size(),
                                                   " KV commands, at most ", kMaxCommandsPerStep,
                                                   " are allowed"));
  }
  int64_t tokens = 0;
  int64_t outputs = 0;
  for (const StepSlot& slot : step.slots) {
    if (slot.token_count < 1 || slot.token_count > limits.max_step_tokens - tokens) {
      return Bad(slot.sequence, "a slot of ", slot.token_count, " tokens after ", tokens,
                 " others does not fit a step of ", limits.max_step_tokens);
    }
    if (slot.output_count < 0 || slot.output_count > slot.token_count) {
      return Bad(slot.sequence, slot.output_count, " outputs of ", slot.token_count, " tokens");
    }
    if (slot.output_count > limits.max_step_outputs - outputs) {
      return Bad(slot.sequence, slot.output_count, " outputs after ", outputs,
                 " others do not fit a step of ", limits.max_step_outputs);
    }
    if (slot.top_k < 0) return Bad(slot.sequence, "top_k is ", slot.top_k);
    if (!slot.allowed.empty() && std::ssize(slot.allowed) != slot.output_count) {
      return Bad(slot.sequence, slot.allowed.size(), " sets of tokens for ", slot.output_count,
                 " outputs");
    }
    tokens += slot.token_count;
    outputs += slot.output_count;
  }
  return absl::OkStatus();
}

// The table as it would be after the step. Holds copies of the sequences that change and the
// differences in reference counts; nothing reaches the table before Commit.
class SequenceTable::Draft {
 public:
  explicit Draft(SequenceTable* table) : table_(table) {}

  absl::Status Run(const KvCommand& command) {
    switch (command.kind) {
      case KvCommand::Kind::kAppendBlocks:
        return Append(command);
      case KvCommand::Kind::kTruncate:
        return Truncate(command);
      case KvCommand::Kind::kShare:
        return Share(command);
      case KvCommand::Kind::kFree:
        return Free(command);
    }
    return Bad(command.sequence, "unknown KV command ", static_cast<int>(command.kind));
  }

  absl::Status Grow(const StepSlot& slot) {
    const Sequence* sequence = Find(slot.sequence);
    if (sequence == nullptr) return Bad(slot.sequence, "not known to this stage");
    if (!grown_.insert(slot.sequence).second) return Bad(slot.sequence, "two slots in one step");
    if (slot.first_position != sequence->length) {
      return Bad(slot.sequence, "slot begins at position ", slot.first_position, ", but ",
                 sequence->length, " positions are stored");
    }
    const int64_t end = slot.first_position + slot.token_count;
    const int64_t block_count = static_cast<int64_t>(sequence->blocks.size());
    if (end > block_count * kKvBlockTokens) {
      return Bad(slot.sequence, "position ", end - 1, " lies beyond its ", block_count,
                 " KV blocks");
    }
    for (int64_t i = slot.first_position / kKvBlockTokens; i < BlocksFor(end); ++i) {
      if (References(sequence->blocks[i]) > 1) {
        return Bad(slot.sequence, "position ", end - 1, " would be written into KV block ",
                   sequence->blocks[i], ", which is shared");
      }
    }
    return absl::OkStatus();
  }

  void Commit(const Step& step) {
    for (const SequenceId id : freed_) table_->sequences_.erase(id);
    for (auto& [id, sequence] : changed_) table_->sequences_[id] = std::move(sequence);
    for (const auto& [block, difference] : reference_changes_) {
      table_->references_[block] += difference;
    }
    for (const StepSlot& slot : step.slots) {
      table_->sequences_.find(slot.sequence)->second.length += slot.token_count;
    }
  }

 private:
  const Sequence* Find(SequenceId id) const {
    const auto changed = changed_.find(id);
    if (changed != changed_.end()) return &changed->second;
    return freed_.contains(id) ? nullptr : table_->Find(id);
  }

  // A copy to change of a sequence that exists.
  Sequence& Edit(SequenceId id) {
    auto [entry, inserted] = changed_.try_emplace(id);
    if (inserted) entry->second = *table_->Find(id);
    return entry->second;
  }

  int32_t References(int32_t block) const {
    const auto change = reference_changes_.find(block);
    const int32_t difference = change == reference_changes_.end() ? 0 : change->second;
    return table_->references_[block] + difference;
  }

  absl::Status Create(SequenceId id) {
    if (sequence_count_change_ + table_->sequence_count() >= kMaxSequences) {
      return Bad(id, "this stage already keeps ", kMaxSequences, " sequences");
    }
    ++sequence_count_change_;
    changed_[id] = Sequence();
    return absl::OkStatus();
  }

  absl::Status Append(const KvCommand& command) {
    if (command.blocks.empty()) return Bad(command.sequence, "no KV blocks to append");
    if (Find(command.sequence) == nullptr) RENGA_RETURN_IF_ERROR(Create(command.sequence));
    Sequence& sequence = Edit(command.sequence);
    for (const int32_t block : command.blocks) {
      if (block < 0 || block >= table_->limits_.kv_blocks) {
        return Bad(command.sequence, "KV block ", block, " is not among this stage's ",
                   table_->limits_.kv_blocks);
      }
      if (References(block) != 0) return Bad(command.sequence, "KV block ", block, " is in use");
      ++reference_changes_[block];
      sequence.blocks.push_back(block);
    }
    return absl::OkStatus();
  }

  absl::Status Truncate(const KvCommand& command) {
    const Sequence* sequence = Find(command.sequence);
    if (sequence == nullptr) return Bad(command.sequence, "cannot truncate, it is not known");
    if (command.tokens < 0 || command.tokens > sequence->length) {
      return Bad(command.sequence, "cannot keep ", command.tokens, " of ", sequence->length,
                 " positions");
    }
    Sequence& kept = Edit(command.sequence);
    kept.length = command.tokens;
    DropBlocks(kept, BlocksFor(command.tokens));
    return absl::OkStatus();
  }

  absl::Status Share(const KvCommand& command) {
    const Sequence* source = Find(command.source);
    if (source == nullptr) return Bad(command.sequence, "shares with unknown ", command.source);
    if (Find(command.sequence) != nullptr) {
      return Bad(command.sequence, "cannot begin with a shared prefix, it exists already");
    }
    if (command.tokens <= 0 || command.tokens % kKvBlockTokens != 0 ||
        command.tokens > source->length) {
      return Bad(command.sequence, "cannot share ", command.tokens, " of ", source->length,
                 " positions: whole blocks of ", kKvBlockTokens, " only");
    }
    Sequence shared;
    shared.length = command.tokens;
    shared.blocks.assign(source->blocks.begin(),
                         source->blocks.begin() + command.tokens / kKvBlockTokens);
    RENGA_RETURN_IF_ERROR(Create(command.sequence));
    for (const int32_t block : shared.blocks) ++reference_changes_[block];
    changed_[command.sequence] = std::move(shared);
    return absl::OkStatus();
  }

  absl::Status Free(const KvCommand& command) {
    if (Find(command.sequence) == nullptr) {
      return Bad(command.sequence, "cannot free, it is not known");
    }
    DropBlocks(Edit(command.sequence), 0);
    changed_.erase(command.sequence);
    freed_.insert(command.sequence);
    --sequence_count_change_;
    return absl::OkStatus();
  }

  void DropBlocks(Sequence& sequence, int64_t keep) {
    for (size_t i = keep; i < sequence.blocks.size(); ++i) --reference_changes_[sequence.blocks[i]];
    sequence.blocks.resize(std::min<size_t>(keep, sequence.blocks.size()));
  }

  SequenceTable* const table_;
  absl::flat_hash_map<SequenceId, Sequence> changed_;  // as they will be
  absl::flat_hash_set<SequenceId> freed_;  // at some point; one in `changed_` too began anew
  absl::flat_hash_map<int32_t, int32_t> reference_changes_;
  absl::flat_hash_set<SequenceId> grown_;
  int64_t sequence_count_change_ = 0;
};

SequenceTable::SequenceTable(const model::RuntimeLimits& limits)
    : limits_(limits), references_(limits.kv_blocks, 0) {}

absl::Status SequenceTable::Apply(const Step& step) {
  RENGA_RETURN_IF_ERROR(CheckStepSize(step, limits_));
  Draft draft(this);
  for (const KvCommand& command : step.commands) RENGA_RETURN_IF_ERROR(draft.Run(command));
  for (const StepSlot& slot : step.slots) RENGA_RETURN_IF_ERROR(draft.Grow(slot));
  draft.Commit(step);
  return absl::OkStatus();
}

const SequenceTable::Sequence* SequenceTable::Find(SequenceId id) const {
  const auto entry = sequences_.find(id);
  return entry == sequences_.end() ? nullptr : &entry->second;
}

void SequenceTable::Reset() {
  sequences_.clear();
  std::fill(references_.begin(), references_.end(), 0);
}

int64_t SequenceTable::free_block_count() const {
  return std::count(references_.begin(), references_.end(), 0);
}

}  // namespace renga::engine
