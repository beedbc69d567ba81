// Jinja's filters, as many as chat templates use.
#ifndef RENGA_MODEL_JINJA_FILTERS_H_
#define RENGA_MODEL_JINJA_FILTERS_H_

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "model/jinja/arguments.h"
#include "model/jinja/budget.h"
#include "model/jinja/value.h"

namespace renga::model::jinja {

// kUnimplemented names a filter that isn't known.
absl::StatusOr<Value> ApplyFilter(absl::string_view name, const Value& value,
                                  const Arguments& arguments, Budget* budget);

}  // namespace renga::model::jinja

#endif  // RENGA_MODEL_JINJA_FILTERS_H_
