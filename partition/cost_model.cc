#include "partition/cost_model.h"

#include <algorithm>
#include <map>

#include "base/kv_type.h"
#include "model/footprint.h"
#include "model/layer_slice.h"

namespace renga::partition {
namespace {

// A head block's best rows with their logits, the row's maximum and sum, and the message around it.
constexpr double kResultBytes = 1024;
// A token on its way to the embedding.
constexpr double kTokenBytes = 4;

double SpeedFor(const WorkerProfile& worker, base::DataType type) {
  const auto known = worker.bytes_per_second_of.find(type);
  return known == worker.bytes_per_second_of.end() ? worker.bytes_per_second : known->second;
}

// Of weights in several formats: the time of each adds up.
double MixedMsPerByte(const WorkerProfile& worker,
                      const std::map<base::DataType, int64_t>& bytes_of) {
  double bytes = 0;
  double seconds = 0;
  for (const auto& [type, count] : bytes_of) {
    bytes += static_cast<double>(count);
    seconds += static_cast<double>(count) / SpeedFor(worker, type);
  }
  return (bytes > 0 ? seconds / bytes : 1 / worker.bytes_per_second) * 1e3;
}

// Of the parts that every member of a group sends to every other one, those that pass the busiest
// machine's cable.
int64_t PartsOnBusiestCable(const MachineKinds& kinds, const std::vector<int>& members) {
  const auto n = static_cast<int64_t>(members.size());
  std::map<int, int64_t> on_machine;
  int64_t most = 0;
  for (const int kind : members) {
    const int machine = kinds.MachineOf(kind);
    machine < 0 ? void(most = n - 1) : void(++on_machine[machine]);
  }
  for (const auto& [machine, count] : on_machine) most = std::max(most, count * (n - count));
  return most > 0 ? most : n - 1;  // all on one: what its own links carry
}

double SendMs(const LinkProfile& link, double bytes) {
  return link.bytes_per_second > 0 ? bytes / link.bytes_per_second * 1e3 : 0;
}

}  // namespace

int64_t WireBytes(base::DataType type, int64_t numbers) {
  const base::DataTypeInfo& info = base::GetDataTypeInfo(type);
  return (numbers + info.block_elements - 1) / info.block_elements * info.block_bytes;
}

CostModel::CostModel(const ShardCosts& bytes, const MachineKinds& kinds, const PlanRequest& request)
    : bytes_(bytes), kinds_(kinds), request_(request) {
  const model::ModelConfig& config = bytes.config();
  row_bytes_ = WireBytes(request.wire_type, config.d_model);
  kv_bytes_read_per_head_ =
      2.0 * static_cast<double>(request.decode_position) *
      static_cast<double>(base::KvHeadBytes(request.kv_type, config.head_dim));
  const model::ModelFootprint& footprint = bytes.footprint();
  for (int kind = 0; kind < kinds.count(); ++kind) {
    const WorkerProfile& worker = kinds.ProfileOf(kind);
    layer_ms_per_byte_.push_back(MixedMsPerByte(worker, footprint.layer_bytes_of));
    head_ms_per_row_.push_back(static_cast<double>(footprint.HeadRowWork()) /
                               SpeedFor(worker, footprint.head_type) * 1e3);
    const double prefill = worker.prefill_bytes_per_second > 0
                               ? worker.prefill_bytes_per_second
                               : worker.bytes_per_second * kAssumedPrefillGain;
    more_ms_per_byte_.push_back(1e3 / prefill);
  }
}

double CostModel::BytesMs(int kind, double bytes, double kv_bytes, int64_t rows) const {
  const double more = static_cast<double>(rows - 1);
  return bytes * (layer_ms_per_byte_[kind] + more * more_ms_per_byte_[kind]) +
         kv_bytes * static_cast<double>(rows) * 1e3 / kinds_.ProfileOf(kind).bytes_per_second;
}

double CostModel::ExpertsMs(int kind, double bytes, int64_t rows) const {
  const double share = bytes_.config().ExpertShare();
  const double read = ShareOfExpertsRead(bytes_.config(), rows);
  // What no row reads first is one more row of an expert.
  const double again = std::max(0.0, share * static_cast<double>(rows) - read);
  return bytes * (read * layer_ms_per_byte_[kind] + again * more_ms_per_byte_[kind]);
}

double CostModel::LayerMs(const StageShape& shape, int64_t layer, int64_t rows) const {
  const model::ModelConfig& config = bytes_.config();
  const model::LayerWeightBytes& weights = bytes_.footprint().layers[layer];
  double attention = 0;
  double feed_forward = 0;
  double constant = 0;
  for (size_t i = 0; i < shape.kinds.size(); ++i) {
    const int kind = shape.kinds[i];
    const model::LayerSlice slice =
        shape.slices.empty() ? model::WholeLayer(config) : shape.slices[i];
    const auto of_heads =
        static_cast<double>(model::SliceBytes(weights, config, {.heads = slice.heads, .ff = {}}));
    const auto of_all = static_cast<double>(model::SliceBytes(weights, config, slice));
    const double kv =
        kv_bytes_read_per_head_ * static_cast<double>(model::KvHeadsOf(config, slice.heads).size());
    attention = std::max(attention, BytesMs(kind, of_heads, kv, rows));
    const auto experts = static_cast<double>(weights.experts);  // never sliced
    feed_forward = std::max(feed_forward, BytesMs(kind, of_all - of_heads - experts, 0, rows) +
                                              ExpertsMs(kind, experts, rows));
    constant = std::max(constant, kinds_.ProfileOf(kind).layer_us / 1e3);
  }
  return attention + feed_forward + constant;
}

double CostModel::SumsOverLinkMs(const LinkProfile& link, int64_t members, int64_t rows) const {
  return SumsOverCableMs(link, members, members - 1, rows);
}

double CostModel::SumsOverCableMs(const LinkProfile& link, int64_t members, int64_t parts,
                                  int64_t rows) const {
  if (members < 2) return 0;
  const double sent = static_cast<double>(parts) * static_cast<double>(row_bytes_ * rows);
  const double latency = link.latency_us / 1e3;
  const double one_shot = latency + SendMs(link, sent);
  const double two_shot = 2 * latency + SendMs(link, 2 * sent / static_cast<double>(members));
  return 2 * std::min(one_shot, two_shot);
}

double CostModel::SumsMs(const StageShape& shape, int64_t rows) const {
  // The slowest link sets the pace: its latency and its bandwidth, if two links differ in that.
  LinkProfile worst;
  for (size_t i = 0; i < shape.kinds.size(); ++i) {
    for (size_t j = 0; j < shape.kinds.size(); ++j) {
      if (i == j) continue;
      const LinkProfile& link = kinds_.Link(shape.kinds[i], shape.kinds[j]);
      worst.latency_us = std::max(worst.latency_us, link.latency_us);
      if (link.bytes_per_second > 0 &&
          (worst.bytes_per_second == 0 || link.bytes_per_second < worst.bytes_per_second)) {
        worst.bytes_per_second = link.bytes_per_second;
      }
    }
  }
  return SumsOverCableMs(worst, static_cast<int64_t>(shape.kinds.size()),
                         PartsOnBusiestCable(kinds_, shape.kinds), rows);
}

double CostModel::AddedSumsMs(double compute, double sums, int64_t rows) {
  return rows < model::kFewestRowsForLanes ? sums : std::max(0.0, sums - compute);
}

double CostModel::TransferMs(int from_kind, std::span<const int> to_kinds, int64_t rows) const {
  double sum = 0;
  for (const int to : to_kinds) {
    sum += SendMs(kinds_.Link(from_kind, to), static_cast<double>(row_bytes_ * rows));
  }
  return sum;
}

double CostModel::HopMs(int from_kind, std::span<const int> to_kinds, int64_t rows) const {
  double latency_us = 0;
  for (const int to : to_kinds) {
    latency_us = std::max(latency_us, kinds_.Link(from_kind, to).latency_us);
  }
  return latency_us / 1e3 + TransferMs(from_kind, to_kinds, rows);
}

double CostModel::ReturnMs(int kind) const {
  const LinkProfile& link = kinds_.Link(kind, kCoordinator);
  return link.latency_us / 1e3 + SendMs(link, kResultBytes);
}

double CostModel::WorkerMs(int worker, const model::ShardSpec& spec) const {
  StageShape alone{.kinds = {kinds_.KindOf(worker)}, .slices = {}};
  if (spec.slice.has_value()) alone.slices = {*spec.slice};
  double ms = static_cast<double>(spec.head_rows.size()) * HeadMsPerRow(alone.kinds[0]);
  for (int64_t layer = spec.layers.begin; layer < spec.layers.end; ++layer) {
    ms += LayerMs(alone, layer);
  }
  return ms;
}

StageTimes CostModel::FirstHop(const StagePlan& first, int64_t rows, int embedding_worker) const {
  StageTimes times;
  std::vector<int> to_kinds;
  for (const StageMember& member : first.members) {
    if (member.worker != embedding_worker) to_kinds.push_back(kinds_.KindOf(member.worker));
  }
  int from = kCoordinator;
  if (embedding_worker != kCoordinator) {
    from = kinds_.KindOf(embedding_worker);
    const LinkProfile& link = kinds_.Link(kCoordinator, from);
    times.transfer = SendMs(link, kTokenBytes * static_cast<double>(rows));
    times.hop = link.latency_us / 1e3 + times.transfer;
  }
  if (to_kinds.empty()) return times;
  times.transfer = std::max(times.transfer, TransferMs(from, to_kinds, rows));
  times.hop += HopMs(from, to_kinds, rows);
  return times;
}

PlanTimes CostModel::Price(const std::vector<StagePlan>& stages, const std::vector<HeadPlan>& heads,
                           int64_t rows, int embedding_worker) const {
  PlanTimes times;
  times.coordinator = request_.coordinator_us / 1e3;
  int from = kCoordinator;
  for (const StagePlan& stage : stages) {
    StageShape shape;
    for (const StageMember& member : stage.members) {
      shape.kinds.push_back(kinds_.KindOf(member.worker));
      if (member.slice.has_value()) shape.slices.push_back(*member.slice);
    }
    StageTimes& stage_times = times.stages.emplace_back();
    if (from == kCoordinator) {
      stage_times = FirstHop(stage, rows, embedding_worker);
    } else {
      stage_times.hop = HopMs(from, shape.kinds, rows);
      stage_times.transfer = TransferMs(from, shape.kinds, rows);
    }
    times.slowest = std::max(times.slowest, stage_times.transfer);
    for (int64_t layer = stage.layers.begin; layer < stage.layers.end; ++layer) {
      const double compute = LayerMs(shape, layer, rows);
      stage_times.compute += compute;
      stage_times.sums += AddedSumsMs(compute, SumsMs(shape, rows), rows);
    }
    from = shape.kinds[0];
  }
  for (const HeadPlan& head : heads) {
    const int kind = kinds_.KindOf(head.worker);
    const std::vector<StageMember>& last = stages.back().members;
    const bool is_there = std::any_of(last.begin(), last.end(), [&](const StageMember& member) {
      return member.worker == head.worker;
    });
    const double way = is_there ? 0 : HopMs(from, {&kind, 1}, rows);
    const double block = static_cast<double>(head.rows.size()) * HeadMsPerRow(kind);
    if (is_there) times.head_on_last_stage = std::max(times.head_on_last_stage, block);
    times.head_compute = std::max(times.head_compute, block);
    times.head = std::max(times.head, way + block + ReturnMs(kind));
  }
  times.slowest = std::max(times.slowest, SlowestWorker(stages, heads, times, rows));
  return times;
}

// Each worker's stage and head block follow each other, step after step.
double CostModel::SlowestWorker(const std::vector<StagePlan>& stages,
                                const std::vector<HeadPlan>& heads, const PlanTimes& times,
                                int64_t rows) const {
  std::map<int, double> busy;
  for (size_t i = 0; i < stages.size(); ++i) {
    for (const StageMember& member : stages[i].members) {
      busy[member.worker] = times.stages[i].compute + times.stages[i].sums;
    }
  }
  for (const HeadPlan& head : heads) {
    busy[head.worker] +=
        static_cast<double>(head.rows.size()) * HeadMsPerRow(kinds_.KindOf(head.worker));
  }
  double slowest = 0;
  for (const auto& [worker, ms] : busy) slowest = std::max(slowest, ms);
  return slowest;
}

}  // namespace renga::partition
