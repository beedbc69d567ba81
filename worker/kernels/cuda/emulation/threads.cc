#include "worker/kernels/cuda/emulation/threads.h"

#include <algorithm>
#include <array>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "worker/kernels/cuda/emulation/fiber.h"

namespace renga::kernels::cuda::emulation {
namespace {

constexpr int kWarp = 32;
// What an old card gives a block without being asked for more.
constexpr size_t kSharedBytes = size_t{48} << 10;
constexpr int kMostThreads = 1024;
constexpr int64_t kMostBlocksX = (int64_t{1} << 31) - 1;
constexpr int64_t kMostBlocksY = 65535;

// Where threads wait for each other: who came last lets all go on.
struct Barrier {
  int wanted = 0;
  int arrived = 0;
  uint64_t passed = 0;  // times that all had come
};

struct Warp {
  Barrier barrier;
  // What lanes hand each other, in two sets in turn: a lane can be at most one exchange ahead.
  std::array<std::array<uint64_t, kWarp>, 2> values = {};
  ByteFragments fragments[2][kWarp] = {};
};

struct Thread {
  Place place;
  Fiber fiber;
  const Barrier* waits_for = nullptr;
  uint64_t waits_until = 0;  // the barrier has been passed that often
  size_t shared_used = 0;
};

// One block's threads, used again for the next block.
class Block {
 public:
  absl::Status Run(KernelFunction kernel, const void* args, const Place& place, Turns turns);

  Thread& current() { return *current_; }
  void Wait(Barrier& barrier);
  void WaitForBlock() { Wait(barrier_); }
  Warp& warp() { return warps_[static_cast<size_t>(current_->place.thread / kWarp)]; }
  void* SharedMemory(size_t bytes);
  [[noreturn]] void Fail(std::string what);

 private:
  void Prepare(const Place& place);
  // One turn for each thread of a warp; whether any of them got on.
  bool TurnOf(int warp, Turns turns);
  bool MayRun(const Thread& thread) const;
  std::string Stuck() const;

  KernelFunction kernel_ = nullptr;
  const void* args_ = nullptr;
  std::vector<std::unique_ptr<Thread>> threads_;
  int thread_count_ = 0;
  std::vector<Warp> warps_;
  Barrier barrier_;
  alignas(64) std::array<std::byte, kSharedBytes> shared_;
  Thread* current_ = nullptr;
  std::string failure_;
};

thread_local std::unique_ptr<Block> block;
thread_local MemoryRange card;

void Block::Wait(Barrier& barrier) {
  current_->waits_for = &barrier;
  current_->waits_until = barrier.passed + 1;
  if (++barrier.arrived == barrier.wanted) {
    barrier.arrived = 0;
    ++barrier.passed;
    return;
  }
  current_->fiber.Leave();
}

void* Block::SharedMemory(size_t bytes) {
  size_t& used = current_->shared_used;
  const size_t begin = used;
  used += (bytes + 15) / 16 * 16;
  if (used > kSharedBytes) {
    Fail(absl::StrCat(used, " bytes of shared memory, of ", kSharedBytes));
  }
  return shared_.data() + begin;
}

void Block::Fail(std::string what) {
  if (failure_.empty()) {
    const Place& place = current_->place;
    failure_ = absl::StrCat(what, " in thread ", place.thread, " of block ", place.block_x, ", ",
                            place.block_y);
  }
  while (true) current_->fiber.Leave();  // never resumed: the launch is over
}

void Block::Prepare(const Place& place) {
  thread_count_ = static_cast<int>(place.block_threads);
  while (static_cast<int>(threads_.size()) < thread_count_) {
    threads_.push_back(std::make_unique<Thread>());
  }
  warps_.assign(static_cast<size_t>(thread_count_ / kWarp), Warp());
  for (Warp& warp : warps_) warp.barrier.wanted = kWarp;
  barrier_ = {.wanted = thread_count_};
  shared_.fill(std::byte{0xff});
  failure_.clear();
  for (int t = 0; t < thread_count_; ++t) {
    Thread& thread = *threads_[static_cast<size_t>(t)];
    thread.place = place;
    thread.place.thread = t;
    thread.waits_for = nullptr;
    thread.shared_used = 0;
    thread.fiber.Start(
        [](void* self) { static_cast<Block*>(self)->kernel_(static_cast<Block*>(self)->args_); },
        this);
  }
}

bool Block::MayRun(const Thread& thread) const {
  if (thread.fiber.ended()) return false;
  return thread.waits_for == nullptr || thread.waits_for->passed >= thread.waits_until;
}

bool Block::TurnOf(int warp, Turns turns) {
  bool any = false;
  for (int i = 0; i < kWarp; ++i) {
    const int lane = turns == Turns::kForwards ? i : kWarp - 1 - i;
    Thread& thread = *threads_[static_cast<size_t>(warp * kWarp + lane)];
    if (!MayRun(thread)) continue;
    any = true;
    current_ = &thread;
    current_place = &thread.place;
    thread.fiber.Resume();
    if (!failure_.empty()) return false;
  }
  return any;
}

std::string Block::Stuck() const {
  for (int t = 0; t < thread_count_; ++t) {
    const Thread& thread = *threads_[static_cast<size_t>(t)];
    if (thread.fiber.ended()) continue;
    return absl::StrCat("thread ", t, " of block ", thread.place.block_x, ", ",
                        thread.place.block_y, " waits at a barrier of the ",
                        thread.waits_for == &barrier_ ? "block" : "warp",
                        " that not all threads come to");
  }
  return "";
}

absl::Status Block::Run(KernelFunction kernel, const void* args, const Place& place, Turns turns) {
  kernel_ = kernel;
  args_ = args;
  Prepare(place);
  const int warp_count = thread_count_ / kWarp;
  bool any = true;
  while (any && failure_.empty()) {
    any = false;
    for (int i = 0; i < warp_count; ++i) {
      const int warp = turns == Turns::kForwards ? i : warp_count - 1 - i;
      while (failure_.empty() && TurnOf(warp, turns)) any = true;
    }
  }
  current_place = nullptr;
  const std::string wrong = failure_.empty() ? Stuck() : failure_;
  return wrong.empty() ? absl::OkStatus() : absl::InternalError(wrong);
}

absl::Status CheckGrid(const Grid& grid) {
  if (grid.threads < 1 || grid.threads > kMostThreads || grid.threads % kWarp != 0 ||
      grid.blocks_x < 1 || grid.blocks_x > kMostBlocksX || grid.blocks_y < 1 ||
      grid.blocks_y > kMostBlocksY) {
    return absl::InternalError(absl::StrCat("no card launches ", grid.blocks_x, " x ",
                                            grid.blocks_y, " blocks of ", grid.threads));
  }
  return absl::OkStatus();
}

}  // namespace

void SyncBlock() { block->WaitForBlock(); }
void SyncWarp() { block->Wait(block->warp().barrier); }

void GatherBits(uint64_t bits, uint64_t* all) {
  Warp& warp = block->warp();
  auto& values = warp.values[warp.barrier.passed % 2];
  values[static_cast<size_t>(block->current().place.thread % kWarp)] = bits;
  block->Wait(warp.barrier);
  std::copy(values.begin(), values.end(), all);
}

void MultiplyInWarp(const ByteFragments& mine, int depth, int32_t (&sums)[4]) {
  Warp& warp = block->warp();
  auto& fragments = warp.fragments[warp.barrier.passed % 2];
  const int lane = block->current().place.thread % kWarp;
  fragments[lane] = mine;
  block->Wait(warp.barrier);
  AddProducts(fragments, depth, lane, sums);
}

void MultiplyHalvesInWarp(const ByteFragments& mine, int depth, float (&sums)[4]) {
  Warp& warp = block->warp();
  auto& fragments = warp.fragments[warp.barrier.passed % 2];
  const int lane = block->current().place.thread % kWarp;
  fragments[lane] = mine;
  block->Wait(warp.barrier);
  AddHalvesProducts(fragments, depth, lane, sums);
}

void MultiplyHalfInWarp(int32_t a, int32_t b, int32_t& first, int32_t& second) {
  Warp& warp = block->warp();
  auto& fragments = warp.fragments[warp.barrier.passed % 2];
  const int lane = block->current().place.thread % kWarp;
  fragments[lane] = {{a}, {b}};
  block->Wait(warp.barrier);
  int32_t sums[2] = {first, second};
  AddHalfProducts(fragments, lane, sums);
  first = sums[0];
  second = sums[1];
}

uint64_t ExchangeBits(uint64_t bits, int mask) {
  uint64_t all[kWarp];
  GatherBits(bits, all);
  return all[(block->current().place.thread % kWarp) ^ mask];
}

void* SharedMemory(size_t bytes) { return block->SharedMemory(bytes); }

void CheckLoad(const void* at, size_t alignment) {
  const auto* const begin = static_cast<const std::byte*>(at);
  if (reinterpret_cast<uintptr_t>(at) % alignment != 0) {
    block->Fail(
        absl::StrCat("a load of ", alignment, " bytes from an address that is no multiple"));
  }
  if (card.begin == nullptr || (begin >= card.begin && begin < card.end)) return;
  block->Fail(absl::StrCat("a load of ", alignment, " bytes from memory that is not the card's"));
}

absl::Status RunGrid(KernelFunction kernel, const void* args, const Grid& grid, Turns turns,
                     const MemoryRange& memory) {
  card = memory;
  if (absl::Status status = CheckGrid(grid); !status.ok()) return status;
  if (block == nullptr) block = std::make_unique<Block>();
  for (int64_t y = 0; y < grid.blocks_y; ++y) {
    for (int64_t x = 0; x < grid.blocks_x; ++x) {
      const Place place = {.thread = 0,
                           .block_x = x,
                           .block_y = y,
                           .block_threads = grid.threads,
                           .mma_rows = grid.mma_rows};
      if (absl::Status status = block->Run(kernel, args, place, turns); !status.ok()) return status;
    }
  }
  return absl::OkStatus();
}

}  // namespace renga::kernels::cuda::emulation
