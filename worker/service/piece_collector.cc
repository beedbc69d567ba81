#include "worker/service/piece_collector.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <span>
#include <system_error>
#include <utility>

#include "absl/status/status.h"
#include "absl/time/clock.h"
#include "base/byte_size.h"
#include "base/log.h"

namespace renga::worker {
namespace {

// A link is in the way of a step that begins for about so long.
constexpr absl::Duration kInTheWay = absl::Milliseconds(50);
constexpr int64_t kMostAskedAtOnce = 4;
// The next token of an answer begins sooner after the one before.
constexpr absl::Duration kQuiet = absl::Seconds(1);
// When nobody had the piece, or what came was wrong.
constexpr absl::Duration kFirstRetryDelay = absl::Seconds(2);
constexpr absl::Duration kLongestRetryDelay = absl::Minutes(1);

}  // namespace

PieceCollector::PieceCollector(ShippedWeights* weights, std::vector<PieceId> pieces)
    : weights_(weights), pieces_(std::move(pieces)) {
  for (const PieceId& piece : pieces_) missing_bytes_ += weights_->SizeOf(piece);
}

PieceCollector::~PieceCollector() {
  {
    absl::MutexLock lock(&mutex_);
    ending_ = true;
  }
  weights_->CancelBringing();
  if (thread_.joinable()) thread_.join();
}

size_t PieceCollector::AskedAtOnce(absl::Duration of_one) {
  const int64_t pieces = of_one > absl::ZeroDuration() ? kInTheWay / of_one : kMostAskedAtOnce;
  return static_cast<size_t>(std::clamp<int64_t>(pieces, 1, kMostAskedAtOnce));
}

void PieceCollector::Begin() {
  if (pieces_.empty() || thread_.joinable()) return;
  // Who has waited for the shard asks now.
  StepEnds();
  try {
    thread_ = std::thread([this] { Collect(); });
  } catch (const std::system_error&) {
    // What is needed comes when it is.
  }
}

void PieceCollector::StepBegins() {
  absl::MutexLock lock(&mutex_);
  computing_ = true;
}

void PieceCollector::StepEnds() {
  absl::MutexLock lock(&mutex_);
  computing_ = false;
  quiet_since_ = absl::Now();
}

bool PieceCollector::WaitForQuiet(absl::Time earliest) {
  absl::MutexLock lock(&mutex_);
  while (true) {
    mutex_.Await(absl::Condition(this, &PieceCollector::MayGoOn));
    const absl::Time begin = std::max(earliest, quiet_since_ + kQuiet);
    if (ending_) return false;
    if (absl::Now() >= begin) return true;
    mutex_.AwaitWithDeadline(absl::Condition(this, &PieceCollector::Ending), begin);
  }
}

void PieceCollector::Collect() {
  // Linux counts priority by thread.
  ::setpriority(PRIO_PROCESS, static_cast<id_t>(::gettid()), 19);
  absl::Duration delay = kFirstRetryDelay;
  absl::Time earliest = absl::InfinitePast();
  absl::Duration of_one = kInTheWay;  // of late
  for (size_t i = 0; i < pieces_.size();) {
    if (!WaitForQuiet(earliest)) return;
    const std::span<const PieceId> rest = std::span(pieces_).subspan(i);
    const absl::Time begin = absl::Now();
    const absl::Status status =
        weights_->Bring(rest.first(std::min(rest.size(), AskedAtOnce(of_one))));
    of_one = (of_one + (absl::Now() - begin)) / 2;
    if (status.ok()) {
      missing_bytes_ -= weights_->SizeOf(pieces_[i++]);
      delay = kFirstRetryDelay;
      earliest = absl::InfinitePast();
    } else if (absl::IsResourceExhausted(status)) {
      RENGA_LOG(WARNING) << base::FormatByteSize(missing_bytes_)
                         << " of experts stay where they are, until a token chooses them: "
                         << status.message();
      return;
    } else {
      if (!absl::IsCancelled(status)) {
        RENGA_LOG(WARNING) << "experts that no token has chosen yet do not come: "
                           << status.message() << "; trying again";
      }
      earliest = absl::Now() + delay;
      delay = std::min(2 * delay, kLongestRetryDelay);
    }
  }
}

}  // namespace renga::worker
