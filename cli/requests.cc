#include "cli/requests.h"

#include <utility>

#include "absl/synchronization/blocking_counter.h"
#include "absl/synchronization/notification.h"
#include "base/status_macros.h"
#include "cli/interrupt.h"

namespace renga::cli {

absl::StatusOr<GeneratedTokens> Generate(LocalCluster& cluster,
                                         const serving::GenerateRequest& request) {
  RENGA_ASSIGN_OR_RETURN(std::vector<GeneratedTokens> generated, GenerateAll(cluster, {request}));
  return std::move(generated[0]);
}

absl::StatusOr<std::vector<GeneratedTokens>> GenerateAll(
    LocalCluster& cluster, const std::vector<serving::GenerateRequest>& requests) {
  std::vector<GeneratedTokens> generated(requests.size());
  std::vector<absl::Status> ends(requests.size());
  std::vector<serving::RequestHandle> handles;
  absl::BlockingCounter open(static_cast<int>(requests.size()));
  for (size_t i = 0; i < requests.size(); ++i) {
    handles.push_back(cluster.scheduler().Generate(
        requests[i], {.on_token =
                          [&, i](const serving::TokenEvent& event) {
                            generated[i].tokens.push_back(event.sampled.id);
                            return serving::SinkAction::kContinue;
                          },
                      .on_done =
                          [&, i](absl::StatusOr<serving::GenerateResult> end) {
                            ends[i] = end.status();
                            if (end.ok()) generated[i].result = *std::move(end);
                            open.DecrementCount();
                          }}));
  }
  const InterruptScope interrupt([&handles] {
    for (const serving::RequestHandle& handle : handles) handle.Cancel();
  });
  open.Wait();
  for (const absl::Status& end : ends) RENGA_RETURN_IF_ERROR(end);
  return generated;
}

absl::Status Score(LocalCluster& cluster, const serving::ScoreRequest& request,
                   std::function<absl::Status(int64_t, std::span<const float>)> on_row) {
  absl::Status status;
  absl::Notification done;
  const serving::RequestHandle handle = cluster.scheduler().Score(
      request, {.on_row = std::move(on_row),
                .on_done = [&](const absl::StatusOr<serving::RequestTimings>& end) {
                  status = end.status();
                  done.Notify();
                }});
  const InterruptScope interrupt([&handle] { handle.Cancel(); });
  done.WaitForNotification();
  return status;
}

}  // namespace renga::cli
