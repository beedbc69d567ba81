#include "coordinator/serving/grammar/expression.h"

#include <algorithm>

namespace renga::grammar {
namespace {

constexpr char32_t kFirstSurrogate = 0xD800;
constexpr char32_t kLastSurrogate = 0xDFFF;

}  // namespace

std::vector<CodeRange> Normalize(std::vector<CodeRange> ranges) {
  std::vector<CodeRange> whole;
  for (const CodeRange& range : ranges) {
    const char32_t last = std::min(range.last, kLastCodePoint);
    if (range.first < kFirstSurrogate && range.first <= last) {
      whole.push_back({range.first, std::min<char32_t>(last, kFirstSurrogate - 1)});
    }
    const char32_t above = std::max<char32_t>(range.first, kLastSurrogate + 1);
    if (above <= last) whole.push_back({above, last});
  }
  std::sort(whole.begin(), whole.end(),
            [](const CodeRange& a, const CodeRange& b) { return a.first < b.first; });
  std::vector<CodeRange> joined;
  for (const CodeRange& range : whole) {
    if (!joined.empty() && range.first <= joined.back().last + 1) {
      joined.back().last = std::max(joined.back().last, range.last);
    } else {
      joined.push_back(range);
    }
  }
  return joined;
}

std::vector<CodeRange> Complement(std::vector<CodeRange> ranges) {
  std::vector<CodeRange> others;
  char32_t next = 0;
  for (const CodeRange& range : Normalize(std::move(ranges))) {
    if (range.first > next) others.push_back({next, range.first - 1});
    next = range.last + 1;
  }
  if (next <= kLastCodePoint) others.push_back({next, kLastCodePoint});
  return Normalize(std::move(others));
}

Expression Text(std::string text) {
  return {.kind = Expression::Kind::kText, .text = std::move(text)};
}

Expression Class(std::vector<CodeRange> ranges) {
  return {.kind = Expression::Kind::kClass, .ranges = Normalize(std::move(ranges))};
}

Expression Sequence(std::vector<Expression> parts) {
  return {.kind = Expression::Kind::kSequence, .parts = std::move(parts)};
}

Expression Choice(std::vector<Expression> parts) {
  return {.kind = Expression::Kind::kChoice, .parts = std::move(parts)};
}

Expression Repeat(Expression part, int64_t least, int64_t most) {
  Expression repeat{.kind = Expression::Kind::kRepeat, .least = least, .most = most};
  repeat.parts.push_back(std::move(part));
  return repeat;
}

Expression Optional(Expression part) { return Repeat(std::move(part), 0, 1); }

Expression RuleCall(int64_t rule) { return {.kind = Expression::Kind::kRule, .rule = rule}; }

int64_t RuleSet::Add(std::string name, Expression expression) {
  const int64_t rule = std::ssize(rules);
  by_name_.try_emplace(name, rule);
  rules.push_back({std::move(name), std::move(expression)});
  return rule;
}

int64_t RuleSet::Find(absl::string_view name) const {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? -1 : found->second;
}

}  // namespace renga::grammar
