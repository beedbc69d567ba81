// Values as text: str(), repr() and json.dumps() as Python has them.
#ifndef RENGA_MODEL_JINJA_PRINTING_H_
#define RENGA_MODEL_JINJA_PRINTING_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "model/jinja/budget.h"
#include "model/jinja/value.h"

namespace renga::model::jinja {

// What {{ value }} prints; an undefined value is nothing. Charges the budget.
absl::StatusOr<std::string> ToText(const Value& value, Budget* budget);

struct JsonStyle {
  int indent = -1;  // spaces a level; -1 is all on one line
  std::string item_separator = ", ";
  std::string key_separator = ": ";
  bool ascii_only = false;
  bool sort_keys = false;
};
// kInvalidArgument for values JSON doesn't have.
absl::StatusOr<std::string> ToJson(const Value& value, const JsonStyle& style, Budget* budget);

}  // namespace renga::model::jinja

#endif  // RENGA_MODEL_JINJA_PRINTING_H_
