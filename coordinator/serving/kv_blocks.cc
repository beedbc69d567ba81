#include "coordinator/serving/kv_blocks.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace renga::serving {

using model::KvCommand;
using model::SequenceId;

int64_t BlocksFor(int64_t tokens) {
  return (tokens + model::kKvBlockTokens - 1) / model::kKvBlockTokens;
}

KvBlocks::KvBlocks(int64_t block_count) : users_(block_count, 0), free_(block_count) {
  for (int64_t i = 0; i < block_count; ++i) free_[i] = static_cast<int32_t>(block_count - 1 - i);
}

absl::StatusOr<KvCommand> KvBlocks::Append(SequenceId sequence, int64_t count) {
  if (count <= 0) return absl::InvalidArgumentError("an append of no KV blocks");
  if (count > free_blocks()) {
    return absl::ResourceExhaustedError(
        absl::StrCat(count, " KV blocks wanted, ", free_blocks(), " free of ", block_count()));
  }
  KvCommand command;
  command.kind = KvCommand::Kind::kAppendBlocks;
  command.sequence = sequence;
  std::vector<int32_t>& table = tables_[sequence];
  for (int64_t i = 0; i < count; ++i) {
    const int32_t block = free_.back();
    free_.pop_back();
    users_[block] = 1;
    table.push_back(block);
    command.blocks.push_back(block);
  }
  return command;
}

absl::StatusOr<KvCommand> KvBlocks::Truncate(SequenceId sequence, int64_t tokens) {
  const auto it = tables_.find(sequence);
  if (it == tables_.end()) {
    return absl::NotFoundError(absl::StrCat("no sequence ", sequence, " to truncate"));
  }
  std::vector<int32_t>& table = it->second;
  const int64_t keep = BlocksFor(tokens);
  if (tokens < 0 || keep > static_cast<int64_t>(table.size())) {
    return absl::InvalidArgumentError(absl::StrCat("sequence ", sequence, " has ", table.size(),
                                                   " KV blocks, not room for ", tokens,
                                                   " positions"));
  }
  if (tokens % model::kKvBlockTokens != 0 && users_[table[keep - 1]] > 1) {
    return absl::FailedPreconditionError(
        absl::StrCat("position ", tokens, " of sequence ", sequence, " is in a shared KV block"));
  }
  while (static_cast<int64_t>(table.size()) > keep) {
    Release(table.back());
    table.pop_back();
  }
  KvCommand command;
  command.kind = KvCommand::Kind::kTruncate;
  command.sequence = sequence;
  command.tokens = tokens;
  return command;
}

absl::StatusOr<KvCommand> KvBlocks::Share(SequenceId sequence, SequenceId source, int64_t tokens) {
  const auto it = tables_.find(source);
  if (it == tables_.end()) {
    return absl::NotFoundError(absl::StrCat("no sequence ", source, " to share with"));
  }
  if (tables_.contains(sequence)) {
    return absl::InvalidArgumentError(absl::StrCat("sequence ", sequence, " already exists"));
  }
  if (tokens <= 0 || tokens % model::kKvBlockTokens != 0 ||
      BlocksFor(tokens) > static_cast<int64_t>(it->second.size())) {
    return absl::InvalidArgumentError(absl::StrCat("sequence ", source, " with ", it->second.size(),
                                                   " KV blocks can't share ", tokens,
                                                   " positions"));
  }
  std::vector<int32_t> table(it->second.begin(), it->second.begin() + BlocksFor(tokens));
  for (int32_t block : table) ++users_[block];
  tables_[sequence] = std::move(table);
  KvCommand command;
  command.kind = KvCommand::Kind::kShare;
  command.sequence = sequence;
  command.source = source;
  command.tokens = tokens;
  return command;
}

absl::StatusOr<KvCommand> KvBlocks::Free(SequenceId sequence) {
  const auto it = tables_.find(sequence);
  if (it == tables_.end()) {
    return absl::NotFoundError(absl::StrCat("no sequence ", sequence, " to free"));
  }
  for (int32_t block : it->second) Release(block);
  tables_.erase(it);
  KvCommand command;
  command.kind = KvCommand::Kind::kFree;
  command.sequence = sequence;
  return command;
}

int64_t KvBlocks::BlocksOf(SequenceId sequence) const {
  const auto it = tables_.find(sequence);
  return it == tables_.end() ? 0 : static_cast<int64_t>(it->second.size());
}

void KvBlocks::Release(int32_t block) {
  if (--users_[block] == 0) free_.push_back(block);
}

}  // namespace renga::serving
