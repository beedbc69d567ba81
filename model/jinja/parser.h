// Parses template source into statements.
#ifndef RENGA_MODEL_JINJA_PARSER_H_
#define RENGA_MODEL_JINJA_PARSER_H_

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "model/jinja/ast.h"

namespace renga::model::jinja {

// kInvalidArgument says what is wrong in which line; kUnimplemented names a statement that isn't
// supported. Sources above 1 MiB are refused.
absl::StatusOr<Block> ParseTemplate(absl::string_view source);

}  // namespace renga::model::jinja

#endif  // RENGA_MODEL_JINJA_PARSER_H_
