// A parsed template: statements that hold expressions. Built by the parser, read by the
// interpreter, immutable in between.
#ifndef RENGA_MODEL_JINJA_AST_H_
#define RENGA_MODEL_JINJA_AST_H_

#include <memory>
#include <string>
#include <vector>

#include "model/jinja/value.h"

namespace renga::model::jinja {

enum class ExprKind {
  kLiteral,      // literal
  kName,         // text
  kList,         // children
  kTuple,        // children
  kDict,         // children: key, value, key, value...
  kAttribute,    // children[0] . text
  kIndex,        // children[0] [ children[1] ]
  kSlice,        // children[0] [ children[1] : children[2] : children[3] ]; null where left out
  kCall,         // children[0] ( the rest ); the last names.size() of them are by name
  kFilter,       // children[0] | text ( the rest ), likewise
  kTest,         // children[0] is text ( the rest ), likewise
  kNot,          // children[0]
  kNegate,       // children[0]
  kArithmetic,   // children[0] text children[1]; text is + - * / // % **
  kConcat,       // children[0] ~ children[1]
  kAnd,          // children[0] and children[1]
  kOr,           // children[0] or children[1]
  kCompare,      // children[0] names[0] children[1] names[1] children[2]...
  kConditional,  // children[0] if children[1] else children[2]; null without else
};

struct Expr {
  ExprKind kind;
  int line = 0;
  int depth = 1;  // of expressions inside each other; bounded by the parser
  std::string text;
  Value literal;
  std::vector<std::unique_ptr<Expr>> children;
  std::vector<std::string> names;
};

enum class StatementKind {
  kText,      // text
  kOutput,    // exprs[0]
  kIf,        // if exprs[i] then blocks[i]; one more block is the else
  kFor,       // for names in exprs[0] if exprs[1] (may be null): blocks[0], else blocks[1]
  kSet,       // names = exprs[0], or the namespace text . names[0]
  kSetBlock,  // names[0] = what blocks[0] prints
  kMacro,     // text(names, the last of them defaulting to exprs): blocks[0]
  kGroup,     // blocks[0], with a scope of its own
  kBreak,
  kContinue,
};

struct Statement;
using Block = std::vector<std::unique_ptr<Statement>>;

struct Statement {
  StatementKind kind;
  int line = 0;
  std::string text;
  std::vector<std::string> names;
  std::vector<std::unique_ptr<Expr>> exprs;
  std::vector<Block> blocks;
};

}  // namespace renga::model::jinja

#endif  // RENGA_MODEL_JINJA_AST_H_
