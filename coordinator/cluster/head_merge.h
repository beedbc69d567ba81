// The answers of several head blocks become the answer of the whole vocabulary, exactly: which
// worker holds which rows, and in how many blocks, changes no id and no logit.
#ifndef RENGA_COORDINATOR_CLUSTER_HEAD_MERGE_H_
#define RENGA_COORDINATOR_CLUSTER_HEAD_MERGE_H_

#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/block_rows.h"
#include "model/step.h"

namespace renga::cluster {

// One head block's answer to a step: a HeadRow per output, in slot order.
struct HeadBlock {
  model::BlockRows rows;  // the vocabulary rows it holds
  std::vector<model::HeadRow> outputs;
};

// Whether `block` is a possible answer of these rows to `step`: the right number of outputs, each
// with the right number of logits, ids inside the block and best first. kInternal says what is
// wrong; a logit that is not a number is kDataLoss.
absl::Status CheckHeadBlock(const model::Step& step, const HeadBlock& block);

// Merges checked blocks, which together have every row of the vocabulary once. For an output with
// top_k > 0 the best top_k rows of all (ties: lower id first), with top_k == 0 all logits by id.
// The sums of exponentials are added in block order, so they do not depend on which answer came
// first.
std::vector<model::HeadRow> MergeHeadBlocks(const model::Step& step, std::vector<HeadBlock> blocks);

// What one checked block says, as if no other row of the vocabulary could ever be chosen: logits of
// others are minus infinity. Of an output with a top_k of more rows than the block has nothing can
// be made: its row stays empty.
std::vector<model::HeadRow> BlockAlone(const model::Step& step, const HeadBlock& block,
                                       int64_t vocabulary);

}  // namespace renga::cluster

#endif  // RENGA_COORDINATOR_CLUSTER_HEAD_MERGE_H_
