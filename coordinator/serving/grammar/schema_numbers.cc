#include "coordinator/serving/grammar/schema_numbers.h"

#include <charconv>
#include <cmath>
#include <iterator>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "coordinator/serving/grammar/number_range.h"
#include "coordinator/serving/grammar/schema_document.h"
#include "nlohmann/json.hpp"

namespace renga::grammar {
namespace {

using nlohmann::ordered_json;

// Digits and exponent of a float that is not negative.
void SetMagnitude(double magnitude, NumberBound& bound) {
  // At most 17 digits, like 1.25e-05.
  char text[32];
  const char* const end =
      std::to_chars(std::begin(text), std::end(text), magnitude, std::chars_format::scientific).ptr;
  const char* at = text;
  int behind_point = 0;
  for (bool behind = false; *at != 'e'; ++at) {
    if (*at == '.') {
      behind = true;
      continue;
    }
    bound.digits = 10 * bound.digits + static_cast<uint64_t>(*at - '0');
    behind_point += behind ? 1 : 0;
  }
  ++at;
  if (*at == '+') ++at;  // from_chars knows no plus
  std::from_chars(at, end, bound.exponent);
  bound.exponent -= behind_point;
}

NumberBound BoundAt(const ordered_json& number) {
  NumberBound bound;
  if (number.is_number_unsigned()) {
    bound.digits = number.get<uint64_t>();
  } else if (number.is_number_integer()) {
    const auto value = number.get<int64_t>();
    bound.negative = value < 0;
    bound.digits = value < 0 ? -static_cast<uint64_t>(value) : static_cast<uint64_t>(value);
  } else {
    const auto value = number.get<double>();
    bound.negative = value < 0;
    SetMagnitude(std::abs(value), bound);
  }
  return bound;
}

}  // namespace

absl::StatusOr<Expression> NumbersOf(const ordered_json& schema, const std::string& type,
                                     const std::string& where, RuleSet& rules) {
  std::vector<NumberBound> bounds;
  std::vector<std::string> spoken;
  for (const absl::string_view keyword : kNumberKeywords) {
    const ordered_json* number = Find(schema, std::string(keyword).c_str());
    if (number == nullptr) continue;
    if (!number->is_number()) return SchemaError(where, absl::StrCat(keyword, " must be a number"));
    NumberBound& bound = bounds.emplace_back(BoundAt(*number));
    bound.upper = keyword == "maximum" || keyword == "exclusiveMaximum";
    bound.exclusive = keyword == "exclusiveMinimum" || keyword == "exclusiveMaximum";
    spoken.push_back(absl::StrCat(keyword, " ", Dump(*number)));
  }
  if (bounds.empty()) return rules.Call(type);
  const std::string name = absl::StrCat(type, " with ", absl::StrJoin(spoken, ", "));
  if (rules.Find(name) >= 0) return rules.Call(name);
  std::optional<Expression> numbers = NumbersWithin(bounds, type == "integer", rules);
  if (!numbers.has_value()) {
    return SchemaError(
        where, absl::StrCat("there is no ", name, "; numbers between bounds have at most ",
                            kUsualDigits, " digits, or as many before the point as their bounds, ",
                            "up to ", kMostWholeDigits));
  }
  return RuleCall(rules.Add(name, *std::move(numbers)));
}

}  // namespace renga::grammar
