#include "partition/expert_usage.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "partition/expert_caches.h"

namespace renga::partition {
namespace {

constexpr uint16_t kNoExpert = 0xffff;
constexpr int64_t kExpertSetPoints = 60;
constexpr int64_t kSampledExpertLayers = 3;
constexpr size_t kExpertPairs = 12;

absl::Status CheckRecord(const ExpertRecord& record) {
  int64_t usable = 0;
  for (const ExpertText& text : record.texts) {
    const auto choices = static_cast<size_t>(text.positions * record.layers * record.used);
    if (text.chosen.size() != choices ||
        std::any_of(text.chosen.begin(), text.chosen.end(),
                    [&](uint16_t expert) { return expert >= record.experts; })) {
      return absl::InvalidArgumentError(
          absl::StrCat("not all choices of experts of ", text.name, " were recorded"));
    }
    usable += text.positions > 1 ? 1 : 0;
  }
  if (usable >= 2) return absl::OkStatus();
  return absl::InvalidArgumentError("regions need at least two texts that are not empty");
}

// The fewest numbers that add up to `share` of all; `falling` are the largest first.
int64_t Fewest(const std::vector<int64_t>& falling, double share) {
  const auto all = static_cast<double>(std::accumulate(falling.begin(), falling.end(), int64_t{0}));
  int64_t sum = 0;
  int64_t count = 0;
  while (static_cast<double>(sum) < share * all) sum += falling[static_cast<size_t>(count++)];
  return count;
}

std::vector<int64_t> Falling(std::vector<int64_t> uses) {
  std::sort(uses.begin(), uses.end(), std::greater<>());
  return uses;
}

// The part of layers x experts numbers that is one layer's.
std::vector<int64_t> OfLayer(const std::vector<int64_t>& uses, int64_t layer, int64_t experts) {
  const auto begin = uses.begin() + layer * experts;
  return {begin, begin + experts};
}

// By layer, how many choices the token before made too.
std::vector<int64_t> CountAgain(const ExpertRecord& record) {
  std::vector<int64_t> again(static_cast<size_t>(record.layers));
  for (const ExpertText& text : record.texts) {
    for (int64_t i = 1; i < text.positions; ++i) {
      const auto before = ChosenAt(record, text, i - 1);
      const auto now = ChosenAt(record, text, i);
      for (size_t k = 0; k < now.size(); ++k) {
        const auto layer = static_cast<int64_t>(k) / record.used;
        const auto own = before.subspan(static_cast<size_t>(layer * record.used),
                                        static_cast<size_t>(record.used));
        if (std::find(own.begin(), own.end(), now[k]) != own.end()) {
          ++again[static_cast<size_t>(layer)];
        }
      }
    }
  }
  return again;
}

std::vector<ExpertLayer> DescribeLayers(const ExpertRecord& record,
                                        const std::vector<int64_t>& uses) {
  const std::vector<int64_t> again = CountAgain(record);
  int64_t followers = 0;  // choices that have a token before them
  for (const ExpertText& text : record.texts) {
    followers += std::max<int64_t>(0, text.positions - 1) * record.used;
  }
  std::vector<ExpertLayer> layers;
  for (int64_t layer = 0; layer < record.layers; ++layer) {
    ExpertLayer described{.uses = OfLayer(uses, layer, record.experts)};
    const std::vector<int64_t> falling = Falling(described.uses);
    described.half = Fewest(falling, 0.5);
    described.nine_tenths = Fewest(falling, 0.9);
    described.nearly_all = Fewest(falling, 0.99);
    described.again =
        static_cast<double>(again[static_cast<size_t>(layer)]) / static_cast<double>(followers);
    layers.push_back(std::move(described));
  }
  return layers;
}

std::vector<ExpertSetPoint> ExpertSets(const ExpertRecord& record, int64_t positions) {
  const int64_t every = std::max<int64_t>(1, positions / kExpertSetPoints);
  std::vector<bool> seen(static_cast<size_t>(record.layers * record.experts));
  int64_t distinct = 0;
  int64_t position = 0;
  std::vector<ExpertSetPoint> points;
  for (const ExpertText& text : record.texts) {
    for (int64_t i = 0; i < text.positions; ++i) {
      const auto chosen = ChosenAt(record, text, i);
      for (size_t k = 0; k < chosen.size(); ++k) {
        const auto layer = k / static_cast<size_t>(record.used);
        const size_t expert = layer * static_cast<size_t>(record.experts) + chosen[k];
        distinct += seen[expert] ? 0 : 1;
        seen[expert] = true;
      }
      if (++position != 1 && position % every != 0 && position != positions) continue;
      points.push_back(
          {position, static_cast<double>(distinct) / static_cast<double>(seen.size())});
    }
  }
  return points;
}

// What the most used experts take, one after the other, of all that layers choose.
std::vector<ExpertHeatPoint> HeatCurve(const ExpertRecord& record,
                                       const std::vector<ExpertLayer>& layers) {
  const auto choices = static_cast<double>(
      std::accumulate(layers[0].uses.begin(), layers[0].uses.end(), int64_t{0}));
  const auto experts = static_cast<size_t>(record.experts);
  std::vector<ExpertHeatPoint> points(experts);
  for (size_t i = 0; i < experts; ++i) {
    points[i].share = static_cast<double>(i + 1) / static_cast<double>(experts);
    points[i].least = 1;
  }
  for (const ExpertLayer& layer : layers) {
    const std::vector<int64_t> falling = Falling(layer.uses);
    double sum = 0;
    for (size_t i = 0; i < experts; ++i) {
      sum += static_cast<double>(falling[i]) / choices;
      points[i].mean += sum / static_cast<double>(layers.size());
      points[i].most = std::max(points[i].most, sum);
      points[i].least = std::min(points[i].least, sum);
    }
  }
  return points;
}

std::vector<ExpertTopic> DescribeExpertTopics(const ExpertRecord& record) {
  std::vector<ExpertTopic> topics;
  for (const ExpertText& text : record.texts) {
    ExpertTopic topic{.name = text.name, .positions = text.positions, .uses = {}};
    topic.uses.resize(static_cast<size_t>(record.layers * record.experts));
    CountUses(record, text, TextPart::kAll, topic.uses);
    for (int64_t layer = 0; layer < record.layers; ++layer) {
      const std::vector<int64_t> uses = OfLayer(topic.uses, layer, record.experts);
      topic.nine_tenths += static_cast<double>(Fewest(Falling(uses), 0.9));
    }
    topic.nine_tenths /= static_cast<double>(record.layers);
    topics.push_back(std::move(topic));
  }
  return topics;
}

std::vector<double> ChoicesInCommon(const ExpertRecord& record,
                                    const std::vector<ExpertTopic>& topics) {
  std::vector<double> together;
  for (const ExpertTopic& a : topics) {
    for (const ExpertTopic& b : topics) {
      const double in_a = static_cast<double>(a.positions * record.layers * record.used);
      const double in_b = static_cast<double>(b.positions * record.layers * record.used);
      double both = 0;
      for (size_t i = 0; i < a.uses.size(); ++i) {
        both += std::min(static_cast<double>(a.uses[i]) / std::max(in_a, 1.0),
                         static_cast<double>(b.uses[i]) / std::max(in_b, 1.0));
      }
      together.push_back(both);
    }
  }
  return together;
}

// Fills in `lift` and `pairs`.
void CompareWithChance(const std::vector<int64_t>& uses, ExpertsTogether& together) {
  const size_t n = uses.size();
  double pairs = 0;
  double products = 0;
  for (size_t a = 0; a < n; ++a) {
    for (size_t b = 0; b < a; ++b) {
      pairs += static_cast<double>(together.tokens[a * n + b]);
      products += static_cast<double>(uses[a]) * static_cast<double>(uses[b]);
    }
  }
  together.lift.assign(n * n, 0);
  for (size_t a = 0; a < n; ++a) {
    for (size_t b = 0; b < n; ++b) {
      const int64_t count = together.tokens[a * n + b];
      if (count == 0) continue;
      const double chance =
          static_cast<double>(uses[a]) * static_cast<double>(uses[b]) * pairs / products;
      together.lift[a * n + b] = static_cast<double>(count) / chance;
      if (a >= b) continue;
      together.pairs.push_back({.first = static_cast<int32_t>(a),
                                .second = static_cast<int32_t>(b),
                                .together = count,
                                .lift = together.lift[a * n + b]});
    }
  }
  std::stable_sort(
      together.pairs.begin(), together.pairs.end(),
      [](const ExpertPair& a, const ExpertPair& b) { return a.together > b.together; });
  together.pairs.resize(std::min(together.pairs.size(), kExpertPairs));
}

ExpertsTogether TogetherIn(const ExpertRecord& record, int64_t layer,
                           const std::vector<int64_t>& uses) {
  const auto n = static_cast<size_t>(record.experts);
  ExpertsTogether together{
      .layer = layer, .tokens = std::vector<int64_t>(n * n), .lift = {}, .pairs = {}};
  for (const ExpertText& text : record.texts) {
    for (int64_t i = 0; i < text.positions; ++i) {
      const auto chosen =
          ChosenAt(record, text, i)
              .subspan(static_cast<size_t>(layer * record.used), static_cast<size_t>(record.used));
      for (const uint16_t a : chosen) {
        for (const uint16_t b : chosen) together.tokens[a * n + b] += a != b ? 1 : 0;
      }
    }
  }
  CompareWithChance(uses, together);
  return together;
}

}  // namespace

ExpertRecorder::ExpertRecorder(int64_t layers, int64_t experts, int64_t used) {
  record_.layers = layers;
  record_.experts = experts;
  record_.used = used;
}

void ExpertRecorder::BeginText(const std::string& name, int64_t positions) {
  record_.texts.push_back({.name = name, .positions = positions, .chosen = {}});
  record_.texts.back().chosen.assign(static_cast<size_t>(positions * record_.layers * record_.used),
                                     kNoExpert);
}

void ExpertRecorder::Add(int64_t layer, int64_t position, int64_t expert) {
  std::vector<uint16_t>& chosen = record_.texts.back().chosen;
  const auto begin = chosen.begin() + (position * record_.layers + layer) * record_.used;
  const auto free = std::find(begin, begin + record_.used, kNoExpert);
  if (free != begin + record_.used) *free = static_cast<uint16_t>(expert);
}

ExpertRecord ExpertRecorder::Finish() { return std::exchange(record_, {}); }

absl::StatusOr<ExpertReport> StudyExperts(const ExpertRecord& record, double wanted_share) {
  RENGA_RETURN_IF_ERROR(CheckRecord(record));
  ExpertReport report;
  report.layers = record.layers;
  report.experts = record.experts;
  report.used = record.used;
  report.wanted_share = wanted_share;
  std::vector<int64_t> uses(static_cast<size_t>(record.layers * record.experts));
  for (const ExpertText& text : record.texts) {
    report.positions += text.positions;
    CountUses(record, text, TextPart::kAll, uses);
  }
  report.by_layer = DescribeLayers(record, uses);
  report.working_set = ExpertSets(record, report.positions);
  report.heat = HeatCurve(record, report.by_layer);
  report.caches = MeasureExpertCaches(record);
  report.half_life_shares = {0.1, 0.25, 0.5};
  report.half_lives = MeasureHalfLives(record, report.half_life_shares);
  report.topics = DescribeExpertTopics(record);
  report.together = ChoicesInCommon(record, report.topics);
  // Evenly over the depth, the ends left out.
  for (int64_t i = 1; i <= kSampledExpertLayers; ++i) {
    const int64_t layer = record.layers * i / (kSampledExpertLayers + 1);
    auto& sampled = report.layers_together;
    if (!sampled.empty() && sampled.back().layer == layer) continue;
    sampled.push_back(TogetherIn(record, layer, report.by_layer[static_cast<size_t>(layer)].uses));
  }
  const auto enough =
      std::find_if(report.caches.begin(), report.caches.end(),
                   [&](const ExpertCachePoint& point) { return point.cached >= wanted_share; });
  const ExpertCachePoint& cut = enough == report.caches.end() ? report.caches.back() : *enough;
  report.recommended_experts = cut.experts;
  report.recommended_share = cut.share;
  return report;
}

}  // namespace renga::partition
