// One direction of a link: frames leave in order, no faster than the link's rate, and arrive a
// fixed delay after they have left. Pure bookkeeping: the caller says what time it is.
#ifndef RENGA_TESTS_LAN_DELAY_LINE_H_
#define RENGA_TESTS_LAN_DELAY_LINE_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <vector>

namespace renga::lan {

using Frame = std::vector<std::byte>;

// Not thread-safe. Times are nanoseconds of a clock that never goes back.
class DelayLine {
 public:
  struct Options {
    int64_t delay_ns = 0;
    int64_t bits_per_second = 0;  // 0: no limit
    // Bytes that may wait for their turn on the wire, as in a switch's buffer for one port.
    int64_t max_waiting_bytes = int64_t{1} << 20;
    // All bytes on the line, waiting or under way.
    int64_t max_held_bytes = int64_t{64} << 20;
  };
  explicit DelayLine(const Options& options) : options_(options) {}

  // Takes an Ethernet frame (without its checksum). False when it is dropped because too much
  // waits.
  bool Push(std::span<const std::byte> frame, int64_t now_ns);

  // When the next frame arrives; nullopt when there is none.
  std::optional<int64_t> next_due_ns() const;
  // The next frame if it has arrived.
  std::optional<Frame> PopDue(int64_t now_ns);

 private:
  struct Held {
    int64_t due_ns;
    Frame frame;
  };
  // How long the frame takes on the wire.
  int64_t WireTimeNs(size_t frame_bytes) const;

  const Options options_;
  std::deque<Held> held_;
  int64_t held_bytes_ = 0;
  int64_t wire_free_ns_ = 0;  // when the last frame has left
};

}  // namespace renga::lan

#endif  // RENGA_TESTS_LAN_DELAY_LINE_H_
