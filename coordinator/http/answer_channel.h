// Carries an answer from the scheduler's thread, which must not wait, to the connection's thread.
#ifndef RENGA_COORDINATOR_HTTP_ANSWER_CHANNEL_H_
#define RENGA_COORDINATOR_HTTP_ANSWER_CHANNEL_H_

#include <memory>
#include <optional>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "coordinator/http/completion_response.h"
#include "coordinator/serving/text_engine.h"

namespace renga::http {

// Bounded by the length of the answer. Destroying it cancels the request, if it is not done.
class AnswerChannel {
 public:
  AnswerChannel() : shared_(std::make_shared<Shared>()) {}
  ~AnswerChannel() { handle_.Cancel(); }
  AnswerChannel(const AnswerChannel&) = delete;
  AnswerChannel& operator=(const AnswerChannel&) = delete;

  // Starts the request; once. With `keep_tokens`, Take gives the tokens, too.
  void Start(serving::TextEngine& engine, std::vector<serving::TokenId> prompt,
             const serving::TextOptions& options, bool keep_tokens);

  enum class State { kNothing, kText, kDone };
  // Waits until the answer is done, or (if `for_text`) there is something to take.
  State Wait(absl::Duration timeout, bool for_text);
  // What has come since the last call.
  AnswerPart Take();
  // After kDone.
  absl::StatusOr<serving::GenerateResult> Result() const;

 private:
  struct Shared {
    absl::Mutex mutex;
    AnswerPart part ABSL_GUARDED_BY(mutex);
    std::optional<absl::StatusOr<serving::GenerateResult>> result ABSL_GUARDED_BY(mutex);
  };

  const std::shared_ptr<Shared> shared_;
  serving::RequestHandle handle_;
};

}  // namespace renga::http

#endif  // RENGA_COORDINATOR_HTTP_ANSWER_CHANNEL_H_
