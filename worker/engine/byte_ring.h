// Where in a buffer the next bytes go that are read in order and freed in order.
#ifndef RENGA_WORKER_ENGINE_BYTE_RING_H_
#define RENGA_WORKER_ENGINE_BYTE_RING_H_

#include <cstdint>
#include <deque>
#include <optional>

namespace renga::engine {

// Hands out ranges that lie in one piece. Not thread-safe.
class ByteRing {
 public:
  explicit ByteRing(int64_t bytes) : bytes_(bytes) {}

  // Where `size` bytes would go, size >= 1; nullopt: only after more was freed. An empty ring has
  // room for all of its bytes.
  std::optional<int64_t> Find(int64_t size) const {
    if (taken_.empty()) return Within(0, size, bytes_);
    const int64_t front = taken_.front().begin;
    const int64_t end = taken_.back().end;
    if (taken_.back().begin < front) return Within(end, size, front);
    if (const auto behind = Within(end, size, bytes_)) return behind;
    return Within(0, size, front);
  }
  // Takes what Find has found.
  void Take(int64_t begin, int64_t size) { taken_.push_back({begin, begin + size}); }
  // Frees what was taken first.
  void FreeFirst() { taken_.pop_front(); }
  void FreeAll() { taken_.clear(); }

 private:
  struct Range {
    int64_t begin;
    int64_t end;
  };
  static std::optional<int64_t> Within(int64_t begin, int64_t size, int64_t end) {
    return begin + size <= end ? std::optional<int64_t>(begin) : std::nullopt;
  }

  const int64_t bytes_;
  std::deque<Range> taken_;  // oldest first
};

}  // namespace renga::engine

#endif  // RENGA_WORKER_ENGINE_BYTE_RING_H_
