#include "coordinator/cluster/last_placement.h"

#include <algorithm>
#include <cstdint>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "nlohmann/json.hpp"

namespace renga::cluster {
namespace {

using Json = nlohmann::json;

// A probe of a fraction of a second on a busy machine has been seen to be off by three; there are
// busier ones.
constexpr double kSameMachine = 8.0;
// What measurements of an idle machine differ by is less.
constexpr double kOtherSpeed = 1.15;
constexpr int64_t kMaxFileBytes = int64_t{1} << 20;

Json ToJson(const model::Range& range) { return {range.begin, range.end}; }

bool ReadRange(const Json& json, model::Range& range) {
  if (!json.is_array() || json.size() != 2 || !json[0].is_number_integer() ||
      !json[1].is_number_integer()) {
    return false;
  }
  range = {json[0].get<int64_t>(), json[1].get<int64_t>()};
  return range.begin >= 0 && range.begin <= range.end;
}

Json ToJson(const std::vector<KernelSpeed>& kernels) {
  Json json = Json::array();
  for (const KernelSpeed& kernel : kernels) {
    json.push_back({{"type", base::GetDataTypeInfo(kernel.type).name},
                    {"decode", kernel.decode_bytes_per_second},
                    {"prefill", kernel.prefill_bytes_per_second}});
  }
  return json;
}

bool ReadKernels(const Json& json, std::vector<KernelSpeed>& kernels) {
  if (!json.is_array()) return false;
  for (const Json& entry : json) {
    if (!entry.is_object() || !entry.contains("type") || !entry["type"].is_string() ||
        !entry.contains("decode") || !entry["decode"].is_number() || !entry.contains("prefill") ||
        !entry["prefill"].is_number()) {
      return false;
    }
    const auto type = base::DataTypeFromName(entry["type"].get<std::string>());
    const KernelSpeed kernel = {.type = type.value_or(base::DataType::kInvalid),
                                .decode_bytes_per_second = entry["decode"].get<double>(),
                                .prefill_bytes_per_second = entry["prefill"].get<double>()};
    if (!type.has_value() || kernel.decode_bytes_per_second <= 0) return false;
    kernels.push_back(kernel);
  }
  return true;
}

bool ReadShard(const Json& json, LastShard& shard) {
  if (!json.is_object()) return false;
  for (const char* key : {"id", "name", "layers", "head_rows", "weight_bytes_per_second"}) {
    if (!json.contains(key)) return false;
  }
  if (!json["id"].is_string() || !json["name"].is_string() ||
      !json["weight_bytes_per_second"].is_number()) {
    return false;
  }
  for (const auto& [key, value] : {std::pair{"disk_bytes_per_second", &shard.disk_bytes_per_second},
                                   std::pair{"layer_us", &shard.layer_us}}) {
    if (!json.contains(key)) continue;  // written by an earlier version
    if (!json[key].is_number() || json[key].get<double>() < 0) return false;
    *value = json[key].get<double>();
  }
  if (json.contains("replica")) {
    if (!json["replica"].is_number_integer()) return false;
    shard.replica = json["replica"].get<int64_t>();
  }
  if (json.contains("kernels") && !ReadKernels(json["kernels"], shard.kernels)) return false;
  shard.worker_id = json["id"].get<std::string>();
  shard.worker_name = json["name"].get<std::string>();
  shard.weight_bytes_per_second = json["weight_bytes_per_second"].get<double>();
  if (json.contains("heads") != json.contains("ff")) return false;
  if (json.contains("heads")) {
    model::LayerSlice& slice = shard.spec.slice.emplace();
    if (!ReadRange(json["heads"], slice.heads) || !ReadRange(json["ff"], slice.ff)) return false;
  }
  return ReadRange(json["layers"], shard.spec.layers) &&
         ReadRange(json["head_rows"], shard.spec.head_rows);
}

// A figure that one side lacks says nothing.
bool Differ(double a, double b) {
  return a > 0 && b > 0 && (a > b * kOtherSpeed || b > a * kOtherSpeed);
}

bool Differ(const MeasuredSpeed& speed, const LastShard& shard) {
  if (Differ(speed.kernels[0].decode_bytes_per_second, shard.weight_bytes_per_second) ||
      Differ(speed.disk_bytes_per_second, shard.disk_bytes_per_second) ||
      Differ(speed.layer_us, shard.layer_us)) {
    return true;
  }
  return std::any_of(speed.kernels.begin(), speed.kernels.end(), [&](const KernelSpeed& kernel) {
    const auto known =
        std::find_if(shard.kernels.begin(), shard.kernels.end(),
                     [&](const KernelSpeed& other) { return other.type == kernel.type; });
    return known != shard.kernels.end() &&
           (Differ(kernel.decode_bytes_per_second, known->decode_bytes_per_second) ||
            Differ(kernel.prefill_bytes_per_second, known->prefill_bytes_per_second));
  });
}

}  // namespace

const LastShard* FindLastShard(const LastPlacement& last, const Member& member,
                               const std::vector<Member>& members) {
  for (const LastShard& shard : last) {
    if (shard.worker_id == member.id) return &shard;
  }
  const auto is_here = [&](const LastShard& shard) {
    return std::any_of(members.begin(), members.end(),
                       [&](const Member& other) { return other.id == shard.worker_id; });
  };
  for (const LastShard& shard : last) {
    if (shard.worker_name == member.name && !is_here(shard)) return &shard;
  }
  return nullptr;
}

bool TakeConfirmedSpeeds(const std::vector<Member>& members, LastPlacement& last) {
  bool changed = false;
  for (const Member& member : members) {
    const std::optional<MeasuredSpeed>& speed = member.last_heartbeat.speed;
    if (!member.alive || !speed.has_value() || !speed->confirmed) continue;
    for (LastShard& shard : last) {
      if (&shard != FindLastShard(last, member, members) || !Differ(*speed, shard)) continue;
      shard.weight_bytes_per_second = speed->kernels[0].decode_bytes_per_second;
      shard.kernels = speed->kernels;
      if (speed->layer_us > 0) shard.layer_us = speed->layer_us;
      if (speed->disk_bytes_per_second > 0) {
        shard.disk_bytes_per_second = speed->disk_bytes_per_second;
      }
      changed = true;
    }
  }
  return changed;
}

std::vector<Member> WithSettledSpeeds(std::vector<Member> members, const LastPlacement& last) {
  for (Member& member : members) {
    const LastShard* shard = FindLastShard(last, member, members);
    if (shard == nullptr) continue;
    double& speed = member.offer.weight_bytes_per_second;
    const double before = shard->weight_bytes_per_second;
    if (speed > before * kSameMachine || before > speed * kSameMachine) continue;
    speed = before;
    member.offer.kernels = shard->kernels;
    if (shard->disk_bytes_per_second > 0) {
      member.offer.disk_bytes_per_second = shard->disk_bytes_per_second;
    }
    if (shard->layer_us > 0) member.offer.layer_us = shard->layer_us;
  }
  return members;
}

absl::StatusOr<LastPlacement> ReadLastPlacement(const std::string& path) {
  RENGA_ASSIGN_OR_RETURN(const std::string text, base::ReadFile(path, kMaxFileBytes));
  const Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  const auto damaged =
      absl::DataLossError(absl::StrCat(path, " is no placement: the next plan starts without it"));
  if (!json.is_array()) return damaged;
  LastPlacement last;
  for (const Json& entry : json) {
    if (!ReadShard(entry, last.emplace_back())) return damaged;
  }
  return last;
}

absl::Status WriteLastPlacement(const std::string& path, const LastPlacement& last) {
  Json json = Json::array();
  for (const LastShard& shard : last) {
    Json& entry = json.emplace_back();
    entry = {{"id", shard.worker_id},
             {"name", shard.worker_name},
             {"layers", ToJson(shard.spec.layers)},
             {"head_rows", ToJson(shard.spec.head_rows)},
             {"weight_bytes_per_second", shard.weight_bytes_per_second},
             {"disk_bytes_per_second", shard.disk_bytes_per_second},
             {"layer_us", shard.layer_us},
             {"kernels", ToJson(shard.kernels)},
             {"replica", shard.replica}};
    if (shard.spec.slice.has_value()) {
      entry["heads"] = ToJson(shard.spec.slice->heads);
      entry["ff"] = ToJson(shard.spec.slice->ff);
    }
  }
  // Names come from peers: what is no UTF-8 in them is replaced, not thrown at us.
  return base::WriteFileAtomically(path,
                                   json.dump(1, ' ', false, Json::error_handler_t::replace) + "\n");
}

}  // namespace renga::cluster
