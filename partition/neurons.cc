#include "partition/neurons.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <span>

#include "base/status_macros.h"
#include "partition/neuron_groups.h"

namespace renga::partition {
namespace {

constexpr int64_t kSetPoints = 60;
constexpr int64_t kTwentieths = 20;  // shares are multiples of a twentieth
constexpr double kHotShare = 0.1;    // of Together

using Heat = std::vector<double>;  // by layer and neuron

Heat HeatOf(const NeuronText& text, bool second_too) {
  Heat heat(text.first_half.begin(), text.first_half.end());
  for (size_t i = 0; second_too && i < heat.size(); ++i) heat[i] += text.second_half[i];
  return heat;
}

// Texts count alike, whatever their lengths.
Heat HeatOfAll(const NeuronRecord& record, bool second_too) {
  Heat heat(static_cast<size_t>(record.layers * record.neurons), 0.0);
  for (const NeuronText& text : record.texts) {
    if (text.positions == 0) continue;
    const Heat own = HeatOf(text, second_too);
    for (size_t i = 0; i < heat.size(); ++i) {
      heat[i] += own[i] / static_cast<double>(text.positions);
    }
  }
  return heat;
}

// The layer's neurons, hottest first.
std::vector<int32_t> Order(const NeuronRecord& record, const Heat& heat, int64_t layer) {
  std::vector<int32_t> order(static_cast<size_t>(record.neurons));
  std::iota(order.begin(), order.end(), 0);
  const auto* const own = heat.data() + layer * record.neurons;
  std::stable_sort(order.begin(), order.end(),
                   [own](int32_t a, int32_t b) { return own[a] > own[b]; });
  return order;
}

// What the first neurons of `order` have of `weights`, for each twentieth of them more.
std::vector<double> SharesOf(std::span<const int32_t> order, const float* weights) {
  double all = 0;
  for (const int32_t n : order) all += weights[n];
  std::vector<double> shares;
  double sum = 0;
  size_t done = 0;
  for (int64_t step = 1; step <= kTwentieths; ++step) {
    for (; done < order.size() * static_cast<size_t>(step) / kTwentieths; ++done) {
      sum += weights[order[done]];
    }
    shares.push_back(all > 0 ? sum / all : 1);
  }
  return shares;
}

std::vector<NeuronCachePoint> MeasureCaches(const NeuronRecord& record) {
  const Heat all = HeatOfAll(record, /*second_too=*/false);
  std::vector<NeuronCachePoint> points(kTwentieths);
  double parts = 0;
  for (int64_t layer = 0; layer < record.layers; ++layer) {
    const std::vector<int32_t> hottest = Order(record, all, layer);
    for (const NeuronText& text : record.texts) {
      if (text.positions < 2) continue;
      const std::vector<int32_t> own = Order(record, HeatOf(text, false), layer);
      const float* const weights = text.second_half.data() + layer * record.neurons;
      const std::vector<double> of_all = SharesOf(hottest, weights);
      const std::vector<double> of_text = SharesOf(own, weights);
      parts += 1;
      for (size_t i = 0; i < points.size(); ++i) {
        points[i].hottest += of_all[i];
        points[i].of_text += of_text[i];
      }
    }
  }
  for (size_t i = 0; i < points.size(); ++i) {
    points[i].share = static_cast<double>(i + 1) / kTwentieths;
    points[i].hottest /= std::max(parts, 1.0);
    points[i].of_text /= std::max(parts, 1.0);
    points[i].strongest = record.strongest[i];
  }
  return points;
}

std::vector<NeuronSetPoint> WorkingSet(const NeuronRecord& record) {
  const auto positions = static_cast<int64_t>(record.distinct.size());
  const int64_t every = std::max<int64_t>(1, positions / kSetPoints);
  const auto all = static_cast<double>(record.layers * record.neurons);
  std::vector<NeuronSetPoint> points;
  for (int64_t i = 1; i <= positions; ++i) {
    if (i != 1 && i % every != 0 && i != positions) continue;
    points.push_back({i, static_cast<double>(record.distinct[static_cast<size_t>(i) - 1]) / all});
  }
  return points;
}

std::vector<double> Together(const NeuronRecord& record) {
  const auto hot =
      static_cast<size_t>(std::max(1.0, kHotShare * static_cast<double>(record.neurons)));
  std::vector<std::vector<bool>> sets;
  for (const NeuronText& text : record.texts) {
    const Heat heat = HeatOf(text, /*second_too=*/true);
    auto& set = sets.emplace_back(heat.size());
    for (int64_t layer = 0; layer < record.layers; ++layer) {
      const std::vector<int32_t> order = Order(record, heat, layer);
      for (size_t i = 0; i < hot; ++i) {
        set[static_cast<size_t>(layer * record.neurons + order[i])] = true;
      }
    }
  }
  std::vector<double> together;
  for (const auto& a : sets) {
    for (const auto& b : sets) {
      double both = 0;
      double either = 0;
      for (size_t i = 0; i < a.size(); ++i) {
        both += a[i] && b[i] ? 1 : 0;
        either += a[i] || b[i] ? 1 : 0;
      }
      together.push_back(both / std::max(either, 1.0));
    }
  }
  return together;
}

}  // namespace

absl::StatusOr<NeuronReport> StudyNeurons(const NeuronRecord& record, double wanted_share) {
  const auto usable = std::count_if(record.texts.begin(), record.texts.end(),
                                    [](const NeuronText& text) { return text.positions > 1; });
  if (usable < 2) {
    return absl::InvalidArgumentError("regions need at least two texts that are not empty");
  }
  NeuronReport report;
  report.layers = record.layers;
  report.neurons = record.neurons;
  report.active = record.active;
  report.wanted_share = wanted_share;
  for (const NeuronText& text : record.texts) report.texts.push_back(text.name);
  report.working_set = WorkingSet(record);
  report.caches = MeasureCaches(record);
  for (const NeuronCachePoint& point : report.caches) {
    if (point.hottest < wanted_share) continue;
    report.recommended_share = point.share;
    break;
  }
  report.together = Together(record);
  const Heat heat = HeatOfAll(record, /*second_too=*/true);
  for (int64_t layer = 0; layer < record.layers; ++layer) {
    report.by_heat.push_back(Order(record, heat, layer));
  }
  for (const ActiveNeurons& active : record.sampled) {
    report.groups.push_back(GroupNeurons(record, active));
  }
  return report;
}

}  // namespace renga::partition
