#include "coordinator/serving/grammar/number_range.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/numeric/int128.h"
#include "absl/strings/str_cat.h"

namespace renga::grammar {
namespace {

using absl::uint128;

uint128 PowerOfTen(int exponent) {
  uint128 power = 1;
  for (int i = 0; i < exponent; ++i) power *= 10;
  return power;
}

// No number that is written has as many units.
uint128 BeyondAll() { return PowerOfTen(kMostWholeDigits); }

// A bound without its sign, counted in units of the last digit that is written.
struct Units {
  uint128 count = 0;   // rounded down, at most BeyondAll()
  bool exact = false;  // nothing was rounded off
};

Units InUnits(const NumberBound& bound, int fraction_digits) {
  Units units{bound.digits, true};
  const uint128 beyond = BeyondAll();
  int exponent = bound.exponent + fraction_digits;
  for (; exponent > 0 && units.count > 0 && units.count < beyond; --exponent) units.count *= 10;
  for (; exponent < 0 && units.count > 0; ++exponent) {
    units.exact &= units.count % 10 == 0;
    units.count /= 10;
  }
  units.count = std::min(units.count, beyond);
  return units;
}

// Takes from the numbers first, ..., end - 1, none of them negative, those out of the bound.
void Narrow(const NumberBound& bound, int fraction_digits, uint128& first, uint128& end) {
  const Units units = InUnits(bound, fraction_digits);
  if (bound.upper) {
    const bool without = bound.exclusive && units.exact;
    end = bound.negative ? 0 : std::min(end, units.count + (without ? 0 : 1));
  } else if (!bound.negative) {
    const bool without = bound.exclusive || !units.exact;
    first = std::max(first, units.count + (without ? 1 : 0));
  }
}

// The same bound, seen from the other side of zero. Zero becomes one without numbers below it:
// those without a sign have it for themselves.
NumberBound Mirrored(NumberBound bound) {
  bound.negative = !bound.negative;
  bound.upper = !bound.upper;
  return bound;
}

std::string WithDigits(uint128 number, size_t count) {
  std::string digits(count, '0');
  for (size_t i = count; i-- > 0; number /= 10) {
    digits[i] = static_cast<char>('0' + static_cast<int>(number % 10));
  }
  return digits;
}

Expression DigitFrom(char first, char last) {
  return Class({{static_cast<char32_t>(first), static_cast<char32_t>(last)}});
}

// The strings of digits from `first` to `last`, all of one length, with a point behind the first
// `whole` digits; what is only zeros at the end behind the point may be left out.
class DigitStrings {
 public:
  DigitStrings(std::string first, std::string last, size_t whole, RuleSet& rules)
      : first_(std::move(first)), last_(std::move(last)), whole_(whole), rules_(rules) {}

  Expression All() const { return Behind(0, true, true); }

 private:
  // What may follow `at` digits. While these are the ones of first_ (last_) itself, the next one
  // must not be below (above) the next one there.
  Expression Behind(size_t at, bool on_first, bool on_last) const {
    on_first &= first_.find_first_not_of('0', at) != std::string::npos;
    on_last &= last_.find_first_not_of('9', at) != std::string::npos;
    if (!on_first && !on_last) return AnyBehind(at);
    const std::string point = at == whole_ ? "." : "";
    const char lowest = on_first ? first_[at] : '0';
    const char highest = on_last ? last_[at] : '9';
    std::vector<Expression> ways;
    if (at >= whole_ && !on_first) ways.push_back(Text(""));
    const auto add = [&](char low, char high, Expression rest) {
      ways.push_back(Sequence({Text(point), DigitFrom(low, high), std::move(rest)}));
    };
    if (on_first && on_last && lowest == highest) {
      add(lowest, highest, Behind(at + 1, true, true));
      return Choice(std::move(ways));
    }
    const auto low = static_cast<char>(lowest + (on_first ? 1 : 0));
    const auto high = static_cast<char>(highest - (on_last ? 1 : 0));
    if (on_first) add(lowest, lowest, Behind(at + 1, true, false));
    if (on_last) add(highest, highest, Behind(at + 1, false, true));
    if (low <= high) add(low, high, AnyBehind(at + 1));
    return Choice(std::move(ways));
  }

  Expression AnyBehind(size_t at) const {
    const Expression digit = DigitFrom('0', '9');
    const auto left =
        static_cast<int64_t>(first_.size() - std::max(at, whole_));  // behind the point
    if (at > whole_) return Shared(absl::StrCat("up to ", left, " digits"), Repeat(digit, 0, left));
    const auto missing = static_cast<int64_t>(whole_ - at);
    Expression fraction = Optional(Sequence({Text("."), Repeat(digit, 1, left)}));
    return Shared(
        absl::StrCat(missing, " digits and up to ", left, " behind a point"),
        Sequence({Repeat(digit, missing, missing), left > 0 ? std::move(fraction) : Text("")}));
  }

  // As a rule, since many numbers end alike.
  Expression Shared(const std::string& name, Expression expression) const {
    if (rules_.Find(name) < 0) rules_.Add(name, std::move(expression));
    return rules_.Call(name);
  }

  const std::string first_;
  const std::string last_;
  const size_t whole_;
  RuleSet& rules_;
};

// Before the point.
int MostDigits(const std::vector<NumberBound>& bounds) {
  int most = kUsualDigits;
  for (const NumberBound& bound : bounds) {
    const uint128 count = InUnits(bound, 0).count;
    if (count == BeyondAll()) continue;
    while (count >= PowerOfTen(most)) ++most;
  }
  return most;
}

}  // namespace

std::optional<Expression> NumbersWithin(const std::vector<NumberBound>& bounds, bool whole,
                                        RuleSet& rules) {
  std::vector<Expression> texts;
  const int most = MostDigits(bounds);
  for (const bool negative : {false, true}) {
    for (int digits = 1; digits <= most; ++digits) {
      const int fraction = whole ? 0 : std::max(0, kUsualDigits - digits);
      // Neither a needless zero in front nor a zero with a sign.
      uint128 first = digits > 1 ? PowerOfTen(digits - 1 + fraction) : (negative ? 1 : 0);
      uint128 end = PowerOfTen(digits + fraction);
      for (const NumberBound& bound : bounds) {
        Narrow(negative ? Mirrored(bound) : bound, fraction, first, end);
      }
      if (first >= end) continue;
      const auto length = static_cast<size_t>(digits + fraction);
      const DigitStrings strings(WithDigits(first, length), WithDigits(end - 1, length),
                                 static_cast<size_t>(digits), rules);
      texts.push_back(Sequence({Text(negative ? "-" : ""), strings.All()}));
    }
  }
  if (texts.empty()) return std::nullopt;
  return Choice(std::move(texts));
}

}  // namespace renga::grammar
