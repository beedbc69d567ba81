#include "partition/expert_caches.h"

#include <algorithm>
#include <functional>
#include <numeric>

#include "partition/expert_replay.h"

namespace renga::partition {
namespace {

constexpr int64_t kCacheSteps = 20;
constexpr int64_t kStartTokens = 50;

int64_t AllExperts(const ExpertRecord& record) { return record.layers * record.experts; }

// As many experts as that part of all, but never fewer than a token uses of a layer.
int64_t ExpertsOf(const ExpertRecord& record, double share) {
  const auto experts = static_cast<int64_t>(share * static_cast<double>(AllExperts(record)) + 0.5);
  return std::clamp(experts, record.used, AllExperts(record));
}

// The most used first, then by number.
std::vector<size_t> ByUse(const std::vector<int64_t>& uses) {
  std::vector<size_t> order(uses.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return uses[a] > uses[b]; });
  return order;
}

// Adds, for each expert, how many of the second half's choices are of the experts before it in the
// order and of itself.
void AddHits(const ExpertRecord& record, const ExpertText& text, const std::vector<size_t>& order,
             std::vector<int64_t>& hits) {
  std::vector<int64_t> first(order.size());
  std::vector<int64_t> second(order.size());
  CountUses(record, text, TextPart::kFirstHalf, first);
  CountUses(record, text, TextPart::kAll, second);
  int64_t sum = 0;
  for (size_t i = 0; i < order.size(); ++i) {
    sum += second[order[i]] - first[order[i]];
    hits[i] += sum;
  }
}

// By how many of them are in memory, less one: the choices that favourites of all texts have, or
// those of the text itself.
std::vector<int64_t> HitsOfFavourites(const ExpertRecord& record, bool of_text) {
  std::vector<int64_t> uses(static_cast<size_t>(AllExperts(record)));
  for (const ExpertText& text : record.texts) {
    CountUses(record, text, TextPart::kFirstHalf, uses);
  }
  std::vector<int64_t> hits(uses.size());
  for (const ExpertText& text : record.texts) {
    if (of_text) {
      std::fill(uses.begin(), uses.end(), 0);
      CountUses(record, text, TextPart::kFirstHalf, uses);
    }
    AddHits(record, text, ByUse(uses), hits);
  }
  return hits;
}

// Of the second halves, with the first ones read before.
double ReplayAll(const ExpertRecord& record, int64_t experts, double half_life) {
  ExpertReplay replay(record.layers, record.experts, experts, half_life);
  int64_t hits = 0;
  int64_t choices = 0;
  for (const ExpertText& text : record.texts) {
    for (int64_t i = 0; i < text.positions; ++i) {
      const int64_t here = replay.Use(ChosenAt(record, text, i));
      if (i < text.positions / 2) continue;
      hits += here;
      choices += record.layers * record.used;
    }
  }
  return static_cast<double>(hits) / static_cast<double>(choices);
}

// The first tokens of each text after a start; told: what the other texts use most is there, and
// counts as one of their tokens does in the mean. (Counting for more keeps what the text does not
// use: of few experts in memory fewer are then the right ones than with nothing there.)
double ReplayStarts(const ExpertRecord& record, int64_t experts, bool told) {
  std::vector<int64_t> all(static_cast<size_t>(AllExperts(record)));
  int64_t positions = 0;
  for (const ExpertText& text : record.texts) {
    CountUses(record, text, TextPart::kAll, all);
    positions += text.positions;
  }
  int64_t hits = 0;
  int64_t choices = 0;
  for (const ExpertText& text : record.texts) {
    ExpertReplay replay(record.layers, record.experts, experts);
    if (told) {
      std::vector<int64_t> own(all.size());
      CountUses(record, text, TextPart::kAll, own);
      std::vector<int64_t> others(all.size());
      std::transform(all.begin(), all.end(), own.begin(), others.begin(), std::minus<>());
      const auto tokens = static_cast<double>(std::max<int64_t>(1, positions - text.positions));
      for (const size_t expert : ByUse(others)) {
        replay.Put(expert, static_cast<double>(others[expert]) / tokens);
      }
    }
    const int64_t tokens = std::min(kStartTokens, text.positions);
    for (int64_t i = 0; i < tokens; ++i) hits += replay.Use(ChosenAt(record, text, i));
    choices += tokens * record.layers * record.used;
  }
  return static_cast<double>(hits) / static_cast<double>(choices);
}

}  // namespace

void CountUses(const ExpertRecord& record, const ExpertText& text, TextPart part,
               std::vector<int64_t>& uses) {
  const int64_t positions = part == TextPart::kAll ? text.positions : text.positions / 2;
  const auto all = static_cast<size_t>(positions * record.layers * record.used);
  for (size_t i = 0; i < all; ++i) {
    const int64_t layer = static_cast<int64_t>(i) / record.used % record.layers;
    ++uses[static_cast<size_t>(layer * record.experts) + text.chosen[i]];
  }
}

std::span<const uint16_t> ChosenAt(const ExpertRecord& record, const ExpertText& text,
                                   int64_t position) {
  const auto each = static_cast<size_t>(record.layers * record.used);
  return std::span(text.chosen).subspan(static_cast<size_t>(position) * each, each);
}

std::vector<ExpertCachePoint> MeasureExpertCaches(const ExpertRecord& record) {
  const std::vector<int64_t> favourites = HitsOfFavourites(record, /*of_text=*/false);
  const std::vector<int64_t> of_text = HitsOfFavourites(record, /*of_text=*/true);
  const auto choices = static_cast<double>(favourites.back());
  std::vector<ExpertCachePoint> points;
  for (int64_t step = 1; step <= kCacheSteps; ++step) {
    const int64_t experts =
        ExpertsOf(record, static_cast<double>(step) / static_cast<double>(kCacheSteps));
    if (!points.empty() && points.back().experts == experts) continue;
    const auto last = static_cast<size_t>(experts) - 1;
    points.push_back(
        {.share = static_cast<double>(experts) / static_cast<double>(AllExperts(record)),
         .experts = experts,
         .favourites = static_cast<double>(favourites[last]) / choices,
         .of_text = static_cast<double>(of_text[last]) / choices,
         .cached = ReplayAll(record, experts, model::kExpertHalfLifeSteps),
         .cold_start = ReplayStarts(record, experts, /*told=*/false),
         .told_start = ReplayStarts(record, experts, /*told=*/true)});
  }
  return points;
}

std::vector<HalfLifePoint> MeasureHalfLives(const ExpertRecord& record,
                                            const std::vector<double>& shares) {
  std::vector<HalfLifePoint> points;
  for (const double half_life : {8.0, 16.0, 32.0, 64.0, 256.0, 1024.0}) {
    HalfLifePoint point{.half_life_steps = half_life, .cached = {}};
    for (const double share : shares) {
      point.cached.push_back(ReplayAll(record, ExpertsOf(record, share), half_life));
    }
    points.push_back(std::move(point));
  }
  return points;
}

}  // namespace renga::partition
