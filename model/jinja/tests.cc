#include "model/jinja/tests.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "model/jinja/text_functions.h"

namespace renga::model::jinja {
namespace {

using TestFunction = absl::StatusOr<bool> (*)(const Value& value, const Value* argument,
                                              Budget* budget);

bool IsSequence(const Value& v) {
  return v.as_text() != nullptr || v.as_list() != nullptr || v.as_dict() != nullptr ||
         v.is_undefined();
}

absl::StatusOr<bool> IsEqual(const Value& v, const Value* a, Budget* budget) {
  return Equal(v, *a, budget);
}
absl::StatusOr<bool> IsLess(const Value& v, const Value* a, Budget*) { return Less(v, *a); }
absl::StatusOr<bool> IsGreater(const Value& v, const Value* a, Budget*) { return Less(*a, v); }

absl::StatusOr<bool> IsDivisible(const Value& v, const Value* a, Budget*) {
  // The value -1 is apart because the smallest integer divided by it overflows.
  if (a->integer() == -1) return true;
  if (!v.is_integer() || a->integer() == 0) {
    return absl::InvalidArgumentError("it divides what can't be divided");
  }
  return v.integer() % a->integer() == 0;
}

struct NamedTest {
  absl::string_view name;
  bool takes_argument;
  TestFunction function;
};

constexpr NamedTest kTests[] = {
    {"defined", false,
     [](const Value& v, const Value*, Budget*) -> absl::StatusOr<bool> {
       return !v.is_undefined();
     }},
    {"undefined", false,
     [](const Value& v, const Value*, Budget*) -> absl::StatusOr<bool> {
       return v.is_undefined();
     }},
    {"none", false,
     [](const Value& v, const Value*, Budget*) -> absl::StatusOr<bool> { return v.is_none(); }},
    {"boolean", false,
     [](const Value& v, const Value*, Budget*) -> absl::StatusOr<bool> {
       return v.as_bool() != nullptr;
     }},
    {"true", false,
     [](const Value& v, const Value*, Budget*) -> absl::StatusOr<bool> {
       return v.as_bool() != nullptr && *v.as_bool();
     }},
    {"false", false,
     [](const Value& v, const Value*, Budget*) -> absl::StatusOr<bool> {
       return v.as_bool() != nullptr && !*v.as_bool();
     }},
    {"integer", false,
     [](const Value& v, const Value*, Budget*) -> absl::StatusOr<bool> { return v.is_integer(); }},
    {"float", false,
     [](const Value& v, const Value*, Budget*) -> absl::StatusOr<bool> {
       return v.as_float() != nullptr;
     }},
    {"number", false,
     [](const Value& v, const Value*, Budget*) -> absl::StatusOr<bool> { return v.is_number(); }},
    {"string", false,
     [](const Value& v, const Value*, Budget*) -> absl::StatusOr<bool> {
       return v.as_text() != nullptr;
     }},
    {"mapping", false,
     [](const Value& v, const Value*, Budget*) -> absl::StatusOr<bool> {
       return v.as_dict() != nullptr;
     }},
    {"sequence", false,
     [](const Value& v, const Value*, Budget*) -> absl::StatusOr<bool> { return IsSequence(v); }},
    {"iterable", false,
     [](const Value& v, const Value*, Budget*) -> absl::StatusOr<bool> { return IsSequence(v); }},
    {"callable", false,
     [](const Value& v, const Value*, Budget*) -> absl::StatusOr<bool> {
       return v.as_builtin() != nullptr || v.as_macro() != nullptr;
     }},
    {"lower", false,
     [](const Value& v, const Value*, Budget*) -> absl::StatusOr<bool> {
       return v.as_text() != nullptr && LowerText(*v.as_text()) == *v.as_text() &&
              UpperText(*v.as_text()) != *v.as_text();
     }},
    {"upper", false,
     [](const Value& v, const Value*, Budget*) -> absl::StatusOr<bool> {
       return v.as_text() != nullptr && UpperText(*v.as_text()) == *v.as_text() &&
              LowerText(*v.as_text()) != *v.as_text();
     }},
    {"odd", false,
     [](const Value& v, const Value*, Budget*) -> absl::StatusOr<bool> {
       return v.integer() % 2 != 0;
     }},
    {"even", false,
     [](const Value& v, const Value*, Budget*) -> absl::StatusOr<bool> {
       return v.integer() % 2 == 0;
     }},
    {"divisibleby", true, IsDivisible},
    {"eq", true, IsEqual},
    {"equalto", true, IsEqual},
    {"sameas", true, IsEqual},
    {"ne", true,
     [](const Value& v, const Value* a, Budget* budget) -> absl::StatusOr<bool> {
       RENGA_ASSIGN_OR_RETURN(const bool equal, Equal(v, *a, budget));
       return !equal;
     }},
    {"lt", true, IsLess},
    {"lessthan", true, IsLess},
    {"gt", true, IsGreater},
    {"greaterthan", true, IsGreater},
    {"le", true,
     [](const Value& v, const Value* a, Budget*) -> absl::StatusOr<bool> {
       RENGA_ASSIGN_OR_RETURN(const bool greater, Less(*a, v));
       return !greater;
     }},
    {"ge", true,
     [](const Value& v, const Value* a, Budget*) -> absl::StatusOr<bool> {
       RENGA_ASSIGN_OR_RETURN(const bool less, Less(v, *a));
       return !less;
     }},
    {"in", true,
     [](const Value& v, const Value* a, Budget* budget) { return Contains(*a, v, budget); }},
};

}  // namespace

absl::StatusOr<bool> ApplyTest(absl::string_view name, const Value& value,
                               const Arguments& arguments, Budget* budget) {
  for (const NamedTest& test : kTests) {
    if (test.name != name) continue;
    if (arguments.positional.size() != (test.takes_argument ? 1u : 0u) ||
        !arguments.named.empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat("it gives the test ", name, " a wrong number of arguments"));
    }
    if (value.as_text() != nullptr) RENGA_RETURN_IF_ERROR(budget->Charge(value.as_text()->size()));
    return test.function(value, test.takes_argument ? &arguments.positional[0] : nullptr, budget);
  }
  return absl::UnimplementedError(absl::StrCat("the test \"is ", name, "\" is not supported"));
}

}  // namespace renga::model::jinja
