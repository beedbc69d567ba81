#include "coordinator/http/api_error.h"

#include <utility>

#include "nlohmann/json.hpp"

namespace renga::http {
namespace {

const char* ErrorType(int http_status) {
  switch (http_status) {
    case 401:
      return "authentication_error";
    case 403:
      return "permission_error";
    case 429:
      return "rate_limit_error";
    case 503:
    case 504:
      return "service_unavailable_error";
    default:
      return http_status < 500 ? "invalid_request_error" : "server_error";
  }
}

// nullptr: the type says it all.
const char* ErrorCode(int http_status) {
  switch (http_status) {
    case 401:
      return "invalid_api_key";
    case 413:
      return "request_too_large";
    case 429:
      return "rate_limit_exceeded";
    case 503:
      return "service_unavailable";
    default:
      return nullptr;
  }
}

nlohmann::json MakeError(int http_status, const char* code, absl::string_view message) {
  nlohmann::json error = {{"message", std::string(message)},
                          {"type", ErrorType(http_status)},
                          {"param", nullptr},
                          {"code", nullptr}};
  if (code != nullptr) error["code"] = code;
  return {{"error", std::move(error)}};
}

}  // namespace

int HttpStatus(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return 200;
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kOutOfRange:
    case absl::StatusCode::kUnimplemented:
      return 400;
    case absl::StatusCode::kUnauthenticated:
      return 401;
    case absl::StatusCode::kPermissionDenied:
      return 403;
    case absl::StatusCode::kNotFound:
      return 404;
    case absl::StatusCode::kResourceExhausted:
      return 429;
    // A request that its client cancelled has nobody to answer: the server is stopping.
    case absl::StatusCode::kCancelled:
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kAborted:
      return 503;
    case absl::StatusCode::kDeadlineExceeded:
      return 504;
    default:
      return 500;
  }
}

nlohmann::json ErrorJson(int http_status, absl::string_view message) {
  return MakeError(http_status, ErrorCode(http_status), message);
}

nlohmann::json ErrorJson(const absl::Status& status) {
  const int http_status = HttpStatus(status);
  const absl::string_view message(status.message().data(), status.message().size());
  return MakeError(http_status, http_status == 404 ? "model_not_found" : ErrorCode(http_status),
                   message);
}

std::string Dump(const nlohmann::json& json) {
  return json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace renga::http
