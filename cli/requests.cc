#include "cli/requests.h"

#include <optional>
#include <utility>

#include "absl/synchronization/notification.h"
#include "cli/interrupt.h"

namespace renga::cli {

absl::StatusOr<GeneratedTokens> Generate(LocalCluster& cluster,
                                         const serving::GenerateRequest& request) {
  GeneratedTokens generated;
  absl::StatusOr<serving::GenerateResult> result = absl::InternalError("no result");
  absl::Notification done;
  const serving::RequestHandle handle = cluster.scheduler().Generate(
      request, {.on_token =
                    [&](const serving::TokenEvent& event) {
                      generated.tokens.push_back(event.sampled.id);
                      return serving::SinkAction::kContinue;
                    },
                .on_done =
                    [&](absl::StatusOr<serving::GenerateResult> end) {
                      result = std::move(end);
                      done.Notify();
                    }});
  const InterruptScope interrupt([&handle] { handle.Cancel(); });
  done.WaitForNotification();
  if (!result.ok()) return result.status();
  generated.result = *std::move(result);
  return generated;
}

absl::Status Score(LocalCluster& cluster, const serving::ScoreRequest& request,
                   std::function<absl::Status(int64_t, std::span<const float>)> on_row) {
  absl::Status status;
  absl::Notification done;
  const serving::RequestHandle handle = cluster.scheduler().Score(
      request, {.on_row = std::move(on_row),
                .on_done =
                    [&](const absl::StatusOr<serving::RequestTimings>& end) {
                      status = end.status();
                      done.Notify();
                    }});
  const InterruptScope interrupt([&handle] { handle.Cancel(); });
  done.WaitForNotification();
  return status;
}

}  // namespace renga::cli
