#include "coordinator/serving/draft_model.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/log.h"

namespace renga::serving {
namespace {

// A step that takes longer than this is as good as lost.
constexpr absl::Duration kPatience = absl::Seconds(30);
// A pipeline takes no more than 16; these are prompts, which nobody waits for.
constexpr size_t kMostUnderWay = 4;
// So few tokens are computed with the next guess, at about the price of one.
constexpr int64_t kFewTokens = 8;
// A guess that the model itself hardly believes in ends them.
constexpr double kLeastProbability = 0.15;
constexpr double kWeight = 0.2;

double Probability(const model::HeadRow& row) {
  return row.sum_exp > 0
             ? std::exp(static_cast<double>(row.logits[0] - row.max_logit)) / row.sum_exp
             : 0;
}

}  // namespace

bool DraftModel::Ready() {
  if (broken_) return false;
  if (pipeline_ != nullptr) return true;
  absl::StatusOr<std::shared_ptr<cluster::Pipeline>> pipeline = source_->CurrentPipeline();
  if (!pipeline.ok()) return false;
  pipeline_ = *std::move(pipeline);
  blocks_.emplace(pipeline_->limits().kv_blocks);
  return true;
}

bool DraftModel::Grow(model::SequenceId sequence, int64_t positions) {
  const int64_t missing = BlocksFor(positions) - blocks_->BlocksOf(sequence);
  if (missing <= 0) return true;
  absl::StatusOr<model::KvCommand> command = blocks_->Append(sequence, missing);
  if (!command.ok()) return false;
  commands_.push_back(*std::move(command));
  return true;
}

bool DraftModel::Truncate(model::SequenceId sequence, int64_t positions) {
  absl::StatusOr<model::KvCommand> command = blocks_->Truncate(sequence, positions);
  if (!command.ok()) return false;
  commands_.push_back(*std::move(command));
  return true;
}

void DraftModel::Free(model::SequenceId sequence) {
  if (!blocks_.has_value()) return;
  // It is unknown when it never grew.
  absl::StatusOr<model::KvCommand> command = blocks_->Free(sequence);
  if (command.ok()) commands_.push_back(*std::move(command));
}

std::shared_ptr<DraftStep> DraftModel::Begin(model::SequenceId sequence, int64_t position,
                                             std::span<const TokenId> tokens, bool answer) {
  std::erase_if(under_way_, [](const auto& step) { return step->done.HasBeenNotified(); });
  if (under_way_.size() >= kMostUnderWay) return nullptr;
  model::Step step;
  step.commands = std::exchange(commands_, {});
  step.slots.push_back({.sequence = sequence,
                        .first_position = position,
                        .token_count = static_cast<int64_t>(tokens.size()),
                        .output_count = answer ? 1 : 0,
                        .top_k = 1});
  auto under_way = std::make_shared<DraftStep>();
  under_way_.push_back(under_way);
  pipeline_->Submit(
      std::move(step), {tokens.begin(), tokens.end()},
      [under_way](absl::StatusOr<cluster::StepOutcome> outcome) {
        under_way->outcome = std::move(outcome);
        under_way->done.Notify();
      },
      /*early=*/nullptr);
  return under_way;
}

absl::StatusOr<cluster::StepOutcome> DraftModel::Wait(DraftStep& step) {
  absl::Status status = absl::DeadlineExceededError("a step took too long");
  if (step.done.WaitForNotificationWithTimeout(kPatience)) {
    if (step.outcome.ok()) return *step.outcome;
    status = step.outcome.status();
  }
  GiveUp(status);
  return status;
}

void DraftModel::GiveUp(const absl::Status& status) {
  if (broken_) return;
  broken_ = true;
  RENGA_LOG(WARNING) << "the draft model stopped, so answers go on without its guesses: "
                     << status.message();
}

void DraftModel::Measure(double us) {
  step_us_ = step_us_ == 0 ? us : step_us_ + kWeight * (us - step_us_);
}

int ModelDrafter::EvidenceOf(double probability) {
  constexpr std::array<double, kFoundClasses> kFrom = {0, 0.25, 0.4, 0.55, 0.7, 0.82, 0.92, 0.98};
  const auto above = std::upper_bound(kFrom.begin(), kFrom.end(), probability);
  return kFoundClasses + std::max(0, static_cast<int>(above - kFrom.begin()) - 1);
}

const EvidencePriors& ModelDrafter::priors() const {
  // Somewhat below what the small model says of itself.
  static constexpr EvidencePriors kPriors = {0,    0,   0,    0,    0,    0,    0,    0,
                                             0.15, 0.3, 0.42, 0.55, 0.67, 0.78, 0.86, 0.94};
  return kPriors;
}

std::vector<Guess> ModelDrafter::Propose(std::span<const TokenId> tokens,
                                         std::span<const Guess> pending,
                                         const GuessLimits& limits) {
  if (tokens.empty() || !model_->Ready()) return {};
  std::vector<TokenId> text(tokens.begin(), tokens.end());
  for (const Guess& guess : pending) text.push_back(guess.token);
  if (!CatchUp(text)) return {};
  std::vector<Guess> guesses;
  while (static_cast<int64_t>(guesses.size()) < limits.computed) {
    const std::optional<Guess> guess = Next(text);
    if (!guess.has_value()) break;
    guesses.push_back(*guess);
    text.push_back(guess->token);
  }
  return guesses;
}

bool ModelDrafter::CatchUp(std::span<const TokenId> text) {
  if (catching_up_ != nullptr) {
    if (!catching_up_->done.HasBeenNotified()) return false;
    const bool failed = !model_->Wait(*catching_up_).ok();
    catching_up_.reset();
    if (failed) return false;
  }
  if (!Rewind(text)) return false;
  const auto done = static_cast<int64_t>(computed_.size());
  const int64_t behind = static_cast<int64_t>(text.size()) - done;
  if (behind <= kFewTokens) return true;
  const int64_t count = std::min(behind - 1, model_->max_step_tokens());
  if (!model_->Grow(sequence_, done + count)) return false;
  const std::span<const TokenId> chunk = text.subspan(done, count);
  catching_up_ = model_->Begin(sequence_, done, chunk, /*answer=*/false);
  if (catching_up_ != nullptr) computed_.insert(computed_.end(), chunk.begin(), chunk.end());
  return false;
}

bool ModelDrafter::Rewind(std::span<const TokenId> text) {
  // The last token is computed again, if need be: its answer is the next guess.
  const auto shared =
      std::mismatch(computed_.begin(), computed_.end(), text.begin(), text.end() - 1);
  const auto keep = static_cast<size_t>(shared.first - computed_.begin());
  if (keep == computed_.size()) return true;
  if (!model_->Truncate(sequence_, static_cast<int64_t>(keep))) return false;
  computed_.resize(keep);
  return true;
}

std::optional<Guess> ModelDrafter::Next(std::span<const TokenId> text) {
  const auto done = static_cast<int64_t>(computed_.size());
  const std::span<const TokenId> rest = text.subspan(done);
  if (!model_->Grow(sequence_, done + static_cast<int64_t>(rest.size()))) return std::nullopt;
  const absl::Time began = absl::Now();
  const std::shared_ptr<DraftStep> step = model_->Begin(sequence_, done, rest, /*answer=*/true);
  if (step == nullptr) return std::nullopt;
  computed_.assign(text.begin(), text.end());
  const absl::StatusOr<cluster::StepOutcome> outcome = model_->Wait(*step);
  if (!outcome.ok() || outcome->rows.size() != 1 || outcome->rows[0].ids.empty()) {
    return std::nullopt;
  }
  model_->Measure(absl::ToDoubleMicroseconds(absl::Now() - began));
  const double probability = Probability(outcome->rows[0]);
  if (probability < kLeastProbability) return std::nullopt;
  return Guess{outcome->rows[0].ids[0], EvidenceOf(probability)};
}

}  // namespace renga::serving
