#include "cli/hop_bench.h"

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>

#include <algorithm>
#include <chrono>
#include <string>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "proto/worker.grpc.pb.h"
#include "transport/dialer.h"

namespace renga::cli {
namespace {

constexpr int64_t kPayloadBytes[] = {8 << 10, 16 << 10, 64 << 10, 1 << 20};
constexpr int kWarmUpRounds = 20;
constexpr int kRounds = 200;
constexpr std::chrono::seconds kTimeLimit(60);

using ProbeStream = grpc::ClientReaderWriter<proto::ProbeMessage, proto::ProbeMessage>;

// Microseconds of one round trip; negative when the stream broke.
double RoundTripUs(ProbeStream& stream, const proto::ProbeMessage& message,
                   proto::ProbeMessage& answer) {
  const auto start = std::chrono::steady_clock::now();
  if (!stream.Write(message) || !stream.Read(&answer) ||
      answer.payload().size() != message.payload().size()) {
    return -1;
  }
  return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start)
      .count();
}

absl::StatusOr<HopTime> TimePayload(ProbeStream& stream, int64_t bytes) {
  proto::ProbeMessage message;
  proto::ProbeMessage answer;
  message.set_payload(std::string(static_cast<size_t>(bytes), 'x'));
  std::vector<double> times_us;
  for (int i = 0; i < kWarmUpRounds + kRounds; ++i) {
    const double time_us = RoundTripUs(stream, message, answer);
    if (time_us < 0) return absl::UnavailableError("the worker stopped answering probes");
    if (i >= kWarmUpRounds) times_us.push_back(time_us / 2);
  }
  std::sort(times_us.begin(), times_us.end());
  return HopTime{.payload_bytes = bytes,
                 .median_us = times_us[times_us.size() / 2],
                 .minimum_us = times_us.front()};
}

}  // namespace

absl::StatusOr<std::vector<HopTime>> MeasureHops(LocalCluster& cluster) {
  const cluster::ClusterStatus status = cluster.coordinator().manager().Status();
  if (status.workers.empty()) return absl::FailedPreconditionError("there is no worker to probe");
  const auto channel = cluster.coordinator().dialer().Dial(
      {.address = status.workers[0].address, .name = status.workers[0].id},
      transport::ChannelPurpose::kActivations);
  const auto stub = proto::Worker::NewStub(channel);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + kTimeLimit);
  const auto stream = stub->Probe(&context);
  std::vector<HopTime> times;
  for (const int64_t bytes : kPayloadBytes) {
    RENGA_ASSIGN_OR_RETURN(times.emplace_back(), TimePayload(*stream, bytes));
  }
  stream->WritesDone();
  stream->Finish();
  return times;
}

}  // namespace renga::cli
