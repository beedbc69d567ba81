// What a user may ask an answer to look like, ready to be walked.
#ifndef RENGA_COORDINATOR_SERVING_GRAMMAR_GRAMMAR_H_
#define RENGA_COORDINATOR_SERVING_GRAMMAR_GRAMMAR_H_

#include <memory>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "coordinator/serving/grammar/network.h"

namespace renga::grammar {

// All of them: kInvalidArgument with one sentence that says what is wrong and where.

// gbnf_parser.h says how it is written.
absl::StatusOr<std::shared_ptr<const Network>> FromGbnf(absl::string_view text);
// json_schema.h says what is understood.
absl::StatusOr<std::shared_ptr<const Network>> FromJsonSchema(absl::string_view schema);
absl::StatusOr<std::shared_ptr<const Network>> OfAnyJsonObject();

}  // namespace renga::grammar

#endif  // RENGA_COORDINATOR_SERVING_GRAMMAR_GRAMMAR_H_
