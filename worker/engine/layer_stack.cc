#include "worker/engine/layer_stack.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/status_macros.h"
#include "model/layer_slice.h"
#include "model/linear_runs.h"
#include "model/step.h"

namespace renga::engine {
namespace {

using kernels::KvCacheView;
using kernels::RowsView;
using model::LinearRun;
using model::Op;
using model::OpKind;

const float* Floats(const std::unique_ptr<kernels::Buffer>& buffer) {
  return buffer == nullptr ? nullptr : reinterpret_cast<const float*>(buffer->data());
}

// Products of so many rows are no slower per row than of more (measured on processors).
constexpr int64_t kLargestLane = 128;
constexpr int64_t kSmallestLane = 16;
// What a group of two sends at one time (transport/group_communicator.h).
constexpr int64_t kLaneNumbers = 128 << 10;
// Sums that have begun (base::Communicator::BeginSum).
constexpr size_t kMostSums = 2;

// Whether ops[0] makes the input of the linear ops behind it and may run in one call with them:
// none of them writes what it reads.
bool PreparesLinear(std::span<const Op> ops) {
  const Op& first = ops[0];
  if (first.kind != OpKind::kRmsNorm && first.kind != OpKind::kSiluGate) return false;
  if (first.rows != model::OpRows::kAll) return false;
  const size_t linears = LinearRun(ops.subspan(1));
  if (linears == 0 || ops[1].in != first.out) return false;
  for (const Op& op : ops.subspan(1, linears)) {
    if (op.out == first.in || op.out == first.in2) return false;
  }
  return true;
}

}  // namespace

// Some of the rows of one Run, and the sum over the group that they wait for.
struct LayerStack::Lane {
  Call call;
  std::vector<kernels::SequenceSlot> slots = {};
  const Op* sum = nullptr;  // null: none
  std::vector<float> values = {};
};

std::vector<kernels::SequenceSlot> LayerStack::SlotsOf(std::span<const kernels::SequenceSlot> slots,
                                                       const RowRun& rows) {
  std::vector<kernels::SequenceSlot> within;
  for (kernels::SequenceSlot slot : slots) {
    const int64_t from = std::max(slot.first_row, rows.first);
    const int64_t to = std::min(slot.first_row + slot.row_count, rows.first + rows.count);
    if (from >= to) continue;
    slot.first_position += from - slot.first_row;
    slot.first_row = from - rows.first;
    slot.row_count = to - from;
    within.push_back(slot);
  }
  return within;
}

std::vector<LayerStack::Lane> LayerStack::LanesOf(Call call) const {
  const bool turns = has_lanes_ && call.group != nullptr && !call.group->sums_on_devices() &&
                     call.rows >= model::kFewestRowsForLanes;
  const int64_t largest = std::clamp(kLaneNumbers / Width(0), kSmallestLane, kLargestLane);
  const int64_t count = turns ? std::max<int64_t>(2, (call.rows + largest - 1) / largest) : 1;
  std::vector<Lane> lanes;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t first = call.rows * i / count;
    const RowRun run = {.first = first, .count = call.rows * (i + 1) / count - first};
    Lane& lane = lanes.emplace_back(Lane{.call = call, .slots = SlotsOf(call.slots, run)});
    lane.call.first_row = run.first;
    lane.call.rows = run.count;
    lane.call.positions = call.positions.subspan(run.first, run.count);
    lane.call.slots = lane.slots;
  }
  return lanes;
}

absl::Status LayerStack::Run(std::span<float> rows, std::span<const int64_t> positions,
                             std::span<const kernels::SequenceSlot> slots,
                             base::Communicator* group, const StepWatch& withdrawn) {
  if (slice_.has_value() != (group != nullptr)) {
    return absl::FailedPreconditionError("slices of layers need a group, whole layers none");
  }
  Call call{.rows = static_cast<int64_t>(positions.size()),
            .positions = positions,
            .slots = slots,
            .group = group,
            .withdrawn = withdrawn ? &withdrawn : nullptr};
  const model::Approximation& approximation = limits_.approximation;
  const auto applies = [&](int64_t position) { return approximation.Applies(position); };
  if (late_.has_value()) {
    call.late = RunsOf(positions, applies);
    call.complete = RunsOf(positions, [&](int64_t position) { return !applies(position); });
  }
  call.may_leave_out = approximation.deadline_ms > 0 && lazy_.residency != nullptr &&
                       std::all_of(positions.begin(), positions.end(), applies);
  left_out_ = 0;
  const std::span<std::byte> bytes = std::as_writable_bytes(rows);
  // Buffer 0 is the residual stream; its rows lie side by side.
  RENGA_RETURN_IF_ERROR(backend_->Upload(bytes, *activations_, activation_offsets_[0]));
  std::vector<Lane> lanes = LanesOf(call);
  begun_.clear();  // of a step that failed
  // Layers that come from disk as a whole are read ahead in the order of use, which no step may
  // leave. Beside experts that come and go there are none.
  const bool may_stop =
      withdrawn && group == nullptr && (lazy_.residency == nullptr || lazy_.experts != nullptr);
  for (const Layer& layer : layers_) {
    if (may_stop && withdrawn()) return backend_->Synchronize();
    RENGA_RETURN_IF_ERROR(RunLayer(layer, lanes));
  }
  while (!begun_.empty()) RENGA_RETURN_IF_ERROR(FinishOldestSum());
  if (late_.has_value()) {
    const Op rest{
        .kind = OpKind::kAdd, .in = late_->pending, .out = 0, .rows = model::OpRows::kLate};
    RENGA_RETURN_IF_ERROR(RunOp(layers_.back(), rest, call));
  }
  if (group != nullptr && group->sums_on_devices()) RENGA_RETURN_IF_ERROR(group->WaitForDevices());
  RENGA_RETURN_IF_ERROR(backend_->Synchronize());
  return backend_->Download(*activations_, activation_offsets_[0], bytes);
}

absl::Status LayerStack::RunLayer(const Layer& layer, std::vector<Lane>& lanes) {
  const auto is_sum = [](const Op& op) { return op.kind == OpKind::kAllReduce; };
  const auto ops = program_.ops.begin();
  for (size_t begin = layer.ops.begin; begin < layer.ops.end;) {
    const size_t end = std::find_if(ops + begin, ops + layer.ops.end, is_sum) - ops;
    for (Lane& lane : lanes) {
      while (lane.sum != nullptr) RENGA_RETURN_IF_ERROR(FinishOldestSum());
      RENGA_ASSIGN_OR_RETURN(const bool goes_on, RunOps(layer, {begin, end}, lane.call));
      if (!goes_on) return absl::OkStatus();  // there is one lane, without a group
      if (end < layer.ops.end) RENGA_RETURN_IF_ERROR(BeginSum(program_.ops[end], lane));
    }
    begin = end + 1;
  }
  return absl::OkStatus();
}

absl::StatusOr<bool> LayerStack::RunOps(const Layer& layer, model::OpRange range, Call& call) {
  const std::span<const Op> ops = program_.ops;
  if (range.begin == layer.ops.begin) call.deadline.reset();
  for (size_t i = range.begin; i < range.end;) {
    const std::span<const Op> rest = ops.subspan(i, range.end - i);
    const Op* first = PreparesLinear(rest) ? &rest[0] : nullptr;
    const size_t linears = LinearRun(first != nullptr ? rest.subspan(1) : rest);
    if (linears > 0) {
      const size_t prepares = first != nullptr ? 1 : 0;
      if (!ComesInTime(layer, i + prepares, call)) return false;
      RENGA_RETURN_IF_ERROR(RunLinears(layer, first, rest.subspan(prepares, linears), call));
      i += prepares + linears;
    } else {
      RENGA_RETURN_IF_ERROR(RunOp(layer, ops[i], call));
      ++i;
    }
    if (call.group != nullptr) RENGA_RETURN_IF_ERROR(call.group->Advance());
  }
  return true;
}

bool LayerStack::ComesInTime(const Layer& layer, size_t first, Call& call) {
  if (!call.may_leave_out || first < optional_->begin) return true;
  const auto index = static_cast<size_t>(&layer - layers_.data());
  const size_t bundle = index * bundles_per_layer_ + call_of_op_[first];
  if (!call.deadline.has_value()) {
    call.deadline = absl::Now() + absl::Milliseconds(limits_.approximation.deadline_ms);
  }
  if (lazy_.residency->WaitFor(bundle, *call.deadline)) return true;
  lazy_.residency->Skip(bundle, (index + 1) * bundles_per_layer_);
  lazy_.residency->CountLeftOut(call.rows);
  ++left_out_;
  return false;
}

std::vector<LayerStack::RowRun> LayerStack::RunsOf(
    std::span<const int64_t> positions, absl::FunctionRef<bool(int64_t position)> chosen) {
  std::vector<RowRun> runs;
  for (size_t i = 0; i < positions.size(); ++i) {
    if (!chosen(positions[i])) continue;
    const auto row = static_cast<int64_t>(i);
    if (runs.empty() || runs.back().first + runs.back().count < row) {
      runs.push_back({.first = row});
    }
    ++runs.back().count;
  }
  return runs;
}

absl::Status LayerStack::RunOp(const Layer& layer, const Op& op, const Call& call) {
  if (op.rows == model::OpRows::kAll) return RunOpOnRows(layer, op, call);
  std::vector<RowRun> present;
  if (op.rows == model::OpRows::kPresent) {
    present = RunsOf(call.positions, [&](int64_t position) {
      return !limits_.approximation.IsMissing(position, NumberOf(layer));
    });
  }
  const auto& runs = op.rows == model::OpRows::kLate       ? call.late
                     : op.rows == model::OpRows::kComplete ? call.complete
                                                           : present;
  for (const RowRun& run : runs) {
    const Call part{.first_row = call.first_row + run.first, .rows = run.count};
    RENGA_RETURN_IF_ERROR(RunOpOnRows(layer, op, part));
  }
  return absl::OkStatus();
}

absl::Status LayerStack::RunOpOnRows(const Layer& layer, const Op& op, const Call& call) {
  const float epsilon = static_cast<float>(config_.norm_epsilon);
  switch (op.kind) {
    case OpKind::kRmsNorm:
      return backend_->RmsNorm(View(op.in, call), Floats(layer.vectors[op.weight]), epsilon,
                               View(op.out, call));
    case OpKind::kHeadRmsNorm:
      return backend_->HeadRmsNorm(View(op.in, call), config_.head_dim,
                                   Floats(layer.vectors[op.weight]), epsilon);
    case OpKind::kLinear:
      return RunLinears(layer, nullptr, std::span(&op, 1), call);
    case OpKind::kRope:
      return RunRope(layer, op, call);
    case OpKind::kAttention:
      return RunAttention(layer, op, call);
    case OpKind::kSiluGate:
      return backend_->SiluGate(View(op.in, call), View(op.in2, call), View(op.out, call));
    case OpKind::kGeluGate:
      return backend_->GeluGate(View(op.in, call), View(op.in2, call), View(op.out, call));
    case OpKind::kExperts:
      return RunExperts(layer, op, call);
    case OpKind::kAllReduce:
      break;  // RunLayer's
    case OpKind::kAdd:
      return backend_->Add(View(op.in, call), View(op.out, call));
    case OpKind::kAddLate:
      if (&layer == &layers_.front()) return absl::OkStatus();
      return backend_->Add(View(op.in, call), View(op.out, call));
  }
  return absl::InternalError(absl::StrCat("unknown op ", static_cast<int>(op.kind)));
}

void LayerStack::AddOutputs(const Layer& layer, const Op& op, const Residency::Lease* lease,
                            const Call& call, std::vector<kernels::LinearOutput>& outputs) const {
  RowsView out = View(op.out, call);
  if (const auto& cold = layer.cold[op.weight]; cold != nullptr) {
    const int64_t hot = out.columns - cold->rows();
    outputs.push_back({.matrix = cold.get(),
                       .out = {.data = out.data + hot,
                               .rows = out.rows,
                               .columns = cold->rows(),
                               .stride = out.stride}});
    if (hot == 0) return;
    out.columns = hot;
  }
  outputs.push_back(
      {.matrix = lease != nullptr ? lease->matrix(outputs.size()) : layer.matrices[op.weight].get(),
       .bias = op.bias < 0 ? nullptr : Floats(layer.vectors[op.bias]),
       .out = out});
}

absl::Status LayerStack::RunLinears(const Layer& layer, const Op* first, std::span<const Op> ops,
                                    const Call& call) {
  if (Width(ops[0].in) == 0) return Clear(ops, call);
  std::optional<Residency::Lease> lease;
  if (lazy_.residency != nullptr) {
    RENGA_ASSIGN_OR_RETURN(auto acquired, lazy_.residency->Acquire(BundleOf(layer, ops)));
    lease.emplace(std::move(acquired));
  }
  std::vector<kernels::LinearOutput> outputs;
  outputs.reserve(ops.size());
  if (!layer.order.neurons.empty() && ops[0].weight == down_) {
    if (first != nullptr) RENGA_RETURN_IF_ERROR(RunOpOnRows(layer, *first, call));
    first = nullptr;
    RENGA_RETURN_IF_ERROR(RestoreOrder(layer, ops[0].in, call));
  }
  for (const Op& op : ops) {
    AddOutputs(layer, op, lease.has_value() ? &*lease : nullptr, call, outputs);
  }
  if (first == nullptr) {
    RENGA_RETURN_IF_ERROR(backend_->Linear(View(ops[0].in, call), outputs));
  } else if (first->kind == OpKind::kSiluGate) {
    RENGA_RETURN_IF_ERROR(backend_->SiluGateLinear(View(first->in, call), View(first->in2, call),
                                                   View(first->out, call), outputs));
  } else {
    RENGA_RETURN_IF_ERROR(backend_->RmsNormLinear(
        View(first->in, call), Floats(layer.vectors[first->weight]),
        static_cast<float>(config_.norm_epsilon), View(first->out, call), outputs));
  }
  return ops[0].weight == observed_ ? TellObserver(layer, ops[0], call) : absl::OkStatus();
}

absl::Status LayerStack::ObserveNeurons(NeuronObserver observer) {
  if (slice_.has_value() || late_.has_value()) {
    return absl::UnimplementedError("neurons are observed where one worker has all of them");
  }
  if (config_.has_experts()) {
    return absl::UnimplementedError(
        "neurons are not observed in layers with experts: each token uses few of them");
  }
  observer_ = std::move(observer);
  observed_ = -1;
  if (observer_ == nullptr) return absl::OkStatus();
  const auto tensors = whole_.architecture->LayerTensors(whole_.config, first_layer_);
  for (size_t i = 0; i < tensors.size(); ++i) {
    if (tensors[i].cut == model::Cut::kFeedForwardColumns) observed_ = static_cast<int>(i);
  }
  return absl::OkStatus();
}

absl::Status LayerStack::TellObserver(const Layer& layer, const Op& down, const Call& call) {
  // After the product, so that a gate that runs in one pass with it has run.
  shared_.resize(static_cast<size_t>(call.rows * Width(down.in)));
  RENGA_RETURN_IF_ERROR(backend_->Synchronize());
  RENGA_RETURN_IF_ERROR(backend_->Download(*activations_, activation_offsets_[down.in],
                                           std::as_writable_bytes(std::span(shared_))));
  observer_(NumberOf(layer), shared_);
  return absl::OkStatus();
}

size_t LayerStack::BundleOf(const Layer& layer, std::span<const Op> linears) const {
  const auto op = static_cast<size_t>(linears.data() - program_.ops.data());
  return static_cast<size_t>(&layer - layers_.data()) * bundles_per_layer_ + call_of_op_[op];
}

absl::Status LayerStack::Clear(std::span<const Op> ops, const Call& call) {
  for (const Op& op : ops) {
    shared_.assign(static_cast<size_t>(call.rows * Width(op.out)), 0.0f);
    RENGA_RETURN_IF_ERROR(
        backend_->Upload(std::as_bytes(std::span(shared_)), *activations_, OffsetOf(op.out, call)));
    RENGA_RETURN_IF_ERROR(backend_->Synchronize());
  }
  return absl::OkStatus();
}

absl::Status LayerStack::BeginSum(const Op& op, Lane& lane) {
  const Call& call = lane.call;
  if (call.group == nullptr) return absl::OkStatus();
  const RowsView rows = View(op.in, call);
  const auto count = static_cast<size_t>(rows.rows * rows.columns);
  if (call.group->sums_on_devices()) return call.group->SumOnDevices(rows.data, count);
  if (begun_.size() == kMostSums) RENGA_RETURN_IF_ERROR(FinishOldestSum());
  lane.values.resize(count);
  RENGA_RETURN_IF_ERROR(backend_->Synchronize());
  RENGA_RETURN_IF_ERROR(backend_->Download(*activations_, OffsetOf(op.in, call),
                                           std::as_writable_bytes(std::span(lane.values))));
  lane.sum = &op;
  begun_.push_back(&lane);
  return call.group->BeginSum(lane.values);
}

absl::Status LayerStack::FinishOldestSum() {
  Lane& lane = *begun_.front();
  begun_.pop_front();
  const Op& op = *std::exchange(lane.sum, nullptr);
  RENGA_RETURN_IF_ERROR(lane.call.group->FinishSum());
  RENGA_RETURN_IF_ERROR(backend_->Upload(std::as_bytes(std::span(lane.values)), *activations_,
                                         OffsetOf(op.in, lane.call)));
  return backend_->Synchronize();
}

absl::Status LayerStack::RunRope(const Layer& layer, const Op& op, const Call& call) {
  const model::RopeConfig& rope = config_.RopeOf(NumberOf(layer));
  return backend_->Rope(View(op.in, call), call.positions,
                        {.neighbours = rope.style == model::RopeStyle::kNeighbours,
                         .head_dim = config_.head_dim,
                         .dims = rope.dims,
                         .base = rope.base,
                         .position_scale = rope.position_scale,
                         .factors = Floats(rope_factors_)});
}

absl::Status LayerStack::RunAttention(const Layer& layer, const Op& op, const Call& call) {
  std::byte* const keys = kv_->data() + (&layer - layers_.data()) * layer_kv_bytes_;
  const KvCacheView cache{.keys = keys,
                          .values = keys + layer_kv_bytes_ / 2,
                          .type = limits_.kv_type,
                          .n_blocks = limits_.kv_blocks,
                          .block_tokens = model::kKvBlockTokens,
                          .n_kv_heads = config_.n_kv_heads,
                          .head_dim = config_.head_dim};
  RENGA_RETURN_IF_ERROR(
      backend_->StoreKv(View(op.in2, call), View(op.in3, call), cache, call.slots));
  return backend_->Attention({.queries = View(op.in, call),
                              .out = View(op.out, call),
                              .cache = cache,
                              .n_heads = config_.n_heads,
                              .scale = config_.ScoreScale(),
                              .window = config_.IsWindowed(NumberOf(layer)) ? config_.window : 0,
                              .slots = call.slots});
}

absl::Status LayerStack::RestoreOrder(const Layer& layer, int buffer, const Call& call) {
  RENGA_ASSIGN_OR_RETURN(const std::vector<float> given, Fetch(buffer, call));
  return Put(InModelOrder(layer.order, given), buffer, call);
}

absl::StatusOr<std::vector<float>> LayerStack::Fetch(int buffer, const Call& call) {
  std::vector<float> numbers(static_cast<size_t>(call.rows * Width(buffer)));
  RENGA_RETURN_IF_ERROR(backend_->Synchronize());
  RENGA_RETURN_IF_ERROR(backend_->Download(*activations_, OffsetOf(buffer, call),
                                           std::as_writable_bytes(std::span(numbers))));
  return numbers;
}

absl::Status LayerStack::Put(std::span<const float> numbers, int buffer, const Call& call) {
  RENGA_RETURN_IF_ERROR(
      backend_->Upload(std::as_bytes(numbers), *activations_, OffsetOf(buffer, call)));
  // Until then they may be read.
  return backend_->Synchronize();
}

int64_t LayerStack::OffsetOf(int buffer, const Call& call) const {
  return activation_offsets_[buffer] +
         call.first_row * Width(buffer) * static_cast<int64_t>(sizeof(float));
}

RowsView LayerStack::View(int buffer, const Call& call) const {
  const int64_t width = Width(buffer);
  return {.data = reinterpret_cast<float*>(activations_->data() + OffsetOf(buffer, call)),
          .rows = call.rows,
          .columns = width,
          .stride = width};
}

}  // namespace renga::engine
