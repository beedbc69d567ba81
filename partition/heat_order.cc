#include "partition/heat_order.h"

#include <algorithm>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"

namespace renga::partition {
namespace {

nlohmann::json ParseReport(absl::string_view report) {
  return nlohmann::json::parse(report.begin(), report.end(), nullptr, /*allow_exceptions=*/false);
}

absl::Status NoReport(absl::string_view what) {
  return absl::InvalidArgumentError(
      absl::StrCat("no report of `renga regions`", what, ": run it on this model first"));
}

}  // namespace

absl::StatusOr<std::vector<int32_t>> ParseHotRows(absl::string_view report, int64_t vocab_size) {
  const nlohmann::json parsed = ParseReport(report);
  if (!parsed.is_object() || !parsed.contains("vocabulary") || !parsed.contains("hot_rows") ||
      !parsed["vocabulary"].is_number_integer() || !parsed["hot_rows"].is_array()) {
    return NoReport("");
  }
  if (parsed["vocabulary"].get<int64_t>() != vocab_size) return NoReport(" on this model");
  std::vector<int32_t> rows;
  for (const nlohmann::json& row : parsed["hot_rows"]) {
    if (!row.is_number_integer()) return NoReport("");
    const auto id = row.get<int64_t>();
    if (id < 0 || id >= vocab_size) return NoReport(" on this model");
    rows.push_back(static_cast<int32_t>(id));
  }
  return rows;
}

absl::StatusOr<model::NeuronSet> ParseColdNeurons(absl::string_view report,
                                                  const model::ModelConfig& config,
                                                  int64_t percent) {
  const absl::Status wrong = NoReport(" on the neurons of this model");
  const nlohmann::json parsed = ParseReport(report);
  const auto field = [](const nlohmann::json& object, const char* key) {
    return object.is_object() ? object.value(key, nlohmann::json()) : nlohmann::json();
  };
  const nlohmann::json layers = field(field(parsed, "neurons"), "by_heat");
  if (!layers.is_array() || static_cast<int64_t>(layers.size()) != config.n_layers) return wrong;
  const int64_t count = config.d_ff * percent / 100;
  model::NeuronSet cold;
  for (size_t layer = 0; layer < layers.size(); ++layer) {
    const nlohmann::json& order = layers[layer];
    if (!order.is_array() || static_cast<int64_t>(order.size()) != config.d_ff) return wrong;
    for (int64_t i = config.d_ff - count; i < config.d_ff; ++i) {
      const nlohmann::json& neuron = order[static_cast<size_t>(i)];
      if (!neuron.is_number_integer()) return wrong;
      const auto number = neuron.get<int64_t>();
      if (number < 0 || number >= config.d_ff) return wrong;
      cold.push_back(static_cast<int32_t>(static_cast<int64_t>(layer) * config.d_ff + number));
    }
  }
  std::sort(cold.begin(), cold.end());
  if (std::adjacent_find(cold.begin(), cold.end()) != cold.end()) return wrong;
  return cold;
}

}  // namespace renga::partition
