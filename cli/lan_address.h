// This machine's address as others on the LAN see it: for the line that `renga up` prints.
#ifndef RENGA_CLI_LAN_ADDRESS_H_
#define RENGA_CLI_LAN_ADDRESS_H_

#include <string>

#include "absl/strings/string_view.h"

namespace renga::cli {

// `listen_host` itself unless it is a wildcard; then the first IPv4 address of an interface that is
// up and not loopback, or 127.0.0.1 when there is none.
std::string ReachableHost(absl::string_view listen_host);

}  // namespace renga::cli

#endif  // RENGA_CLI_LAN_ADDRESS_H_
