// Emptying the processor's caches, for measurements.
#ifndef RENGA_BASE_CACHE_FLUSH_H_
#define RENGA_BASE_CACHE_FLUSH_H_

#include <cstddef>
#include <span>

namespace renga::base {

// Takes these bytes out of the caches of all cores, so that they are read from memory next time.
// Some milliseconds for 32 MiB. False, and nothing is done, where the processor has no fast
// instruction for it (x86: CLFLUSHOPT, of Skylake, Zen and later).
bool FlushFromCaches(std::span<const std::byte> bytes);

}  // namespace renga::base

#endif  // RENGA_BASE_CACHE_FLUSH_H_
