#include "bench/memory_bandwidth.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>
#include <utility>

#include "base/status_macros.h"

namespace renga::bench {
namespace {

constexpr int64_t kLine = 64;
constexpr int64_t kPieceBytes = int64_t{1} << 20;
constexpr std::array<int, 4> kStreams = {1, 2, 4, 8};
constexpr std::array<int64_t, 4> kPrefetch = {0, 1024, 4096, 16384};
// So many patterns are read so many times more, in turn.
constexpr size_t kClosest = 4;
constexpr size_t kReadings = 5;

using Vector = uint64_t __attribute__((vector_size(16)));

// The sum of a piece, so that no read can be left out.
template <int streams>
uint64_t ReadPiece(const std::byte* piece, int64_t bytes, int64_t prefetch) {
  const int64_t each = bytes / streams;
  Vector sums[streams][4] = {};
  for (int64_t at = 0; at < each; at += kLine) {
    for (int s = 0; s < streams; ++s) {
      const std::byte* line = piece + s * each + at;
      if (prefetch > 0) __builtin_prefetch(line + prefetch);
      for (int i = 0; i < 4; ++i) {
        Vector v;
        std::memcpy(&v, line + 16 * i, sizeof(v));
        sums[s][i] += v;
      }
    }
  }
  uint64_t sum = 0;
  for (const auto& stream : sums) {
    for (const Vector& v : stream) sum += v[0] + v[1];
  }
  return sum;
}

uint64_t Read(const ReadPattern& pattern, const std::byte* piece, int64_t bytes) {
  switch (pattern.streams) {
    case 2:
      return ReadPiece<2>(piece, bytes, pattern.prefetch_bytes);
    case 4:
      return ReadPiece<4>(piece, bytes, pattern.prefetch_bytes);
    case 8:
      return ReadPiece<8>(piece, bytes, pattern.prefetch_bytes);
    default:
      return ReadPiece<1>(piece, bytes, pattern.prefetch_bytes);
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<BandwidthProbe>> BandwidthProbe::Create(int threads, int64_t bytes) {
  const int64_t pieces = std::max<int64_t>(1, bytes / kPieceBytes);
  RENGA_ASSIGN_OR_RETURN(auto memory, kernels::PageMemory::Allocate(pieces * kPieceBytes));
  // Pages that nobody wrote are all the same page of zeros.
  std::memset(memory.data(), 1, static_cast<size_t>(pieces * kPieceBytes));
  return std::unique_ptr<BandwidthProbe>(new BandwidthProbe(threads, std::move(memory), pieces));
}

BandwidthProbe::BandwidthProbe(int threads, kernels::PageMemory memory, int64_t pieces)
    : pool_(threads), memory_(std::move(memory)), sums_(static_cast<size_t>(pieces)) {}

double BandwidthProbe::Seconds(const ReadPattern& pattern) {
  const auto start = std::chrono::steady_clock::now();
  pool_.ParallelFor(static_cast<int64_t>(sums_.size()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      sums_[static_cast<size_t>(i)] += Read(pattern, memory_.data() + i * kPieceBytes, kPieceBytes);
    }
  });
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

ReadBandwidth BandwidthProbe::Measure() {
  const auto bytes = static_cast<double>(sums_.size()) * kPieceBytes;
  ReadBandwidth best;
  std::vector<ReadBandwidth> patterns;
  for (const int streams : kStreams) {
    for (const int64_t prefetch : kPrefetch) {
      const ReadPattern pattern = {.streams = streams, .prefetch_bytes = prefetch};
      patterns.push_back({.pattern = pattern, .bytes_per_second = bytes / Seconds(pattern)});
    }
  }
  std::sort(patterns.begin(), patterns.end(), [](const ReadBandwidth& a, const ReadBandwidth& b) {
    return a.bytes_per_second > b.bytes_per_second;
  });
  patterns.resize(kClosest);
  std::array<std::array<double, kReadings>, kClosest> speeds;
  for (size_t reading = 0; reading < kReadings; ++reading) {
    for (size_t i = 0; i < kClosest; ++i) speeds[i][reading] = bytes / Seconds(patterns[i].pattern);
  }
  for (size_t i = 0; i < kClosest; ++i) {
    std::sort(speeds[i].begin(), speeds[i].end());
    const double speed = std::max(patterns[i].bytes_per_second, speeds[i].back());
    if (speed > best.bytes_per_second) {
      best.pattern = patterns[i].pattern;
      best.bytes_per_second = speed;
    }
    best.sustained_bytes_per_second =
        std::max(best.sustained_bytes_per_second, speeds[i][kReadings / 2]);
  }
  return best;
}

}  // namespace renga::bench
