// Asks a running coordinator how it is.
#ifndef RENGA_CLI_FETCH_STATUS_H_
#define RENGA_CLI_FETCH_STATUS_H_

#include <string>

#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"

namespace renga::cli {

// The object that `renga up` or `renga serve` answers at `http` (HOST:PORT) under /renga/status:
// what status_json.h makes, but from another process, so anything may be missing in it or mistyped.
// `api_key` may be empty. kInvalidArgument for what is no address; kUnavailable when nobody
// answers, or something else does.
absl::StatusOr<nlohmann::json> FetchStatus(const std::string& http, const std::string& api_key);

}  // namespace renga::cli

#endif  // RENGA_CLI_FETCH_STATUS_H_
