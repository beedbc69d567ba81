#include "base/thread_pool.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <system_error>
#include <thread>
#include <vector>

#include "base/machine_limits.h"
#include "base/yield_core.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace renga::base {
namespace {

// Longer than the gaps between a layer's operations, too short to notice as load.
constexpr std::chrono::microseconds kSpin(50);
// Then whoever else wants this CPU may have it between two looks.
constexpr std::chrono::microseconds kSpinWithoutYield(10);

void Pause() {
#if defined(__x86_64__)
  _mm_pause();
#else
  std::this_thread::yield();
#endif
}

// Waits actively until done(), until `limit` is over or until others have used this core for long;
// says whether done() was seen.
template <typename Done>
bool SpinUntil(std::chrono::microseconds limit, const Done& done) {
  if (done()) return true;
  if (limit.count() == 0) return false;
  const auto start = std::chrono::steady_clock::now();
  for (;;) {
    for (int i = 0; i < 16; ++i) {
      Pause();
      if (done()) return true;
    }
    const auto waited = std::chrono::steady_clock::now() - start;
    if (waited >= limit) return false;
    if (waited >= kSpinWithoutYield && !YieldCore()) return done();
  }
}

}  // namespace

// The caller opens a loop, works on it itself and closes it; a thread takes part by counting
// itself in while the loop is open. The caller waits just for those that did, so a thread that is
// asleep, or not scheduled, never holds a loop up.
//
// Each thread has a run of neighbouring grains, which it takes in order, so that memory that lies
// in the order of the grains is read in one go, and the same thread gets the same ones the next
// time. Who is done with his run, takes grains from the end of others'. A piece is a quarter of
// what is left of a run, so that few are taken, and none is large at the end, where others wait
// for it.
//
// Who is in a loop is one word, state: the low bits count the threads inside, then one bit says
// "open", the rest is the loop's number. The loop's description is written only while it is closed
// and nobody is inside, and read only from inside. The number may wrap: a thread that takes a new
// loop for one it has seen merely misses it.
struct ThreadPool::Impl {
  static constexpr uint32_t kInsideMask = 0x7fff;
  static constexpr uint32_t kOpen = 0x8000;
  static constexpr uint32_t kNumberOne = 0x10000;

  // The current loop.
  const std::function<void(int64_t, int64_t)>* body = nullptr;
  int64_t n = 0;
  int64_t grain = 1;
  int64_t grains = 0;
  int64_t most = 1;  // grains of a piece

  // The grains of a thread's run that are left: the first in the low half, the end in the high one.
  struct alignas(64) Run {
    std::atomic<uint64_t> left{0};
  };
  std::vector<Run> runs;

  std::chrono::microseconds spin{0};
  alignas(64) std::atomic<uint32_t> state{0};
  // Counts loops that were closed before the last thread left: what a sleeping caller watches.
  alignas(64) std::atomic<uint32_t> late_ends{0};
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;

  static uint64_t RunOf(int64_t first, int64_t end) {
    return static_cast<uint64_t>(first) | static_cast<uint64_t>(end) << 32;
  }

  struct Piece {
    int64_t first = 0;
    int64_t end = 0;  // the same: none is left
  };

  // From the beginning of what is left of a run, or for others than its owner from the end.
  Piece TakePiece(Run& run, bool own) const {
    uint64_t left = run.left.load(std::memory_order_relaxed);
    for (;;) {
      const auto first = static_cast<int64_t>(left & 0xffffffff);
      const auto end = static_cast<int64_t>(left >> 32);
      if (first == end) return {};
      const int64_t count = std::clamp<int64_t>((end - first) / 4, 1, most);
      const Piece piece = own ? Piece{first, first + count} : Piece{end - count, end};
      const uint64_t then = own ? RunOf(piece.end, end) : RunOf(first, piece.first);
      if (run.left.compare_exchange_weak(left, then, std::memory_order_relaxed)) return piece;
    }
  }

  // Thread `self`'s part of a loop; the caller is thread 0.
  void RunPieces(size_t self) {
    for (size_t i = 0; i < runs.size(); ++i) {
      Run& run = runs[(self + i) % runs.size()];
      for (;;) {
        const Piece piece = TakePiece(run, i == 0);
        if (piece.first == piece.end) break;
        (*body)(piece.first * grain, piece.end == grains ? n : piece.end * grain);
      }
    }
  }

  void Leave() {
    const uint32_t before = state.fetch_sub(1, std::memory_order_acq_rel);
    if ((before & kInsideMask) == 1 && (before & kOpen) == 0) {
      late_ends.fetch_add(1);
      late_ends.notify_one();
    }
  }

  void ThreadMain(size_t self) {
    uint32_t seen_number = 0;
    uint32_t now = state.load(std::memory_order_acquire);
    const auto news = [&] {
      now = state.load(std::memory_order_acquire);
      return (now & kOpen) != 0 && (now / kNumberOne) != seen_number;
    };
    for (;;) {
      const bool found = SpinUntil(spin, news);
      if (stop.load(std::memory_order_acquire)) return;
      if (!found) {
        // `now` has no loop for this thread; any change of the word wakes it.
        state.wait(now, std::memory_order_acquire);
        continue;
      }
      if (!state.compare_exchange_weak(now, now + 1, std::memory_order_acq_rel)) continue;
      seen_number = now / kNumberOne;
      RunPieces(self);
      Leave();
    }
  }

  void Open() {
    const auto count = static_cast<int64_t>(runs.size());
    for (int64_t i = 0; i < count; ++i) {
      runs[static_cast<size_t>(i)].left.store(RunOf(grains * i / count, grains * (i + 1) / count),
                                              std::memory_order_relaxed);
    }
    const uint32_t number = state.load(std::memory_order_relaxed) / kNumberOne + 1;
    state.store(number * kNumberOne | kOpen, std::memory_order_release);
    state.notify_all();
  }

  void CloseAndWait() {
    state.fetch_and(~kOpen, std::memory_order_acq_rel);
    const auto empty = [&] { return (state.load(std::memory_order_acquire) & kInsideMask) == 0; };
    if (SpinUntil(spin, empty)) return;
    for (;;) {
      const uint32_t ends = late_ends.load();
      if (empty()) return;
      late_ends.wait(ends);
    }
  }
};

ThreadPool::ThreadPool(int threads) : impl_(std::make_unique<Impl>()) {
  threads = std::clamp(threads, 1, static_cast<int>(Impl::kInsideMask));
  impl_->runs = std::vector<Impl::Run>(static_cast<size_t>(threads));
  // With fewer CPUs than threads a spinning thread would hold up the one it waits for.
  if (threads <= UsableCpuCount()) impl_->spin = kSpin;
  try {
    for (int i = 1; i < threads; ++i) {
      impl_->threads.emplace_back(
          [impl = impl_.get(), i] { impl->ThreadMain(static_cast<size_t>(i)); });
    }
  } catch (const std::system_error&) {
    // The system allows no more threads: fewer do the same work.
  }
}

ThreadPool::~ThreadPool() {
  impl_->stop.store(true, std::memory_order_release);
  impl_->state.fetch_add(Impl::kNumberOne, std::memory_order_acq_rel);
  impl_->state.notify_all();
  for (std::thread& thread : impl_->threads) thread.join();
}

int ThreadPool::thread_count() const { return static_cast<int>(impl_->threads.size()) + 1; }

void ThreadPool::ParallelFor(int64_t n, int64_t grain, int64_t most,
                             const std::function<void(int64_t, int64_t)>& body) {
  if (n <= 0) return;
  grain = std::max<int64_t>(1, grain);
  // A run counts its grains in 32 bits.
  constexpr int64_t kMostGrains = int64_t{1} << 31;
  if ((n - 1) / grain >= kMostGrains) {
    const int64_t some = grain * kMostGrains;
    ParallelFor(some, grain, most, body);
    return ParallelFor(n - some, grain, most,
                       [&](int64_t begin, int64_t end) { body(begin + some, end + some); });
  }
  const int64_t grains = (n - 1) / grain + 1;
  most = std::max<int64_t>(1, most / grain);
  if (grains == 1 || impl_->threads.empty()) {
    const int64_t step = std::min(n, grain * most);
    for (int64_t begin = 0; begin < n; begin += std::min(step, n - begin)) {
      body(begin, begin + std::min(step, n - begin));
    }
    return;
  }
  impl_->body = &body;
  impl_->n = n;
  impl_->grain = grain;
  impl_->grains = grains;
  impl_->most = most;
  impl_->Open();
  impl_->RunPieces(0);
  impl_->CloseAndWait();
}

}  // namespace renga::base
