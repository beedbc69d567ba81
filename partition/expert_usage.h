// Which experts of a mixture texts use, how few of them would do, which are used together, and what
// a memory for some of them would have: from the choices that a model made. Pure functions.
#ifndef RENGA_PARTITION_EXPERT_USAGE_H_
#define RENGA_PARTITION_EXPERT_USAGE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace renga::partition {

// The experts that the tokens of one text chose: positions x layers x used, each layer's distinct.
struct ExpertText {
  std::string name;
  int64_t positions = 0;
  std::vector<uint16_t> chosen;
};

struct ExpertRecord {
  int64_t layers = 0;
  int64_t experts = 0;  // of a layer
  int64_t used = 0;     // by a token, of each layer
  std::vector<ExpertText> texts;
};

// Not thread-safe.
class ExpertRecorder {
 public:
  ExpertRecorder(int64_t layers, int64_t experts, int64_t used);

  // What is added from now on is of a text with so many tokens.
  void BeginText(const std::string& name, int64_t positions);
  // One choice of the text's token at `position`; each token makes `used` of them in each layer,
  // more are not kept.
  void Add(int64_t layer, int64_t position, int64_t expert);

  ExpertRecord Finish();

 private:
  ExpertRecord record_;
};

struct ExpertLayer {
  std::vector<int64_t> uses;  // by expert
  // The fewest experts that take half, nine tenths and 99 % of the choices.
  int64_t half = 0;
  int64_t nine_tenths = 0;
  int64_t nearly_all = 0;
  double again = 0;  // share of the choices that the token before made too
};

// Distinct experts of all layers after so many tokens, as a share of all; texts one after the
// other.
struct ExpertSetPoint {
  int64_t positions = 0;
  double share = 0;
};

// Of a layer's choices, the share that its most used experts take, so many of all: layers are
// sorted by how few experts take half.
struct ExpertHeatPoint {
  double share = 0;
  double mean = 0;  // over layers
  double most = 0;  // of the layer where favourites take most
  double least = 0;
};

// With so many experts of all layers in memory, the share of choices that are there. Favourites are
// chosen by the first half of every text; all but starts is counted on the second.
struct ExpertCachePoint {
  double share = 0;
  int64_t experts = 0;
  double favourites = 0;  // pinned: of all texts
  double of_text = 0;     // pinned: of the text itself
  double cached = 0;      // as a worker keeps them (ExpertReplay), one text after the other
  // Over the first 50 tokens of each text, when the worker has just started: with nothing in
  // memory; and with the favourites of the other texts there, which count as one token's uses.
  double cold_start = 0;
  double told_start = 0;
};

// How the share of choices that are there depends on how fast uses are forgotten.
struct HalfLifePoint {
  double half_life_steps = 0;
  std::vector<double> cached;  // for each of ExpertReport::half_life_shares
};

struct ExpertTopic {
  std::string name;
  int64_t positions = 0;
  std::vector<int64_t> uses;  // layers x experts
  double nine_tenths = 0;     // experts of a layer that take nine tenths, mean over layers
};

// Two experts of a layer that a token chose both; chance is as if the layer's experts were drawn
// one by one as often as they are used.
struct ExpertPair {
  int32_t first = 0;
  int32_t second = 0;
  int64_t together = 0;  // tokens
  double lift = 0;       // compared with chance
};

struct ExpertsTogether {
  int64_t layer = 0;
  std::vector<int64_t> tokens;    // experts x experts, symmetric, 0 for an expert with itself
  std::vector<double> lift;       // the same, compared with chance; 0 where chance has none
  std::vector<ExpertPair> pairs;  // those that are together most often, at most 12
};

struct ExpertReport {
  int64_t layers = 0;
  int64_t experts = 0;
  int64_t used = 0;
  int64_t positions = 0;
  std::vector<ExpertLayer> by_layer;
  std::vector<ExpertSetPoint> working_set;
  std::vector<ExpertHeatPoint> heat;
  std::vector<ExpertCachePoint> caches;  // ascending; the last one has all experts
  std::vector<double> half_life_shares;
  std::vector<HalfLifePoint> half_lives;
  std::vector<ExpertTopic> topics;
  // topics x topics: the share of choices that both make, as often as both make them.
  std::vector<double> together;
  std::vector<ExpertsTogether> layers_together;  // of a few layers
  // The fewest experts in memory with which a worker's cache has `wanted_share` of the choices.
  int64_t recommended_experts = 0;
  double recommended_share = 0;
  double wanted_share = 0;
};

// kInvalidArgument without at least two texts of two tokens, or with choices that were not added.
absl::StatusOr<ExpertReport> StudyExperts(const ExpertRecord& record, double wanted_share);

}  // namespace renga::partition

#endif  // RENGA_PARTITION_EXPERT_USAGE_H_
