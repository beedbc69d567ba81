#include "model/jinja/operators.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "model/jinja/text_functions.h"

namespace renga::model::jinja {
namespace {

using ValueOr = absl::StatusOr<Value>;

// Going over a text costs this much less than copying it.
constexpr size_t kScanDiscount = 8;
constexpr uint64_t kRepeatedElementBytes = sizeof(Value);

absl::Status Overflow() {
  return absl::InvalidArgumentError("it computes a number that does not fit");
}

absl::Status DivisionByZero() { return absl::InvalidArgumentError("it divides by zero"); }

// Python rounds towards minus infinity.
ValueOr DivideIntegers(int64_t a, int64_t b, bool remainder) {
  if (b == 0) return DivisionByZero();
  if (a == std::numeric_limits<int64_t>::min() && b == -1) return Overflow();
  const int64_t quotient = a / b;
  const int64_t rest = a % b;
  const bool below = rest != 0 && (rest < 0) != (b < 0);
  if (remainder) return Value(below ? rest + b : rest);
  return Value(below ? quotient - 1 : quotient);
}

ValueOr IntegerPower(int64_t base, int64_t exponent) {
  if (exponent < 0)
    return Value(std::pow(static_cast<double>(base), static_cast<double>(exponent)));
  // From 64 on, only bases with no magnitude to grow stay inside.
  if (exponent > 63 && (base > 1 || base < -1)) return Overflow();
  int64_t result = 1;
  for (int64_t i = 0; i < (exponent > 63 ? 2 + exponent % 2 : exponent); ++i) {
    if (__builtin_mul_overflow(result, base, &result)) return Overflow();
  }
  return Value(result);
}

ValueOr IntegerArithmetic(absl::string_view op, int64_t a, int64_t b) {
  if (op == "+" || op == "-" || op == "*") {
    int64_t result = 0;
    const bool overflows = op == "+"   ? __builtin_add_overflow(a, b, &result)
                           : op == "-" ? __builtin_sub_overflow(a, b, &result)
                                       : __builtin_mul_overflow(a, b, &result);
    if (overflows) return Overflow();
    return Value(result);
  }
  if (op == "//") return DivideIntegers(a, b, /*remainder=*/false);
  if (op == "%") return DivideIntegers(a, b, /*remainder=*/true);
  if (op == "**") return IntegerPower(a, b);
  if (b == 0) return DivisionByZero();
  return Value(static_cast<double>(a) / static_cast<double>(b));
}

ValueOr FloatArithmetic(absl::string_view op, double a, double b) {
  if (op == "+") return Value(a + b);
  if (op == "-") return Value(a - b);
  if (op == "*") return Value(a * b);
  if (op == "**") return Value(std::pow(a, b));
  if (b == 0) return DivisionByZero();
  if (op == "//") return Value(std::floor(a / b));
  if (op == "%") return Value(a - b * std::floor(a / b));
  return Value(a / b);
}

ValueOr Repeat(const Value& sequence, int64_t times, Budget* budget) {
  const uint64_t count = static_cast<uint64_t>(std::max<int64_t>(times, 0));
  if (const std::string* text = sequence.as_text()) {
    if (text->size() > 0 && count > std::numeric_limits<uint64_t>::max() / text->size()) {
      return Overflow();
    }
    RENGA_RETURN_IF_ERROR(budget->Charge(count * text->size()));
    std::string out;
    for (uint64_t i = 0; i < count && !text->empty(); ++i) out += *text;
    return Value(std::move(out));
  }
  const List& list = *sequence.as_list();
  if (list.items.empty()) return sequence;
  RENGA_RETURN_IF_ERROR(budget->Step(std::min<int64_t>(times, INT32_MAX)));
  RENGA_RETURN_IF_ERROR(budget->Charge(count * list.items.size() * kRepeatedElementBytes));
  std::vector<Value> items;
  for (uint64_t i = 0; i < count; ++i) {
    items.insert(items.end(), list.items.begin(), list.items.end());
  }
  return Value::MakeList(std::move(items), budget, list.is_tuple);
}

ValueOr Join(const List& a, const List& b, Budget* budget) {
  RENGA_RETURN_IF_ERROR(budget->Charge((a.items.size() + b.items.size()) * kRepeatedElementBytes));
  std::vector<Value> items = a.items;
  items.insert(items.end(), b.items.begin(), b.items.end());
  return Value::MakeList(std::move(items), budget, a.is_tuple);
}

absl::Status UndefinedError(const Value& value) {
  return absl::InvalidArgumentError(
      absl::StrCat("it uses ", value.undefined_name(), ", which is undefined"));
}

}  // namespace

absl::StatusOr<Value> Arithmetic(absl::string_view op, const Value& a, const Value& b,
                                 Budget* budget) {
  if (a.is_undefined()) return UndefinedError(a);
  if (b.is_undefined()) return UndefinedError(b);
  const bool both_numbers = a.is_number() && b.is_number();
  if (both_numbers && a.as_float() == nullptr && b.as_float() == nullptr) {
    return IntegerArithmetic(op, a.integer(), b.integer());
  }
  if (both_numbers) return FloatArithmetic(op, a.number(), b.number());
  if (op == "+" && a.as_text() != nullptr && b.as_text() != nullptr) {
    return Value::MakeText(absl::StrCat(*a.as_text(), *b.as_text()), budget);
  }
  if (op == "+" && a.as_list() != nullptr && b.as_list() != nullptr &&
      a.as_list()->is_tuple == b.as_list()->is_tuple) {
    return Join(*a.as_list(), *b.as_list(), budget);
  }
  const bool a_repeats = a.as_text() != nullptr || a.as_list() != nullptr;
  const bool b_repeats = b.as_text() != nullptr || b.as_list() != nullptr;
  if (op == "*" && a_repeats && b.is_integer()) return Repeat(a, b.integer(), budget);
  if (op == "*" && b_repeats && a.is_integer()) return Repeat(b, a.integer(), budget);
  if (op == "%" && a.as_text() != nullptr) {
    return absl::UnimplementedError("the formatting with % is not supported");
  }
  return absl::InvalidArgumentError(
      absl::StrCat("it can't compute ", a.TypeName(), " ", op, " ", b.TypeName()));
}

absl::StatusOr<Value> Negate(const Value& value) {
  if (value.as_float() != nullptr) return Value(-value.number());
  if (value.is_number()) return IntegerArithmetic("-", 0, value.integer());
  if (value.is_undefined()) return UndefinedError(value);
  return absl::InvalidArgumentError(absl::StrCat("it negates a ", value.TypeName()));
}

absl::StatusOr<bool> CompareValues(absl::string_view op, const Value& a, const Value& b,
                                   Budget* budget) {
  if (op == "==" || op == "!=") {
    RENGA_ASSIGN_OR_RETURN(const bool equal, Equal(a, b, budget));
    return equal == (op == "==");
  }
  if (op == "in" || op == "not in") {
    RENGA_ASSIGN_OR_RETURN(const bool found, Contains(b, a, budget));
    return found == (op == "in");
  }
  if (op == "<" || op == ">") return op == "<" ? Less(a, b) : Less(b, a);
  RENGA_ASSIGN_OR_RETURN(const bool opposite, op == "<=" ? Less(b, a) : Less(a, b));
  return !opposite;
}

absl::StatusOr<Value> Subscript(const Value& object, const Value& index, Budget* budget) {
  if (object.is_undefined()) return UndefinedError(object);
  if (const Dict* dict = object.as_dict()) {
    const Value* found = index.as_text() == nullptr ? nullptr : dict->Find(*index.as_text());
    if (found != nullptr) return *found;
    return Value::MakeUndefined(index.as_text() == nullptr ? "value" : *index.as_text());
  }
  if (index.as_float() != nullptr || !index.is_number()) return Value::MakeUndefined("value");
  const int64_t position = index.integer();
  if (const std::string* text = object.as_text()) {
    RENGA_RETURN_IF_ERROR(budget->Charge(1 + text->size() / kScanDiscount));
    const int64_t size = CountChars(*text);
    const int64_t at = position < 0 ? position + size : position;
    if (at < 0 || at >= size) return Value::MakeUndefined("character");
    return Value::MakeText(SliceText(*text, {at, at + 1}), budget);
  }
  if (const List* list = object.as_list()) {
    const int64_t size = static_cast<int64_t>(list->items.size());
    const int64_t at = position < 0 ? position + size : position;
    if (at < 0 || at >= size) return Value::MakeUndefined("element");
    return list->items[static_cast<size_t>(at)];
  }
  return Value::MakeUndefined("element");
}

absl::StatusOr<Value> Slice(const Value& object, const Value& start, const Value& stop,
                            const Value& step, Budget* budget) {
  if (object.is_undefined()) return UndefinedError(object);
  SliceBounds bounds;
  for (const auto& [value, bound] : {std::pair{&start, &bounds.start}, {&stop, &bounds.stop}}) {
    if (value->is_none()) continue;
    if (!value->is_integer()) {
      return absl::InvalidArgumentError("it slices by what is no integer");
    }
    *bound = value->integer();
  }
  if (!step.is_none()) bounds.step = step.integer();
  if (bounds.step == 0) {
    return absl::InvalidArgumentError("it slices with a step of zero");
  }
  if (const std::string* text = object.as_text()) {
    RENGA_RETURN_IF_ERROR(budget->Charge(text->size() / (bounds.step == 1 ? kScanDiscount : 1)));
    return Value::MakeText(SliceText(*text, bounds), budget);
  }
  if (const List* list = object.as_list()) {
    std::vector<Value> items;
    for (size_t index : SliceIndices(bounds, list->items.size())) {
      items.push_back(list->items[index]);
    }
    return Value::MakeList(std::move(items), budget, list->is_tuple);
  }
  return absl::InvalidArgumentError(absl::StrCat("it takes a slice of a ", object.TypeName()));
}

}  // namespace renga::model::jinja
