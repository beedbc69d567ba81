#include "tests/lan/delay_line.h"

#include <algorithm>
#include <utility>

namespace renga::lan {
namespace {

// What a frame takes on the wire beyond its bytes: preamble and start (8), checksum (4), gap (12);
// and what it takes at least.
constexpr int64_t kFrameOverheadBytes = 24;
constexpr int64_t kMinWireBytes = 84;
constexpr int64_t kNanosecondsPerSecond = 1'000'000'000;

}  // namespace

int64_t DelayLine::WireTimeNs(size_t frame_bytes) const {
  if (options_.bits_per_second <= 0) return 0;
  const int64_t bytes =
      std::max(kMinWireBytes, static_cast<int64_t>(frame_bytes) + kFrameOverheadBytes);
  // Frames are below 64 KiB, so the product stays far below 2^63. Rounded up: never too early.
  return (bytes * 8 * kNanosecondsPerSecond + options_.bits_per_second - 1) /
         options_.bits_per_second;
}

bool DelayLine::Push(std::span<const std::byte> frame, int64_t now_ns) {
  const auto size = static_cast<int64_t>(frame.size());
  if (held_bytes_ + size > options_.max_held_bytes) return false;
  const int64_t begin_ns = std::max(now_ns, wire_free_ns_);
  if (options_.bits_per_second > 0) {
    const double waiting_bytes = static_cast<double>(begin_ns - now_ns) *
                                 static_cast<double>(options_.bits_per_second) /
                                 (8.0 * static_cast<double>(kNanosecondsPerSecond));
    if (waiting_bytes > static_cast<double>(options_.max_waiting_bytes)) return false;
  }
  wire_free_ns_ = begin_ns + WireTimeNs(frame.size());
  held_.push_back({wire_free_ns_ + options_.delay_ns, Frame(frame.begin(), frame.end())});
  held_bytes_ += size;
  return true;
}

std::optional<int64_t> DelayLine::next_due_ns() const {
  if (held_.empty()) return std::nullopt;
  return held_.front().due_ns;
}

std::optional<Frame> DelayLine::PopDue(int64_t now_ns) {
  if (held_.empty() || held_.front().due_ns > now_ns) return std::nullopt;
  Frame frame = std::move(held_.front().frame);
  held_.pop_front();
  held_bytes_ -= static_cast<int64_t>(frame.size());
  return frame;
}

}  // namespace renga::lan
