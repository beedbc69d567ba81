// Errors as OpenAI's clients expect them.
#ifndef RENGA_COORDINATOR_HTTP_API_ERROR_H_
#define RENGA_COORDINATOR_HTTP_API_ERROR_H_

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "nlohmann/json_fwd.hpp"

namespace renga::http {

// 400 the request is wrong, 404 no such model, 429 too many requests, 503 no
// workers, 504 took too long, 500 the rest.
int HttpStatus(const absl::Status& status);

// {"error": {"message", "type", "param", "code"}}
nlohmann::json ErrorJson(int http_status, absl::string_view message);
// kNotFound is a model that is not served.
nlohmann::json ErrorJson(const absl::Status& status);

// JSON as text; bytes that are no UTF-8 become U+FFFD.
std::string Dump(const nlohmann::json& json);

}  // namespace renga::http

#endif  // RENGA_COORDINATOR_HTTP_API_ERROR_H_
