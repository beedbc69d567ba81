#include "model/jinja/parser.h"

#include <algorithm>
#include <initializer_list>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "model/jinja/expression_parser.h"
#include "model/jinja/lexer.h"
#include "model/jinja/token_stream.h"

namespace renga::model::jinja {
namespace {

constexpr size_t kMaxSourceBytes = size_t{1} << 20;
constexpr int kMaxStatementDepth = 50;  // of statements inside each other

class Parser {
 public:
  explicit Parser(std::vector<Token> tokens) : stream_(std::move(tokens)), expressions_(&stream_) {}

  // Statements up to one of the tags in `ends`, whose name becomes the current token; with no
  // `ends`, up to the end of the source.
  absl::StatusOr<Block> ParseBlock(std::initializer_list<absl::string_view> ends);

 private:
  using StatementOr = absl::StatusOr<std::unique_ptr<Statement>>;

  std::unique_ptr<Statement> Start(StatementKind kind) const {
    auto statement = std::make_unique<Statement>();
    statement->kind = kind;
    statement->line = stream_.current().line;
    return statement;
  }
  absl::Status EndTag() { return stream_.Expect(TokenKind::kBlockEnd, "the end of the tag"); }
  // The block of a statement up to {% end %}, which is consumed.
  absl::Status ParseBody(Statement* statement, absl::string_view end);

  StatementOr ParseOutput();
  StatementOr ParseTag();
  StatementOr ParseIf();
  StatementOr ParseFor();
  StatementOr ParseSet();
  StatementOr ParseMacro();
  StatementOr ParseGeneration();
  StatementOr ParseLoopControl(StatementKind kind);

  TokenStream stream_;
  ExpressionParser expressions_;
  int depth_ = 0;
  int loops_ = 0;  // around the current statement
};

absl::StatusOr<Block> Parser::ParseBlock(std::initializer_list<absl::string_view> ends) {
  if (++depth_ > kMaxStatementDepth) return stream_.Fail("statements nest too deeply");
  Block block;
  while (!stream_.At(TokenKind::kEnd)) {
    if (stream_.At(TokenKind::kText)) {
      auto text = Start(StatementKind::kText);
      text->text = stream_.current().text;
      block.push_back(std::move(text));
      stream_.Next();
    } else if (stream_.At(TokenKind::kOutputBegin)) {
      RENGA_ASSIGN_OR_RETURN(auto output, ParseOutput());
      block.push_back(std::move(output));
    } else {
      RENGA_RETURN_IF_ERROR(stream_.Expect(TokenKind::kBlockBegin, "a tag"));
      if (std::any_of(ends.begin(), ends.end(),
                      [this](absl::string_view end) { return stream_.AtName(end); })) {
        --depth_;
        return block;
      }
      RENGA_ASSIGN_OR_RETURN(auto statement, ParseTag());
      block.push_back(std::move(statement));
    }
  }
  if (ends.size() != 0) return stream_.Fail(absl::StrCat("expected ", *(ends.end() - 1)));
  --depth_;
  return block;
}

absl::Status Parser::ParseBody(Statement* statement, absl::string_view end) {
  RENGA_RETURN_IF_ERROR(EndTag());
  RENGA_ASSIGN_OR_RETURN(Block body, ParseBlock({end}));
  statement->blocks.push_back(std::move(body));
  stream_.Next();
  // {% endmacro name %} may repeat the name.
  if (statement->kind == StatementKind::kMacro) stream_.SkipName(statement->text);
  return EndTag();
}

Parser::StatementOr Parser::ParseOutput() {
  auto output = Start(StatementKind::kOutput);
  stream_.Next();
  RENGA_ASSIGN_OR_RETURN(auto expr, expressions_.ParseTuple());
  output->exprs.push_back(std::move(expr));
  RENGA_RETURN_IF_ERROR(stream_.Expect(TokenKind::kOutputEnd, "}}"));
  return output;
}

Parser::StatementOr Parser::ParseTag() {
  if (stream_.SkipName("if")) return ParseIf();
  if (stream_.SkipName("for")) return ParseFor();
  if (stream_.SkipName("set")) return ParseSet();
  if (stream_.SkipName("macro")) return ParseMacro();
  if (stream_.SkipName("generation")) return ParseGeneration();
  if (stream_.SkipName("break")) return ParseLoopControl(StatementKind::kBreak);
  if (stream_.SkipName("continue")) return ParseLoopControl(StatementKind::kContinue);
  if (!stream_.At(TokenKind::kName)) return stream_.Fail("expected the name of a tag");
  const std::string& name = stream_.current().text;
  if (name == "else" || name == "elif" || name.rfind("end", 0) == 0) {
    return stream_.Fail("unexpected tag");
  }
  return stream_.Unsupported(absl::StrCat("{% ", name.substr(0, 40), " %}"));
}

Parser::StatementOr Parser::ParseIf() {
  auto statement = Start(StatementKind::kIf);
  do {
    RENGA_ASSIGN_OR_RETURN(auto condition, expressions_.ParseTuple());
    statement->exprs.push_back(std::move(condition));
    RENGA_RETURN_IF_ERROR(EndTag());
    RENGA_ASSIGN_OR_RETURN(Block block, ParseBlock({"elif", "else", "endif"}));
    statement->blocks.push_back(std::move(block));
  } while (stream_.SkipName("elif"));
  if (stream_.SkipName("else")) {
    RENGA_RETURN_IF_ERROR(EndTag());
    RENGA_ASSIGN_OR_RETURN(Block block, ParseBlock({"endif"}));
    statement->blocks.push_back(std::move(block));
  }
  stream_.Next();
  RENGA_RETURN_IF_ERROR(EndTag());
  return statement;
}

Parser::StatementOr Parser::ParseFor() {
  auto statement = Start(StatementKind::kFor);
  const bool parenthesised = stream_.SkipOperator("(");
  do {
    RENGA_ASSIGN_OR_RETURN(std::string name, stream_.ExpectName());
    statement->names.push_back(std::move(name));
  } while (stream_.SkipOperator(","));
  if (parenthesised) RENGA_RETURN_IF_ERROR(stream_.ExpectOperator(")"));
  if (!stream_.SkipName("in")) return stream_.Fail("expected in");
  RENGA_ASSIGN_OR_RETURN(auto iterable, expressions_.ParseWithoutConditional());
  statement->exprs.push_back(std::move(iterable));
  statement->exprs.push_back(nullptr);
  if (stream_.SkipName("if")) {
    RENGA_ASSIGN_OR_RETURN(statement->exprs[1], expressions_.Parse());
  }
  if (stream_.AtName("recursive")) return stream_.Unsupported("a recursive loop");
  RENGA_RETURN_IF_ERROR(EndTag());
  ++loops_;
  RENGA_ASSIGN_OR_RETURN(Block body, ParseBlock({"else", "endfor"}));
  --loops_;
  statement->blocks.push_back(std::move(body));
  statement->blocks.emplace_back();
  if (stream_.SkipName("else")) {
    RENGA_RETURN_IF_ERROR(EndTag());
    RENGA_ASSIGN_OR_RETURN(statement->blocks[1], ParseBlock({"endfor"}));
  }
  stream_.Next();
  RENGA_RETURN_IF_ERROR(EndTag());
  return statement;
}

Parser::StatementOr Parser::ParseSet() {
  auto statement = Start(StatementKind::kSet);
  RENGA_ASSIGN_OR_RETURN(std::string name, stream_.ExpectName());
  if (stream_.SkipOperator(".")) {
    statement->text = std::move(name);
    RENGA_ASSIGN_OR_RETURN(name, stream_.ExpectName());
  }
  statement->names.push_back(std::move(name));
  while (statement->text.empty() && stream_.SkipOperator(",")) {
    RENGA_ASSIGN_OR_RETURN(std::string next, stream_.ExpectName());
    statement->names.push_back(std::move(next));
  }
  if (stream_.SkipOperator("=")) {
    RENGA_ASSIGN_OR_RETURN(auto value, expressions_.ParseTuple());
    statement->exprs.push_back(std::move(value));
    RENGA_RETURN_IF_ERROR(EndTag());
    return statement;
  }
  if (stream_.AtOperator("|")) return stream_.Unsupported("a filter on a block of {% set %}");
  if (!statement->text.empty() || statement->names.size() != 1) return stream_.Fail("expected =");
  statement->kind = StatementKind::kSetBlock;
  RENGA_RETURN_IF_ERROR(ParseBody(statement.get(), "endset"));
  return statement;
}

Parser::StatementOr Parser::ParseMacro() {
  auto statement = Start(StatementKind::kMacro);
  RENGA_ASSIGN_OR_RETURN(statement->text, stream_.ExpectName());
  RENGA_RETURN_IF_ERROR(stream_.ExpectOperator("("));
  while (!stream_.SkipOperator(")")) {
    if (!statement->names.empty()) RENGA_RETURN_IF_ERROR(stream_.ExpectOperator(","));
    RENGA_ASSIGN_OR_RETURN(std::string name, stream_.ExpectName());
    statement->names.push_back(std::move(name));
    if (stream_.SkipOperator("=")) {
      RENGA_ASSIGN_OR_RETURN(auto value, expressions_.Parse());
      statement->exprs.push_back(std::move(value));
    } else if (!statement->exprs.empty()) {
      return stream_.Fail("a parameter without a default follows one with a default");
    }
  }
  // A break inside the macro can't end a loop around it.
  const int outer_loops = std::exchange(loops_, 0);
  RENGA_RETURN_IF_ERROR(ParseBody(statement.get(), "endmacro"));
  loops_ = outer_loops;
  return statement;
}

// Hugging Face's mark around what the assistant says; it changes nothing in the text.
Parser::StatementOr Parser::ParseGeneration() {
  auto statement = Start(StatementKind::kGroup);
  RENGA_RETURN_IF_ERROR(ParseBody(statement.get(), "endgeneration"));
  return statement;
}

Parser::StatementOr Parser::ParseLoopControl(StatementKind kind) {
  if (loops_ == 0) return stream_.Fail("break and continue belong in a loop; unexpected");
  auto statement = Start(kind);
  RENGA_RETURN_IF_ERROR(EndTag());
  return statement;
}

}  // namespace

absl::StatusOr<Block> ParseTemplate(absl::string_view source) {
  if (source.size() > kMaxSourceBytes) {
    return absl::InvalidArgumentError(absl::StrCat("the chat template is ", source.size(),
                                                   " bytes long; the most is ", kMaxSourceBytes));
  }
  RENGA_ASSIGN_OR_RETURN(std::vector<Token> tokens, Tokenize(source));
  return Parser(std::move(tokens)).ParseBlock({});
}

}  // namespace renga::model::jinja
