#include "coordinator/http/answer_channel.h"

#include <utility>

namespace renga::http {

void AnswerChannel::Start(serving::TextEngine& engine, std::vector<serving::TokenId> prompt,
                          const serving::TextOptions& options, bool keep_tokens) {
  handle_ = engine.Start(std::move(prompt), options,
                         {.on_text =
                              [shared = shared_, keep_tokens](const serving::TextEvent& event) {
                                absl::MutexLock lock(&shared->mutex);
                                shared->part.text += event.text;
                                if (keep_tokens && event.token != nullptr) {
                                  shared->part.tokens.push_back(event.token->sampled);
                                }
                              },
                          .on_done =
                              [shared = shared_](absl::StatusOr<serving::GenerateResult> result) {
                                absl::MutexLock lock(&shared->mutex);
                                shared->result = std::move(result);
                              }});
}

AnswerChannel::State AnswerChannel::Wait(absl::Duration timeout, bool for_text) {
  Shared& shared = *shared_;
  const auto something = [&shared]() ABSL_SHARED_LOCKS_REQUIRED(shared.mutex) {
    return !shared.part.text.empty() || !shared.part.tokens.empty();
  };
  const auto ready = [&]() ABSL_SHARED_LOCKS_REQUIRED(shared.mutex) {
    return shared.result.has_value() || (for_text && something());
  };
  absl::MutexLock lock(&shared.mutex);
  shared.mutex.AwaitWithTimeout(absl::Condition(&ready), timeout);
  if (shared.result.has_value()) return State::kDone;
  return for_text && something() ? State::kText : State::kNothing;
}

AnswerPart AnswerChannel::Take() {
  absl::MutexLock lock(&shared_->mutex);
  return std::exchange(shared_->part, {});
}

absl::StatusOr<serving::GenerateResult> AnswerChannel::Result() const {
  absl::MutexLock lock(&shared_->mutex);
  return *shared_->result;
}

}  // namespace renga::http
