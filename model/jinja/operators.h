// Arithmetic of values, as Python has it.
#ifndef RENGA_MODEL_JINJA_OPERATORS_H_
#define RENGA_MODEL_JINJA_OPERATORS_H_

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "model/jinja/budget.h"
#include "model/jinja/value.h"

namespace renga::model::jinja {

// a op b for + - * / // % **. Texts and lists can be added, and multiplied by a number.
// kInvalidArgument for types that don't go together, division by zero, and integers beyond 64 bits.
absl::StatusOr<Value> Arithmetic(absl::string_view op, const Value& a, const Value& b,
                                 Budget* budget);
absl::StatusOr<Value> Negate(const Value& value);
// == != < <= > >= in, not in.
absl::StatusOr<bool> CompareValues(absl::string_view op, const Value& a, const Value& b,
                                   Budget* budget);
// object[index] for texts, lists and dicts; an undefined value where there is nothing.
absl::StatusOr<Value> Subscript(const Value& object, const Value& index, Budget* budget);
// object[start:stop:step]; an undefined or none bound is left out.
absl::StatusOr<Value> Slice(const Value& object, const Value& start, const Value& stop,
                            const Value& step, Budget* budget);

}  // namespace renga::model::jinja

#endif  // RENGA_MODEL_JINJA_OPERATORS_H_
