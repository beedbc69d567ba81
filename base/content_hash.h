// A 128-bit hash that tells damaged or different bytes apart (XXH3-128).
// It detects accidents, not attackers: pieces come from the coordinator over mutual TLS, and a
// joined worker that lies is outside the threat model. In exchange it runs at memory speed on
// machines without SHA instructions.
#ifndef RENGA_BASE_CONTENT_HASH_H_
#define RENGA_BASE_CONTENT_HASH_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace renga::base {

struct ContentHash {
  uint64_t high = 0;
  uint64_t low = 0;
  friend bool operator==(const ContentHash&, const ContentHash&) = default;

  // 32 lower-case hexadecimal digits, safe as a file name.
  std::string ToHex() const;
};

ContentHash HashBytes(std::span<const std::byte> bytes);

}  // namespace renga::base

#endif  // RENGA_BASE_CONTENT_HASH_H_
