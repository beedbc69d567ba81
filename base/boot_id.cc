#include "base/boot_id.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "absl/strings/ascii.h"
#include "absl/strings/string_view.h"

namespace renga::base {

std::string BootId() {
  // The file says that it has no bytes.
  const int fd = ::open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
  if (fd < 0) return "";
  std::array<char, 64> text = {};
  const ssize_t n = ::read(fd, text.data(), text.size());
  ::close(fd);
  return std::string(absl::StripAsciiWhitespace(
      absl::string_view(text.data(), static_cast<size_t>(std::max<ssize_t>(n, 0)))));
}

}  // namespace renga::base
