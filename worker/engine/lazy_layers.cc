#include "worker/engine/lazy_layers.h"

#include <algorithm>
#include <numeric>
#include <string>
#include <utility>

#include "base/status_macros.h"
#include "worker/engine/layer_stack.h"

namespace renga::engine {
namespace {

// Of the bundles' matrices, as the source has them.
struct SourceBytes {
  int64_t held = 0;  // the parts that are held
  int64_t read = 0;  // to have them: rows are read whole
};

absl::StatusOr<SourceBytes> CountBytes(const std::vector<Bundle>& bundles, WeightSource& source) {
  SourceBytes bytes;
  for (const Bundle& bundle : bundles) {
    for (const BundleMatrix& matrix : bundle.matrices) {
      RENGA_ASSIGN_OR_RETURN(const int64_t held, StoredBytes(matrix.tensor, matrix.part, source));
      model::TensorPart whole_rows = matrix.part;
      whole_rows.columns = {.begin = 0, .end = matrix.tensor.columns};
      RENGA_ASSIGN_OR_RETURN(const int64_t read, StoredBytes(matrix.tensor, whole_rows, source));
      bytes.held += held;
      bytes.read += read;
    }
  }
  return bytes;
}

std::vector<int64_t> RoomsOf(const std::vector<Bundle>& bundles) {
  std::vector<int64_t> rooms;
  for (const Bundle& bundle : bundles) rooms.push_back(bundle.RoomBytes());
  return rooms;
}

int64_t Sum(const std::vector<int64_t>& numbers) {
  return std::accumulate(numbers.begin(), numbers.end(), int64_t{0});
}

// Everything but the experts is pinned.
absl::Status AddCache(const model::ModelConfig& config, std::vector<Bundle> bundles,
                      int64_t available, kernels::Backend* backend, WeightSource* source,
                      LazyLayers& lazy) {
  const auto experts = std::stable_partition(bundles.begin(), bundles.end(),
                                             [](const Bundle& b) { return !b.is_expert; });
  std::vector<Bundle> moving(std::make_move_iterator(experts),
                             std::make_move_iterator(bundles.end()));
  bundles.erase(experts, bundles.end());
  const std::vector<int64_t> sizes = RoomsOf(moving);
  const std::vector<int64_t> others = RoomsOf(bundles);
  RENGA_ASSIGN_OR_RETURN(
      const model::ExpertPlaces places,
      model::PlanExpertPlaces(sizes, config.n_experts_used, Sum(others), available));
  RENGA_ASSIGN_OR_RETURN(const model::ResidencyPlan plan,
                         model::PlanResidency(others, Sum(others)));
  lazy.reserve_bytes += plan.memory_bytes() + places.memory_bytes();
  const double missing = 1 - static_cast<double>(places.count) / static_cast<double>(sizes.size());
  lazy.missed_bytes =
      static_cast<int64_t>(missing * config.ExpertShare() * static_cast<double>(Sum(sizes)));
  lazy.residency = std::make_unique<Residency>(std::move(bundles), plan, backend, source);
  lazy.experts =
      std::make_unique<ExpertCache>(std::move(moving), lazy.layers, places, backend, source);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<LazyLayers> PlanLazyLayers(const model::Model& model, const model::ShardSpec& spec,
                                          int64_t bytes, int64_t available,
                                          kernels::Backend* backend, WeightSource* source) {
  LazyLayers lazy;
  lazy.layers = spec.layers.size();
  RENGA_ASSIGN_OR_RETURN(std::vector<Bundle> bundles,
                         LayerStack::Bundles(model, spec, *backend, *source));
  RENGA_ASSIGN_OR_RETURN(const SourceBytes in_source, CountBytes(bundles, *source));
  lazy.load_bytes = in_source.read;
  lazy.reserve_bytes = bytes - in_source.held;
  const int64_t room = available - lazy.reserve_bytes;
  const std::vector<int64_t> sizes = RoomsOf(bundles);
  if (model.config.has_experts() && Sum(sizes) > room) {
    RENGA_RETURN_IF_ERROR(AddCache(model.config, std::move(bundles), room, backend, source, lazy));
    return lazy;
  }
  RENGA_ASSIGN_OR_RETURN(const model::ResidencyPlan plan, model::PlanResidency(sizes, room));
  lazy.reserve_bytes += plan.memory_bytes();
  lazy.residency = std::make_unique<Residency>(std::move(bundles), plan, backend, source);
  return lazy;
}

int64_t LazyLayers::UnpackedBytes() const {
  return residency->UnpackedBytes() + (experts != nullptr ? experts->UnpackedBytes() : 0);
}

absl::Status LazyLayers::Pack(WeightLoader& loader) {
  if (residency == nullptr) return absl::OkStatus();
  RENGA_RETURN_IF_ERROR(residency->PackStreamed(loader));
  return experts != nullptr ? experts->TryDisk(loader) : absl::OkStatus();
}

absl::Status LazyLayers::Start() {
  if (residency == nullptr) return absl::OkStatus();
  RENGA_RETURN_IF_ERROR(residency->Start());
  return experts != nullptr ? experts->Start() : absl::OkStatus();
}

ResidencyReport LazyLayers::report() const {
  if (residency == nullptr) return {};
  ResidencyReport report = residency->report();
  if (experts == nullptr) return report;
  const ExpertCache::Report of_experts = experts->report();
  report.streamed += missed_bytes;
  report.streamed_per_second = of_experts.read_per_second;
  report.cached_now = of_experts.held_bytes;
  const auto count = static_cast<size_t>(layers);
  const size_t others = report.places.size() / count;
  const size_t per_layer = of_experts.places.size() / count;
  std::string places;
  for (size_t layer = 0; layer < count; ++layer) {
    places += report.places.substr(layer * others, others);
    places += of_experts.places.substr(layer * per_layer, per_layer);
  }
  report.places = std::move(places);
  return report;
}

}  // namespace renga::engine
