// What a call, filter or test was given.
#ifndef RENGA_MODEL_JINJA_ARGUMENTS_H_
#define RENGA_MODEL_JINJA_ARGUMENTS_H_

#include <algorithm>
#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "model/jinja/value.h"

namespace renga::model::jinja {

struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;

  // The argument at this position or of this name; nullptr when it was not given.
  const Value* Get(size_t position, absl::string_view name) const {
    if (position < positional.size()) return &positional[position];
    for (const auto& [given, value] : named) {
      if (given == name) return &value;
    }
    return nullptr;
  }
  // The text of such an argument; nullptr too when it is something else.
  const std::string* Text(size_t position, absl::string_view name) const {
    const Value* value = Get(position, name);
    return value == nullptr ? nullptr : value->as_text();
  }

  // kInvalidArgument when `function` was given more than these parameters, or others.
  absl::Status Check(absl::string_view function,
                     std::initializer_list<absl::string_view> parameters) const {
    if (positional.size() > parameters.size()) {
      return absl::InvalidArgumentError(absl::StrCat("it gives ", function, " too many arguments"));
    }
    for (const auto& [name, value] : named) {
      if (std::find(parameters.begin(), parameters.end(), name) == parameters.end()) {
        return absl::InvalidArgumentError(
            absl::StrCat("it gives ", function, " an argument named ", name));
      }
    }
    return absl::OkStatus();
  }
};

}  // namespace renga::model::jinja

#endif  // RENGA_MODEL_JINJA_ARGUMENTS_H_
