#include "model/jinja/interpreter.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "model/jinja/printing.h"

namespace renga::model::jinja {
namespace {

// Statements and expressions inside each other, macro calls included. A level takes about a
// kilobyte of stack, several with a sanitizer.
constexpr int kMaxEvaluationDepth = 400;

}  // namespace

absl::Status Interpreter::DepthGuard::Check() const {
  if (depth_ <= kMaxEvaluationDepth) return absl::OkStatus();
  return absl::InvalidArgumentError("stopped: it calls itself too deeply");
}

Interpreter::Interpreter(const Dict& globals, Budget budget)
    : globals_(globals), budget_(budget), scopes_(1) {}

absl::StatusOr<std::string> Interpreter::Run(const Block& block) {
  RENGA_RETURN_IF_ERROR(RunBlock(block).status());
  return std::move(output_);
}

absl::Status Interpreter::AtLine(const absl::Status& status, int line) {
  constexpr absl::string_view kPrefix = "chat template, line ";
  if (absl::StartsWith(status.message(), kPrefix)) return status;
  return absl::Status(status.code(), absl::StrCat(kPrefix, line, ": ", status.message()));
}

Interpreter::FlowOr Interpreter::RunBlock(const Block& block) {
  const DepthGuard guard(this);
  RENGA_RETURN_IF_ERROR(guard.Check());
  RENGA_RETURN_IF_ERROR(budget_.Step(static_cast<int64_t>(block.size())));
  for (const auto& statement : block) {
    const FlowOr flow = RunStatement(*statement);
    if (!flow.ok()) return AtLine(flow.status(), statement->line);
    if (*flow != Flow::kNormal) return flow;
  }
  return Flow::kNormal;
}

Interpreter::FlowOr Interpreter::RunStatement(const Statement& statement) {
  switch (statement.kind) {
    case StatementKind::kText:
      RENGA_RETURN_IF_ERROR(Print(statement.text));
      return Flow::kNormal;
    case StatementKind::kOutput:
      RENGA_RETURN_IF_ERROR(RunOutput(*statement.exprs[0]));
      return Flow::kNormal;
    case StatementKind::kIf:
      return RunIf(statement);
    case StatementKind::kFor:
      return RunFor(statement);
    case StatementKind::kSet:
      RENGA_RETURN_IF_ERROR(RunSet(statement));
      return Flow::kNormal;
    case StatementKind::kSetBlock:
      RENGA_RETURN_IF_ERROR(RunSetBlock(statement));
      return Flow::kNormal;
    case StatementKind::kMacro:
      Define(statement.text, Value(MacroRef{&statement}));
      return Flow::kNormal;
    case StatementKind::kGroup: {
      const ScopeGuard scope(this);
      return RunBlock(statement.blocks[0]);
    }
    case StatementKind::kBreak:
      return Flow::kBreak;
    case StatementKind::kContinue:
      return Flow::kContinue;
  }
  return absl::InternalError("a statement of no kind");
}

absl::Status Interpreter::Print(absl::string_view text) {
  RENGA_RETURN_IF_ERROR(budget_.Charge(text.size()));
  output_.append(text.data(), text.size());
  return absl::OkStatus();
}

absl::Status Interpreter::RunOutput(const Expr& expr) {
  RENGA_ASSIGN_OR_RETURN(const Value value, Evaluate(expr));
  if (value.as_text() != nullptr) return Print(*value.as_text());
  RENGA_ASSIGN_OR_RETURN(const std::string text, ToText(value, &budget_));
  return Print(text);
}

Interpreter::FlowOr Interpreter::RunIf(const Statement& statement) {
  for (size_t i = 0; i < statement.exprs.size(); ++i) {
    RENGA_ASSIGN_OR_RETURN(const Value condition, Evaluate(*statement.exprs[i]));
    if (condition.Truthy()) return RunBlock(statement.blocks[i]);
  }
  if (statement.blocks.size() > statement.exprs.size()) return RunBlock(statement.blocks.back());
  return Flow::kNormal;
}

// What the loop goes through: its iterable, less what the loop's own condition leaves out.
absl::StatusOr<std::vector<Value>> Interpreter::LoopElements(const Statement& statement) {
  RENGA_ASSIGN_OR_RETURN(const Value iterable, Evaluate(*statement.exprs[0]));
  RENGA_ASSIGN_OR_RETURN(std::vector<Value> elements, Elements(iterable, &budget_));
  if (statement.exprs[1] == nullptr) return elements;
  std::vector<Value> kept;
  for (Value& element : elements) {
    const ScopeGuard scope(this);
    RENGA_RETURN_IF_ERROR(Assign(statement.names, element));
    RENGA_ASSIGN_OR_RETURN(const Value condition, Evaluate(*statement.exprs[1]));
    if (condition.Truthy()) kept.push_back(std::move(element));
  }
  return kept;
}

Interpreter::FlowOr Interpreter::RunFor(const Statement& statement) {
  RENGA_ASSIGN_OR_RETURN(const std::vector<Value> elements, LoopElements(statement));
  const int64_t count = static_cast<int64_t>(elements.size());
  for (int64_t i = 0; i < count; ++i) {
    RENGA_RETURN_IF_ERROR(budget_.Step());
    const Value& element = elements[static_cast<size_t>(i)];
    Dict loop;
    loop.Set("index", Value(i + 1));
    loop.Set("index0", Value(i));
    loop.Set("revindex", Value(count - i));
    loop.Set("revindex0", Value(count - i - 1));
    loop.Set("first", Value(i == 0));
    loop.Set("last", Value(i == count - 1));
    loop.Set("length", Value(count));
    if (i > 0) loop.Set("previtem", elements[static_cast<size_t>(i - 1)]);
    if (i < count - 1) loop.Set("nextitem", elements[static_cast<size_t>(i + 1)]);
    RENGA_ASSIGN_OR_RETURN(Value loop_value, Value::MakeDict(std::move(loop), &budget_));
    const ScopeGuard scope(this);
    Define("loop", std::move(loop_value));
    RENGA_RETURN_IF_ERROR(Assign(statement.names, element));
    RENGA_ASSIGN_OR_RETURN(const Flow flow, RunBlock(statement.blocks[0]));
    if (flow == Flow::kBreak) break;
  }
  if (count > 0) return Flow::kNormal;
  return RunBlock(statement.blocks[1]);
}

absl::Status Interpreter::RunSet(const Statement& statement) {
  RENGA_ASSIGN_OR_RETURN(Value value, Evaluate(*statement.exprs[0]));
  if (statement.text.empty()) return Assign(statement.names, std::move(value));
  return SetNamespaceMember(statement.text, statement.names[0], std::move(value));
}

absl::Status Interpreter::SetNamespaceMember(const std::string& name, const std::string& member,
                                             Value value) {
  const Value target = Lookup(name);
  if (target.as_namespace() == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("it sets ", name, ".", member, ", but ", name, " is no namespace"));
  }
  Dict& members = namespaces_[target.as_namespace()->index];
  RENGA_RETURN_IF_ERROR(budget_.Step(static_cast<int64_t>(members.entries.size())));
  members.Set(member, std::move(value));
  return absl::OkStatus();
}

absl::Status Interpreter::RunSetBlock(const Statement& statement) {
  RENGA_ASSIGN_OR_RETURN(std::string text, Capture(statement.blocks[0]));
  Define(statement.names[0], Value(std::move(text)));
  return absl::OkStatus();
}

absl::StatusOr<std::string> Interpreter::Capture(const Block& block) {
  std::string outer = std::exchange(output_, std::string());
  const ScopeGuard scope(this);
  const absl::Status status = RunBlock(block).status();
  std::string text = std::exchange(output_, std::move(outer));
  RENGA_RETURN_IF_ERROR(status);
  return text;
}

Value Interpreter::Lookup(const std::string& name) const {
  for (size_t i = scopes_.size(); i-- > 0;) {
    for (const auto& [variable, value] : scopes_[i].variables) {
      if (variable == name) return value;
    }
    // A macro sees its own scopes, and then what stands outside of all.
    if (scopes_[i].is_macro) i = 1;
  }
  const Value* global = globals_.Find(name);
  if (global != nullptr) return *global;
  return Value::MakeUndefined(name);
}

void Interpreter::Define(const std::string& name, Value value) {
  for (auto& [variable, old] : scopes_.back().variables) {
    if (variable == name) {
      old = std::move(value);
      return;
    }
  }
  scopes_.back().variables.emplace_back(name, std::move(value));
}

// One name takes the value; several take the elements of it.
absl::Status Interpreter::Assign(const std::vector<std::string>& names, Value value) {
  if (names.size() == 1) {
    Define(names[0], std::move(value));
    return absl::OkStatus();
  }
  RENGA_ASSIGN_OR_RETURN(const std::vector<Value> parts, Elements(value, &budget_));
  if (parts.size() != names.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("it takes ", parts.size(), " values apart into ", names.size(), " names"));
  }
  for (size_t i = 0; i < names.size(); ++i) Define(names[i], parts[i]);
  return absl::OkStatus();
}

Interpreter::ValueOr Interpreter::CallMacro(const Statement& macro, const Arguments& arguments) {
  const size_t first_default = macro.names.size() - macro.exprs.size();
  if (arguments.positional.size() > macro.names.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("it gives the macro ", macro.text, " too many arguments"));
  }
  std::vector<Value> values;
  for (size_t i = 0; i < macro.names.size(); ++i) {
    const Value* given = arguments.Get(i, macro.names[i]);
    if (given != nullptr) {
      values.push_back(*given);
    } else if (i < first_default) {
      values.push_back(Value::MakeUndefined(macro.names[i]));
    } else {
      RENGA_ASSIGN_OR_RETURN(Value value, Evaluate(*macro.exprs[i - first_default]));
      values.push_back(std::move(value));
    }
  }
  const ScopeGuard scope(this, /*is_macro=*/true);
  for (size_t i = 0; i < values.size(); ++i) Define(macro.names[i], std::move(values[i]));
  RENGA_ASSIGN_OR_RETURN(std::string text, Capture(macro.blocks[0]));
  return Value(std::move(text));
}

}  // namespace renga::model::jinja
