#include "partition/expert_hits.h"

#include <algorithm>
#include <cstdint>
#include <optional>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"

namespace renga::partition {
namespace {

using nlohmann::json;

// `renga regions` writes twenty.
constexpr size_t kMostPoints = 1000;

const json& FieldOf(const json& object, const char* key) {
  static const json* const kNone = new json();
  if (!object.is_object()) return *kNone;
  const auto found = object.find(key);
  return found == object.end() ? *kNone : *found;
}

bool IsNumber(const json& value, int64_t wanted) {
  return value.is_number_integer() && value.get<int64_t>() == wanted;
}

// A number from 0 to 1.
std::optional<double> ShareOf(const json& value) {
  if (!value.is_number()) return std::nullopt;
  const auto share = value.get<double>();
  return share >= 0 && share <= 1 ? std::optional(share) : std::nullopt;
}

}  // namespace

absl::StatusOr<ExpertHits> ParseExpertHits(absl::string_view report,
                                           const model::ModelConfig& config) {
  const json parsed =
      json::parse(report.begin(), report.end(), nullptr, /*allow_exceptions=*/false);
  const json& experts = FieldOf(parsed, "experts");
  const auto wrong = [](absl::string_view what) {
    return absl::InvalidArgumentError(
        absl::StrCat("no report of `renga regions` on ", what, ": run it on this model first"));
  };
  const json& layers = FieldOf(experts, "layers");
  const json& caches = FieldOf(experts, "caches");
  if (!layers.is_array() || !caches.is_array()) return wrong("a mixture's experts");
  if (!IsNumber(FieldOf(experts, "experts_per_layer"), config.n_experts) ||
      !IsNumber(FieldOf(experts, "used_per_layer"), config.n_experts_used) ||
      static_cast<int64_t>(layers.size()) != config.n_layers) {
    return wrong(absl::StrCat("a mixture of ", config.n_layers, " layers of ", config.n_experts,
                              " experts, ", config.n_experts_used, " used"));
  }
  ExpertHits hits;
  if (caches.empty() || caches.size() > kMostPoints) return wrong("how often experts are there");
  for (const json& cache : caches) {
    const std::optional<double> share = ShareOf(FieldOf(cache, "share"));
    const std::optional<double> there = ShareOf(FieldOf(cache, "cached"));
    const double before = hits.points.empty() ? 0 : hits.points.back().share;
    if (!share || !there || *share <= before) return wrong("how often experts are there");
    // Of more experts never fewer are there; short texts may say so by chance.
    const double least = hits.points.empty() ? 0 : hits.points.back().hits;
    hits.points.push_back({.share = *share, .hits = std::max(*there, least)});
  }
  return hits;
}

double MissedChoices(const ExpertHits* measured, double held) {
  held = std::clamp(held, 0.0, 1.0);
  if (measured == nullptr) return 1 - held;
  // What texts of any length miss because they have just begun is not read for ever.
  if (held == 1) return 0;
  ExpertHits::Point before{.share = 0, .hits = 0};
  ExpertHits::Point after{.share = 1, .hits = 1};
  for (const ExpertHits::Point& point : measured->points) {
    if (point.share >= held) {
      after = point;
      break;
    }
    before = point;
  }
  const double part = (held - before.share) / (after.share - before.share);
  return 1 - (before.hits + part * (after.hits - before.hits));
}

}  // namespace renga::partition
