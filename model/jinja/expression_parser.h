// Parses expressions with Jinja's precedence, which is Python's but for filters and tests: these
// bind tighter than any operator.
#ifndef RENGA_MODEL_JINJA_EXPRESSION_PARSER_H_
#define RENGA_MODEL_JINJA_EXPRESSION_PARSER_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "model/jinja/ast.h"
#include "model/jinja/token_stream.h"

namespace renga::model::jinja {

class ExpressionParser {
 public:
  using ExprOr = absl::StatusOr<std::unique_ptr<Expr>>;

  // `stream` must outlive this.
  explicit ExpressionParser(TokenStream* stream) : stream_(*stream) {}

  ExprOr Parse();
  // One or more, as a tuple when there is a comma: "a, b".
  ExprOr ParseTuple();
  // Without a trailing "if", which belongs to the for loop around it.
  ExprOr ParseWithoutConditional() { return ParseOr(); }

 private:
  using Level = ExprOr (ExpressionParser::*)();

  // Deeper nesting is refused, so that neither parsing nor evaluating can exhaust the stack.
  static constexpr int kMaxDepth = 150;

  // Puts a node together and checks its depth.
  ExprOr Finish(std::unique_ptr<Expr> expr) const;
  ExprOr Make(ExprKind kind, std::string text, std::vector<std::unique_ptr<Expr>> children) const;
  ExprOr MakeLiteral(Value value) const;

  ExprOr ParseOr();
  ExprOr ParseAnd();
  ExprOr ParseNot();
  ExprOr ParseCompare();
  ExprOr ParseSum();
  ExprOr ParseConcat();
  ExprOr ParseProduct();
  ExprOr ParsePower();
  ExprOr ParseUnary();
  ExprOr ParseSigned();  // an operand with its sign and postfixes
  ExprOr ParsePrimary();
  ExprOr ParseNumber();
  ExprOr ParseBracketed(ExprKind kind, absl::string_view close);
  ExprOr ParseParentheses();
  ExprOr ParseDict();
  ExprOr ParsePostfix(std::unique_ptr<Expr> expr);
  ExprOr ParseSubscript(std::unique_ptr<Expr> expr);
  ExprOr ParseFilters(std::unique_ptr<Expr> expr);
  ExprOr ParseTest(std::unique_ptr<Expr> expr);
  // Appends arguments in parentheses to a call, filter or test.
  absl::Status ParseArguments(Expr* call);
  ExprOr ParseLeftToRight(ExprKind kind, std::initializer_list<absl::string_view> operators,
                          Level next);
  bool AtOperand() const;

  TokenStream& stream_;
  int depth_ = 0;  // of Parse and ParseNot calls inside each other
};

}  // namespace renga::model::jinja

#endif  // RENGA_MODEL_JINJA_EXPRESSION_PARSER_H_
