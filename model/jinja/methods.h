// The methods of Python's str, list and dict that templates call.
#ifndef RENGA_MODEL_JINJA_METHODS_H_
#define RENGA_MODEL_JINJA_METHODS_H_

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "model/jinja/arguments.h"
#include "model/jinja/budget.h"
#include "model/jinja/value.h"

namespace renga::model::jinja {

// Whether `object` has a method of this name.
bool HasMethod(const Value& object, absl::string_view name);
// kUnimplemented names a method that isn't known.
absl::StatusOr<Value> CallMethod(const Value& object, absl::string_view name,
                                 const Arguments& arguments, Budget* budget);

}  // namespace renga::model::jinja

#endif  // RENGA_MODEL_JINJA_METHODS_H_
