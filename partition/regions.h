// Which rows of a vocabulary are used together, and what of them is worth keeping near: from the
// rows that texts took, one position after the other. Pure functions.
#ifndef RENGA_PARTITION_REGIONS_H_
#define RENGA_PARTITION_REGIONS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace renga::partition {

// What a model did over one text.
struct TextTrace {
  std::string name;                        // of its topic and language: "cooking.en"
  std::vector<int32_t> tokens;             // the text: rows of the embedding matrix
  std::vector<std::vector<int32_t>> best;  // for each token, the output's best rows, best first
  std::vector<std::vector<float>> shares;  // their probabilities
};

// Distinct rows after so many positions, texts one after the other.
struct WorkingSetPoint {
  int64_t positions = 0;
  int64_t input_rows = 0;
  int64_t first_rows = 0;  // that were the best
  int64_t best_rows = 0;   // that were among the best
};

// What `rows` rows in memory would have. Rows are ordered by the first half of every text, and
// counted on the second.
struct CachePoint {
  int64_t rows = 0;
  double first_in_hot = 0;          // share of positions whose best row is among the hottest
  double first_in_hot_or_seen = 0;  // or in the text so far
  double mass_in_hot = 0;           // share of the known probability
  double first_in_recent = 0;       // in a cache of the rows that were best most recently
};

struct Topic {
  std::string name;
  int64_t positions = 0;
  int64_t best_rows = 0;
  std::vector<int32_t> typical;  // rows that it takes often and few other texts take: by TF-IDF
};

struct RegionReport {
  int64_t vocabulary = 0;
  int64_t positions = 0;
  std::vector<WorkingSetPoint> working_set;
  std::vector<CachePoint> caches;
  std::vector<Topic> topics;
  // topics x topics: rows among the best in both, as a share of those in either.
  std::vector<double> together;
  // The fewest hottest rows that have the best one in `wanted_share` of positions, their text's own
  // rows counted as near; the vocabulary when none do.
  int64_t recommended_rows = 0;
  double wanted_share = 0;
  std::vector<int32_t> hot_rows;  // the recommended ones, hottest first
};

// kInvalidArgument without at least two texts with positions, or with rows outside the vocabulary.
absl::StatusOr<RegionReport> StudyRegions(const std::vector<TextTrace>& texts, int64_t vocabulary,
                                          double wanted_share);

}  // namespace renga::partition

#endif  // RENGA_PARTITION_REGIONS_H_
