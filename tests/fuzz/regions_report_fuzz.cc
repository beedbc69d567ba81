// Reports of `renga regions`: whatever comes is understood or refused, and what is understood names
// only what the model has.
#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "partition/expert_hits.h"
#include "partition/heat_order.h"
#include "tests/fuzz/fuzz_target.h"

namespace renga::fuzz {
namespace {

constexpr int64_t kVocabulary = 100;
constexpr int64_t kLayers = 2;
constexpr int64_t kNeurons = 4;

model::ModelConfig Mixture() {
  model::ModelConfig config;
  config.n_layers = kLayers;
  config.d_ff = kNeurons;
  config.n_experts = 8;
  config.n_experts_used = 2;
  return config;
}

void Examine(absl::string_view json) {
  if (const auto rows = partition::ParseHotRows(json, kVocabulary); rows.ok()) {
    for (const int32_t row : *rows) Require(row >= 0 && row < kVocabulary);
  }
  for (const int64_t percent : {0, 50, 100}) {
    const auto cold = partition::ParseColdNeurons(json, Mixture(), percent);
    if (!cold.ok()) continue;
    Require(static_cast<int64_t>(cold->size()) == kLayers * kNeurons * percent / 100);
    Require(std::is_sorted(cold->begin(), cold->end()));
    if (!cold->empty()) Require(cold->front() >= 0 && cold->back() < kLayers * kNeurons);
  }
  if (const auto hits = partition::ParseExpertHits(json, Mixture()); hits.ok()) {
    double before = 1;
    for (double held = 0; held <= 1; held += 0.125) {
      const double missed = partition::MissedChoices(&*hits, held);
      Require(missed >= 0 && missed <= before);
      before = missed;
    }
  }
}

}  // namespace

std::vector<std::string> Seeds() {
  return {R"({"vocabulary": 100, "hot_rows": [7, 99, 0], "neurons":
              {"by_heat": [[3, 1, 0, 2], [0, 1, 2, 3]]}})",
          R"({"experts": {"experts_per_layer": 8, "used_per_layer": 2, "layers": [{}, {}],
              "caches": [{"share": 0.125, "cached": 0.4}, {"share": 0.5, "cached": 0.9},
                         {"share": 1.0, "cached": 0.96}]}})"};
}

}  // namespace renga::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  renga::fuzz::Examine(absl::string_view(reinterpret_cast<const char*>(data), size));
  return 0;
}
