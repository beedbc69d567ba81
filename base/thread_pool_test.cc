#include "base/thread_pool.h"

#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <limits>
#include <thread>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

namespace renga::base {
namespace {

class ThreadPoolTest : public ::testing::TestWithParam<int> {};

TEST_P(ThreadPoolTest, RunsEveryIndexExactlyOnceInPiecesOfAtMostTheGrain) {
  ThreadPool pool(GetParam());
  EXPECT_EQ(pool.thread_count(), GetParam());
  for (const int64_t n : {1, 2, 3, 7, 64, 1000}) {
    for (const int64_t grain : {1, 2, 3, 64, 5000}) {
      std::vector<int> hits(static_cast<size_t>(n), 0);
      std::atomic<bool> too_long{false};
      pool.ParallelFor(n, grain, [&](int64_t begin, int64_t end) {
        if (end - begin > grain || end <= begin) too_long = true;
        for (int64_t i = begin; i < end; ++i) ++hits[static_cast<size_t>(i)];
      });
      EXPECT_FALSE(too_long);
      EXPECT_EQ(hits, std::vector<int>(static_cast<size_t>(n), 1)) << n << " by " << grain;
    }
  }
}

TEST_P(ThreadPoolTest, PiecesAreWholeGrainsAndAtMostWhatIsAsked) {
  ThreadPool pool(GetParam());
  for (const int64_t n : {1, 5, 64, 1000, 1001}) {
    for (const auto& [grain, most] :
         {std::pair<int64_t, int64_t>{2, 16}, {3, 10}, {4, 1}, {1, 64}}) {
      const int64_t longest = std::max(grain, most);
      std::vector<int> hits(static_cast<size_t>(n), 0);
      std::atomic<int> wrong{0};
      pool.ParallelFor(n, grain, most, [&](int64_t begin, int64_t end) {
        if (begin % grain != 0 || (end % grain != 0 && end != n)) ++wrong;
        if (end <= begin || end - begin > longest) ++wrong;
        for (int64_t i = begin; i < end; ++i) ++hits[static_cast<size_t>(i)];
      });
      EXPECT_EQ(wrong, 0) << n << " by " << grain << " to " << most;
      EXPECT_EQ(hits, std::vector<int>(static_cast<size_t>(n), 1)) << n << " by " << grain;
    }
  }
}

// Whoever is late at the end holds the others up by one grain, not by a large piece.
TEST_P(ThreadPoolTest, TheLastPiecesOfEveryRunAreSingleGrains) {
  if (GetParam() == 1) return;
  ThreadPool pool(GetParam());
  std::atomic<int> singles{0};
  std::atomic<int> large{0};
  pool.ParallelFor(4000, 2, 64, [&](int64_t begin, int64_t end) {
    if (end - begin == 2) ++singles;
    if (end - begin == 64) ++large;
  });
  // A quarter of seven grains, or of fewer, is none.
  EXPECT_GE(singles, 6 * GetParam());
  EXPECT_GE(large, GetParam());
}

TEST_P(ThreadPoolTest, ManyShortLoopsOneAfterAnother) {
  ThreadPool pool(GetParam());
  std::vector<int64_t> sums(37, 0);
  for (int round = 0; round < 3000; ++round) {
    pool.ParallelFor(37, 5, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) sums[static_cast<size_t>(i)] += i;
    });
  }
  for (int64_t i = 0; i < 37; ++i) EXPECT_EQ(sums[static_cast<size_t>(i)], 3000 * i);
}

TEST_P(ThreadPoolTest, LoopsAfterThreadsFellAsleep) {
  ThreadPool pool(GetParam());
  for (int round = 0; round < 20; ++round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    std::atomic<int64_t> count{0};
    pool.ParallelFor(50, 1, [&](int64_t begin, int64_t end) { count += end - begin; });
    EXPECT_EQ(count, 50);
  }
}

TEST_P(ThreadPoolTest, TheCallerWaitsForSlowPieces) {
  ThreadPool pool(GetParam());
  std::vector<int> done(8, 0);
  pool.ParallelFor(8, 1, [&](int64_t begin, int64_t) {
    // Long enough for a caller that finished its own pieces to go to sleep.
    std::this_thread::sleep_for(std::chrono::milliseconds(begin % 3));
    done[static_cast<size_t>(begin)] = 1;
  });
  EXPECT_EQ(done, std::vector<int>(8, 1));
}

TEST_P(ThreadPoolTest, EmptyAndExtremeArguments) {
  ThreadPool pool(GetParam());
  int calls = 0;
  pool.ParallelFor(0, 1, [&](int64_t, int64_t) { ++calls; });
  pool.ParallelFor(-5, 1, [&](int64_t, int64_t) { ++calls; });
  EXPECT_EQ(calls, 0);
  std::atomic<int64_t> covered{0};
  const auto count = [&](int64_t begin, int64_t end) { covered += end - begin; };
  pool.ParallelFor(3, 0, count);
  EXPECT_EQ(covered, 3);
  covered = 0;
  constexpr int64_t kHuge = std::numeric_limits<int64_t>::max();
  pool.ParallelFor(kHuge, kHuge / 3, count);
  EXPECT_EQ(covered, kHuge);
}

// 4 and 9 are more threads than many machines have CPUs.
INSTANTIATE_TEST_SUITE_P(Threads, ThreadPoolTest, ::testing::Values(1, 2, 3, 4, 9));

double ProcessCpuSeconds() {
  rusage usage = {};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec);
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

TEST(ThreadPoolIdleTest, AnIdlePoolUsesNoCpu) {
  ThreadPool pool(3);
  std::atomic<int64_t> count{0};
  pool.ParallelFor(100, 1, [&](int64_t begin, int64_t end) { count += end - begin; });
  const double before = ProcessCpuSeconds();
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  // Two spinning threads would have used up to 0.4 s.
  EXPECT_LT(ProcessCpuSeconds() - before, 0.02);
}

TEST(ThreadPoolIdleTest, PoolsThatNeverRanEndToo) {
  for (int i = 0; i < 20; ++i) ThreadPool pool(3);
}

}  // namespace
}  // namespace renga::base
