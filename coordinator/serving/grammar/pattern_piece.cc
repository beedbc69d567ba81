#include "coordinator/serving/grammar/pattern_piece.h"

#include <algorithm>
#include <utility>

#include "absl/status/status.h"

namespace renga::grammar {
namespace {

constexpr int64_t kNoLimit = Expression::kNoLimit;
// Products of lengths stop here, far above what Compile takes and far below an overflow.
constexpr int64_t kLongest = int64_t{1} << 40;

int64_t Plus(int64_t a, int64_t b) {
  return a == kNoLimit || b == kNoLimit ? kNoLimit : std::min(kLongest, a + b);
}

int64_t Times(int64_t length, int64_t count) {
  if (length == 0 || count == 0) return 0;
  return length == kNoLimit || count == kNoLimit ? kNoLimit : std::min(kLongest, length * count);
}

int64_t Larger(int64_t a, int64_t b) {
  return a == kNoLimit || b == kNoLimit ? kNoLimit : std::max(a, b);
}

int64_t Smaller(int64_t a, int64_t b) {
  if (a == kNoLimit || b == kNoLimit) return a == kNoLimit ? b : a;
  return std::min(a, b);
}

bool IsAbove(int64_t length, int64_t limit) {
  return limit != kNoLimit && (length == kNoLimit || length > limit);
}

}  // namespace

Piece CharacterPiece(Expression expression) {
  return {.expression = std::move(expression), .least = 1, .most = 1};
}

Piece InSequence(std::vector<Piece> pieces) {
  if (pieces.size() == 1) return std::move(pieces.front());
  Piece whole;
  std::vector<Expression> parts;
  for (Piece& piece : pieces) {
    whole.least = Plus(whole.least, piece.least);
    whole.most = Plus(whole.most, piece.most);
    parts.push_back(std::move(piece.expression));
  }
  whole.expression = Sequence(std::move(parts));
  return whole;
}

Piece OneOf(std::vector<Piece> pieces) {
  if (pieces.size() == 1) return std::move(pieces.front());
  Piece whole{.least = pieces.front().least};
  std::vector<Expression> parts;
  for (Piece& piece : pieces) {
    whole.least = std::min(whole.least, piece.least);
    whole.most = Larger(whole.most, piece.most);
    parts.push_back(std::move(piece.expression));
  }
  whole.expression = Choice(std::move(parts));
  return whole;
}

Piece Repeated(Piece piece, int64_t least, int64_t most) {
  return {.expression = Repeat(std::move(piece.expression), least, most),
          .least = Times(piece.least, least),
          .most = Times(piece.most, most),
          .unit = piece.least == piece.most ? piece.least : 0};
}

absl::StatusOr<std::optional<Expression>> OfLength(std::vector<Piece> pieces, int64_t least,
                                                   int64_t most) {
  Piece* varying = nullptr;
  int varying_count = 0;
  int64_t fixed = 0;  // all but the varying ones
  int64_t shortest = 0;
  int64_t longest = 0;
  for (Piece& piece : pieces) {
    shortest = Plus(shortest, piece.least);
    longest = Plus(longest, piece.most);
    if (piece.least == piece.most) {
      fixed = Plus(fixed, piece.least);
    } else {
      varying = &piece;
      ++varying_count;
    }
  }
  if (IsAbove(shortest, most) || IsAbove(least, longest)) return std::nullopt;
  if (shortest >= least && !IsAbove(longest, most)) {
    return InSequence(std::move(pieces)).expression;
  }
  if (varying_count != 1 || varying->unit == 0) {
    return absl::InvalidArgumentError(
        "minLength and maxLength are supported beside a pattern only where one repetition in it "
        "decides the length; write them into the pattern, as in ^[a-z]{2,5}$");
  }
  Expression& repeat = varying->expression;
  const int64_t unit = varying->unit;
  repeat.least = std::max(repeat.least, (least - fixed + unit - 1) / unit);
  if (most != kNoLimit) repeat.most = Smaller(repeat.most, (most - fixed) / unit);
  if (IsAbove(repeat.least, repeat.most)) return std::nullopt;
  return InSequence(std::move(pieces)).expression;
}

}  // namespace renga::grammar
