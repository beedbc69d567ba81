#include "coordinator/serving/grammar/schema_numbers.h"

#include <optional>
#include <random>
#include <string>
#include <vector>

#include "absl/numeric/int128.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/testing/status_matchers.h"
#include "coordinator/serving/grammar/automaton.h"
#include "coordinator/serving/grammar/grammar.h"
#include "coordinator/serving/grammar/testing/schema_case.h"
#include "gtest/gtest.h"

namespace renga::grammar {
namespace {

using testing::CheckRefusals;
using testing::CheckSchemaCases;
using testing::IsTextOf;
using testing::RefusedSchema;
using testing::SchemaCase;

TEST(SchemaNumbersTest, AllowsWhatLiesWithinTheBounds) {
  const SchemaCase cases[] = {
      {R"({"type": "integer", "minimum": 0, "maximum": 100})",
       {"0", "7", "99", "100"},
       {"-1", "-0", "101", "00", "07", "1.0", "1e1", ""}},
      {R"({"type": "integer", "exclusiveMinimum": 0})",
       {"1", "123456789012345"},
       {"0", "-1", "1234567890123456"}},
      {R"({"type": "integer", "maximum": -12})", {"-12", "-13", "-120"}, {"-11", "-1", "0", "12"}},
      {R"({"type": "integer", "minimum": -3, "exclusiveMaximum": 3})",
       {"-3", "-1", "0", "2"},
       {"-4", "-0", "3", "-03"}},
      {R"({"type": "integer", "minimum": 0.5, "maximum": 2.5})", {"1", "2"}, {"0", "3"}},
      // Both bounds hold.
      {R"({"type": "integer", "minimum": 3, "exclusiveMinimum": 3, "maximum": 9, "exclusiveMaximum": 7})",
       {"4", "6"},
       {"3", "7"}},
      {R"({"type": "integer", "minimum": -9223372036854775808, "maximum": 9223372036854775807})",
       {"-9223372036854775808", "9223372036854775807", "0", "12345678901234567"},
       {"-9223372036854775809", "9223372036854775808", "10000000000000000000"}},
      {R"({"type": "integer", "minimum": 18446744073709551615})",
       {"18446744073709551615", "18446744073709551616", "99999999999999999999"},
       {"18446744073709551614", "100000000000000000000"}},
      // Farther away than anything that is written.
      {R"({"type": "integer", "minimum": -1.7e308, "maximum": 1.7e308})",
       {"-123456789012345", "123456789012345"},
       {"1234567890123456"}},
      {R"({"minimum": 0.25, "maximum": 0.75})",
       {"0.25", "0.250", "0.3", "0.7500", "0.74999999999999"},
       {"0.249", "0.2", "0", "1", "0.751", "0.7500001", "0.25000000000000000", "2.5e-1", ".5"}},
      {R"({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1})",
       {"0.5", "0.00000000000001", "0.99"},
       {"0", "0.0", "1", "1.0", "-0.5"}},
      {R"({"type": "number", "minimum": -0.1, "maximum": 0})",
       {"-0.1", "-0.05", "0", "0.0"},
       {"-0", "-0.0", "0.1", "-0.11"}},
      {R"({"type": "number", "minimum": -1e-300})", {"0", "0.1", "12345.5"}, {"-0.00000000000001"}},
      {R"({"type": "number", "minimum": 1e3})", {"1000", "1000.0", "1000.5", "2000"}, {"999.99"}},
      // As many digits as a 64-bit float tells apart.
      {R"({"type": "number", "exclusiveMinimum": 100})",
       {"100.000000000001"},
       {"100.0000000000001"}},
      {R"({"type": ["integer", "null"], "minimum": 1, "maximum": 1})", {"1", "null"}, {"2"}},
      {R"({"type": "string", "minimum": 1})", {"\"a\""}, {"1"}},
      {R"({"prefixItems": [{"type": "integer", "minimum": 5}, {"type": "integer", "minimum": 5},
           {"type": "number", "minimum": 5}], "items": false, "minItems": 3})",
       {"[5,5,5.5]"},
       {"[5,4,5]", "[5,5.5,5]"}},
  };
  CheckSchemaCases(cases);
}

TEST(SchemaNumbersTest, RefusesWhatNoNumberKeeps) {
  const RefusedSchema cases[] = {
      {R"({"type": "integer", "minimum": 5, "maximum": 4})",
       "schema #: there is no integer with minimum 5, maximum 4"},
      {R"({"type": "integer", "exclusiveMinimum": 4, "exclusiveMaximum": 5})",
       "there is no integer"},
      {R"({"type": "integer", "minimum": 0.1, "maximum": 0.9})", "there is no integer"},
      {R"({"type": "integer", "exclusiveMinimum": -1, "exclusiveMaximum": 0})",
       "there is no integer"},
      {R"({"type": "number", "exclusiveMinimum": 0.1, "maximum": 0.1})", "there is no number"},
      {R"({"type": "number", "minimum": 1e-200, "maximum": 1e-199})", "at most 15 digits"},
      {R"({"type": "integer", "minimum": 1e30})", "up to 20"},
      {R"({"type": "integer", "minimum": "1"})", "schema #: minimum must be a number"},
      {R"({"type": "integer", "minimum": 1, "exclusiveMinimum": true})",
       "exclusiveMinimum must be a number"},
      {R"({"enum": [1, 2], "minimum": 2})", "minimum is not supported beside enum"},
  };
  CheckRefusals(cases);
}

// In ten thousandths; nothing when the text isn't a number as it is written between bounds.
std::optional<int64_t> Read(const std::string& text) {
  const bool negative = absl::StartsWith(text, "-");
  const std::string magnitude = text.substr(negative ? 1 : 0);
  const size_t point = magnitude.find('.');
  const std::string whole = magnitude.substr(0, point);
  const std::string behind = point == std::string::npos ? "" : magnitude.substr(point + 1);
  const bool digits = (whole + behind).find_first_not_of("0123456789") == std::string::npos;
  if (!digits || whole.empty() || (behind.empty() && point != std::string::npos)) return {};
  if (whole.size() > 1 && whole[0] == '0') return {};
  const int64_t value = std::stoll(whole + behind + std::string(4 - behind.size(), '0'));
  if (negative && value == 0) return {};
  return negative ? -value : value;
}

struct PlainBounds {
  std::string schema = "{\"type\": ";
  std::vector<std::pair<std::string, int64_t>> bounds;  // keyword and ten thousandths

  bool Allow(int64_t value) const {
    for (const auto& [keyword, bound] : bounds) {
      if (keyword == "minimum" && value < bound) return false;
      if (keyword == "maximum" && value > bound) return false;
      if (keyword == "exclusiveMinimum" && value <= bound) return false;
      if (keyword == "exclusiveMaximum" && value >= bound) return false;
    }
    return true;
  }
};

PlainBounds RandomBounds(bool whole, std::mt19937_64& random) {
  PlainBounds plain;
  absl::StrAppend(&plain.schema, whole ? "\"integer\"" : "\"number\"");
  const int64_t sizes[] = {30'000, 300'000, 20'000'000};
  const int64_t size = sizes[random() % 3];
  for (const absl::string_view keyword : kNumberKeywords) {
    if (random() % 2 == 0) continue;
    const int64_t granule = random() % 2 == 0 ? 10'000 : 10;
    const int64_t value =
        (static_cast<int64_t>(random() % static_cast<uint64_t>(2 * size)) - size) / granule *
        granule;
    plain.bounds.emplace_back(keyword, value);
    const auto magnitude = static_cast<uint64_t>(std::abs(value));
    const std::string behind = absl::StrCat(magnitude % 10'000 + 10'000).substr(1);
    absl::StrAppend(&plain.schema, ", \"", keyword, "\": ", value < 0 ? "-" : "",
                    magnitude / 10'000, granule < 10'000 ? "." + behind : "");
  }
  plain.schema += "}";
  return plain;
}

// Texts of up to five characters that can stand in a number, each behind what it begins with.
struct ShortTexts {
  static constexpr absl::string_view kCharacters = "-.0123456789";

  ShortTexts() { Add(""); }
  void Add(const std::string& text) {
    texts.push_back(text);
    values.push_back(Read(text));
    if (text.size() == 5) return;
    for (const char c : kCharacters) Add(text + c);
  }

  // Whether each is one of the automaton, in the same order.
  static void Walk(Automaton& automaton, StateId state, size_t length,
                   std::vector<bool>& accepted) {
    accepted.push_back(automaton.Accepts(state));
    if (length == 5) return;
    for (const char c : kCharacters) {
      Walk(automaton, automaton.Next(state, static_cast<uint8_t>(c)), length + 1, accepted);
    }
  }

  std::vector<std::string> texts;
  std::vector<std::optional<int64_t>> values;
};

TEST(SchemaNumbersTest, ShortTextsAreThoseOfAPlainComparison) {
  const ShortTexts all;
  std::mt19937_64 random(11);
  int64_t allowed = 0;
  int refused = 0;
  for (int round = 0; round < 40; ++round) {
    const bool whole = round % 2 == 0;
    const PlainBounds plain = RandomBounds(whole, random);
    if (plain.bounds.empty()) continue;
    const auto network = FromJsonSchema(plain.schema);
    std::vector<bool> accepted(all.texts.size(), false);
    if (network.ok()) {
      Automaton automaton(*network);
      accepted.clear();
      ShortTexts::Walk(automaton, *automaton.Start(), 0, accepted);
    }
    for (size_t i = 0; i < all.texts.size(); ++i) {
      const std::string& text = all.texts[i];
      const bool point = absl::StrContains(text, '.');
      const bool right =
          all.values[i].has_value() && plain.Allow(*all.values[i]) && !(whole && point);
      ASSERT_EQ(accepted[i], right) << plain.schema << " " << text;
      allowed += right ? 1 : 0;
    }
    refused += network.ok() ? 0 : 1;
  }
  EXPECT_GT(allowed, 100'000);
  EXPECT_GT(refused, 3);
  EXPECT_LT(refused, 20);
}

std::string Digits(absl::int128 number) {
  std::string text = number < 0 ? "-" : "";
  std::string reversed;
  do {
    reversed += static_cast<char>('0' + std::abs(static_cast<int>(number % 10)));
    number /= 10;
  } while (number != 0);
  return text + std::string(reversed.rbegin(), reversed.rend());
}

TEST(SchemaNumbersTest, Bounds64BitsWideAreExact) {
  std::mt19937_64 random(12);
  // From -2^63 to 2^64 - 1, of all lengths.
  const auto draw = [&]() -> absl::int128 {
    const uint64_t magnitude = random() >> (random() % 64);
    if (random() % 2 == 0) return magnitude;
    return -absl::int128(magnitude / 2);
  };
  int inside = 0;
  for (int round = 0; round < 300; ++round) {
    absl::int128 low = draw();
    absl::int128 high = draw();
    if (low > high) std::swap(low, high);
    const std::string schema = absl::StrCat("{\"type\": \"integer\", \"minimum\": ", Digits(low),
                                            ", \"maximum\": ", Digits(high), "}");
    const auto network = FromJsonSchema(schema);
    ASSERT_OK(network.status()) << schema;
    std::vector<absl::int128> numbers;
    for (int i = -3; i <= 3; ++i) {
      for (const absl::int128 near : {low, high, absl::int128(0)}) numbers.push_back(near + i);
    }
    for (int i = 0; i < 20; ++i) numbers.push_back(draw());
    for (const absl::int128 number : numbers) {
      const bool right = number >= low && number <= high;
      ASSERT_EQ(IsTextOf(*network, Digits(number)), right) << schema << " " << Digits(number);
      inside += right ? 1 : 0;
    }
  }
  EXPECT_GT(inside, 3000);
}

}  // namespace
}  // namespace renga::grammar
