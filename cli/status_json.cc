#include "cli/status_json.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/time/time.h"
#include "base/data_type.h"

namespace renga::cli {
namespace {

nlohmann::json ToJson(const model::Range& range) {
  return nlohmann::json::array({range.begin, range.end});
}

nlohmann::json ToJson(const cluster::WorkerStatus& worker) {
  nlohmann::json json = {
      {"name", worker.name},
      {"id", worker.id},
      {"address", worker.address},
      {"state", std::string(cluster::WorkerStateName(worker.state))},
      {"in_state_s", absl::ToDoubleSeconds(worker.in_state)},
      {"detail", worker.detail},
      {"path", worker.offer.device_path},
      {"device", worker.offer.device_name},
      {"machine", worker.offer.machine},
      {"card", worker.offer.card},
      {"spare", worker.offer.spare},
      {"offered_bytes", worker.offer.memory_bytes},
      {"used_bytes", worker.heartbeat.memory_used_bytes},
      {"resident_bytes", worker.heartbeat.resident_bytes},
      {"pinned_weight_bytes", worker.heartbeat.pinned_weight_bytes},
      {"pinned_now_bytes", worker.heartbeat.pinned_now_bytes},
      {"streamed_weight_bytes", worker.heartbeat.streamed_weight_bytes},
      {"streamed_bytes_per_second", worker.heartbeat.streamed_bytes_per_second},
      {"left_out", worker.heartbeat.left_out},
      {"weight_bytes_to_come", worker.heartbeat.weight_bytes_to_come},
      {"weight_places", worker.heartbeat.weight_places},
      {"trouble", worker.heartbeat.trouble},
      {"heartbeat_age_s", absl::ToDoubleSeconds(worker.heartbeat_age)},
  };
  for (const cluster::KernelSpeed& kernel : worker.offer.kernels) {
    json["kernels"].push_back({{"type", std::string(base::GetDataTypeInfo(kernel.type).name)},
                               {"decode_bytes_per_second", kernel.decode_bytes_per_second},
                               {"prefill_bytes_per_second", kernel.prefill_bytes_per_second}});
  }
  json["weight_bytes_per_second"] = worker.offer.weight_bytes_per_second;
  json["copy_bytes_per_second"] = worker.offer.copy_bytes_per_second;
  json["disk_bytes_per_second"] = worker.offer.disk_bytes_per_second;
  json["layer_us"] = worker.offer.layer_us;
  if (worker.speed_age.has_value()) json["speed_age_s"] = absl::ToDoubleSeconds(*worker.speed_age);
  if (worker.worker_index.has_value()) {
    json["replica"] = *worker.replica + 1;
    if (!worker.shard.layers.empty()) json["layers"] = ToJson(worker.shard.layers);
    if (!worker.shard.head_rows.empty()) json["head_rows"] = ToJson(worker.shard.head_rows);
    if (worker.shard.embedding) json["embedding"] = true;
    json["planned_bytes"] = worker.planned_bytes;
    json["planned_weight_bytes_per_second"] = worker.planned_weight_bytes_per_second;
    if (worker.expected_missed_bytes) json["expected_missed_bytes"] = *worker.expected_missed_bytes;
    json["fetched_bytes"] = worker.load.fetched;
    json["cached_bytes"] = worker.load.cached;
    json["predicted_ms_per_token"] = worker.predicted_ms;
    json["compute_ms_per_step"] =
        (worker.times.decode_layers_us + worker.times.decode_head_us) / 1000;
    json["exchange_ms_per_step"] = worker.times.decode_exchange_us / 1000;
    json["queue_ms_per_step"] = worker.times.decode_queue_us / 1000;
  }
  return json;
}

nlohmann::json ToJson(const cluster::LinkProfile& link) {
  nlohmann::json json = {{"from", link.from},
                         {"to", link.to},
                         {"bytes_per_second", link.bytes_per_second},
                         {"measured_at_s", link.measured_at_s},
                         {"times", nlohmann::json::array()}};
  for (const cluster::LinkTime& time : link.times) {
    json["times"].push_back({{"bytes", time.payload_bytes},
                             {"rtt_p50_us", time.rtt_p50_us},
                             {"rtt_p99_us", time.rtt_p99_us}});
  }
  return json;
}

nlohmann::json ToJson(const cluster::Comparison& comparison) {
  return {{"predicted_ms", comparison.predicted_ms}, {"measured_ms", comparison.measured_ms}};
}

// Where a token's time was predicted to go, and where it goes.
nlohmann::json StagesJson(const cluster::ClusterStatus& status, size_t index) {
  nlohmann::json stages = nlohmann::json::array();
  for (const cluster::StageStatus& stage : status.replicas[index].stages) {
    nlohmann::json names = nlohmann::json::array();
    for (const cluster::WorkerStatus& worker : status.workers) {
      const bool member =
          worker.replica == index && std::find(stage.workers.begin(), stage.workers.end(),
                                               *worker.worker_index) != stage.workers.end();
      if (member) names.push_back(worker.name);
    }
    stages.push_back({{"workers", std::move(names)},
                      {"layers", ToJson(stage.layers)},
                      {"hop", ToJson(stage.hop)},
                      {"compute", ToJson(stage.compute)}});
  }
  return stages;
}

nlohmann::json ReplicaJson(const cluster::ClusterStatus& status, size_t index) {
  const cluster::ReplicaStatus& replica = status.replicas[index];
  return {{"stages", replica.stages.size()},
          {"wire", std::string(base::GetDataTypeInfo(replica.limits.wire_type).name)},
          {"predicted_ms_per_token", replica.predicted_token_ms},
          {"round_trip_ms_per_step", replica.times.decode_round_trip_us / 1000},
          {"network_ms_per_step", replica.times.decode_network_us / 1000},
          {"steps", replica.times.steps},
          {"stage_times", StagesJson(status, index)},
          {"head", ToJson(replica.head)},
          {"answer_hop", ToJson(replica.answer_hop)}};
}

}  // namespace

nlohmann::json ToJson(const cluster::ClusterStatus& status) {
  nlohmann::json json = {
      {"state", std::string(cluster::ClusterStateName(status.state))},
      {"message", status.sentence},
      {"epoch", status.epoch},
      {"model", status.model_name},
      {"model_id", status.model_id},
      {"plan", status.plan_text},
      {"warnings", status.warnings},
      {"replicas", nlohmann::json::array()},
      {"workers", nlohmann::json::array()},
      {"links", nlohmann::json::array()},
  };
  for (size_t i = 0; i < status.replicas.size(); ++i) {
    json["replicas"].push_back(ReplicaJson(status, i));
    json["replicas"].back()["state"] = cluster::ClusterStateName(status.replicas[i].state);
    json["replicas"].back()["epoch"] = status.replicas[i].epoch;
  }
  // Those of the first stand beside the cluster's own, for readers who know of one pipeline.
  if (!status.replicas.empty()) json.update(ReplicaJson(status, 0));
  for (const cluster::WorkerStatus& worker : status.workers) {
    json["workers"].push_back(ToJson(worker));
  }
  for (const cluster::LinkProfile& link : status.links) json["links"].push_back(ToJson(link));
  return json;
}

nlohmann::json SpeculationJson(const serving::ServingStats& stats) {
  return {{"drafted_tokens", stats.drafted_tokens},
          {"accepted_tokens", stats.accepted_tokens},
          {"saved_steps", stats.saved_steps},
          {"skipped_steps", stats.skipped_steps}};
}

}  // namespace renga::cli
