// Runs a parsed template once: the scopes, the text made so far, and what may still be spent.
#ifndef RENGA_MODEL_JINJA_INTERPRETER_H_
#define RENGA_MODEL_JINJA_INTERPRETER_H_

#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "model/jinja/arguments.h"
#include "model/jinja/ast.h"
#include "model/jinja/budget.h"
#include "model/jinja/value.h"

namespace renga::model::jinja {

class Interpreter {
 public:
  // `globals` must outlive this.
  Interpreter(const Dict& globals, Budget budget);

  // What the block prints. The block must outlive the call.
  absl::StatusOr<std::string> Run(const Block& block);

 private:
  using ValueOr = absl::StatusOr<Value>;
  enum class Flow { kNormal, kBreak, kContinue };
  using FlowOr = absl::StatusOr<Flow>;

  struct Scope {
    std::vector<std::pair<std::string, Value>> variables;
    bool is_macro = false;  // names are not looked up beyond it, but for the outermost scope
  };
  // Opens a scope for as long as it lives.
  class ScopeGuard {
   public:
    explicit ScopeGuard(Interpreter* interpreter, bool is_macro = false)
        : scopes_(interpreter->scopes_) {
      scopes_.push_back({{}, is_macro});
    }
    ~ScopeGuard() { scopes_.pop_back(); }
    ScopeGuard(const ScopeGuard&) = delete;
    ScopeGuard& operator=(const ScopeGuard&) = delete;

   private:
    std::vector<Scope>& scopes_;
  };
  // Counts a level of recursion for as long as it lives.
  class DepthGuard {
   public:
    explicit DepthGuard(Interpreter* interpreter) : depth_(interpreter->depth_) { ++depth_; }
    ~DepthGuard() { --depth_; }
    DepthGuard(const DepthGuard&) = delete;
    DepthGuard& operator=(const DepthGuard&) = delete;
    // kInvalidArgument when the template nests or calls itself too deeply.
    absl::Status Check() const;

   private:
    int& depth_;
  };

  // The error with the line in front, unless something deeper has put one there.
  static absl::Status AtLine(const absl::Status& status, int line);

  FlowOr RunBlock(const Block& block);
  FlowOr RunStatement(const Statement& statement);
  absl::Status RunOutput(const Expr& expr);
  FlowOr RunIf(const Statement& statement);
  FlowOr RunFor(const Statement& statement);
  absl::StatusOr<std::vector<Value>> LoopElements(const Statement& statement);
  absl::Status RunSet(const Statement& statement);
  absl::Status SetNamespaceMember(const std::string& name, const std::string& member, Value value);
  absl::Status RunSetBlock(const Statement& statement);
  // Runs a block and gives what it prints instead of printing it.
  absl::StatusOr<std::string> Capture(const Block& block);
  absl::Status Print(absl::string_view text);

  ValueOr Evaluate(const Expr& expr);
  ValueOr EvaluateKind(const Expr& expr);
  ValueOr EvaluateOperands(const Expr& expr);
  ValueOr EvaluateList(const Expr& expr, bool is_tuple);
  ValueOr EvaluateDict(const Expr& expr);
  ValueOr EvaluateAttribute(const Expr& expr);
  ValueOr EvaluateSlice(const Expr& expr);
  ValueOr EvaluateCall(const Expr& expr);
  ValueOr EvaluateTest(const Expr& expr);
  ValueOr EvaluateLogic(const Expr& expr);
  ValueOr EvaluateConcat(const Expr& expr);
  ValueOr EvaluateCompare(const Expr& expr);
  ValueOr EvaluateConditional(const Expr& expr);
  // The arguments of a call, filter or test: all children but the first.
  absl::StatusOr<Arguments> EvaluateArguments(const Expr& call);
  ValueOr AttributeOf(const Value& object, const std::string& name);

  ValueOr CallMacro(const Statement& macro, const Arguments& arguments);
  ValueOr CallBuiltin(Builtin builtin, const Arguments& arguments);
  ValueOr CallRange(const Arguments& arguments);
  ValueOr CallNamespace(const Arguments& arguments);

  Value Lookup(const std::string& name) const;
  absl::Status Assign(const std::vector<std::string>& names, Value value);
  void Define(const std::string& name, Value value);

  const Dict& globals_;
  Budget budget_;
  std::vector<Scope> scopes_;
  std::vector<Dict> namespaces_;
  std::string output_;
  int depth_ = 0;
};

}  // namespace renga::model::jinja

#endif  // RENGA_MODEL_JINJA_INTERPRETER_H_
