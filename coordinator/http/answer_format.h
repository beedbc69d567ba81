// What a request wants its answer to look like: `response_format`, or `grammar`.
#ifndef RENGA_COORDINATOR_HTTP_ANSWER_FORMAT_H_
#define RENGA_COORDINATOR_HTTP_ANSWER_FORMAT_H_

#include <memory>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "coordinator/serving/grammar/network.h"
#include "nlohmann/json_fwd.hpp"

namespace renga::http {

// Null where any text will do. `text` is what `body` was parsed from: it alone has the order of a
// schema's properties, which is that of the answer's members. kInvalidArgument names the field and
// what is wrong with it.
absl::StatusOr<std::shared_ptr<const grammar::Network>> ReadAnswerFormat(const nlohmann::json& body,
                                                                         absl::string_view text);

}  // namespace renga::http

#endif  // RENGA_COORDINATOR_HTTP_ANSWER_FORMAT_H_
