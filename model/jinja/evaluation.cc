// The half of the interpreter that computes expressions.
#include <ctime>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "model/jinja/filters.h"
#include "model/jinja/interpreter.h"
#include "model/jinja/methods.h"
#include "model/jinja/operators.h"
#include "model/jinja/printing.h"
#include "model/jinja/tests.h"

namespace renga::model::jinja {
namespace {

absl::StatusOr<std::string> Today(const std::string& format) {
  constexpr size_t kMaxFormat = 100;
  constexpr size_t kMaxText = 1000;
  if (format.size() > kMaxFormat) {
    return absl::InvalidArgumentError("the date format is too long");
  }
  const std::time_t now = std::time(nullptr);
  std::tm local{};
  localtime_r(&now, &local);
  char text[kMaxText];
  return std::string(text, std::strftime(text, sizeof text, format.c_str(), &local));
}

}  // namespace

using ValueOr = absl::StatusOr<Value>;

ValueOr Interpreter::Evaluate(const Expr& expr) {
  const DepthGuard guard(this);
  RENGA_RETURN_IF_ERROR(guard.Check());
  RENGA_RETURN_IF_ERROR(budget_.Step());
  ValueOr value = EvaluateKind(expr);
  if (!value.ok()) return AtLine(value.status(), expr.line);
  return value;
}

ValueOr Interpreter::EvaluateKind(const Expr& expr) {
  switch (expr.kind) {
    case ExprKind::kLiteral:
      return expr.literal;
    case ExprKind::kName:
      return Lookup(expr.text);
    case ExprKind::kList:
      return EvaluateList(expr, /*is_tuple=*/false);
    case ExprKind::kTuple:
      return EvaluateList(expr, /*is_tuple=*/true);
    case ExprKind::kDict:
      return EvaluateDict(expr);
    case ExprKind::kAttribute:
      return EvaluateAttribute(expr);
    case ExprKind::kSlice:
      return EvaluateSlice(expr);
    case ExprKind::kCall:
      return EvaluateCall(expr);
    case ExprKind::kTest:
      return EvaluateTest(expr);
    case ExprKind::kAnd:
    case ExprKind::kOr:
      return EvaluateLogic(expr);
    case ExprKind::kConcat:
      return EvaluateConcat(expr);
    case ExprKind::kCompare:
      return EvaluateCompare(expr);
    case ExprKind::kConditional:
      return EvaluateConditional(expr);
    case ExprKind::kIndex:
    case ExprKind::kFilter:
    case ExprKind::kNot:
    case ExprKind::kNegate:
    case ExprKind::kArithmetic:
      break;
  }
  return EvaluateOperands(expr);
}

// The kinds that begin by computing their first child, and that a function does the rest of.
ValueOr Interpreter::EvaluateOperands(const Expr& expr) {
  RENGA_ASSIGN_OR_RETURN(const Value first, Evaluate(*expr.children[0]));
  if (expr.kind == ExprKind::kNot) return Value(!first.Truthy());
  if (expr.kind == ExprKind::kNegate) return Negate(first);
  if (expr.kind == ExprKind::kFilter) {
    RENGA_ASSIGN_OR_RETURN(const Arguments arguments, EvaluateArguments(expr));
    return ApplyFilter(expr.text, first, arguments, &budget_);
  }
  RENGA_ASSIGN_OR_RETURN(const Value second, Evaluate(*expr.children[1]));
  if (expr.kind == ExprKind::kArithmetic) return Arithmetic(expr.text, first, second, &budget_);
  if (first.as_namespace() != nullptr && second.as_text() != nullptr) {
    return AttributeOf(first, *second.as_text());
  }
  return Subscript(first, second, &budget_);
}

ValueOr Interpreter::EvaluateList(const Expr& expr, bool is_tuple) {
  std::vector<Value> items;
  for (const auto& child : expr.children) {
    RENGA_ASSIGN_OR_RETURN(Value item, Evaluate(*child));
    items.push_back(std::move(item));
  }
  return Value::MakeList(std::move(items), &budget_, is_tuple);
}

ValueOr Interpreter::EvaluateDict(const Expr& expr) {
  Dict dict;
  for (size_t i = 0; i + 1 < expr.children.size(); i += 2) {
    RENGA_RETURN_IF_ERROR(budget_.Step(static_cast<int64_t>(dict.entries.size())));
    RENGA_ASSIGN_OR_RETURN(const Value key, Evaluate(*expr.children[i]));
    RENGA_ASSIGN_OR_RETURN(Value value, Evaluate(*expr.children[i + 1]));
    if (key.as_text() == nullptr) {
      return absl::UnimplementedError(
          absl::StrCat("a dict with a ", key.TypeName(), " as key is not supported"));
    }
    dict.Set(*key.as_text(), std::move(value));
  }
  return Value::MakeDict(std::move(dict), &budget_);
}

ValueOr Interpreter::EvaluateAttribute(const Expr& expr) {
  RENGA_ASSIGN_OR_RETURN(const Value object, Evaluate(*expr.children[0]));
  return AttributeOf(object, expr.text);
}

ValueOr Interpreter::AttributeOf(const Value& object, const std::string& name) {
  if (object.is_undefined()) {
    return absl::InvalidArgumentError(
        absl::StrCat("it uses ", object.undefined_name(), ", which is undefined"));
  }
  const Dict* members = object.as_dict();
  if (object.as_namespace() != nullptr) members = &namespaces_[object.as_namespace()->index];
  const Value* found = members == nullptr ? nullptr : members->Find(name);
  return found == nullptr ? Value::MakeUndefined(name) : *found;
}

ValueOr Interpreter::EvaluateSlice(const Expr& expr) {
  RENGA_ASSIGN_OR_RETURN(const Value object, Evaluate(*expr.children[0]));
  Value parts[3];
  for (size_t i = 0; i < 3; ++i) {
    parts[i] = Value::MakeNone();
    if (expr.children[i + 1] == nullptr) continue;
    RENGA_ASSIGN_OR_RETURN(parts[i], Evaluate(*expr.children[i + 1]));
  }
  return Slice(object, parts[0], parts[1], parts[2], &budget_);
}

absl::StatusOr<Arguments> Interpreter::EvaluateArguments(const Expr& call) {
  Arguments arguments;
  const size_t first_named = call.children.size() - call.names.size();
  for (size_t i = 1; i < call.children.size(); ++i) {
    RENGA_ASSIGN_OR_RETURN(Value value, Evaluate(*call.children[i]));
    if (i < first_named) {
      arguments.positional.push_back(std::move(value));
    } else {
      arguments.named.emplace_back(call.names[i - first_named], std::move(value));
    }
  }
  return arguments;
}

ValueOr Interpreter::EvaluateCall(const Expr& expr) {
  const Expr& callee = *expr.children[0];
  Value function;
  if (callee.kind == ExprKind::kAttribute) {
    RENGA_ASSIGN_OR_RETURN(const Value object, Evaluate(*callee.children[0]));
    if (object.as_namespace() == nullptr && !object.is_undefined()) {
      const Value* member =
          object.as_dict() == nullptr ? nullptr : object.as_dict()->Find(callee.text);
      if (HasMethod(object, callee.text) || member == nullptr) {
        RENGA_ASSIGN_OR_RETURN(const Arguments arguments, EvaluateArguments(expr));
        return CallMethod(object, callee.text, arguments, &budget_);
      }
    }
    RENGA_ASSIGN_OR_RETURN(function, AttributeOf(object, callee.text));
  } else {
    RENGA_ASSIGN_OR_RETURN(function, Evaluate(callee));
  }
  RENGA_ASSIGN_OR_RETURN(const Arguments arguments, EvaluateArguments(expr));
  if (function.as_macro() != nullptr) return CallMacro(*function.as_macro()->macro, arguments);
  if (function.as_builtin() != nullptr) return CallBuiltin(*function.as_builtin(), arguments);
  return absl::InvalidArgumentError(
      function.is_undefined()
          ? absl::StrCat("it calls ", function.undefined_name(), ", which is undefined")
          : absl::StrCat("it calls a ", function.TypeName()));
}

ValueOr Interpreter::EvaluateTest(const Expr& expr) {
  RENGA_ASSIGN_OR_RETURN(const Value value, Evaluate(*expr.children[0]));
  RENGA_ASSIGN_OR_RETURN(const Arguments arguments, EvaluateArguments(expr));
  RENGA_ASSIGN_OR_RETURN(const bool result, ApplyTest(expr.text, value, arguments, &budget_));
  return Value(result);
}

// "and" and "or" give one of their operands, and the second only if it is needed.
ValueOr Interpreter::EvaluateLogic(const Expr& expr) {
  RENGA_ASSIGN_OR_RETURN(Value left, Evaluate(*expr.children[0]));
  if (left.Truthy() == (expr.kind == ExprKind::kOr)) return left;
  return Evaluate(*expr.children[1]);
}

ValueOr Interpreter::EvaluateConcat(const Expr& expr) {
  RENGA_ASSIGN_OR_RETURN(const Value left, Evaluate(*expr.children[0]));
  RENGA_ASSIGN_OR_RETURN(const Value right, Evaluate(*expr.children[1]));
  RENGA_ASSIGN_OR_RETURN(std::string text, ToText(left, &budget_));
  RENGA_ASSIGN_OR_RETURN(const std::string tail, ToText(right, &budget_));
  text += tail;
  return Value(std::move(text));
}

ValueOr Interpreter::EvaluateCompare(const Expr& expr) {
  RENGA_ASSIGN_OR_RETURN(Value left, Evaluate(*expr.children[0]));
  for (size_t i = 0; i < expr.names.size(); ++i) {
    RENGA_ASSIGN_OR_RETURN(Value right, Evaluate(*expr.children[i + 1]));
    RENGA_ASSIGN_OR_RETURN(const bool holds, CompareValues(expr.names[i], left, right, &budget_));
    if (!holds) return Value(false);
    left = std::move(right);
  }
  return Value(true);
}

ValueOr Interpreter::EvaluateConditional(const Expr& expr) {
  RENGA_ASSIGN_OR_RETURN(const Value condition, Evaluate(*expr.children[1]));
  if (condition.Truthy()) return Evaluate(*expr.children[0]);
  if (expr.children[2] == nullptr) return Value::MakeUndefined("the missing else");
  return Evaluate(*expr.children[2]);
}

ValueOr Interpreter::CallBuiltin(Builtin builtin, const Arguments& arguments) {
  switch (builtin) {
    case Builtin::kRange:
      return CallRange(arguments);
    case Builtin::kNamespace:
      return CallNamespace(arguments);
    case Builtin::kDict: {
      Dict dict;
      for (const auto& [name, value] : arguments.named) dict.Set(name, value);
      return Value::MakeDict(std::move(dict), &budget_);
    }
    case Builtin::kRaiseException: {
      const std::string* message = arguments.Text(0, "message");
      return absl::InvalidArgumentError(
          absl::StrCat(message == nullptr ? "the template raised an error" : *message));
    }
    case Builtin::kStrftimeNow: {
      const std::string* format = arguments.Text(0, "format");
      RENGA_ASSIGN_OR_RETURN(std::string text, Today(format == nullptr ? "%Y-%m-%d" : *format));
      return Value::MakeText(std::move(text), &budget_);
    }
  }
  return absl::InternalError("a function of no kind");
}

ValueOr Interpreter::CallRange(const Arguments& arguments) {
  const size_t given = arguments.positional.size();
  if (given == 0 || given > 3 || !arguments.named.empty()) {
    return absl::InvalidArgumentError("it calls range with wrong arguments");
  }
  for (const Value& value : arguments.positional) {
    if (!value.is_integer()) {
      return absl::InvalidArgumentError("it calls range with what is no integer");
    }
  }
  const int64_t start = given == 1 ? 0 : arguments.positional[0].integer();
  const int64_t stop = arguments.positional[given == 1 ? 0 : 1].integer();
  const int64_t step = given == 3 ? arguments.positional[2].integer() : 1;
  if (step == 0) return absl::InvalidArgumentError("it calls range with step zero");
  std::vector<Value> items;
  for (int64_t i = start; step > 0 ? i < stop : i > stop;) {
    RENGA_RETURN_IF_ERROR(budget_.Step());
    items.emplace_back(i);
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  return Value::MakeList(std::move(items), &budget_);
}

// namespace(a=1), or with a dict to begin from.
ValueOr Interpreter::CallNamespace(const Arguments& arguments) {
  Dict members;
  if (!arguments.positional.empty() && arguments.positional[0].as_dict() != nullptr) {
    members = *arguments.positional[0].as_dict();
  }
  for (const auto& [name, value] : arguments.named) members.Set(name, value);
  RENGA_RETURN_IF_ERROR(budget_.Charge(64 * (members.entries.size() + 1)));
  namespaces_.push_back(std::move(members));
  return Value(NamespaceRef{namespaces_.size() - 1});
}

}  // namespace renga::model::jinja
