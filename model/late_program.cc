#include "model/late_program.h"

#include <algorithm>
#include <map>
#include <optional>
#include <span>
#include <utility>

#include "absl/strings/str_cat.h"

namespace renga::model {
namespace {

constexpr int kResidual = 0;

// The widest block of any format that can have rows of d_ff numbers, and the narrowest common one.
constexpr int64_t kWideBlock = 256;
constexpr int64_t kNarrowBlock = 32;

int64_t BlockOf(int64_t d_ff) {
  if (d_ff % kWideBlock == 0) return kWideBlock;
  return d_ff % kNarrowBlock == 0 ? kNarrowBlock : 1;
}

// Rewrites a layer's ops from the first to the last.
class Rewriter {
 public:
  Rewriter(const LayerProgram& exact, std::vector<TensorSpec> tensors, const Range& early,
           const Range& late)
      : exact_(exact), tensors_(std::move(tensors)) {
    out_.program.buffer_widths = exact.buffer_widths;
    out_.early = early;
    out_.late = late;
  }

  std::optional<LateProgram> Run() {
    const std::span<const Op> ops = exact_.ops;
    size_t i = 0;
    for (; i < ops.size() && CutOf(ops[i]) != Cut::kFeedForwardColumns; ++i) {
      if (CutOf(ops[i]) == Cut::kFeedForward) {
        AddRows(ops[i]);
      } else if (halves_.contains(ops[i].in)) {
        if (!IsGate(ops[i]) || !halves_.contains(ops[i].in2) || gate_.has_value()) return {};
        gate_ = ops[i];
      } else {
        out_.program.ops.push_back(ops[i]);
      }
    }
    if (!gate_.has_value() || i == ops.size() || ops[i].in != gate_->out) return {};
    if (!AddDown(ops[i], ops.subspan(i + 1))) return {};
    DropUnusedBuffers();
    return std::move(out_);
  }

 private:
  struct Halves {
    int early = -1;
    int late = -1;
  };

  Cut CutOf(const Op& op) const {
    return op.kind == OpKind::kLinear ? tensors_[static_cast<size_t>(op.weight)].cut : Cut::kNone;
  }
  static bool IsGate(const Op& op) {
    return op.kind == OpKind::kSiluGate || op.kind == OpKind::kGeluGate;
  }
  int NewBuffer(int64_t width) {
    out_.program.buffer_widths.push_back(width);
    return static_cast<int>(out_.program.buffer_widths.size()) - 1;
  }
  int NewPart(int tensor, bool negated) {
    out_.added.push_back({.tensor = tensor, .negated = negated});
    return static_cast<int>(tensors_.size() + out_.added.size()) - 1;
  }
  void Push(Op op, OpRows rows = OpRows::kAll) {
    op.rows = rows;
    out_.program.ops.push_back(op);
  }

  // Gate or up: both parts in one call.
  void AddRows(const Op& op) {
    const Halves halves{.early = NewBuffer(out_.early.size()), .late = NewBuffer(out_.late.size())};
    halves_[op.out] = halves;
    Op part = op;
    part.out = halves.early;
    Push(part);
    part.out = halves.late;
    part.weight = NewPart(op.weight, false);
    if (op.bias >= 0) part.bias = NewPart(op.bias, false);
    Push(part);
  }

  Op GateOf(int Halves::*half) {
    Op gate = *gate_;
    gate.in = halves_[gate_->in].*half;
    gate.in2 = halves_[gate_->in2].*half;
    gate.out = halves_[gate_->out].*half;
    return gate;
  }

  // `rest` is what follows the product: a sum over the group, perhaps a norm, the residual's sum.
  bool AddDown(const Op& down, std::span<const Op> rest) {
    if (down.bias >= 0 || !halves_.contains(gate_->out)) return false;
    const int branch = down.out;
    if (!rest.empty() && rest[0].kind == OpKind::kAllReduce) rest = rest.subspan(1);
    std::optional<Op> norm;
    if (!rest.empty() && rest[0].kind == OpKind::kRmsNorm && rest[0].in == branch &&
        rest[0].out == branch) {
      norm = rest[0];
      rest = rest.subspan(1);
    }
    if (rest.size() != 1 || rest[0].kind != OpKind::kAdd || rest[0].in != branch ||
        rest[0].out != kResidual) {
      return false;
    }
    out_.pending = NewBuffer(exact_.buffer_widths[kResidual]);
    Op part = down;
    Push(GateOf(&Halves::early));
    part.in = halves_[gate_->out].early;
    Push(part);
    // The layer has read the residual stream for the last time.
    Push({.kind = OpKind::kAddLate, .in = out_.pending, .out = kResidual}, OpRows::kLate);
    Push(GateOf(&Halves::late));
    part.in = halves_[gate_->out].late;
    part.out = out_.pending;
    part.weight = NewPart(down.weight, false);
    Push(part);
    if (norm.has_value()) {
      AddNormed(branch, *norm);
    } else {
      Push({.kind = OpKind::kAdd, .in = branch, .out = kResidual});
      Push({.kind = OpKind::kAdd, .in = out_.pending, .out = kResidual}, OpRows::kComplete);
    }
    return true;
  }

  // pending = norm(early + late); rows that are late leave norm(early) out of it, which they add
  // now.
  void AddNormed(int branch, const Op& norm) {
    const int negative = NewBuffer(exact_.buffer_widths[kResidual]);
    Push({.kind = OpKind::kAdd, .in = branch, .out = out_.pending});
    Op op = norm;
    op.in = op.out = out_.pending;
    Push(op);
    Push({.kind = OpKind::kAdd, .in = out_.pending, .out = kResidual}, OpRows::kComplete);
    op.in = branch;
    op.out = negative;
    op.weight = NewPart(norm.weight, true);
    Push(op, OpRows::kLate);
    Push({.kind = OpKind::kAdd, .in = negative, .out = out_.pending}, OpRows::kLate);
    Push(norm, OpRows::kLate);
    Push({.kind = OpKind::kAdd, .in = branch, .out = kResidual}, OpRows::kLate);
  }

  // Those of the whole feed-forward, unless attention has them too.
  void DropUnusedBuffers() {
    std::vector<bool> used(out_.program.buffer_widths.size());
    for (const Op& op : out_.program.ops) {
      for (const int buffer : {op.in, op.in2, op.in3, op.out}) {
        if (buffer >= 0) used[static_cast<size_t>(buffer)] = true;
      }
    }
    for (size_t i = 0; i < used.size(); ++i) {
      if (!used[i]) out_.program.buffer_widths[i] = 0;
    }
  }

  const LayerProgram& exact_;
  const std::vector<TensorSpec> tensors_;
  std::map<int, Halves> halves_;  // by the whole buffer
  std::optional<Op> gate_;
  LateProgram out_;
};

}  // namespace

Range LateColumns(const ModelConfig& config, int64_t percent) {
  const int64_t block = BlockOf(config.d_ff);
  const int64_t blocks = config.d_ff / block;
  const int64_t late = std::clamp<int64_t>((blocks * percent + 50) / 100, 1, blocks);
  return {.begin = config.d_ff - late * block, .end = config.d_ff};
}

absl::StatusOr<LateProgram> MakeLateProgram(const Model& model, int64_t percent) {
  const Range late = LateColumns(model.config, percent);
  const LayerProgram exact = model.architecture->Program(model.config);
  Rewriter rewriter(exact, model.architecture->LayerTensors(model.config, 0),
                    {.begin = 0, .end = late.begin}, late);
  std::optional<LateProgram> program = rewriter.Run();
  if (program.has_value()) return *std::move(program);
  return absl::UnimplementedError(
      absl::StrCat("a late slice of the feed-forward is not written "
                   "for the layers of ",
                   model.architecture->name(), " models"));
}

}  // namespace renga::model
