// How long a token takes: the one place where time is computed from profiles of machines and links.
//
// A decode reads each weight once, so a layer takes its bytes over the worker's measured bandwidth,
// plus a constant; a message takes the link's latency plus its bytes over the link's bandwidth; an
// all-reduce of m bytes over n members takes the better of one-shot (every member sends all to all)
// a + (n-1) m/b and two-shot (reduce-scatter, then all-gather) 2a + 2 (n-1)/n m/b. Where k of them
// are on one machine, as a card and its host are, k (n-k) parts pass its cable instead of n-1.
// In a long step they travel while other rows are computed.
// Further rows of a step cost what one more token costs in a long prompt. Of a mixture of experts a
// step reads those that some row of it uses, and rows are taken to choose any of them alike.
//
// All times are milliseconds. Workers are named by their kind (machine_kinds.h).
#ifndef RENGA_PARTITION_COST_MODEL_H_
#define RENGA_PARTITION_COST_MODEL_H_

#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "model/shard_spec.h"
#include "partition/machine_kinds.h"
#include "partition/plan.h"
#include "partition/shard_costs.h"

namespace renga::partition {

// The time of what cannot be done.
inline constexpr double kNever = std::numeric_limits<double>::infinity();

// Who computes a stage; `slices` has one for each member, and none for a single worker.
struct StageShape {
  std::vector<int> kinds;
  std::vector<model::LayerSlice> slices;
};

// What the numbers of one message take on the wire.
int64_t WireBytes(base::DataType type, int64_t numbers);

// What it is made from outlives it.
class CostModel {
 public:
  CostModel(const ShardCosts& bytes, const MachineKinds& kinds, const PlanRequest& request);

  // To read one byte of layers' weights, and one row of the output matrix.
  double LayerMsPerByte(int kind) const { return layer_ms_per_byte_[kind]; }
  double HeadMsPerRow(int kind) const { return head_ms_per_row_[kind]; }

  // One layer of a step of `rows` rows: the slowest member's attention, then the slowest one's
  // feed-forward. Without all-reduces.
  double LayerMs(const StageShape& shape, int64_t layer, int64_t rows = 1) const;
  // Both all-reduces of a layer on the wire; 0 for a single worker.
  double SumsMs(const StageShape& shape, int64_t rows = 1) const;
  // What they add to the `compute` ms of the layer's products (LayerMs): all of it where a step has
  // few rows. The rows of a long one take turns in lanes (worker/engine), so that one lane's sums
  // travel while another one computes: then only what takes longer than all products.
  static double AddedSumsMs(double compute, double sums, int64_t rows);
  // The same when all of `members` workers are joined by such links.
  double SumsOverLinkMs(const LinkProfile& link, int64_t members, int64_t rows = 1) const;

  // `rows` rows to every member of the next stage, which start when the last one has them.
  double HopMs(int from_kind, std::span<const int> to_kinds, int64_t rows = 1) const;
  // The part of it during which the link is busy.
  double TransferMs(int from_kind, std::span<const int> to_kinds, int64_t rows = 1) const;
  // A head block's best rows to the coordinator.
  double ReturnMs(int kind) const;

  // Reading positions [0, decode_position) of one KV head's keys and values, as bytes of one layer.
  double KvBytesReadPerHead() const { return kv_bytes_read_per_head_; }

  // What one worker computes of a token: its own part of its layers, and its head rows.
  double WorkerMs(int worker, const model::ShardSpec& spec) const;
  // The times of whole plans, of workers by index. Every layer and row must be placed;
  // `embedding_worker` is any worker, or kCoordinator.
  PlanTimes Price(const std::vector<StagePlan>& stages, const std::vector<HeadPlan>& heads,
                  int64_t rows = 1, int embedding_worker = kCoordinator) const;

  const ShardCosts& bytes() const { return bytes_; }
  const MachineKinds& kinds() const { return kinds_; }
  const PlanRequest& request() const { return request_; }

 private:
  // The same when one cable has to carry `parts` of the parts that members send each other.
  double SumsOverCableMs(const LinkProfile& link, int64_t members, int64_t parts,
                         int64_t rows) const;
  double BytesMs(int kind, double bytes, double kv_bytes, int64_t rows) const;
  // All experts of a layer.
  double ExpertsMs(int kind, double bytes, int64_t rows) const;
  // The way of a step from the coordinator to the first stage: `hop` and `transfer`.
  StageTimes FirstHop(const StagePlan& first, int64_t rows, int embedding_worker) const;
  double SlowestWorker(const std::vector<StagePlan>& stages, const std::vector<HeadPlan>& heads,
                       const PlanTimes& times, int64_t rows) const;

  const ShardCosts& bytes_;
  const MachineKinds& kinds_;
  const PlanRequest& request_;
  int64_t row_bytes_ = 0;  // of one token's activations on the wire
  double kv_bytes_read_per_head_ = 0;
  std::vector<double> layer_ms_per_byte_;
  std::vector<double> head_ms_per_row_;
  std::vector<double> more_ms_per_byte_;  // for each row of a step after the first
};

}  // namespace renga::partition

#endif  // RENGA_PARTITION_COST_MODEL_H_
