// A grammar as it is written: rules over texts, classes of characters and each other. Parsers make
// it (gbnf_parser.h, json_schema.h); network.h turns it into what can be walked.
#ifndef RENGA_COORDINATOR_SERVING_GRAMMAR_EXPRESSION_H_
#define RENGA_COORDINATOR_SERVING_GRAMMAR_EXPRESSION_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"

namespace renga::grammar {

// Code points from `first` to `last`.
struct CodeRange {
  char32_t first = 0;
  char32_t last = 0;
  friend bool operator==(const CodeRange&, const CodeRange&) = default;
};

inline constexpr char32_t kLastCodePoint = 0x10FFFF;

// The same characters as ascending ranges that neither meet nor overlap, without surrogates and
// without what is no code point.
std::vector<CodeRange> Normalize(std::vector<CodeRange> ranges);
// Every other character.
std::vector<CodeRange> Complement(std::vector<CodeRange> ranges);

// A tree. Whoever builds one bounds its depth: it is walked by recursion.
struct Expression {
  enum class Kind {
    kText,      // `text`, byte for byte; empty: nothing at all
    kClass,     // one character of `ranges`
    kSequence,  // all of `parts`
    kChoice,    // one of `parts`
    kRepeat,    // parts[0], `least` to `most` times
    kRule,      // the rule `rule`
  };
  static constexpr int64_t kNoLimit = -1;

  Kind kind = Kind::kText;
  std::string text = {};
  std::vector<CodeRange> ranges = {};
  std::vector<Expression> parts = {};
  int64_t least = 0;
  int64_t most = 0;  // or kNoLimit
  int64_t rule = 0;
};

Expression Text(std::string text);
Expression Class(std::vector<CodeRange> ranges);
Expression Sequence(std::vector<Expression> parts);
Expression Choice(std::vector<Expression> parts);
Expression Repeat(Expression part, int64_t least, int64_t most);
Expression Optional(Expression part);
Expression RuleCall(int64_t rule);

struct Rule {
  std::string name;
  Expression expression;
};

struct RuleSet {
  std::vector<Rule> rules;  // found by name are those that Add was called for
  int64_t root = 0;

  // Returns the new rule. Of several with one name the first is found.
  int64_t Add(std::string name, Expression expression);
  // Of the rule with this name, or -1.
  int64_t Find(absl::string_view name) const;
  // A call of the rule with this name, which must be there.
  Expression Call(absl::string_view name) const { return RuleCall(Find(name)); }

 private:
  absl::flat_hash_map<std::string, int64_t> by_name_;
};

}  // namespace renga::grammar

#endif  // RENGA_COORDINATOR_SERVING_GRAMMAR_EXPRESSION_H_
