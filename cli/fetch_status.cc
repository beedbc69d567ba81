#include "cli/fetch_status.h"

// httplib.h defines what it needs of OpenSSL itself; plain HTTP is all that is used here.
#include "httplib.h"

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "transport/dialer.h"

namespace renga::cli {

absl::StatusOr<nlohmann::json> FetchStatus(const std::string& http, const std::string& api_key) {
  RENGA_ASSIGN_OR_RETURN(const transport::HostPort address, transport::ParseHostPort(http));
  httplib::Client client(address.host, address.port);
  client.set_connection_timeout(5);
  client.set_read_timeout(5);
  httplib::Headers headers;
  if (!api_key.empty()) headers.emplace("Authorization", "Bearer " + api_key);
  const httplib::Result result = client.Get("/renga/status", headers);
  if (!result) {
    return absl::UnavailableError(absl::StrCat(
        "nobody answers at ", http, ": is `renga up` or `renga serve` running there (--http)?"));
  }
  if (result->status == 401) {
    return absl::UnavailableError(
        absl::StrCat(http, " wants a key: give it with --api-key, or in RENGA_API_KEY"));
  }
  if (result->status != 200) {
    return absl::UnavailableError(
        absl::StrCat(http, " answered with HTTP status ", result->status, ": is renga there?"));
  }
  nlohmann::json status = nlohmann::json::parse(result->body, nullptr, /*allow_exceptions=*/false);
  if (!status.is_object()) {
    return absl::UnavailableError(absl::StrCat(http, " is not a renga coordinator"));
  }
  return status;
}

}  // namespace renga::cli
