#include "coordinator/serving/grammar/gbnf_parser.h"

#include <random>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/testing/status_matchers.h"
#include "coordinator/serving/grammar/automaton.h"
#include "coordinator/serving/grammar/grammar.h"
#include "coordinator/serving/grammar/network.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/unicode.h"

namespace renga::grammar {
namespace {

using ::renga::testing::StatusIs;

using ::testing::HasSubstr;

// Whether the text is one of the grammar's.
bool Matches(const std::shared_ptr<const Network>& network, const std::string& text) {
  Automaton automaton(network);
  StateId state = *automaton.Start();
  for (const char c : text) state = automaton.Next(state, static_cast<uint8_t>(c));
  EXPECT_OK(automaton.status());
  return automaton.Accepts(state);
}

bool Matches(const std::string& grammar, const std::string& text) {
  const auto network = FromGbnf(grammar);
  EXPECT_OK(network.status());
  return network.ok() && Matches(*network, text);
}

TEST(GbnfTest, TextsClassesAndGroups) {
  EXPECT_TRUE(Matches(R"(root ::= "a\n\"\\\x41\u00e9")", "a\n\"\\A\u00e9"));
  EXPECT_FALSE(Matches(R"(root ::= "ab")", "a"));
  EXPECT_FALSE(Matches(R"(root ::= "ab")", "abc"));
  const std::string grammar = "root ::= [a-c\u00e9\\]] [^a-c\\n] . # end\n";
  EXPECT_TRUE(Matches(grammar, "]x\n"));
  EXPECT_TRUE(Matches(grammar, "\u00e9\u3042\U0001F600"));
  EXPECT_FALSE(Matches(grammar, "dxx"));
  EXPECT_FALSE(Matches(grammar, "abx"));
  EXPECT_FALSE(Matches(grammar, "ax\xC3"));             // half a character
  EXPECT_FALSE(Matches("root ::= .", "\xED\xA0\x80"));  // a surrogate
  EXPECT_TRUE(Matches("root ::= [a-]", "-"));
  EXPECT_TRUE(Matches("root ::= (\"a\" | (\"b\" |) \"c\")", "c"));
}

TEST(GbnfTest, Repetitions) {
  struct Case {
    const char* grammar;
    std::vector<int> counts;  // of those up to 6
  };
  const Case cases[] = {
      {"root ::= \"a\"*", {0, 1, 2, 3, 4, 5, 6}},
      {"root ::= \"a\"+", {1, 2, 3, 4, 5, 6}},
      {"root ::= \"a\"?", {0, 1}},
      {"root ::= \"a\"{3}", {3}},
      {"root ::= \"a\"{2,}", {2, 3, 4, 5, 6}},
      {"root ::= \"a\"{2,4}", {2, 3, 4}},
      {"root ::= \"a\"{,2}", {0, 1, 2}},
      {"root ::= (\"a\"*)*", {0, 1, 2, 3, 4, 5, 6}},
      {"root ::= (\"a\"{2})+", {2, 4, 6}},
      {"root ::= \"a\"{0}", {0}},
      {"root ::= \"\"{5,9} \"a\"", {1}},
  };
  for (const Case& c : cases) {
    std::vector<int> counts;
    for (int n = 0; n <= 6; ++n) {
      if (Matches(c.grammar, std::string(static_cast<size_t>(n), 'a'))) counts.push_back(n);
    }
    EXPECT_EQ(counts, c.counts) << c.grammar;
  }
}

TEST(GbnfTest, RulesMayBeBrokenIntoLinesAndCallThemselves) {
  const std::string grammar = R"gbnf(# balanced
root ::=
  pair+
  | "none"
pair ::= "(" pair* ")"   # inside itself
)gbnf";
  EXPECT_TRUE(Matches(grammar, "none"));
  EXPECT_TRUE(Matches(grammar, "(()())()"));
  EXPECT_FALSE(Matches(grammar, "(()"));
  EXPECT_TRUE(Matches(grammar, std::string(2000, '(') + std::string(2000, ')')));
  // At the end of a rule no room is taken.
  Automaton automaton(*FromGbnf("root ::= \"a\" root | \"b\""));
  StateId state = *automaton.Start();
  for (int i = 0; i < 10000; ++i) state = automaton.Next(state, 'a');
  EXPECT_LE(automaton.state_count(), 4);
  EXPECT_TRUE(automaton.Accepts(automaton.Next(state, 'b')));
}

TEST(GbnfTest, SaysWhatIsWrong) {
  const std::pair<std::string, const char*> cases[] = {
      {"", "no rule named root"},
      {"a ::= \"b\"", "no rule named root"},
      {"root ::= other", "names a rule other"},
      {"root ::= \"a\"\nroot ::= \"b\"", "line 2 of the grammar: rule root is defined twice"},
      {"root = \"a\"", "expected ::="},
      {"root ::= \"a", "not closed"},
      {"root ::= [a", "not closed"},
      {"root ::= (\"a\"", "not closed"},
      {"root ::= \"a\")", "expected a rule"},
      {"root ::= *", "before a repetition"},
      {"root ::= \"a\"{2,1}", "ends below"},
      {"root ::= \"a\"{,}", "expected a repetition"},
      {"root ::= \"a\"{x}", "expected a repetition"},
      {"root ::= \"a\"{99999999999}", "above"},
      {"root ::= []", "no character"},
      {"root ::= [\\x00-\\U0010FFFF] [^\\x00-\\U0010FFFF]", "no character"},
      {"root ::= [b-a]", "ends below"},
      {"root ::= \"\\q\"", "unknown character"},
      {"root ::= \"\\uD800\"", "no character"},
      {"root ::= \"\\U00110000\"", "no character"},
      {"root ::= 'a'", "did not expect '"},
      {"root ::= \"\xFF\"", "not UTF-8"},
      {"root ::= " + std::string(100, '(') + "\"a\"" + std::string(100, ')'), "deep"},
      {"root ::= root \"a\" | \"b\"", "rule root of the grammar is left recursive"},
      {"root ::= a \"x\"\na ::= \"\"* b?\nb ::= root", "left recursive"},
      {"root ::= \"a\" root", "can never end"},
      {"root ::= \"b\" | a\na ::= \"a\" a", "rule a of the grammar can never end"},
      {"root ::= ((\"a\"{1000}){1000}){1000}", "too large"},
      {"root ::= ((\"\"{60000}){60000}){60000}", "too large"},
      {std::string(kMaxGrammarBytes + 1, ' '), "the most is"},
  };
  for (const auto& [grammar, sentence] : cases) {
    EXPECT_THAT(FromGbnf(grammar).status(),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(sentence)))
        << grammar.substr(0, 100);
  }
}

TEST(GbnfTest, AmbiguityIsBounded) {
  // 2^14 ways to begin.
  std::string grammar = "root ::= r0\n";
  for (int i = 0; i < 14; ++i) {
    absl::StrAppend(&grammar, "r", i, " ::= r", i + 1, " \"x\" | r", i + 1, " \"y\"\n");
  }
  grammar += "r14 ::= \"a\"\n";
  EXPECT_THAT(FromGbnf(grammar).status(),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("too ambiguous")));
  // More ways with each character.
  Automaton automaton(*FromGbnf("root ::= \"a\" root root \"b\" | \"a\" root \"c\" | \"a\""));
  StateId state = *automaton.Start();
  for (int i = 0; i < 1000; ++i) state = automaton.Next(state, 'a');
  EXPECT_EQ(state, Automaton::kDead);
  EXPECT_THAT(automaton.status(), StatusIs(absl::StatusCode::kInvalidArgument));
  // Many states of many places each: their sum is bounded as well, and forgetting makes room.
  Automaton sum(*FromGbnf("root ::= [ab]* \"a\" [ab]{400}"));
  std::mt19937_64 random(3);
  state = *sum.Start();
  StateId last = state;
  while (sum.status().ok()) {
    ASSERT_LT(sum.state_count(), Automaton::kMostStates);
    sum.BeginWork();
    last = std::exchange(state, sum.Next(state, static_cast<uint8_t>('a' + random() % 2)));
  }
  EXPECT_TRUE(sum.crowded());
  state = sum.KeepOnly(last);
  EXPECT_NE(sum.Next(state, 'a'), Automaton::kDead);
  EXPECT_OK(sum.status());
}

TEST(GbnfTest, WorkIsBounded) {
  Automaton automaton(*FromGbnf("root ::= [ab]* \"a\" [ab]{2000}"));
  std::mt19937_64 random(3);
  StateId state = *automaton.Start();
  int steps = 0;
  while (automaton.status().ok()) {
    state = automaton.Next(state, static_cast<uint8_t>('a' + random() % 2));
    ASSERT_LT(++steps, 100000);
  }
  EXPECT_LT(automaton.state_count(), Automaton::kManyStates);
}

// Random grammars over two letters and a character of two bytes.
class RandomGrammar {
 public:
  explicit RandomGrammar(uint64_t seed) : random_(seed) {}

  RuleSet Make() {
    RuleSet rules;
    for (int i = 0; i < 4; ++i) rules.rules.push_back({absl::StrCat("r", i), Part(4)});
    return rules;
  }

  // Of the same letters.
  std::string Word() {
    const char* const letters[] = {"a", "b", "\u00e9"};
    std::string word;
    for (uint64_t left = random_() % 7; left > 0; --left) word += letters[random_() % 3];
    return word;
  }

 private:
  Expression Part(int depth) {
    const uint64_t kind = random_() % (depth > 0 ? 9 : 3);
    if (kind == 0) return Text(Word().substr(0, 1) == "a" ? "ab" : "b");
    if (kind == 1) return Class({random_() % 2 == 0 ? CodeRange{'a', 'b'} : CodeRange{0xE0, 0xEF}});
    if (kind == 2) return Text(random_() % 3 == 0 ? "" : "a");
    if (kind == 3) return RuleCall(static_cast<int64_t>(random_() % 4));
    if (kind == 4) {
      const auto least = static_cast<int64_t>(random_() % 3);
      const int64_t most =
          random_() % 2 == 0 ? Expression::kNoLimit : least + static_cast<int64_t>(random_() % 3);
      return Repeat(Part(depth - 1), least, most);
    }
    std::vector<Expression> parts;
    for (uint64_t left = 1 + random_() % 3; left > 0; --left) parts.push_back(Part(depth - 1));
    return kind < 7 ? Sequence(std::move(parts)) : Choice(std::move(parts));
  }

  std::mt19937_64 random_;
};

// Slow and plain: where an expression can end that begins at some place of the text.
class Oracle {
 public:
  Oracle(const RuleSet& rules, const std::string& text) : rules_(rules), text_(text) {}

  bool Matches() { return Ends(RuleCall(rules_.root), 0).count(text_.size()) > 0; }

 private:
  std::set<size_t> Ends(const Expression& part, size_t at) {
    switch (part.kind) {
      case Expression::Kind::kText:
        if (text_.compare(at, part.text.size(), part.text) != 0) return {};
        return {at + part.text.size()};
      case Expression::Kind::kClass: {
        if (at == text_.size()) return {};
        const model::DecodedChar c = model::DecodeChar(absl::string_view(text_).substr(at));
        for (const CodeRange& range : part.ranges) {
          if (c.code_point >= range.first && c.code_point <= range.last) return {at + c.length};
        }
        return {};
      }
      case Expression::Kind::kSequence: {
        std::set<size_t> ends = {at};
        for (const Expression& next : part.parts) ends = After(ends, next);
        return ends;
      }
      case Expression::Kind::kChoice: {
        std::set<size_t> ends;
        for (const Expression& one : part.parts) ends.merge(Ends(one, at));
        return ends;
      }
      case Expression::Kind::kRepeat: {
        std::set<size_t> now = {at};
        for (int64_t i = 0; i < part.least; ++i) now = After(now, part.parts[0]);
        std::set<size_t> ends = now;
        // More often than the text has characters changes nothing.
        const int64_t more = part.most == Expression::kNoLimit ? 20 : part.most - part.least;
        for (int64_t i = 0; i < more; ++i) {
          now = After(now, part.parts[0]);
          ends.insert(now.begin(), now.end());
        }
        return ends;
      }
      case Expression::Kind::kRule:
        return Ends(rules_.rules[static_cast<size_t>(part.rule)].expression, at);
    }
    return {};
  }

  std::set<size_t> After(const std::set<size_t>& places, const Expression& part) {
    std::set<size_t> ends;
    for (const size_t at : places) ends.merge(Ends(part, at));
    return ends;
  }

  const RuleSet& rules_;
  const std::string& text_;
};

TEST(GbnfTest, RandomGrammarsMatchWhatAPlainMatcherDoes) {
  int compared = 0;
  int matched = 0;
  for (uint64_t seed = 0; seed < 1500; ++seed) {
    RandomGrammar random(seed);
    const RuleSet rules = random.Make();
    const auto network = Compile(rules);
    if (!network.ok()) continue;  // left recursive, or without end
    Automaton automaton(*network);
    for (int i = 0; i < 20; ++i) {
      const std::string word = random.Word();
      StateId state = *automaton.Start();
      for (const char c : word) state = automaton.Next(state, static_cast<uint8_t>(c));
      ASSERT_OK(automaton.status());
      const bool expected = Oracle(rules, word).Matches();
      ASSERT_EQ(automaton.Accepts(state), expected) << "seed " << seed << ", text " << word;
      ++compared;
      matched += expected ? 1 : 0;
    }
  }
  EXPECT_GT(compared, 5000);
  EXPECT_GT(matched, 500);
}

TEST(GbnfTest, AfterForgettingNothingElseIsSaid) {
  // Each depth is a state of its own.
  const auto network = *FromGbnf("root ::= \"(\" root \")\" | \"[\" root \"]\" | \"x\"");
  Automaton automaton(network);
  StateId state = *automaton.Start();
  std::string closing;
  std::mt19937_64 random(3);
  bool forgot = false;
  for (int i = 0; i < 3 * Automaton::kManyStates; ++i) {
    const bool round = random() % 2 == 0;
    automaton.BeginWork();
    state = automaton.Next(state, round ? '(' : '[');
    closing += round ? ')' : ']';
    if (automaton.crowded()) {
      state = automaton.KeepOnly(state);
      forgot = true;
    }
    ASSERT_LE(automaton.state_count(), Automaton::kManyStates + 1);
  }
  EXPECT_TRUE(forgot);
  state = automaton.Next(state, 'x');
  while (!closing.empty()) {
    EXPECT_EQ(automaton.Next(state, closing.back() == ')' ? ']' : ')'), Automaton::kDead);
    state = automaton.Next(state, static_cast<uint8_t>(closing.back()));
    if (automaton.crowded()) state = automaton.KeepOnly(state);
    closing.pop_back();
    ASSERT_EQ(automaton.Accepts(state), closing.empty());
  }
  EXPECT_OK(automaton.status());
}

}  // namespace
}  // namespace renga::grammar
