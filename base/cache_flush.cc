#include "base/cache_flush.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace renga::base {

#if defined(__x86_64__)

namespace {

constexpr size_t kLineBytes = 64;

[[gnu::target("clflushopt")]] void FlushLines(std::span<const std::byte> bytes) {
  if (bytes.empty()) return;
  // The intrinsic asks for memory that may be written, and writes nothing.
  auto* const data = const_cast<std::byte*>(bytes.data());
  for (size_t at = 0; at < bytes.size(); at += kLineBytes) _mm_clflushopt(data + at);
  _mm_clflushopt(data + bytes.size() - 1);
  _mm_mfence();
}

}  // namespace

bool FlushFromCaches(std::span<const std::byte> bytes) {
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("clflushopt")) return false;
  FlushLines(bytes);
  return true;
}

#else

bool FlushFromCaches(std::span<const std::byte>) { return false; }

#endif

}  // namespace renga::base
