#include "worker/engine/parallel_reader.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <utility>

#include "base/testing/status_matchers.h"
#include "gtest/gtest.h"

namespace renga::engine {
namespace {

constexpr int64_t kPiece = kReadAlignment;

std::byte ByteAt(int64_t offset) { return static_cast<std::byte>(offset * 2654435761 >> 13); }

// A tensor whose bytes are known, and which remembers where it was read.
class KnownBytes : public WeightSource {
 public:
  absl::StatusOr<base::DataType> TensorType(const std::string&) override {
    return base::DataType::kF32;
  }
  absl::Status Read(const std::string&, int64_t offset, std::span<std::byte> out) override {
    const int64_t end = offset + static_cast<int64_t>(out.size());
    if (offset <= broken_at && broken_at < end) return absl::DataLossError("broken");
    read_bytes += static_cast<int64_t>(out.size());
    if (offset / kPiece != (end - 1) / kPiece) within_pieces = false;
    for (size_t i = 0; i < out.size(); ++i) out[i] = ByteAt(offset + static_cast<int64_t>(i));
    return absl::OkStatus();
  }
  bool ReadsAtOnce() const override { return true; }

  int64_t broken_at = -1;
  std::atomic<int64_t> read_bytes = 0;
  std::atomic<bool> within_pieces = true;
};

// Reads `units` of `unit` bytes from `begin` on, and checks that each comes once and is right.
void ReadAndCheck(int threads, int64_t begin, int64_t unit, int64_t units) {
  SCOPED_TRACE(::testing::Message() << threads << " threads, " << units << " x " << unit);
  KnownBytes source;
  ParallelReader reader(&source, threads);
  std::vector<std::atomic<int>> seen(static_cast<size_t>(units));
  std::atomic<bool> right = true;
  int64_t advanced = 0;
  ASSERT_OK(reader.Read(
      "t", begin, begin + unit * units, unit,
      [&](int64_t done, std::span<const std::byte> bytes) {
        EXPECT_EQ(done % unit, 0);
        EXPECT_EQ(static_cast<int64_t>(bytes.size()) % unit, 0);
        for (size_t i = 0; i < bytes.size(); ++i) {
          if (bytes[i] != ByteAt(begin + done + static_cast<int64_t>(i))) right = false;
        }
        const int64_t last = done + static_cast<int64_t>(bytes.size());
        for (int64_t at = done; at < last; at += unit) ++seen[static_cast<size_t>(at / unit)];
        return absl::OkStatus();
      },
      [&](int64_t bytes) {
        advanced += bytes;
        return absl::OkStatus();
      }));
  EXPECT_TRUE(right);
  EXPECT_TRUE(std::all_of(seen.begin(), seen.end(), [](const auto& n) { return n == 1; }));
  EXPECT_EQ(advanced, unit * units);
  EXPECT_EQ(source.read_bytes, unit * units);
  EXPECT_TRUE(source.within_pieces);
}

TEST(ParallelReaderTest, EachUnitComesOnce) {
  for (const int threads : {1, 3}) {
    ReadAndCheck(threads, 0, 2304, 1500);          // some units on two pieces
    ReadAndCheck(threads, 5 * 2304, 2304, 1);      // less than a piece
    ReadAndCheck(threads, kPiece - 70, 70, 2);     // a piece's end and a unit's
    ReadAndCheck(threads, 3 * 4096, 4096, 1024);   // no unit on two pieces
    ReadAndCheck(threads, 11, kPiece + 1, 3);      // units longer than pieces
    ReadAndCheck(threads, 0, 2 * kPiece + 99, 2);  // pieces without a unit's beginning
  }
}

TEST(ParallelReaderTest, UnitsOnTwoPiecesAreTakenWhenBothAreThere) {
  KnownBytes source;
  ParallelReader reader(&source, 1);
  int64_t read = 0;
  ASSERT_OK(reader.Read(
      "t", 0, 5'000'000, 1000,
      [&](int64_t done, std::span<const std::byte> bytes) {
        // Of the piece that was read now, or of that and the one before: no other is kept.
        EXPECT_GT(done + static_cast<int64_t>(bytes.size()), read);
        return absl::OkStatus();
      },
      [&](int64_t bytes) {
        read += bytes;
        return absl::OkStatus();
      }));
  EXPECT_EQ(read, 5'000'000);
}

TEST(ParallelReaderTest, HoldsFewPiecesOnManyCores) {
  KnownBytes source;
  EXPECT_LE(ParallelReader(&source, 64).threads(), kMostReadingThreads);
  EXPECT_EQ(ParallelReader(&source, 2).threads(), 2);
}

absl::Status ReadFour(KnownBytes& source, const ParallelReader::Take& take,
                      const ParallelReader::Advance& advance) {
  ParallelReader reader(&source, 2);
  return reader.Read("t", 0, 4 * kPiece, 1024, take, advance);
}

TEST(ParallelReaderTest, ErrorsEndIt) {
  const auto take = [](int64_t, std::span<const std::byte>) { return absl::OkStatus(); };
  const auto advance = [](int64_t) { return absl::OkStatus(); };
  KnownBytes broken;
  broken.broken_at = 3 * kPiece + 5;
  EXPECT_TRUE(absl::IsDataLoss(ReadFour(broken, take, advance)));
  KnownBytes whole;
  EXPECT_TRUE(absl::IsAborted(ReadFour(
      whole,
      [](int64_t done, std::span<const std::byte>) {
        return done == kPiece ? absl::AbortedError("full") : absl::OkStatus();
      },
      advance)));
  EXPECT_TRUE(absl::IsCancelled(
      ReadFour(whole, take, [](int64_t) { return absl::CancelledError("enough"); })));
  EXPECT_OK(ReadFour(whole, take, advance));
}

}  // namespace
}  // namespace renga::engine
