#include "cli/status_json.h"

#include <string>

#include "absl/time/time.h"

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
      {"offered_bytes", worker.offer.memory_bytes},
      {"used_bytes", worker.heartbeat.memory_used_bytes},
      {"resident_bytes", worker.heartbeat.resident_bytes},
      {"heartbeat_age_s", absl::ToDoubleSeconds(worker.heartbeat_age)},
  };
  if (worker.worker_index.has_value()) {
    if (!worker.shard.layers.empty()) json["layers"] = ToJson(worker.shard.layers);
    if (!worker.shard.head_rows.empty()) json["head_rows"] = ToJson(worker.shard.head_rows);
    json["planned_bytes"] = worker.planned_bytes;
    json["fetched_bytes"] = worker.load.fetched;
    json["cached_bytes"] = worker.load.cached;
    json["predicted_ms_per_token"] = worker.predicted_ms;
    json["compute_ms_per_step"] =
        (worker.times.decode_layers_us + worker.times.decode_head_us) / 1000;
    json["queue_ms_per_step"] = worker.times.decode_queue_us / 1000;
  }
  return json;
}

}  // namespace

nlohmann::json ToJson(const cluster::ClusterStatus& status) {
  nlohmann::json json = {
      {"state", std::string(cluster::ClusterStateName(status.state))},
      {"message", status.sentence},
      {"epoch", status.epoch},
      {"model", status.model_name},
      {"model_id", status.model_id},
      {"stages", status.stage_count},
      {"predicted_ms_per_token", status.predicted_token_ms},
      {"round_trip_ms_per_step", status.times.decode_round_trip_us / 1000},
      {"network_ms_per_step", status.times.decode_network_us / 1000},
      {"steps", status.times.steps},
      {"plan", status.plan_text},
      {"warnings", status.warnings},
      {"workers", nlohmann::json::array()},
  };
  for (const cluster::WorkerStatus& worker : status.workers) {
    json["workers"].push_back(ToJson(worker));
  }
  return json;
}

}  // namespace renga::cli
