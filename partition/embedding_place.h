// Where the embedding goes: the coordinator reads its rows from the model file, and a worker that
// holds the matrix saves sending rows where it is enough to send tokens.
#ifndef RENGA_PARTITION_EMBEDDING_PLACE_H_
#define RENGA_PARTITION_EMBEDDING_PLACE_H_

#include <vector>

#include "partition/cost_model.h"
#include "partition/plan.h"

namespace renga::partition {

// Gives the embedding of a finished plan, whose weights are all in memory, to the worker that
// `costs`' request names, or to the one where it pays; times, bytes and bound change with it. Where
// that worker has no room it stays with the coordinator, and a note says so when it was asked for.
void PlaceEmbedding(const CostModel& costs, const std::vector<WorkerProfile>& workers, Plan& plan);

}  // namespace renga::partition

#endif  // RENGA_PARTITION_EMBEDDING_PLACE_H_
