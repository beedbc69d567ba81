#include "partition/cluster_file.h"

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <optional>
#include <string>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/byte_size.h"
#include "base/status_macros.h"
#include "nlohmann/json.hpp"
#include "partition/device_library.h"

namespace renga::partition {
namespace {

using Json = nlohmann::json;

constexpr size_t kMaxMachines = 256;
constexpr size_t kMaxLinks = 4096;
constexpr double kMaxNumber = 1e9;
constexpr std::initializer_list<absl::string_view> kSpeedKeys = {
    "device", "memory", "gb_per_s", "prefill_gb_per_s", "disk_gb_per_s", "layer_us"};
constexpr std::initializer_list<absl::string_view> kMachineKeys = {
    "name",          "count",   "host", "device", "memory", "gb_per_s", "prefill_gb_per_s",
    "disk_gb_per_s", "layer_us"};

absl::Status Wrong(absl::string_view where, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("the cluster file: ", where, " ", what));
}

// A misspelt key would be a setting that silently does nothing.
absl::Status CheckKeys(const Json& json, std::initializer_list<absl::string_view> known,
                       absl::string_view where) {
  for (const auto& item : json.items()) {
    if (std::find(known.begin(), known.end(), item.key()) != known.end()) continue;
    return Wrong(where,
                 absl::StrCat("has \"", item.key().substr(0, 40), "\", which means nothing; ",
                              "known there: ", absl::StrJoin(known, ", ")));
  }
  return absl::OkStatus();
}

// A finite number above 0, or `otherwise` when the key is not there.
absl::StatusOr<double> Number(const Json& json, const char* key, double otherwise,
                              absl::string_view where) {
  const auto found = json.find(key);
  if (found == json.end()) return otherwise;
  const double value = found->is_number() ? found->get<double>() : -1;
  if (!(value > 0 && value <= kMaxNumber)) {
    return Wrong(where, absl::StrCat("needs a positive number as \"", key, "\""));
  }
  return value;
}

absl::StatusOr<std::string> Text(const Json& json, const char* key, absl::string_view where) {
  const auto found = json.find(key);
  if (found == json.end() || !found->is_string() || found->get<std::string>().size() > 200) {
    return Wrong(where, absl::StrCat("needs a short text as \"", key, "\""));
  }
  return found->get<std::string>();
}

absl::StatusOr<LinkProfile> ReadLink(const Json& json, absl::string_view where) {
  if (json.is_string()) return FindLink(json.get<std::string>());
  if (!json.is_object()) {
    return Wrong(where, "is neither a link's name nor {\"latency_us\": ..., \"mb_per_s\": ...}");
  }
  RENGA_RETURN_IF_ERROR(CheckKeys(json, {"latency_us", "mb_per_s"}, where));
  LinkProfile link;
  RENGA_ASSIGN_OR_RETURN(link.latency_us, Number(json, "latency_us", 0, where));
  RENGA_ASSIGN_OR_RETURN(const double mb_per_s, Number(json, "mb_per_s", 0, where));
  link.bytes_per_second = mb_per_s * 1e6;
  return link;
}

absl::StatusOr<WorkerProfile> ReadMachine(const Json& json, absl::string_view where) {
  WorkerProfile worker;
  if (json.contains("device")) {
    RENGA_ASSIGN_OR_RETURN(const std::string device, Text(json, "device", where));
    RENGA_ASSIGN_OR_RETURN(worker, FindDevice(device));
  } else if (!json.contains("memory") || !json.contains("gb_per_s")) {
    return Wrong(where, "needs a \"device\", or \"memory\" and \"gb_per_s\"");
  }
  if (json.contains("memory")) {
    RENGA_ASSIGN_OR_RETURN(const std::string memory, Text(json, "memory", where));
    RENGA_ASSIGN_OR_RETURN(worker.memory_bytes, base::ParseByteSize(memory));
  }
  const bool has_speed = json.contains("gb_per_s");
  RENGA_ASSIGN_OR_RETURN(const double gb_per_s, Number(json, "gb_per_s", 0, where));
  if (has_speed) {
    worker.bytes_per_second = gb_per_s * 1e9;
    worker.prefill_bytes_per_second = 0;  // a device's own does not belong to another speed
  }
  RENGA_ASSIGN_OR_RETURN(
      const double prefill,
      Number(json, "prefill_gb_per_s", worker.prefill_bytes_per_second / 1e9, where));
  worker.prefill_bytes_per_second = prefill * 1e9;
  RENGA_ASSIGN_OR_RETURN(const double disk, Number(json, "disk_gb_per_s", 0, where));
  worker.disk_bytes_per_second = disk * 1e9;
  RENGA_ASSIGN_OR_RETURN(worker.layer_us, Number(json, "layer_us", worker.layer_us, where));
  return worker;
}

// The memory beside a machine's card.
absl::StatusOr<WorkerProfile> ReadHost(const Json& json, absl::string_view machine) {
  const std::string where = absl::StrCat("the host of ", machine);
  if (!json.is_object()) return Wrong(where, "is no object");
  RENGA_RETURN_IF_ERROR(CheckKeys(json, kSpeedKeys, where));
  RENGA_ASSIGN_OR_RETURN(WorkerProfile host, ReadMachine(json, where));
  host.spare = true;
  return host;
}

// A card and the memory beside it.
absl::Status JoinLastTwo(Cluster& cluster) {
  RENGA_ASSIGN_OR_RETURN(const LinkProfile link, FindLink("same-machine"));
  const int last = static_cast<int>(cluster.workers.size()) - 1;
  cluster.links.pairs.push_back({last - 1, last, link});
  cluster.links.pairs.push_back({last, last - 1, link});
  return absl::OkStatus();
}

absl::Status AddMachines(const Json& json, size_t number, Cluster& cluster) {
  const std::string where = absl::StrCat("machine ", number);
  if (!json.is_object()) return Wrong(where, "is no object");
  RENGA_RETURN_IF_ERROR(CheckKeys(json, kMachineKeys, where));
  RENGA_ASSIGN_OR_RETURN(WorkerProfile worker, ReadMachine(json, where));
  std::string name = worker.id.empty() ? where : worker.id;
  if (json.contains("name")) {
    RENGA_ASSIGN_OR_RETURN(name, Text(json, "name", where));
  }
  RENGA_ASSIGN_OR_RETURN(const double count, Number(json, "count", 1, where));
  const size_t workers_each = json.contains("host") ? 2 : 1;
  if (count != std::floor(count) || count > kMaxMachines ||
      cluster.workers.size() + static_cast<size_t>(count) * workers_each > kMaxMachines) {
    return Wrong(where,
                 absl::StrCat("has a \"count\" that is no whole number, or makes it more than ",
                              kMaxMachines, " machines"));
  }
  std::optional<WorkerProfile> host;
  if (json.contains("host")) {
    RENGA_ASSIGN_OR_RETURN(host, ReadHost(json["host"], where));
  }
  for (int i = 1; i <= static_cast<int>(count); ++i) {
    worker.id = count > 1 ? absl::StrCat(name, " ", i) : name;
    if (host.has_value()) worker.machine = worker.id;
    cluster.workers.push_back(worker);
    if (!host.has_value()) continue;
    host->id = absl::StrCat(worker.id, " host");
    host->machine = worker.machine;
    cluster.workers.push_back(*host);
    RENGA_RETURN_IF_ERROR(JoinLastTwo(cluster));
  }
  return absl::OkStatus();
}

using Names = absl::flat_hash_map<std::string, int>;

absl::StatusOr<Names> NamesOf(const std::vector<WorkerProfile>& workers) {
  Names names = {{"coordinator", kCoordinator}};
  for (size_t i = 0; i < workers.size(); ++i) {
    if (!names.emplace(workers[i].id, static_cast<int>(i)).second) {
      return Wrong("two machines",
                   absl::StrCat("are called '", workers[i].id,
                                "': give them a \"name\" each, or one a \"count\""));
    }
  }
  return names;
}

absl::Status AddLink(const Json& json, const Names& names, size_t number, LinkTable& links) {
  const std::string where = absl::StrCat("link ", number);
  if (json.is_object()) RENGA_RETURN_IF_ERROR(CheckKeys(json, {"between", "link"}, where));
  if (!json.is_object() || !json.contains("link") || !json.contains("between") ||
      !json["between"].is_array() || json["between"].size() != 2) {
    return Wrong(where, "is not {\"between\": [machine, machine], \"link\": ...}");
  }
  int ends[2] = {0, 0};
  for (int i = 0; i < 2; ++i) {
    const Json& end = json["between"][i];
    const auto found = end.is_string() ? names.find(end.get<std::string>()) : names.end();
    if (found == names.end())
      return Wrong(where, "is between machines that the file does not name");
    ends[i] = found->second;
  }
  RENGA_ASSIGN_OR_RETURN(const LinkProfile link, ReadLink(json["link"], where));
  links.pairs.push_back({ends[0], ends[1], link});
  links.pairs.push_back({ends[1], ends[0], link});
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Cluster> ParseCluster(absl::string_view text) {
  if (text.size() > kMaxClusterFileBytes) {
    return absl::InvalidArgumentError("the cluster file is larger than 1 MiB");
  }
  const Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object() || !json.contains("machines") || !json["machines"].is_array() ||
      json["machines"].empty() || json["machines"].size() > kMaxMachines) {
    return Wrong("it", "is no JSON object with a list of 1 to 256 \"machines\"");
  }
  RENGA_RETURN_IF_ERROR(CheckKeys(json, {"machines", "network", "links"}, "it"));
  Cluster cluster;
  size_t number = 0;
  for (const Json& machine : json["machines"]) {
    RENGA_RETURN_IF_ERROR(AddMachines(machine, ++number, cluster));
  }
  RENGA_ASSIGN_OR_RETURN(const Names names, NamesOf(cluster.workers));
  if (json.contains("network")) {
    RENGA_ASSIGN_OR_RETURN(cluster.links.default_link, ReadLink(json["network"], "\"network\""));
  }
  if (!json.contains("links")) return cluster;
  if (!json["links"].is_array() || json["links"].size() > kMaxLinks) {
    return Wrong("\"links\"", "is no list of at most 4096");
  }
  number = 0;
  for (const Json& link : json["links"]) {
    RENGA_RETURN_IF_ERROR(AddLink(link, names, ++number, cluster.links));
  }
  return cluster;
}

}  // namespace renga::partition
