// How fast this machine reads memory: the bound of everything that reads each weight once.
#ifndef RENGA_BENCH_MEMORY_BANDWIDTH_H_
#define RENGA_BENCH_MEMORY_BANDWIDTH_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "base/thread_pool.h"
#include "worker/kernels/page_memory.h"

namespace renga::bench {

// How a thread walks its part of the memory: as so many neighbouring streams, asking for lines so
// far ahead (0: leaving that to the processor). No single pattern is the fastest everywhere.
struct ReadPattern {
  int streams = 1;
  int64_t prefetch_bytes = 0;
};

struct ReadBandwidth {
  ReadPattern pattern;  // the fastest
  double bytes_per_second = 0;
  // What the best pattern gives on the average (the median of several readings): the best reading
  // of all is partly luck, and a model's speed is an average too.
  double sustained_bytes_per_second = 0;
};

// Reads a working set that no cache holds, with the threads of a pool.
class BandwidthProbe {
 public:
  // `threads` >= 1; `bytes` >= 1 MiB, several times the last cache, of the pages that weights lie
  // on. kResourceExhausted when the system has not that much.
  static absl::StatusOr<std::unique_ptr<BandwidthProbe>> Create(int threads, int64_t bytes);

  // The best of all patterns; those that look best are read several times. About a second.
  ReadBandwidth Measure();

 private:
  BandwidthProbe(int threads, kernels::PageMemory memory, int64_t pieces);
  double Seconds(const ReadPattern& pattern);

  base::ThreadPool pool_;
  kernels::PageMemory memory_;
  std::vector<uint64_t> sums_;
};

}  // namespace renga::bench

#endif  // RENGA_BENCH_MEMORY_BANDWIDTH_H_
