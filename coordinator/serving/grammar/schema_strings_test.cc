#include "coordinator/serving/grammar/schema_strings.h"

#include <random>
#include <regex>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/testing/status_matchers.h"
#include "coordinator/serving/grammar/automaton.h"
#include "coordinator/serving/grammar/grammar.h"
#include "coordinator/serving/grammar/testing/schema_case.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace renga::grammar {
namespace {

using testing::CheckRefusals;
using testing::CheckSchemaCases;
using testing::IsTextOf;
using testing::RefusedSchema;
using testing::SchemaCase;

TEST(SchemaStringsTest, AllowsWhatThePatternMatches) {
  const SchemaCase cases[] = {
      {R"({"pattern": "^[a-z]+-\\d{2,3}$"})",
       {R"("ab-12")", R"("x-123")"},
       {R"("ab-1")", R"("ab-1234")", R"("-12")", R"("AB-12")", R"("ab-12 ")", "ab-12", "1"}},
      // Not anchored: anywhere.
      {R"({"type": "string", "pattern": "ab"})",
       {R"("ab")", R"("xaby")", R"("aab\n")"},
       {R"("a")", R"("a b")", R"("")"}},
      {R"({"pattern": "^ab"})", {R"("ab")", R"("abc")"}, {R"("cab")"}},
      {R"({"pattern": "ab$"})", {R"("ab")", R"("cab")"}, {R"("abc")"}},
      {R"({"pattern": "^a$|^b|c$"})", {R"("a")", R"("bx")", R"("xc")"}, {R"("ax")", R"("xb")"}},
      {R"({"pattern": "^(a|bc)*?(?:d|)(?<n>e)?$"})",
       {R"("")", R"("abcade")", R"("e")", R"("bcd")"},
       {R"("b")", R"("ea")", R"("dd")"}},
      {R"({"pattern": "^((a*b?)*(c|(?:de)+){2})*$"})",
       {R"("")", R"("abacdede")", R"("ccaadec")"},
       {R"("ab")", R"("abc")", R"("cdc")"}},
      {R"({"pattern": "^a{2}b{1,}c{0}$"})", {R"("aab")", R"("aabbb")"}, {R"("ab")", R"("aabc")"}},
      // What JSON escapes comes out escaped, in one way.
      {R"({"pattern": "^\"\\\\\\n\\u0001$"})",
       {R"("\"\\\n\u0001")"},
       {R"("\u0022\\\n\u0001")", "\"\\\"\\\\\n\\u0001\""}},
      {R"({"pattern": "^[^a]$"})",
       {R"("b")", R"("é")", R"("😀")", R"("\"")", R"("\u001f")", R"("\u001F")", R"("\u007f")",
        R"("\n")"},
       {R"("a")", R"("\u0061")", R"("")", R"("bb")", "\"\n\"", "\"\x7f\"", R"("\u000a")",
        R"("\ud83d")"}},
      {R"({"pattern": "^.$"})",
       {R"("é")", R"("\t")", R"("\"")"},
       {R"("\n")", R"("\r")", "\"\u2028\""}},
      {R"({"pattern": "^\\w\\W\\s\\S\\D$"})",
       {R"("_- .x")", "\"aé\u3000é\\n\""},
       {R"("-- .x")", R"("__ .x")", R"("_-..x")", R"("_-  x")", R"("_- .7")"}},
      {R"({"pattern": "^[\\d.\\-x-]$"})", {R"("5")", R"(".")", R"("-")", R"("x")"}, {R"("w")"}},
      {R"({"pattern": "^[\\w-.][+--]$"})",
       {R"("-+")", R"(".,")", R"("a-")"},
       {R"(",+")", R"("a.")"}},
      {R"({"pattern": "^[^]\\/\\.$"})", {R"("a/.")", R"("\n/.")"}, {R"("a//")"}},
      {R"({"pattern": "^[а-я]\\xe9\\u00e8\\ud83d\\ude00]}$"})", {R"("жéè😀]}")"}, {R"("xéè😀]}")"}},
      {R"({"pattern": ""})", {R"("")", R"("ab")"}, {"1"}},
      {R"({"pattern": "^$"})", {R"("")"}, {R"("a")"}},
      // Two patterns with a class in common.
      {R"({"prefixItems": [{"pattern": "^[^a]$"}, {"pattern": "^[^a]+$"}], "items": false,
           "minItems": 2})",
       {R"(["b","bb"])"},
       {R"(["b","a"])"}},
  };
  CheckSchemaCases(cases);
}

TEST(SchemaStringsTest, KeepsLengthsBesideThePattern) {
  const SchemaCase cases[] = {
      {R"({"pattern": "^[a-z]+$", "minLength": 2, "maxLength": 4})",
       {R"("ab")", R"("abcd")"},
       {R"("a")", R"("abcde")", R"("AB")"}},
      {R"({"pattern": "^[a-z][\\\\\\n]*$", "minLength": 2, "maxLength": 3})",
       {R"("a\\")", R"("a\n\\")"},
       {R"("a")", R"("a\\\\\\")"}},
      {R"({"pattern": "^x(ab|cd)*y$", "minLength": 3, "maxLength": 7})",
       {R"("xaby")", R"("xabcdy")"},
       {R"("xy")", R"("xababaBy")", R"("xabababy")"}},
      {R"({"pattern": "^(a*)$", "maxLength": 2})", {R"("")", R"("aa")"}, {R"("aaa")"}},
      {R"({"pattern": "^ab", "maxLength": 3})", {R"("ab")", R"("abc")"}, {R"("abcd")", R"("a")"}},
      {R"({"pattern": "b$", "minLength": 2})", {R"("ab")", R"("xxb")"}, {R"("b")"}},
      // The pattern alone keeps them.
      {R"({"pattern": "^(a|bcd?){1,3}(x|y)$", "minLength": 1, "maxLength": 10})",
       {R"("ax")", R"("bcdbcdbcdy")"},
       {R"("x")"}},
      // An alternative that is too long is left out.
      {R"({"pattern": "^a{2,9}$|^b{5}$", "maxLength": 3})", {R"("aaa")"}, {R"("bbbbb")", R"("a")"}},
  };
  CheckSchemaCases(cases);
}

TEST(SchemaStringsTest, RefusesPatternsThatItDoesNotKeep) {
  const std::string groups = std::string(100, '(') + std::string(100, ')');
  const RefusedSchema cases[] = {
      {R"({"pattern": 3})", "schema #: pattern must be a string"},
      {R"json({"pattern": "^a(?=b)"})json",
       "schema #: pattern: character 3: looking ahead or behind"},
      {R"json({"pattern": "é(?<!b)"})json", "character 2: looking ahead or behind"},
      {R"({"pattern": "(?i)a"})", "expected a group like"},
      {R"json({"pattern": "(?P<n>a)"})json", "expected a group like"},
      {R"({"pattern": "(?<n"})", "name of a group is not closed"},
      {R"({"pattern": "(a)\\1"})", "references back"},
      {R"({"pattern": "(?<n>a)\\k<n>"})", "references back"},
      {R"({"pattern": "\\bword"})", "\\b and \\B"},
      {R"({"pattern": "\\p{L}"})", "Unicode properties"},
      {R"({"pattern": "\\y"})", "unknown character"},
      {R"({"pattern": "\\"})", "nothing stands behind"},
      {R"({"pattern": "\\xg0"})", "2 hexadecimal digits"},
      {R"({"pattern": "\\u12"})", "4 hexadecimal digits"},
      {R"({"pattern": "\\ud83dx"})", "half a character"},
      {R"({"pattern": "\\ude00"})", "half a character"},
      {R"({"pattern": "a^b"})", "two ends"},
      {R"json({"pattern": "(^a|b)"})json", "two ends"},
      {R"json({"pattern": "(a$)"})json", "two ends"},
      {R"({"pattern": "(a"})", "group is not closed"},
      {R"json({"pattern": "a)"})json", "closes no group"},
      {R"({"pattern": "[a"})", "class is not closed"},
      {R"({"pattern": "[a-"})", "class is not closed"},
      {R"({"pattern": "[]"})", "no character in it"},
      {R"({"pattern": "[^\\s\\S]"})", "no character in it"},
      {R"({"pattern": "[b-a]"})", "ends below"},
      {R"({"pattern": "*a"})", "repeats nothing"},
      {R"({"pattern": "a**"})", "repeats nothing"},
      {R"({"pattern": "^+"})", "repeats nothing"},
      {R"({"pattern": "{2}"})", "repeats nothing"},
      {R"({"pattern": "a{,2}"})", "expected a repetition like"},
      {R"({"pattern": "a{2"})", "expected a repetition like"},
      {R"({"pattern": "a{3,2}"})", "ends below"},
      {R"({"pattern": "a{99999}"})", "above 65536"},
      {R"({"pattern": "(a{0,60000}){60000}"})", "too large"},
      {R"({"pattern": "(((){9999}){9999}){9999}"})", "too large"},
      {absl::StrCat("{\"pattern\": \"", groups, "\"}"), "more than 64 deep"},
      {R"({"pattern": "a", "format": "date"})", "not supported beside format"},
      {R"({"pattern": "^a+b+$", "maxLength": 5})", "one repetition"},
      {R"({"pattern": "abc", "maxLength": 5})", "one repetition"},
      {R"({"pattern": "^a{5,}$", "maxLength": 4})", "no string that it matches"},
      {R"({"pattern": "^(ab)*$", "minLength": 3, "maxLength": 3})", "no string that it matches"},
  };
  CheckRefusals(cases);
}

// Patterns of which std::regex says the same.
class RandomPattern {
 public:
  explicit RandomPattern(uint64_t seed) : random_(seed) {}

  uint64_t Below(uint64_t count) { return random_() % count; }

  std::string Outermost() {
    std::string pattern;
    for (uint64_t i = 0; i <= Below(4) / 3; ++i) {
      absl::StrAppend(&pattern, i > 0 ? "|" : "", Below(3) > 0 ? "^" : "", Sequence(0),
                      Below(3) > 0 ? "$" : "");
    }
    return pattern;
  }

  std::string String() {
    constexpr absl::string_view kCharacters = "ab0_- \"\\\n\x01";
    std::string text(Below(7), ' ');
    for (char& c : text) c = kCharacters[Below(Below(2) > 0 ? 3 : kCharacters.size())];
    return text;
  }

 private:
  std::string Sequence(int depth) {
    std::string sequence;
    for (uint64_t i = 0; i <= Below(3); ++i) absl::StrAppend(&sequence, Atom(depth), Repetition());
    return sequence;
  }

  std::string Repetition() {
    constexpr const char* kRepetitions[] = {"",   "",    "",     "",      "?",     "*",
                                            "+?", "{2}", "{1,}", "{0,2}", "{1,3}?"};
    return kRepetitions[Below(std::size(kRepetitions))];
  }

  std::string Atom(int depth) {
    // std::regex takes exponential time for deeper ones.
    if (depth < 1 && Below(3) == 0) {
      return absl::StrCat(Below(2) > 0 ? "(" : "(?:", Sequence(depth + 1), "|", Sequence(depth + 1),
                          ")");
    }
    constexpr const char* kAtoms[] = {"a",   "b",    "0",      "-",       "\\\\",  "\"",   ".",
                                      "\\d", "\\w",  "\\s",    "\\D",     "\\W",   "\\S",  "[ab]",
                                      "\\n", "[^a]", "[\\d_]", "[^\\w-]", "[!-a]", "[a-]", "\\x61"};
    return kAtoms[Below(std::size(kAtoms))];
  }

  std::mt19937_64 random_;
};

TEST(SchemaStringsTest, PatternsMatchAsStdRegexSays) {
  RandomPattern random(7);
  int matched = 0;
  int unmatched = 0;
  for (int round = 0; round < 600; ++round) {
    const std::string pattern = random.Outermost();
    const std::regex regex(pattern, std::regex::ECMAScript);
    const nlohmann::json schema = {{"type", "string"}, {"pattern", pattern}};
    const auto network = FromJsonSchema(schema.dump());
    ASSERT_OK(network.status()) << pattern;
    for (int i = 0; i < 60; ++i) {
      const std::string text = random.String();
      const bool right = std::regex_search(text, regex);
      const std::string written = nlohmann::json(text).dump();
      ASSERT_EQ(IsTextOf(*network, written), right) << pattern << " on " << written;
      ++(right ? matched : unmatched);
    }
  }
  EXPECT_GT(matched, 5000);
  EXPECT_GT(unmatched, 5000);
}

// With lengths, the same strings as without, as far as they have such lengths.
TEST(SchemaStringsTest, LengthsLeaveOutTheOthers) {
  RandomPattern random(8);
  int kept = 0;
  int left_out = 0;
  for (int round = 0; round < 600; ++round) {
    const std::string pattern = random.Outermost();
    const std::regex regex(pattern, std::regex::ECMAScript);
    const uint64_t least = random.Below(4);
    const uint64_t most = least + random.Below(4);
    const nlohmann::json schema = {{"pattern", pattern}, {"minLength", least}, {"maxLength", most}};
    const auto network = FromJsonSchema(schema.dump());
    // Lengths that several repetitions decide.
    if (!network.ok()) continue;
    for (int i = 0; i < 60; ++i) {
      const std::string text = random.String();
      const bool matches = std::regex_search(text, regex);
      const bool right = matches && text.size() >= least && text.size() <= most;
      ASSERT_EQ(IsTextOf(*network, nlohmann::json(text).dump()), right)
          << schema << " on " << nlohmann::json(text);
      kept += right ? 1 : 0;
      left_out += matches && !right ? 1 : 0;
    }
  }
  EXPECT_GT(kept, 200);
  EXPECT_GT(left_out, 200);
}

// However a pattern is written, walking it stays within the bounds of the automaton.
TEST(SchemaStringsTest, AmbiguousPatternsAreWalkedInBoundedTime) {
  for (const char* pattern : {"(a|aa|a*)*b", "((a*)*)*$", "(.*a){20}", "^(a?){500}$", "(a+a+)+",
                              "[^b]*a[^b]{300}", "(((a{0,9}){0,9}){0,9}){0,9}"}) {
    const nlohmann::json schema = {{"pattern", pattern}};
    const auto network = FromJsonSchema(schema.dump());
    if (!network.ok()) continue;
    Automaton automaton(*network);
    StateId state = *automaton.Start();
    for (const char c : "\"" + std::string(1000, 'a')) {
      automaton.BeginWork();
      const StateId next = automaton.Next(state, static_cast<uint8_t>(c));
      if (next == Automaton::kDead) break;
      state = automaton.crowded() ? automaton.KeepOnly(next) : next;
    }
    EXPECT_LE(automaton.state_count(), Automaton::kMostStates) << pattern;
  }
}

}  // namespace
}  // namespace renga::grammar
