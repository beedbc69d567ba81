// The answers of several head blocks become the answer of the whole vocabulary, exactly: which
// worker holds which rows, and in how many blocks, changes no id and no logit.
#ifndef RENGA_COORDINATOR_CLUSTER_HEAD_MERGE_H_
#define RENGA_COORDINATOR_CLUSTER_HEAD_MERGE_H_

#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/shard_spec.h"
#include "model/step.h"

namespace renga::cluster {

// One head block's answer to a step: a HeadRow per output, in slot order.
struct HeadBlock {
  model::Range rows;  // the vocabulary rows it holds
  std::vector<model::HeadRow> outputs;
};

// Whether `block` is a possible answer of these rows to `step`: the right number of outputs, each
// with the right number of logits, ids inside the block and best first. kInternal says what is
// wrong; a logit that is not a number is kDataLoss.
absl::Status CheckHeadBlock(const model::Step& step, const HeadBlock& block);

// Merges checked blocks, which together cover [0, vocabulary) and are in ascending order. For an
// output with top_k > 0 the best top_k rows of all (ties: lower id first), with top_k == 0 the
// blocks' logits one after the other. The sums of exponentials are added in block order, so they
// do not depend on which answer came first.
std::vector<model::HeadRow> MergeHeadBlocks(const model::Step& step, std::vector<HeadBlock> blocks);

}  // namespace renga::cluster

#endif  // RENGA_COORDINATOR_CLUSTER_HEAD_MERGE_H_
