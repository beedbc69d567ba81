#include "transport/link_probe.h"

#include <algorithm>
#include <chrono>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "base/status_macros.h"
#include "transport/message_socket.h"

namespace renga::transport {
namespace {

using Clock = std::chrono::steady_clock;
// For connecting, and for the rounds that have begun.
constexpr absl::Duration kGrace = absl::Seconds(3);

// A machine that was busy for a moment must not stand for the link: this many rounds, the first one
// among them, may take some time beyond a size's share.
constexpr size_t kFewestRounds = 4;
constexpr std::chrono::milliseconds kLongestOverrun(1000);

constexpr absl::Duration kCancelInterval = absl::Milliseconds(50);

// Sends messages and waits for each to come back.
class Echo {
 public:
  Echo(Dialer& dialer, const PeerAddress& peer, const std::atomic<bool>& cancelled,
       absl::Time deadline)
      : cancelled_(cancelled),
        deadline_(deadline),
        socket_({.on_message =
                     [this](const std::string& message) {
                       absl::MutexLock lock(&mutex_);
                       returned_ = message.size();
                       ++count_;
                       return absl::OkStatus();
                     },
                 .on_end =
                     [this](const absl::Status& reason) {
                       absl::MutexLock lock(&mutex_);
                       ended_ = reason;
                     }}) {
    socket_.Connect(peer, dialer.socket_credentials(), {.purpose = PeerPurpose::kProbe});
  }

  absl::Status Send(const std::string& message) {
    {
      absl::MutexLock lock(&mutex_);
      count_ = 0;
    }
    RENGA_RETURN_IF_ERROR(socket_.SendBytes(message));
    const auto came = [this]()
                          ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return count_ > 0 || !ended_.ok(); };
    absl::MutexLock lock(&mutex_);
    while (!mutex_.AwaitWithTimeout(absl::Condition(&came), kCancelInterval)) {
      if (cancelled_) return absl::CancelledError("the measurement was given up");
      if (absl::Now() > deadline_) return absl::DeadlineExceededError("the peer does not answer");
    }
    RENGA_RETURN_IF_ERROR(ended_);
    if (returned_ == message.size()) return absl::OkStatus();
    return absl::InternalError("the peer sends back something else");
  }

 private:
  const std::atomic<bool>& cancelled_;
  const absl::Time deadline_;
  absl::Mutex mutex_;
  int count_ ABSL_GUARDED_BY(mutex_) = 0;  // of answers to the last message
  size_t returned_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Status ended_ ABSL_GUARDED_BY(mutex_);
  MessageSocket socket_;  // last: its thread uses the rest
};

// `sorted` is not empty.
double Quantile(const std::vector<double>& sorted, double part) {
  const auto index = static_cast<size_t>(part * static_cast<double>(sorted.size()));
  return sorted[std::min(index, sorted.size() - 1)];
}

absl::StatusOr<RoundTrips> TimeRounds(Echo& echo, int64_t bytes, int rounds,
                                      Clock::time_point end) {
  const std::string message(static_cast<size_t>(bytes), 'x');
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
    RENGA_RETURN_IF_ERROR(echo.Send(message));
    times_us.push_back(std::chrono::duration<double, std::micro>(Clock::now() - begin).count());
  } while (wants_more());
  if (times_us.size() > 1) times_us.erase(times_us.begin());
  std::sort(times_us.begin(), times_us.end());
  return RoundTrips{.payload_bytes = bytes,
                    .rounds = static_cast<int>(times_us.size()),
                    .p50_us = Quantile(times_us, 0.5),
                    .p99_us = Quantile(times_us, 0.99),
                    .minimum_us = times_us.front()};
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

absl::StatusOr<std::vector<RoundTrips>> ProbeLink(Dialer& dialer, const PeerAddress& peer,
                                                  const LinkProbe& probe,
                                                  const std::atomic<bool>& cancelled) {
  RENGA_RETURN_IF_ERROR(CheckProbe(probe));
  std::vector<RoundTrips> results;
  if (dialer.FindLocal(peer) != nullptr) {
    for (const int64_t bytes : probe.payload_bytes) results.push_back({bytes, 1, 1, 1, 1});
    return results;
  }
  Echo echo(dialer, peer, cancelled, absl::Now() + probe.time_limit + kGrace);
  const auto count = static_cast<int64_t>(probe.payload_bytes.size());
  const Clock::time_point begin = Clock::now();
  for (int64_t i = 0; i < count; ++i) {
    const auto end =
        begin + absl::ToChronoNanoseconds(probe.time_limit) * (i + 1) / count;  // equal shares
    RENGA_ASSIGN_OR_RETURN(
        results.emplace_back(),
        TimeRounds(echo, probe.payload_bytes[static_cast<size_t>(i)], probe.rounds, end));
  }
  return results;
}

}  // namespace renga::transport
