// Files that describe a cluster: whatever comes is understood or refused, and what is understood is
// a cluster that can be planned for.
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "partition/cluster_file.h"
#include "partition/known_models.h"
#include "partition/machine_kinds.h"
#include "partition/planner.h"
#include "tests/fuzz/fuzz_target.h"

namespace renga::fuzz {
namespace {

void Examine(absl::string_view json) {
  const auto cluster = partition::ParseCluster(json);
  if (!cluster.ok()) return;
  Require(!cluster->workers.empty() && cluster->workers.size() <= 256);
  static const auto& known = *new auto(partition::FindKnownModel("tinyllama-1.1b"));
  partition::PlanRequest request;
  request.links = cluster->links;
  Require(
      partition::CheckPlanInput(known->model, known->footprint, cluster->workers, request).ok());
  const partition::MachineKinds kinds(cluster->workers, cluster->links);
  Require(kinds.count() >= 1);
}

}  // namespace

std::vector<std::string> Seeds() {
  return {R"({"machines": [{"name": "attic", "device": "gtx-1050-ti", "count": 3},
              {"name": "desk", "memory": "12GiB", "gb_per_s": 30.5, "layer_us": 5,
               "prefill_gb_per_s": 300}], "network": "2.5gbe",
              "links": [{"between": ["coordinator", "desk"], "link": "wifi"},
              {"between": ["attic 1", "attic 3"],
               "link": {"latency_us": 1e2, "mb_per_s": 0.5}}]})",
          R"({"machines": [{"device": "raspberry-pi-5", "memory": "3GB", "count": 256}]})"};
}

}  // namespace renga::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  renga::fuzz::Examine(absl::string_view(reinterpret_cast<const char*>(data), size));
  return 0;
}
