// Reads a tensor from a WeightSource with several threads, each of which takes over what it has
// read: reading, checking and packing a piece are one thread's, while the piece is in its caches,
// and no thread waits for another before the tensor's end.
//
// Pieces are those that sources check, so that nothing is read twice. The parts of units at their
// ends are kept aside until a thread has brought a unit's last one. Each thread reads neighbouring
// pieces in order, or another's from the end: of a few units per thread is a part missing at a
// time.
#ifndef RENGA_WORKER_ENGINE_PARALLEL_READER_H_
#define RENGA_WORKER_ENGINE_PARALLEL_READER_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "base/thread_pool.h"
#include "worker/engine/shard.h"

namespace renga::engine {

// Reads end at multiples of this.
inline constexpr int64_t kReadAlignment = int64_t{1} << 20;

// More threads than these gain little, and each holds a piece in memory beside what was offered.
inline constexpr int kMostReadingThreads = 8;

// One Read at a time.
class ParallelReader {
 public:
  // `source` outlives this, and its Read may be called from several threads at once. Takes
  // kMostReadingThreads where `threads` are more.
  ParallelReader(WeightSource* source, int threads)
      : source_(source), pool_(std::min(threads, kMostReadingThreads)) {}

  int threads() const { return pool_.thread_count(); }

  // Whole units of the tensor, with how many bytes of them came before. Called from several threads
  // at once, for each unit once.
  using Take = std::function<absl::Status(int64_t done, std::span<const std::byte> units)>;
  // So many bytes more were read. Called by the thread that called Read.
  using Advance = std::function<absl::Status(int64_t bytes)>;
  // Reads the tensor's bytes [begin, end), which are whole units, in pieces. The first error of the
  // source, of `take` or `advance` ends it.
  absl::Status Read(const std::string& tensor, int64_t begin, int64_t end, int64_t unit,
                    const Take& take, const Advance& advance);

 private:
  struct Job;
  // A unit that lies in several pieces.
  struct CutUnit {
    std::vector<std::byte> bytes;
    int64_t missing = 0;
  };

  absl::Status ReadPiece(const Job& job, int64_t piece);
  // A part of a cut unit, the tensor's bytes from `at` on. Takes the unit when it was the last.
  absl::Status AddPart(const Job& job, int64_t at, std::span<const std::byte> part);
  std::vector<std::byte> TakeBuffer();
  void ReturnBuffer(std::vector<std::byte> buffer);

  WeightSource* const source_;
  base::ThreadPool pool_;
  absl::Mutex mutex_;
  std::vector<std::vector<std::byte>> buffers_ ABSL_GUARDED_BY(mutex_);  // not in use
  // By where they begin in the tensor.
  absl::flat_hash_map<int64_t, CutUnit> cut_units_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace renga::engine

#endif  // RENGA_WORKER_ENGINE_PARALLEL_READER_H_
