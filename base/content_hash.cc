#include "base/content_hash.h"

#include <xxhash.h>

#include "absl/strings/str_format.h"

namespace renga::base {

std::string ContentHash::ToHex() const { return absl::StrFormat("%016x%016x", high, low); }

ContentHash HashBytes(std::span<const std::byte> bytes) {
  const XXH128_hash_t hash = XXH3_128bits(bytes.data(), bytes.size());
  return {.high = hash.high64, .low = hash.low64};
}

}  // namespace renga::base
