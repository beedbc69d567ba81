// Parts of a pattern with the lengths of their texts, so that a pattern can be held to a length.
#ifndef RENGA_COORDINATOR_SERVING_GRAMMAR_PATTERN_PIECE_H_
#define RENGA_COORDINATOR_SERVING_GRAMMAR_PATTERN_PIECE_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "coordinator/serving/grammar/expression.h"

namespace renga::grammar {

// Lengths are counted in characters of the value, whatever escapes they are written with. Those
// that Compile would refuse as too large may be given as less than they are.
struct Piece {
  Expression expression = {};
  int64_t least = 0;
  int64_t most = 0;  // or Expression::kNoLimit
  // Where `expression` is a repetition of something that has one length only: this length, else 0.
  int64_t unit = 0;
};

// One character.
Piece CharacterPiece(Expression expression);
// All, one behind the other.
Piece InSequence(std::vector<Piece> pieces);
// One of them, of which there is at least one.
Piece OneOf(std::vector<Piece> pieces);
// `most`: or Expression::kNoLimit.
Piece Repeated(Piece piece, int64_t least, int64_t most);

// All, one behind the other, as far as their texts have `least` to `most` characters altogether;
// nullopt: none has. kInvalidArgument: the lengths say something, but not about just one
// repetition.
absl::StatusOr<std::optional<Expression>> OfLength(std::vector<Piece> pieces, int64_t least,
                                                   int64_t most);

}  // namespace renga::grammar

#endif  // RENGA_COORDINATOR_SERVING_GRAMMAR_PATTERN_PIECE_H_
