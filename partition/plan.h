// A plan: which worker holds which layers and which rows of the output matrix, for a given context
// length and number of sequences.
#ifndef RENGA_PARTITION_PLAN_H_
#define RENGA_PARTITION_PLAN_H_

#include <cstdint>
#include <string>
#include <vector>

#include "base/data_type.h"
#include "model/footprint.h"
#include "model/shard_spec.h"

namespace renga::partition {

// What a worker offers, as measured.
struct WorkerProfile {
  std::string id;
  int64_t memory_bytes = 0;
  double bytes_per_second = 0;  // of weights, at decode
};

// What a worker held in an earlier plan.
struct PreviousShard {
  std::string worker_id;
  model::ShardSpec spec;
};

struct PlanRequest {
  int64_t context_tokens = 4096;  // positions of each sequence
  int64_t max_sequences = 1;      // sequences of that length at one time
  base::DataType kv_type = base::DataType::kF16;
  int64_t max_step_tokens = 256;
  int64_t max_step_outputs = 0;  // 0: one for each sequence
  // 0: one block on the last stage, or as few blocks as it takes when it does not fit there.
  int64_t head_blocks = 0;
  int64_t max_workers = 0;  // 0: as many as there are
  // Use slow workers too, also where the plan would be faster without them.
  bool use_every_worker = false;
  // The last plan of this model, if it is known: kept where it still fits and is nearly as good as
  // the best, so that speeds that are measured anew at each start do not move weights around.
  std::vector<PreviousShard> previous;
};

// `worker` is an index into the profiles the plan was made from.
struct StagePlan {
  int worker = 0;
  model::Range layers;
};

struct HeadPlan {
  int worker = 0;
  model::Range rows;
};

// What one worker holds; an idle worker has an empty spec and a reason.
struct WorkerPlan {
  model::ShardSpec spec;
  model::ShardBytes bytes;
  double predicted_ms = 0;  // to read its weights once: its part of a token's time
  std::string idle_reason;

  bool idle() const { return spec.layers.empty() && spec.head_rows.empty(); }
};

struct Plan {
  std::vector<StagePlan> stages;    // in order; every layer exactly once
  std::vector<HeadPlan> heads;      // in order of rows, every row exactly once; a worker once
  std::vector<WorkerPlan> workers;  // one per profile, in the profiles' order
  model::RuntimeLimits limits;
  double stream_ms = 0;   // predicted compute of one token: all stages, then the slowest block
  double slowest_ms = 0;  // predicted compute of the slowest worker: bounds many streams
  std::vector<std::string> notes;  // what was asked for and not done, in sentences
};

}  // namespace renga::partition

#endif  // RENGA_PARTITION_PLAN_H_
