#include "coordinator/serving/testing/fake_pipeline.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "coordinator/serving/kv_blocks.h"

namespace renga::serving {
namespace {

uint64_t Scramble(uint64_t x) {
  x = (x ^ (x >> 33)) * 0xff51afd7ed558ccdu;
  x = (x ^ (x >> 33)) * 0xc4ceb9fe1a85ec53u;
  return x ^ (x >> 33);
}

absl::Status Refuse(const std::string& why) { return absl::InvalidArgumentError(why); }

}  // namespace

std::vector<float> ToyLogits(std::span<const TokenId> tokens, int64_t vocab_size) {
  uint64_t hash = tokens.size();
  for (TokenId token : tokens) hash = Scramble(hash * 31 + static_cast<uint64_t>(token) + 1);
  std::vector<float> logits(vocab_size);
  for (int64_t id = 0; id < vocab_size; ++id) {
    logits[id] = static_cast<float>(Scramble(hash + static_cast<uint64_t>(id)) % 1000) * 0.01f - 5;
  }
  return logits;
}

ToyModel CopyingModel(int64_t period, int64_t novelty, float strength) {
  return [=](std::span<const TokenId> tokens, int64_t vocab_size) {
    std::vector<float> logits = ToyLogits(tokens, vocab_size);
    const auto size = static_cast<int64_t>(tokens.size());
    if (size >= period && size % novelty != 0) logits[tokens[size - period]] += strength;
    return logits;
  };
}

model::HeadRow ToyRow(std::vector<float> logits, int64_t top_k, const model::TokenMask* allowed) {
  const auto vocab_size = static_cast<int64_t>(logits.size());
  model::HeadRow row;
  row.max_logit = *std::max_element(logits.begin(), logits.end());
  for (float logit : logits) row.sum_exp += std::exp(logit - row.max_logit);
  if (top_k == 0) {
    row.logits = std::move(logits);
    return row;
  }
  row.ids.resize(vocab_size);
  std::iota(row.ids.begin(), row.ids.end(), 0);
  std::stable_sort(row.ids.begin(), row.ids.end(),
                   [&](TokenId a, TokenId b) { return logits[a] > logits[b]; });
  if (allowed != nullptr) {
    std::erase_if(row.ids, [&](TokenId id) { return !allowed->Contains(id); });
  }
  row.ids.resize(std::min(row.ids.size(), static_cast<size_t>(top_k)));
  for (TokenId id : row.ids) row.logits.push_back(logits[id]);
  return row;
}

ToyStage::ToyStage(const FakePipelineOptions& options)
    : options_(options),
      users_(options.kv_blocks, 0),
      memory_(options.kv_blocks, std::vector<TokenId>(model::kKvBlockTokens, -1)) {}

int64_t ToyStage::used_blocks() const {
  return std::count_if(users_.begin(), users_.end(), [](int users) { return users > 0; });
}

absl::Status ToyStage::Append(State& state, const std::vector<int32_t>& blocks) {
  if (blocks.empty()) return Refuse("an append of nothing");
  for (int32_t block : blocks) {
    if (block < 0 || block >= options_.kv_blocks) return Refuse("a block out of range");
    if (users_[block] != 0) return Refuse(absl::StrCat("block ", block, " is in use"));
    ++users_[block];
    std::fill(memory_[block].begin(), memory_[block].end(), -1);
    state.blocks.push_back(block);
  }
  return absl::OkStatus();
}

absl::Status ToyStage::Apply(const model::KvCommand& command) {
  using Kind = model::KvCommand::Kind;
  if (command.kind == Kind::kAppendBlocks) {
    return Append(sequences_[command.sequence], command.blocks);
  }
  if (command.kind == Kind::kShare) {
    const auto source = sequences_.find(command.source);
    if (source == sequences_.end() || sequences_.contains(command.sequence) ||
        command.tokens % model::kKvBlockTokens != 0 || command.tokens > source->second.positions) {
      return Refuse("a wrong share");
    }
    State state;
    state.positions = command.tokens;
    state.blocks = source->second.blocks;
    state.blocks.resize(BlocksFor(command.tokens));
    for (int32_t block : state.blocks) ++users_[block];
    sequences_[command.sequence] = state;
    return absl::OkStatus();
  }
  const auto it = sequences_.find(command.sequence);
  if (it == sequences_.end()) return Refuse("a command for an unknown sequence");
  State& state = it->second;
  const int64_t keep = command.kind == Kind::kFree ? 0 : command.tokens;
  if (keep > state.positions) return Refuse("a truncation beyond the end");
  while (static_cast<int64_t>(state.blocks.size()) > BlocksFor(keep)) {
    Release(state.blocks.back());
    state.blocks.pop_back();
  }
  state.positions = keep;
  if (command.kind == Kind::kFree) sequences_.erase(it);
  return absl::OkStatus();
}

absl::StatusOr<std::vector<model::HeadRow>> ToyStage::Run(const model::Step& step,
                                                          std::span<const TokenId> tokens) {
  if (step.slots.empty()) return Refuse("a step without slots");
  if (step.token_count() > options_.max_step_tokens) return Refuse("too many tokens");
  if (step.output_count() > options_.max_step_outputs) return Refuse("too many outputs");
  if (tokens.size() != static_cast<size_t>(step.token_count())) {
    return Refuse("another number of tokens");
  }
  for (const model::KvCommand& command : step.commands) RENGA_RETURN_IF_ERROR(Apply(command));
  std::vector<model::HeadRow> answers;
  const TokenId* token = tokens.data();
  for (const model::StepSlot& slot : step.slots) {
    const auto it = sequences_.find(slot.sequence);
    if (it == sequences_.end()) return Refuse("a slot of an unknown sequence");
    State& state = it->second;
    if (slot.first_position != state.positions) return Refuse("a slot at a wrong position");
    if (slot.token_count <= 0 || slot.output_count > slot.token_count) return Refuse("a bad slot");
    const int64_t end = slot.first_position + slot.token_count;
    if (BlocksFor(end) > static_cast<int64_t>(state.blocks.size())) return Refuse("no block");
    for (; state.positions < end; ++state.positions, ++token) {
      const int32_t block = state.blocks[state.positions / model::kKvBlockTokens];
      if (users_[block] != 1) return Refuse("a write into a shared block");
      memory_[block][state.positions % model::kKvBlockTokens] = *token;
    }
    std::vector<TokenId> seen;
    for (int64_t p = 0; p < end; ++p) {
      const int32_t block = state.blocks[p / model::kKvBlockTokens];
      seen.push_back(memory_[block][p % model::kKvBlockTokens]);
      if (p >= end - slot.output_count) {
        answers.push_back(ToyRow(options_.toy(seen, options_.vocab_size), slot.top_k,
                                 slot.allowed_at(p - (end - slot.output_count))));
      }
    }
  }
  return answers;
}

absl::Status ToyStage::Skip(const model::Step& step, std::span<const TokenId> tokens) {
  std::vector<TokenId> wrong(tokens.begin(), tokens.end());
  for (TokenId& token : wrong) token = (token + 1) % static_cast<TokenId>(options_.vocab_size);
  return Run(step, wrong).status();
}

FakePipeline::FakePipeline(const FakePipelineOptions& options)
    : options_(options), stage_(options), thread_([this] { Work(); }) {
  model_.config.d_model = kToyWidth;
  model_.config.vocab_size = options.vocab_size;
  model_.config.context_length = options.kv_blocks * model::kKvBlockTokens;
  limits_.kv_blocks = options.kv_blocks;
  limits_.max_step_tokens = options.max_step_tokens;
  limits_.max_step_outputs = options.max_step_outputs;
  limits_.approximation = options.approximation;
}

FakePipeline::~FakePipeline() {
  {
    absl::MutexLock lock(&mutex_);
    closing_ = true;
  }
  thread_.join();
}

absl::Status FakePipeline::status() const {
  absl::MutexLock lock(&mutex_);
  return status_;
}

uint64_t FakePipeline::Submit(model::Step step, std::vector<TokenId> tokens, Callback done,
                              EarlyCallback early) {
  absl::MutexLock lock(&mutex_);
  step.epoch = options_.epoch;
  step.number = steps_.size() + 1;
  steps_.push_back(step);
  pending_.push_back({std::move(step), std::move(tokens), std::move(done), std::move(early)});
  max_in_flight_ = std::max(max_in_flight_, ++in_flight_);
  return steps_.size();
}

void FakePipeline::Withdraw(std::span<const uint64_t> numbers) {
  absl::MutexLock lock(&mutex_);
  for (const Pending& pending : pending_) {
    const uint64_t number = pending.step.number;
    if (std::find(numbers.begin(), numbers.end(), number) != numbers.end()) {
      withdrawn_.insert(number);
    }
  }
}

absl::StatusOr<cluster::StepOutcome> FakePipeline::Compute(const Pending& next) {
  cluster::StepOutcome outcome;
  if (withdrawn_.erase(next.step.number) > 0) {
    ++skipped_;
    outcome.skipped = true;
    RENGA_RETURN_IF_ERROR(stage_.Skip(next.step, next.tokens));
    return outcome;
  }
  RENGA_ASSIGN_OR_RETURN(outcome.rows, stage_.Run(next.step, next.tokens));
  const StepCost cost = options_.cost(next.step.token_count());
  outcome.round_trip_us = static_cast<uint64_t>(cost.round_trip_us);
  outcome.compute_us = cost.busiest_us;
  outcome.timings.push_back({.worker_index = 0,
                             .compute_us = static_cast<uint64_t>(cost.busiest_us),
                             .left_out = options_.left_out});
  return outcome;
}

void FakePipeline::Work() {
  while (true) {
    AnswerWaiting(/*all=*/false);
    Pending next;
    absl::StatusOr<cluster::StepOutcome> outcome = cluster::StepOutcome();
    {
      absl::MutexLock lock(&mutex_);
      const auto wake = [this]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
        return closing_ || (!pending_.empty() && (!held_ || !status_.ok()));
      };
      const absl::Time deadline =
          waiting_.empty() ? absl::InfiniteFuture() : waiting_.front().ready;
      mutex_.AwaitWithDeadline(absl::Condition(&wake), deadline);
      if (closing_ && pending_.empty()) break;
      if (!wake()) continue;
      next = std::move(pending_.front());
      pending_.pop_front();
      if (status_.ok()) {
        outcome = Compute(next);
        violation_.Update(outcome.status());
        status_.Update(outcome.status());
      }
      if (!status_.ok()) outcome = status_;
    }
    const bool skipped = outcome.ok() && outcome->skipped;
    if (options_.step_time > absl::ZeroDuration() && !skipped) absl::SleepFor(options_.step_time);
    const bool early = options_.near_rows > 0 && next.early && outcome.ok() && !skipped;
    if (early) TellEarly(next, *outcome);
    waiting_.push_back({absl::Now() + (early ? options_.far_time : absl::ZeroDuration()),
                        std::move(next.done), std::move(outcome)});
  }
  AnswerWaiting(/*all=*/true);
}

void FakePipeline::AnswerWaiting(bool all) {
  while (!waiting_.empty() && (all || waiting_.front().ready <= absl::Now())) {
    Waiting next = std::move(waiting_.front());
    waiting_.pop_front();
    {
      absl::MutexLock lock(&mutex_);
      --in_flight_;
    }
    next.done(std::move(next.outcome));
  }
}

void FakePipeline::TellEarly(const Pending& step, const cluster::StepOutcome& outcome) const {
  std::vector<model::HeadRow> rows;
  size_t next = 0;
  for (const model::StepSlot& slot : step.step.slots) {
    for (int64_t i = 0; i < slot.output_count; ++i) {
      model::HeadRow row = outcome.rows[next++];
      if (slot.top_k == 0) {
        std::fill(row.logits.begin() + options_.near_rows, row.logits.end(),
                  -std::numeric_limits<float>::infinity());
        rows.push_back(std::move(row));
        continue;
      }
      // The best of the near ones is not among the best of all, perhaps: any near row will do.
      model::HeadRow near = row;
      for (size_t r = 0; r < near.ids.size(); ++r) {
        near.ids[r] = static_cast<int32_t>(near.ids[r] % options_.near_rows);
      }
      rows.push_back(std::move(near));
    }
  }
  step.early(std::move(rows));
}

void FakePipeline::Break(absl::Status status) {
  absl::MutexLock lock(&mutex_);
  status_ = std::move(status);
}

void FakePipeline::Hold() {
  absl::MutexLock lock(&mutex_);
  held_ = true;
}

void FakePipeline::Release() {
  absl::MutexLock lock(&mutex_);
  held_ = false;
}

std::vector<model::Step> FakePipeline::Steps() const {
  absl::MutexLock lock(&mutex_);
  return steps_;
}

int64_t FakePipeline::MaxInFlight() const {
  absl::MutexLock lock(&mutex_);
  return max_in_flight_;
}

int64_t FakePipeline::UsedBlocks() const {
  absl::MutexLock lock(&mutex_);
  return stage_.used_blocks();
}

int64_t FakePipeline::Sequences() const {
  absl::MutexLock lock(&mutex_);
  return stage_.sequences();
}

int64_t FakePipeline::Skipped() const {
  absl::MutexLock lock(&mutex_);
  return skipped_;
}

absl::Status FakePipeline::Violation() const {
  absl::MutexLock lock(&mutex_);
  return violation_;
}

bool FakePipeline::AwaitSteps(size_t count) const {
  const auto reached = [&]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return steps_.size() >= count; };
  absl::MutexLock lock(&mutex_);
  return mutex_.AwaitWithTimeout(absl::Condition(&reached), absl::Seconds(10));
}

absl::StatusOr<std::shared_ptr<cluster::Pipeline>> FakePipelineSource::CurrentPipeline() {
  absl::MutexLock lock(&mutex_);
  if (pipeline_ == nullptr) return absl::UnavailableError("waiting for workers: none has joined");
  return pipeline_;
}

void FakePipelineSource::Set(std::shared_ptr<cluster::Pipeline> pipeline) {
  absl::MutexLock lock(&mutex_);
  pipeline_ = std::move(pipeline);
}

}  // namespace renga::serving
