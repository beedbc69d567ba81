// How many multiplications and additions of bytes this machine does at most: the bound of matrix
// products of many tokens.
#ifndef RENGA_BENCH_PEAK_OPERATIONS_H_
#define RENGA_BENCH_PEAK_OPERATIONS_H_

#include "base/thread_pool.h"

namespace renga::bench {

struct PeakOperations {
  const char* instructions = "";  // what was timed: the widest dot products of bytes there are here
  double operations_per_second = 0;  // two per product of two bytes, of all threads together
};

// Dot products of registers that are independent of each other and of memory, on the pool's
// threads, the best of a few tries of some milliseconds. 0 on processors it knows no instruction
// of. AVX-VNNI and AMX are not timed.
PeakOperations MeasurePeakOperations(base::ThreadPool& pool);

}  // namespace renga::bench

#endif  // RENGA_BENCH_PEAK_OPERATIONS_H_
