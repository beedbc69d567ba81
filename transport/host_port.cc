#include <string>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "transport/dialer.h"

namespace renga::transport {
namespace {

absl::Status BadAddress(absl::string_view text) {
  return absl::InvalidArgumentError(
      absl::StrCat("an address is HOST:PORT or [IPv6]:PORT, not \"", text, "\""));
}

}  // namespace

absl::StatusOr<HostPort> ParseHostPort(absl::string_view text) {
  const size_t colon = text.rfind(':');
  if (colon == absl::string_view::npos || colon == 0) return BadAddress(text);
  absl::string_view host = text.substr(0, colon);
  if (host.front() == '[') {
    if (host.size() < 3 || host.back() != ']') return BadAddress(text);
    host = host.substr(1, host.size() - 2);
  } else if (host.find(':') != absl::string_view::npos) {
    return BadAddress(text);  // an IPv6 address without brackets: where the port begins is a guess
  }
  if (host.find_first_of("[]/% \t\r\n") != absl::string_view::npos) return BadAddress(text);
  int port = 0;
  const absl::string_view digits = text.substr(colon + 1);
  if (digits.find_first_not_of("0123456789") != absl::string_view::npos ||
      !absl::SimpleAtoi(digits, &port) || port < 0 || port > 65535) {
    return BadAddress(text);
  }
  return HostPort{.host = std::string(host), .port = port};
}

bool IsLoopbackHost(absl::string_view host) {
  if (host == "localhost" || host == "::1") return true;
  // 127.0.0.0/8, all four numbers: "127.evil.example" is a name.
  if (host.substr(0, 4) != "127.") return false;
  int dots = 0;
  for (const char c : host) {
    if (c == '.') {
      ++dots;
    } else if (c < '0' || c > '9') {
      return false;
    }
  }
  return dots == 3;
}

}  // namespace renga::transport
