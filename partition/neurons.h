// Which feed-forward neurons texts use together, how many of them do, and which are cold: from what
// a NeuronRecorder saw. Pure functions.
#ifndef RENGA_PARTITION_NEURONS_H_
#define RENGA_PARTITION_NEURONS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "partition/neuron_recorder.h"

namespace renga::partition {

// With so large a share of each layer's neurons at hand, the share that these have in what all of
// them add (of squares, the mean over layers). The hottest are chosen by the first half of every
// text and counted on the second.
struct NeuronCachePoint {
  double share = 0;
  double hottest = 0;    // over all texts
  double of_text = 0;    // of the text itself: no fairer than knowing its topic
  double strongest = 0;  // of every single token: what nobody can know before
};

// After so many tokens, the share of all neurons that have been active.
struct NeuronSetPoint {
  int64_t positions = 0;
  double share = 0;
};

// A layer's neurons in groups that are active at the same tokens. The groups are made from the
// first half of the texts, everything else is counted on the other texts.
struct NeuronGroups {
  int64_t layer = 0;
  std::vector<int32_t> group_of;  // by neuron
  std::vector<int64_t> sizes;
  // groups x groups: pairs that are active together, over those that chance would bring together.
  std::vector<double> lift;
  // Of all pairs that are active together, those of one group; and that share by chance.
  double inside = 0;
  double inside_by_chance = 0;
  std::vector<std::string> texts;  // by group: where it adds the most, compared with all texts
};

struct NeuronReport {
  int64_t layers = 0;
  int64_t neurons = 0;  // of a layer
  int64_t active = 0;   // of a layer, at a token
  std::vector<std::string> texts;
  std::vector<NeuronSetPoint> working_set;
  std::vector<NeuronCachePoint> caches;
  // texts x texts: the hottest tenth of each layer in both, as a share of those in either.
  std::vector<double> together;
  std::vector<NeuronGroups> groups;
  // The least share of each layer's hottest neurons that adds `wanted_share` of all; 1 when none
  // does. The others are cold.
  double recommended_share = 1;
  double wanted_share = 0;
  std::vector<std::vector<int32_t>> by_heat;  // for each layer its neurons, hottest first
};

// kInvalidArgument without at least two texts with positions.
absl::StatusOr<NeuronReport> StudyNeurons(const NeuronRecord& record, double wanted_share);

}  // namespace renga::partition

#endif  // RENGA_PARTITION_NEURONS_H_
