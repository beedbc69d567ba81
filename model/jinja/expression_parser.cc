#include "model/jinja/expression_parser.h"

#include <algorithm>
#include <utility>

#include "absl/strings/numbers.h"
#include "base/status_macros.h"

namespace renga::model::jinja {
namespace {

std::vector<std::unique_ptr<Expr>> Children(std::unique_ptr<Expr> a,
                                            std::unique_ptr<Expr> b = nullptr) {
  std::vector<std::unique_ptr<Expr>> children;
  children.push_back(std::move(a));
  if (b != nullptr) children.push_back(std::move(b));
  return children;
}

constexpr absl::string_view kComparisons[] = {"==", "!=", "<", "<=", ">", ">="};

// Counts a level of recursion for as long as it lives.
class DepthGuard {
 public:
  explicit DepthGuard(int* depth) : depth_(*depth) { ++depth_; }
  ~DepthGuard() { --depth_; }
  DepthGuard(const DepthGuard&) = delete;
  DepthGuard& operator=(const DepthGuard&) = delete;

 private:
  int& depth_;
};

}  // namespace

using ExprOr = ExpressionParser::ExprOr;

ExprOr ExpressionParser::Finish(std::unique_ptr<Expr> expr) const {
  expr->depth = 1;
  for (const auto& child : expr->children) {
    if (child != nullptr) expr->depth = std::max(expr->depth, child->depth + 1);
  }
  if (expr->depth > kMaxDepth) return stream_.Fail("the expression nests too deeply");
  return expr;
}

ExprOr ExpressionParser::Make(ExprKind kind, std::string text,
                              std::vector<std::unique_ptr<Expr>> children) const {
  auto expr = std::make_unique<Expr>();
  expr->kind = kind;
  expr->line = stream_.current().line;
  expr->text = std::move(text);
  expr->children = std::move(children);
  return Finish(std::move(expr));
}

ExprOr ExpressionParser::MakeLiteral(Value value) const {
  RENGA_ASSIGN_OR_RETURN(auto expr, Make(ExprKind::kLiteral, "", {}));
  expr->literal = std::move(value);
  return expr;
}

ExprOr ExpressionParser::Parse() {
  const DepthGuard guard(&depth_);
  if (depth_ > kMaxDepth) return stream_.Fail("the expression nests too deeply");
  RENGA_ASSIGN_OR_RETURN(auto expr, ParseOr());
  while (stream_.SkipName("if")) {
    RENGA_ASSIGN_OR_RETURN(auto condition, ParseOr());
    auto children = Children(std::move(expr), std::move(condition));
    children.push_back(nullptr);
    if (stream_.SkipName("else")) {
      RENGA_ASSIGN_OR_RETURN(children.back(), Parse());
    }
    RENGA_ASSIGN_OR_RETURN(expr, Make(ExprKind::kConditional, "", std::move(children)));
  }
  return expr;
}

ExprOr ExpressionParser::ParseTuple() {
  RENGA_ASSIGN_OR_RETURN(auto first, Parse());
  if (!stream_.AtOperator(",")) return first;
  auto items = Children(std::move(first));
  while (stream_.SkipOperator(",")) {
    if (!AtOperand()) break;
    RENGA_ASSIGN_OR_RETURN(auto item, Parse());
    items.push_back(std::move(item));
  }
  return Make(ExprKind::kTuple, "", std::move(items));
}

// Whether an expression can begin here; what ends a list of them can't.
bool ExpressionParser::AtOperand() const {
  const TokenKind kind = stream_.current().kind;
  if (kind == TokenKind::kOperator) {
    return stream_.AtOperator("(") || stream_.AtOperator("[") || stream_.AtOperator("{") ||
           stream_.AtOperator("-") || stream_.AtOperator("+");
  }
  return kind == TokenKind::kName || kind == TokenKind::kString || kind == TokenKind::kInteger ||
         kind == TokenKind::kFloat;
}

ExprOr ExpressionParser::ParseOr() {
  RENGA_ASSIGN_OR_RETURN(auto left, ParseAnd());
  while (stream_.SkipName("or")) {
    RENGA_ASSIGN_OR_RETURN(auto right, ParseAnd());
    RENGA_ASSIGN_OR_RETURN(left,
                           Make(ExprKind::kOr, "", Children(std::move(left), std::move(right))));
  }
  return left;
}

ExprOr ExpressionParser::ParseAnd() {
  RENGA_ASSIGN_OR_RETURN(auto left, ParseNot());
  while (stream_.SkipName("and")) {
    RENGA_ASSIGN_OR_RETURN(auto right, ParseNot());
    RENGA_ASSIGN_OR_RETURN(left,
                           Make(ExprKind::kAnd, "", Children(std::move(left), std::move(right))));
  }
  return left;
}

ExprOr ExpressionParser::ParseNot() {
  if (!stream_.SkipName("not")) return ParseCompare();
  const DepthGuard guard(&depth_);
  if (depth_ > kMaxDepth) return stream_.Fail("the expression nests too deeply");
  RENGA_ASSIGN_OR_RETURN(auto operand, ParseNot());
  return Make(ExprKind::kNot, "", Children(std::move(operand)));
}

ExprOr ExpressionParser::ParseCompare() {
  RENGA_ASSIGN_OR_RETURN(auto first, ParseSum());
  auto operands = Children(std::move(first));
  std::vector<std::string> operators;
  while (true) {
    if (std::any_of(std::begin(kComparisons), std::end(kComparisons),
                    [this](absl::string_view op) { return stream_.AtOperator(op); })) {
      operators.push_back(stream_.current().text);
    } else if (stream_.AtName("in")) {
      operators.push_back("in");
    } else if (stream_.AtName("not") && stream_.AheadIsName("in")) {
      stream_.Next();
      operators.push_back("not in");
    } else {
      break;
    }
    stream_.Next();
    RENGA_ASSIGN_OR_RETURN(auto operand, ParseSum());
    operands.push_back(std::move(operand));
  }
  if (operators.empty()) return std::move(operands[0]);
  RENGA_ASSIGN_OR_RETURN(auto expr, Make(ExprKind::kCompare, "", std::move(operands)));
  expr->names = std::move(operators);
  return expr;
}

ExprOr ExpressionParser::ParseLeftToRight(ExprKind kind,
                                          std::initializer_list<absl::string_view> operators,
                                          Level next) {
  RENGA_ASSIGN_OR_RETURN(auto left, (this->*next)());
  while (true) {
    const auto op = std::find_if(operators.begin(), operators.end(),
                                 [this](absl::string_view o) { return stream_.AtOperator(o); });
    if (op == operators.end()) return left;
    stream_.Next();
    RENGA_ASSIGN_OR_RETURN(auto right, (this->*next)());
    RENGA_ASSIGN_OR_RETURN(
        left, Make(kind, std::string(*op), Children(std::move(left), std::move(right))));
  }
}

ExprOr ExpressionParser::ParseSum() {
  return ParseLeftToRight(ExprKind::kArithmetic, {"+", "-"}, &ExpressionParser::ParseConcat);
}

ExprOr ExpressionParser::ParseConcat() {
  return ParseLeftToRight(ExprKind::kConcat, {"~"}, &ExpressionParser::ParseProduct);
}

ExprOr ExpressionParser::ParseProduct() {
  return ParseLeftToRight(ExprKind::kArithmetic, {"*", "/", "//", "%"},
                          &ExpressionParser::ParsePower);
}

ExprOr ExpressionParser::ParsePower() {
  return ParseLeftToRight(ExprKind::kArithmetic, {"**"}, &ExpressionParser::ParseUnary);
}

ExprOr ExpressionParser::ParseUnary() {
  RENGA_ASSIGN_OR_RETURN(auto expr, ParseSigned());
  return ParseFilters(std::move(expr));
}

ExprOr ExpressionParser::ParseSigned() {
  const DepthGuard guard(&depth_);
  if (depth_ > kMaxDepth) return stream_.Fail("the expression nests too deeply");
  if (stream_.SkipOperator("-")) {
    RENGA_ASSIGN_OR_RETURN(auto operand, ParseSigned());
    return Make(ExprKind::kNegate, "", Children(std::move(operand)));
  }
  if (stream_.SkipOperator("+")) return ParseSigned();
  RENGA_ASSIGN_OR_RETURN(auto expr, ParsePrimary());
  return ParsePostfix(std::move(expr));
}

ExprOr ExpressionParser::ParsePrimary() {
  const Token& token = stream_.current();
  switch (token.kind) {
    case TokenKind::kName: {
      const std::string name = token.text;
      stream_.Next();
      if (name == "true" || name == "True") return MakeLiteral(Value(true));
      if (name == "false" || name == "False") return MakeLiteral(Value(false));
      if (name == "none" || name == "None") return MakeLiteral(Value::MakeNone());
      return Make(ExprKind::kName, name, {});
    }
    case TokenKind::kString: {
      std::string text;
      for (; stream_.At(TokenKind::kString); stream_.Next()) text += stream_.current().text;
      return MakeLiteral(Value(std::move(text)));
    }
    case TokenKind::kInteger:
    case TokenKind::kFloat:
      return ParseNumber();
    default:
      break;
  }
  if (stream_.SkipOperator("(")) return ParseParentheses();
  if (stream_.SkipOperator("[")) return ParseBracketed(ExprKind::kList, "]");
  if (stream_.SkipOperator("{")) return ParseDict();
  return stream_.Fail("expected an expression");
}

ExprOr ExpressionParser::ParseNumber() {
  const Token token = stream_.current();
  stream_.Next();
  int64_t integer = 0;
  if (token.kind == TokenKind::kInteger && absl::SimpleAtoi(token.text, &integer)) {
    return MakeLiteral(Value(integer));
  }
  double number = 0;
  if (token.kind == TokenKind::kFloat && absl::SimpleAtod(token.text, &number)) {
    return MakeLiteral(Value(number));
  }
  return stream_.Fail("the number does not fit");
}

// Expressions and commas up to `close`, whose opening bracket is behind us.
ExprOr ExpressionParser::ParseBracketed(ExprKind kind, absl::string_view close) {
  std::vector<std::unique_ptr<Expr>> items;
  while (!stream_.SkipOperator(close)) {
    if (!items.empty()) {
      RENGA_RETURN_IF_ERROR(stream_.ExpectOperator(","));
      if (stream_.SkipOperator(close)) break;
    }
    RENGA_ASSIGN_OR_RETURN(auto item, Parse());
    items.push_back(std::move(item));
  }
  return Make(kind, "", std::move(items));
}

ExprOr ExpressionParser::ParseParentheses() {
  if (stream_.SkipOperator(")")) return Make(ExprKind::kTuple, "", {});
  RENGA_ASSIGN_OR_RETURN(auto expr, ParseTuple());
  RENGA_RETURN_IF_ERROR(stream_.ExpectOperator(")"));
  return expr;
}

ExprOr ExpressionParser::ParseDict() {
  std::vector<std::unique_ptr<Expr>> items;
  while (!stream_.SkipOperator("}")) {
    if (!items.empty()) {
      RENGA_RETURN_IF_ERROR(stream_.ExpectOperator(","));
      if (stream_.SkipOperator("}")) break;
    }
    RENGA_ASSIGN_OR_RETURN(auto key, Parse());
    RENGA_RETURN_IF_ERROR(stream_.ExpectOperator(":"));
    RENGA_ASSIGN_OR_RETURN(auto value, Parse());
    items.push_back(std::move(key));
    items.push_back(std::move(value));
  }
  return Make(ExprKind::kDict, "", std::move(items));
}

ExprOr ExpressionParser::ParsePostfix(std::unique_ptr<Expr> expr) {
  while (true) {
    if (stream_.SkipOperator(".")) {
      if (!stream_.At(TokenKind::kName)) return stream_.Fail("expected a name after the dot");
      const std::string name = stream_.current().text;
      stream_.Next();
      RENGA_ASSIGN_OR_RETURN(expr, Make(ExprKind::kAttribute, name, Children(std::move(expr))));
    } else if (stream_.SkipOperator("[")) {
      RENGA_ASSIGN_OR_RETURN(expr, ParseSubscript(std::move(expr)));
    } else if (stream_.AtOperator("(")) {
      RENGA_ASSIGN_OR_RETURN(expr, Make(ExprKind::kCall, "", Children(std::move(expr))));
      RENGA_RETURN_IF_ERROR(ParseArguments(expr.get()));
      RENGA_ASSIGN_OR_RETURN(expr, Finish(std::move(expr)));
    } else {
      return expr;
    }
  }
}

// An index or a slice; the opening bracket is behind us.
ExprOr ExpressionParser::ParseSubscript(std::unique_ptr<Expr> expr) {
  auto children = Children(std::move(expr));
  bool is_slice = false;
  for (int part = 0; part < 3; ++part) {
    children.push_back(nullptr);
    if (!stream_.AtOperator(":") && !stream_.AtOperator("]")) {
      RENGA_ASSIGN_OR_RETURN(children.back(), Parse());
    }
    if (part < 2 && stream_.SkipOperator(":")) {
      is_slice = true;
    } else {
      break;
    }
  }
  RENGA_RETURN_IF_ERROR(stream_.ExpectOperator("]"));
  if (!is_slice && children[1] == nullptr) return stream_.Fail("expected an index before");
  children.resize(is_slice ? 4 : 2);
  return Make(is_slice ? ExprKind::kSlice : ExprKind::kIndex, "", std::move(children));
}

ExprOr ExpressionParser::ParseFilters(std::unique_ptr<Expr> expr) {
  while (true) {
    if (stream_.SkipOperator("|")) {
      RENGA_ASSIGN_OR_RETURN(std::string name, stream_.ExpectName());
      RENGA_ASSIGN_OR_RETURN(expr,
                             Make(ExprKind::kFilter, std::move(name), Children(std::move(expr))));
      if (stream_.AtOperator("(")) RENGA_RETURN_IF_ERROR(ParseArguments(expr.get()));
      RENGA_ASSIGN_OR_RETURN(expr, Finish(std::move(expr)));
    } else if (stream_.SkipName("is")) {
      RENGA_ASSIGN_OR_RETURN(expr, ParseTest(std::move(expr)));
    } else {
      return expr;
    }
  }
}

ExprOr ExpressionParser::ParseTest(std::unique_ptr<Expr> expr) {
  const bool negated = stream_.SkipName("not");
  RENGA_ASSIGN_OR_RETURN(std::string name, stream_.ExpectName());
  RENGA_ASSIGN_OR_RETURN(auto test,
                         Make(ExprKind::kTest, std::move(name), Children(std::move(expr))));
  const bool word_after = stream_.AtName("else") || stream_.AtName("or") || stream_.AtName("and") ||
                          stream_.AtName("is") || stream_.AtName("if") || stream_.AtName("not") ||
                          stream_.AtName("in");
  if (stream_.AtOperator("(")) {
    RENGA_RETURN_IF_ERROR(ParseArguments(test.get()));
  } else if (AtOperand() && !stream_.AtOperator("-") && !stream_.AtOperator("+") && !word_after) {
    // One argument may follow without parentheses: "x is divisibleby 3".
    RENGA_ASSIGN_OR_RETURN(auto argument, ParsePrimary());
    RENGA_ASSIGN_OR_RETURN(argument, ParsePostfix(std::move(argument)));
    test->children.push_back(std::move(argument));
  }
  RENGA_ASSIGN_OR_RETURN(test, Finish(std::move(test)));
  if (!negated) return test;
  return Make(ExprKind::kNot, "", Children(std::move(test)));
}

absl::Status ExpressionParser::ParseArguments(Expr* call) {
  RENGA_RETURN_IF_ERROR(stream_.ExpectOperator("("));
  bool first = true;
  while (!stream_.SkipOperator(")")) {
    if (!first) {
      RENGA_RETURN_IF_ERROR(stream_.ExpectOperator(","));
      if (stream_.SkipOperator(")")) break;
    }
    first = false;
    if (stream_.AtOperator("*") || stream_.AtOperator("**")) {
      return stream_.Unsupported("passing a list as arguments");
    }
    if (stream_.At(TokenKind::kName) && stream_.AheadIsOperator("=")) {
      call->names.push_back(stream_.current().text);
      stream_.Next();
      stream_.Next();
    } else if (!call->names.empty()) {
      return stream_.Fail("an argument without a name follows one with a name");
    }
    RENGA_ASSIGN_OR_RETURN(auto argument, Parse());
    call->children.push_back(std::move(argument));
  }
  return absl::OkStatus();
}

}  // namespace renga::model::jinja
