// A plan: which worker, or group of workers, holds which layers and which rows of the output
// matrix, for a given context length and number of sequences, and how long a token then takes.
#ifndef RENGA_PARTITION_PLAN_H_
#define RENGA_PARTITION_PLAN_H_

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/data_type.h"
#include "model/footprint.h"
#include "model/shard_spec.h"
#include "partition/expert_hits.h"
#include "partition/link_profile.h"

namespace renga::partition {

// What a worker offers, as measured or as a data sheet says.
struct WorkerProfile {
  std::string id;
  int64_t memory_bytes = 0;
  double bytes_per_second = 0;  // of weights and keys and values, at decode
  // Formats whose weights are read at another speed.
  std::map<base::DataType, double> bytes_per_second_of = {};
  double layer_us = 0;  // of every layer of every step, whatever its size: launches, barriers
  // Weights times tokens per second when a step has many tokens: what one more token of a step
  // costs. 0: kAssumedPrefillGain times bytes_per_second.
  double prefill_bytes_per_second = 0;
  // Of the disk on which it keeps weights that do not fit into memory. 0: not measured.
  double disk_bytes_per_second = 0;
  // Whether its device computes from weights that are read again for every step: cards do not.
  bool streams = true;
  // Memory of a host beside its card: plans use it only when the model fits nowhere without.
  bool spare = false;
  // Workers of one machine send through one cable. Equal for those of one machine; "": its own.
  std::string machine = "";

  friend bool operator==(const WorkerProfile&, const WorkerProfile&) = default;
};
// Tokens that a step computes in the time in which it reads its weights once; a processor without
// tensor cores, between the 4 of an old CPU and the 16 of a small GPU.
inline constexpr double kAssumedPrefillGain = 8;

// What a worker held in an earlier plan.
struct PreviousShard {
  std::string worker_id;
  model::ShardSpec spec;
  int64_t replica = 0;
};

// As PlanRequest::embedding_stage: the first stage, where it has room and tokens take clearly less
// time to send than rows.
inline constexpr int64_t kWhereItPays = -1;

inline constexpr int64_t kMaxReplicas = 16;

enum class Objective {
  kOneStream,    // least time per token of a single sequence
  kManyStreams,  // least time of the slowest stage: most tokens per second over many sequences
};

// How the members of a group add up their parts.
enum class GroupSums {
  kAuto,     // kNccl for groups of cards of one machine, else kSockets
  kSockets,  // over the members' connections, through the hosts' memory
  kNccl,     // on the cards, by NVIDIA's library, where all members have it
};

struct PlanRequest {
  Objective objective = Objective::kManyStreams;
  int64_t context_tokens = 4096;  // positions of each sequence
  int64_t max_sequences = 1;      // sequences of that length at one time
  base::DataType kv_type = base::DataType::kF16;
  base::DataType wire_type = base::DataType::kF32;  // of activations, between stages and in sums
  model::Approximation approximation = {};          // nothing, unless a user asks for it
  int64_t max_step_tokens = 256;
  int64_t max_step_outputs = 0;  // 0: one for each sequence
  // 0: one block on the last stage, or as few blocks as it takes when it does not fit there.
  int64_t head_blocks = 0;
  // Rows of the output matrix that are held by the last stage; the others are in blocks (one, or
  // one less than head_blocks) on other workers, those without layers first. Null: blocks are
  // ranges of ids, of such sizes as are fastest.
  std::shared_ptr<const model::RowSet> near_rows = nullptr;
  int64_t max_workers = 0;  // 0: as many as there are
  // Workers of a tensor-parallel group: 0: any number, where that is faster; 1: no groups; n: every
  // stage is a group of n.
  int64_t tensor_parallel = 1;
  // Plans count the time of sockets either way: NCCL's has not been measured.
  GroupSums group_sums = GroupSums::kAuto;
  // Who turns tokens into rows of activations: 0: the coordinator, from its model file; n: the
  // first worker of stage n, counted from 1, if it has room for the matrix; or kWhereItPays.
  int64_t embedding_stage = 0;
  LinkTable links;
  double coordinator_us = 0;    // of a token: sampling, text, the next step's embedding rows
  int64_t decode_position = 0;  // tokens in the sequence whose time is predicted
  // kManyStreams leaves workers idle only when the slowest stage then takes less than this part of
  // the time. Measured speeds vary by tens of percent: whom the user let join should not drop out
  // for that. 1: whenever it is faster.
  double worth_dropping = 0.75;
  // kOneStream: how much of a token's time may be given up so that a prompt, which is at all stages
  // at one time and costs the output matrix nothing, takes less: where it gains a larger part.
  double for_prompts = 0.05;
  // Independent pipelines, each with the whole model on workers of its own: as many as give the
  // most tokens per second. Sequences are shared out among them. Only PlanReplicas (replicas.h)
  // makes more than one.
  int64_t min_replicas = 1;
  int64_t max_replicas = 1;
  // How many replicas share the sequences; 0: those that are planned. Others may be there already.
  int64_t sequence_shares = 0;
  // Use slow workers too, also where the plan would be faster without them.
  bool use_every_worker = false;
  // Where the model is larger than what the workers offer together, they hold a part of it and read
  // the rest from their disks for every step.
  bool lazy = false;
  // Which part of the experts that tokens choose is in memory when not all are, as measured. Null:
  // all are taken to be used alike.
  std::shared_ptr<const ExpertHits> expert_hits = nullptr;
  // The last plan of this model, if it is known: kept where it still fits and is nearly as good as
  // the best, so that speeds that are measured anew at each start do not move weights around.
  std::vector<PreviousShard> previous;
};

// A worker that computes a stage, or a slice of each of its layers. `worker` is an index into the
// profiles the plan was made from.
struct StageMember {
  int worker = 0;
  std::optional<model::LayerSlice> slice;  // nullopt: whole layers
};

// One member without a slice: an ordinary stage. Several: a tensor-parallel group, whose slices
// cover every head and every feed-forward column once.
struct StagePlan {
  std::vector<StageMember> members;
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
  // Of its layers' weights, read from its disk for every step; not in `bytes`, which has the
  // buffers for it.
  int64_t streamed_bytes = 0;
  bool by_measured_usage = false;  // streamed_bytes, by PlanRequest::expert_hits
  std::string idle_reason;

  bool idle() const { return spec.empty(); }
};

// Where a token's time goes, in ms.
struct StageTimes {
  double hop = 0;       // from the stage before it, or from the coordinator
  double transfer = 0;  // the part of it during which the link is busy
  double compute = 0;   // the slowest member's attention, then the slowest one's feed-forward
  double sums = 0;      // the group's all-reduces, as far as nothing is computed meanwhile
  double disk = 0;      // waiting for weights that do not fit into memory
};
struct PlanTimes {
  std::vector<StageTimes> stages;
  double head = 0;                // the slowest head block: the way there, its rows, the way back
  double head_compute = 0;        // the slowest block's rows alone
  double head_on_last_stage = 0;  // the part of it during which the last stage is busy
  double coordinator = 0;         // sampling and what else is done once per token
  double stream() const {
    double sum = head + coordinator;
    for (const StageTimes& stage : stages)
      sum += stage.hop + stage.compute + stage.sums + stage.disk;
    return sum;
  }
  // What bounds many streams: the busiest worker, its head block included, or the busiest link.
  double slowest = 0;
};

struct Plan {
  std::vector<StagePlan> stages;        // in order; every layer exactly once
  std::vector<HeadPlan> heads;          // in order of rows, every row exactly once; a worker once
  int embedding_worker = kCoordinator;  // the one whose spec has it
  std::vector<WorkerPlan> workers;      // one per profile, in the profiles' order
  model::RuntimeLimits limits;
  PlanTimes times;
  double stream_ms = 0;   // predicted time of one token of one sequence
  double slowest_ms = 0;  // predicted time between two tokens when every stage is busy
  // No plan has a smaller stream_ms (kOneStream) or slowest_ms (kManyStreams) than this; with
  // `exact` no other choice of stages, order and slices is better at all, but for what was given up
  // for prompts. The embedding is placed after that choice.
  double bound_ms = 0;
  bool exact = false;
  // Another plan would be faster, by up to a quarter: this is the request's previous one, kept so
  // that no weights move.
  bool kept = false;
  // What of stream_ms was given up for prompts (PlanRequest::for_prompts), and the part of its time
  // that a prompt then takes less.
  double given_up_ms = 0;
  double prompts_gain = 0;
  std::vector<std::string> notes;  // what was asked for and not done, in sentences
};

}  // namespace renga::partition

#endif  // RENGA_PARTITION_PLAN_H_
