// Numbers between bounds, as the texts of their digits.
#ifndef RENGA_COORDINATOR_SERVING_GRAMMAR_NUMBER_RANGE_H_
#define RENGA_COORDINATOR_SERVING_GRAMMAR_NUMBER_RANGE_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "coordinator/serving/grammar/expression.h"

namespace renga::grammar {

// A number and the side of it that is allowed.
struct NumberBound {
  bool negative = false;  // never of zero
  uint64_t digits = 0;    // the number without its sign is digits * 10^exponent
  int exponent = 0;
  bool upper = false;      // what is allowed lies below
  bool exclusive = false;  // the number itself is not allowed
};

// The most digits before the point: what a 64-bit integer can have.
inline constexpr int kMostWholeDigits = 20;
// The digits of a number, unless a bound has more before its point.
inline constexpr int kUsualDigits = 15;

// The numbers within all bounds; `whole`: those without a point. Written are decimal digits without
// needless zeros in front and without an exponent, and never a zero with a sign. A number has at
// most kUsualDigits digits, so that whoever reads it as a 64-bit float finds it on the same side of
// every bound; or, without a point, as many as the longest bound of at most kMostWholeDigits.
// Added to `rules` are ends that numbers share. nullopt: there is none.
std::optional<Expression> NumbersWithin(const std::vector<NumberBound>& bounds, bool whole,
                                        RuleSet& rules);

}  // namespace renga::grammar

#endif  // RENGA_COORDINATOR_SERVING_GRAMMAR_NUMBER_RANGE_H_
