#include "transport/link_probe.h"

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>

#include <algorithm>
#include <chrono>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/worker.grpc.pb.h"
#include "transport/grpc_status.h"

namespace renga::transport {
namespace {

using Clock = std::chrono::steady_clock;
using ProbeStream = grpc::ClientReaderWriter<proto::ProbeMessage, proto::ProbeMessage>;

// For connecting, and for the rounds that have begun.
constexpr absl::Duration kGrace = absl::Seconds(3);

// A machine that was busy for a moment must not stand for the link: this many rounds, the first one
// among them, may take some time beyond a size's share.
constexpr size_t kFewestRounds = 4;
constexpr std::chrono::milliseconds kLongestOverrun(1000);

// `sorted` is not empty.
double Quantile(const std::vector<double>& sorted, double part) {
  const auto index = static_cast<size_t>(part * static_cast<double>(sorted.size()));
  return sorted[std::min(index, sorted.size() - 1)];
}

// False when the stream broke.
bool TimeRounds(ProbeStream& stream, int64_t bytes, int rounds, Clock::time_point end,
                RoundTrips& result) {
  proto::ProbeMessage message;
  proto::ProbeMessage answer;
  message.set_payload(std::string(static_cast<size_t>(bytes), 'x'));
  std::vector<double> times_us;
  const auto wants_more = [&] {
    // One more than counts: the first is for the connection and its window to grow.
    if (times_us.size() > static_cast<size_t>(rounds)) return false;
    const auto overrun = Clock::now() - end;
    return overrun < Clock::duration::zero() ||
           (times_us.size() < kFewestRounds && overrun < kLongestOverrun);
  };
  do {
    const Clock::time_point begin = Clock::now();
    if (!stream.Write(message) || !stream.Read(&answer) ||
        answer.payload().size() != message.payload().size()) {
      return false;
    }
    times_us.push_back(std::chrono::duration<double, std::micro>(Clock::now() - begin).count());
  } while (wants_more());
  if (times_us.size() > 1) times_us.erase(times_us.begin());
  std::sort(times_us.begin(), times_us.end());
  result = {.payload_bytes = bytes,
            .rounds = static_cast<int>(times_us.size()),
            .p50_us = Quantile(times_us, 0.5),
            .p99_us = Quantile(times_us, 0.99),
            .minimum_us = times_us.front()};
  return true;
}

}  // namespace

absl::Status CheckProbe(const LinkProbe& probe) {
  const bool sizes_fit =
      !probe.payload_bytes.empty() && probe.payload_bytes.size() <= kMaxProbeSizes &&
      std::all_of(probe.payload_bytes.begin(), probe.payload_bytes.end(),
                  [](int64_t bytes) { return bytes >= 1 && bytes <= kMaxProbeBytes; });
  if (!sizes_fit) {
    return absl::InvalidArgumentError(absl::StrCat("a link is measured with 1 to ", kMaxProbeSizes,
                                                   " sizes of 1 to ", kMaxProbeBytes, " bytes"));
  }
  if (probe.rounds < 1 || probe.rounds > kMaxProbeRounds ||
      probe.time_limit <= absl::ZeroDuration() || probe.time_limit > kMaxProbeTime) {
    return absl::InvalidArgumentError(absl::StrCat("a link is measured in 1 to ", kMaxProbeRounds,
                                                   " rounds and at most ",
                                                   absl::FormatDuration(kMaxProbeTime)));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<RoundTrips>> ProbeLink(std::shared_ptr<grpc::Channel> channel,
                                                  const LinkProbe& probe,
                                                  grpc::ClientContext& context) {
  if (const absl::Status status = CheckProbe(probe); !status.ok()) return status;
  const auto stub = proto::Worker::NewStub(std::move(channel));
  context.set_deadline(absl::ToChronoTime(absl::Now() + probe.time_limit + kGrace));
  const auto stream = stub->Probe(&context);
  const auto count = static_cast<int64_t>(probe.payload_bytes.size());
  std::vector<RoundTrips> results(probe.payload_bytes.size());
  bool whole = true;
  const Clock::time_point begin = Clock::now();
  for (int64_t i = 0; whole && i < count; ++i) {
    const auto end =
        begin + absl::ToChronoNanoseconds(probe.time_limit) * (i + 1) / count;  // equal shares
    const auto index = static_cast<size_t>(i);
    whole = TimeRounds(*stream, probe.payload_bytes[index], probe.rounds, end, results[index]);
  }
  stream->WritesDone();
  const absl::Status status = FromGrpcStatus(stream->Finish(), "measuring a link");
  if (whole) return results;
  return status.ok() ? absl::UnavailableError("the peer ended the measurement") : status;
}

}  // namespace renga::transport
