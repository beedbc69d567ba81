// Byte sizes as people write and read them: "500MiB", "3.5 GiB", "94 MB".
#ifndef RENGA_BASE_BYTE_SIZE_H_
#define RENGA_BASE_BYTE_SIZE_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace renga::base {

// "500MiB", "3.5GiB", "4GB", "1048576", "512K" (K, M, G, T alone are binary) to bytes.
// kInvalidArgument when it is no size, negative, or does not fit int64.
absl::StatusOr<int64_t> ParseByteSize(absl::string_view text);

// 524288000 to "500.0 MiB". Always binary units.
std::string FormatByteSize(int64_t bytes);

}  // namespace renga::base

#endif  // RENGA_BASE_BYTE_SIZE_H_
