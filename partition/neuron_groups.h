// Groups of a layer's neurons that are active at the same tokens.
#ifndef RENGA_PARTITION_NEURON_GROUPS_H_
#define RENGA_PARTITION_NEURON_GROUPS_H_

#include "partition/neurons.h"

namespace renga::partition {

// Sixteen groups, or fewer where there are fewer neurons, by k-means over how often each pair of
// neurons is active together. The same input gives the same groups.
NeuronGroups GroupNeurons(const NeuronRecord& record, const ActiveNeurons& active);

}  // namespace renga::partition

#endif  // RENGA_PARTITION_NEURON_GROUPS_H_
