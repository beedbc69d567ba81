// A range of layers on a backend: weights, KV cache and activation buffers, and the interpreter
// of model::LayerProgram that runs rows through them.
#ifndef RENGA_WORKER_ENGINE_LAYER_STACK_H_
#define RENGA_WORKER_ENGINE_LAYER_STACK_H_

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/communicator.h"
#include "model/architecture.h"
#include "model/feed_forward_ops.h"
#include "model/late_program.h"
#include "model/model_config.h"
#include "model/shard_spec.h"
#include "worker/engine/cold_neurons.h"
#include "worker/engine/expert_choice.h"
#include "worker/engine/lazy_layers.h"
#include "worker/engine/shard.h"
#include "worker/engine/weight_loader.h"
#include "worker/kernels/backend.h"

namespace renga::engine {

// Not thread-safe. Knows nothing of sequences: slots say which KV blocks belong to which rows.
class LayerStack {
 public:
  // The matrices of the spec's layers in the order in which a step uses them, the same number for
  // each layer; a layer's experts are its last. Errors of the source.
  static absl::StatusOr<std::vector<Bundle>> Bundles(const model::Model& model,
                                                     const model::ShardSpec& spec,
                                                     const kernels::Backend& backend,
                                                     WeightSource& source);

  // Loads the spec's layers, not empty and inside the model, or its slice of them, which has passed
  // CheckSlice. `backend` outlives the stack. When `lazy` has Bundles(), only what is no
  // matrix is loaded. A part that comes late (limits.approximation) goes with neither a slice nor a
  // residency, cold neurons and layers without parts go with no residency: kUnimplemented.
  static absl::StatusOr<std::unique_ptr<LayerStack>> Load(const model::Model& model,
                                                          const model::ShardSpec& spec,
                                                          const model::RuntimeLimits& limits,
                                                          kernels::Backend* backend,
                                                          WeightLoader& loader, LazyLayers lazy);

  // Shard::ObserveNeurons.
  absl::Status ObserveNeurons(NeuronObserver observer);
  // Shard::ObserveExperts.
  absl::Status ObserveExperts(ExpertObserver observer);

  // How many feed-forwards the last Run went without, as their matrices came too late.
  uint32_t left_out() const { return left_out_; }

  // Its parts are null where every matrix is held.
  LazyLayers& lazy() { return lazy_; }
  const LazyLayers& lazy() const { return lazy_; }

  // No lanes from now on: some member of the group reads matrices from its disk, each once for a
  // step, and all members' sums follow each other in the same order.
  void KeepRowsTogether() { has_lanes_ = false; }

  // Runs `rows` (positions.size() x d_model, at least one row, at most max_step_tokens) through
  // all layers, in place. Nothing is late any more when they leave. Slots cover all rows. `group`
  // joins what its members computed of a layer: kFailedPrecondition when a slice has none or whole
  // layers have one. `withdrawn` as Shard::RunLayers has it.
  absl::Status Run(std::span<float> rows, std::span<const int64_t> positions,
                   std::span<const kernels::SequenceSlot> slots, base::Communicator* group,
                   const StepWatch& withdrawn);

 private:
  struct Expert {
    std::unique_ptr<kernels::WeightMatrix> gate, up, down;
  };
  // Weights by the index in Architecture::LayerTensors: a matrix or a vector each. With a residency
  // that has the matrices.
  struct Layer {
    std::vector<std::unique_ptr<kernels::WeightMatrix>> matrices;
    std::vector<std::unique_ptr<kernels::Buffer>> vectors;
    // With cold neurons, the parts of matrices that have three bits for each number; `matrices` has
    // the others, if any.
    std::vector<std::unique_ptr<kernels::WeightMatrix>> cold;
    std::vector<Expert> experts;  // none where the layer has one feed-forward for all tokens
    NeuronOrder order = {};
    model::OpRange ops = {};  // what it computes: less than the program where parts are left out
  };
  struct Lane;
  // Rows that stand side by side.
  struct RowRun {
    int64_t first = 0;
    int64_t count = 0;
  };
  // What is the same for every layer of one Run.
  struct Call {
    int64_t first_row = 0;
    int64_t rows = 0;
    std::vector<RowRun> complete = {};  // empty where nothing is ever late
    std::vector<RowRun> late = {};
    std::span<const int64_t> positions = {};
    std::span<const kernels::SequenceSlot> slots = {};
    base::Communicator* group = nullptr;
    const StepWatch* withdrawn = nullptr;  // null: nobody withdraws the step
    // Feed-forwards that come too late are left out: all rows may be approximated.
    bool may_leave_out = false;
    std::optional<absl::Time> deadline =
        std::nullopt;  // of the present layer's feed-forward, once it has begun
  };

  LayerStack(const model::Model& model, const model::ShardSpec& spec,
             const model::RuntimeLimits& limits, kernels::Backend* backend);
  // After the residency is known.
  absl::Status MakeProgram(const model::Model& model);
  // What may be left out of a step, where something may be.
  absl::Status FindOptionalOps();
  absl::StatusOr<Layer> LoadLayer(int64_t index, WeightLoader& loader) const;
  absl::Status LoadExperts(std::span<const model::TensorSpec> tensors, WeightLoader& loader,
                           Layer& layer) const;
  // The layer's part of `late_`, behind what is in `layer`.
  absl::Status LoadLatePart(std::span<const model::TensorSpec> tensors, WeightLoader& loader,
                            Layer& layer) const;
  absl::Status AllocateBuffers();
  // Which of the residency's bundles one call multiplies by.
  size_t BundleOf(const Layer& layer, std::span<const model::Op> linears) const;

  // One lane with all rows, or several that take turns: while the group adds up what one has
  // computed, the next one computes.
  std::vector<Lane> LanesOf(Call call) const;
  // On the lanes in turn, from one sum over the group to the next.
  absl::Status RunLayer(const Layer& layer, std::vector<Lane>& lanes);
  // False: what comes behind them in the layer is left out.
  absl::StatusOr<bool> RunOps(const Layer& layer, model::OpRange range, Call& call);
  // On the rows that the op is for.
  absl::Status RunOp(const Layer& layer, const model::Op& op, const Call& call);
  absl::Status RunOpOnRows(const Layer& layer, const model::Op& op, const Call& call);
  // What a step computes of these rows, counted from the first of them.
  static std::vector<kernels::SequenceSlot> SlotsOf(std::span<const kernels::SequenceSlot> slots,
                                                    const RowRun& rows);
  // Those of a step's rows at whose positions `chosen` says yes.
  static std::vector<RowRun> RunsOf(std::span<const int64_t> positions,
                                    absl::FunctionRef<bool(int64_t position)> chosen);
  // Whether the matrices that ops[first], of a feed-forward, multiplies by have come before the
  // call's deadline, which begins with the feed-forward. Of other ops, and without one: true.
  bool ComesInTime(const Layer& layer, size_t first, Call& call);
  // `first`, or null, makes the input that all of `ops` read.
  absl::Status RunLinears(const Layer& layer, const model::Op* first,
                          std::span<const model::Op> ops, const Call& call);
  // What an op multiplies by, and where that goes: one or two of them.
  void AddOutputs(const Layer& layer, const model::Op& op, const Residency::Lease* lease,
                  const Call& call, std::vector<kernels::LinearOutput>& outputs) const;
  // layer_stack_experts.cc: rows are sorted by expert, so that each expert computes all of its rows
  // at one time, in buffers that have a row for each expert that a row has chosen.
  absl::Status RunExperts(const Layer& layer, const model::Op& op, const Call& call);
  // Rows of a buffer that has as many for each of the call's rows as that uses experts.
  kernels::RowsView ExpertView(int buffer, const ExpertRows& rows, const Call& call) const;
  // Puts the rows that experts read side by side.
  absl::Status GatherRows(const model::Op& op, std::span<const ExpertRow> chosen, const Call& call);
  struct ComingExpert {
    ExpertRows rows;
    ExpertMatrices matrices;
  };
  absl::Status ComputeExperts(const model::Op& op, std::span<const ComingExpert> experts,
                              const Call& call);
  // Those of a cache in the order in which they come.
  absl::Status ComputeAsTheyCome(const Layer& layer, const model::Op& op,
                                 std::span<const ExpertRows> groups, const Call& call);
  // Of an expert that is held, or pinned.
  absl::StatusOr<ExpertMatrices> MatricesOf(const Layer& layer, int32_t expert);
  // out = the weighed sums, of each row in the order of the experts.
  absl::Status AddExperts(const model::Op& op, std::span<const ExpertRow> chosen, const Call& call);
  // The call's rows of a buffer from the device, and back.
  absl::StatusOr<std::vector<float>> Fetch(int buffer, const Call& call);
  absl::Status Put(std::span<const float> numbers, int buffer, const Call& call);
  absl::Status TellObserver(const Layer& layer, const model::Op& down, const Call& call);
  // Puts what neurons gave, in the layer's order, into the model's.
  absl::Status RestoreOrder(const Layer& layer, int buffer, const Call& call);
  absl::Status RunRope(const Layer& layer, const model::Op& op, const Call& call);
  // The outputs become zero.
  absl::Status Clear(std::span<const model::Op> ops, const Call& call);
  absl::Status BeginSum(const model::Op& op, Lane& lane);
  absl::Status FinishOldestSum();
  absl::Status RunAttention(const Layer& layer, const model::Op& op, const Call& call);
  // The layer's number in the model.
  int64_t NumberOf(const Layer& layer) const { return first_layer_ + (&layer - layers_.data()); }
  int64_t Width(int buffer) const { return program_.buffer_widths[buffer]; }
  // The call's rows of an activation buffer: where they begin, in bytes, and they themselves.
  int64_t OffsetOf(int buffer, const Call& call) const;
  kernels::RowsView View(int buffer, const Call& call) const;

  const model::Model whole_;
  const std::optional<model::LayerSlice> slice_;
  const model::ModelConfig config_;  // as sliced
  const int64_t first_layer_;
  const model::RuntimeLimits limits_;
  std::optional<model::LateProgram> late_;  // its program is in program_
  model::LayerProgram program_;
  kernels::Backend* const backend_;
  std::vector<Layer> layers_;
  LazyLayers lazy_;
  // Of the calls with bundles, by their first op: their numbers within a layer.
  std::vector<size_t> call_of_op_;
  size_t calls_per_layer_ = 0;
  size_t bundles_per_layer_ = 0;                   // the calls' and perhaps experts'
  std::unique_ptr<kernels::Buffer> rope_factors_;  // null: none
  // Layer after layer: all blocks' keys, then all blocks' values.
  std::unique_ptr<kernels::Buffer> kv_;
  int64_t layer_kv_bytes_ = 0;
  std::unique_ptr<kernels::Buffer> activations_;  // every buffer of the program, one after another
  std::vector<int64_t> activation_offsets_;       // in bytes
  std::vector<float> shared_;                     // rows on their way to or from the host
  std::deque<Lane*> begun_;                       // those whose sums have begun, oldest first
  std::optional<model::OpRange> optional_;        // nullopt: nothing is ever left out
  uint32_t left_out_ = 0;
  bool has_lanes_ = true;
  NeuronObserver observer_;
  ExpertObserver expert_observer_;
  int down_ = -1;      // the tensor that multiplies what neurons give, with cold neurons
  int observed_ = -1;  // the tensor that multiplies what neurons give, with an observer
};

}  // namespace renga::engine

#endif  // RENGA_WORKER_ENGINE_LAYER_STACK_H_
