#include "partition/regions.h"

#include <algorithm>
#include <cmath>
#include <list>
#include <numeric>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace renga::partition {
namespace {

using RowSet = absl::flat_hash_set<int32_t>;

constexpr size_t kTypicalRows = 12;

absl::Status CheckTraces(const std::vector<TextTrace>& texts, int64_t vocabulary) {
  const auto inside = [&](int32_t row) { return row >= 0 && row < vocabulary; };
  int64_t usable = 0;
  for (const TextTrace& text : texts) {
    bool fits = text.best.size() == text.tokens.size() && text.shares.size() == text.best.size() &&
                std::all_of(text.tokens.begin(), text.tokens.end(), inside);
    for (size_t i = 0; fits && i < text.best.size(); ++i) {
      fits = !text.best[i].empty() && text.best[i].size() == text.shares[i].size() &&
             std::all_of(text.best[i].begin(), text.best[i].end(), inside);
    }
    if (!fits) {
      return absl::InvalidArgumentError(
          absl::StrCat("the trace of ", text.name, " does not fit a vocabulary of ", vocabulary));
    }
    usable += text.tokens.empty() ? 0 : 1;
  }
  if (usable >= 2) return absl::OkStatus();
  return absl::InvalidArgumentError("regions need at least two texts that are not empty");
}

std::vector<WorkingSetPoint> WorkingSets(const std::vector<TextTrace>& texts, int64_t positions) {
  constexpr int64_t kPoints = 60;
  const int64_t every = std::max<int64_t>(1, positions / kPoints);
  std::vector<WorkingSetPoint> points;
  RowSet input;
  RowSet first;
  RowSet best;
  int64_t position = 0;
  for (const TextTrace& text : texts) {
    for (size_t i = 0; i < text.tokens.size(); ++i) {
      input.insert(text.tokens[i]);
      first.insert(text.best[i][0]);
      best.insert(text.best[i].begin(), text.best[i].end());
      if (++position % every != 0 && position != positions) continue;
      points.push_back({position, static_cast<int64_t>(input.size()),
                        static_cast<int64_t>(first.size()), static_cast<int64_t>(best.size())});
    }
  }
  return points;
}

// Where a text's second half begins.
size_t HalfOf(const TextTrace& text) { return text.tokens.size() / 2; }

// Rows by the probability that the first halves gave them; rows that never had any come last, in
// the order of their ids.
std::vector<int32_t> HottestFirst(const std::vector<TextTrace>& texts, int64_t vocabulary) {
  std::vector<double> mass(static_cast<size_t>(vocabulary), 0.0);
  for (const TextTrace& text : texts) {
    for (size_t i = 0; i < HalfOf(text); ++i) {
      for (size_t k = 0; k < text.best[i].size(); ++k) mass[text.best[i][k]] += text.shares[i][k];
    }
  }
  std::vector<int32_t> order(mass.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int32_t a, int32_t b) { return mass[a] > mass[b]; });
  return order;
}

// Rows in the order of their last use; the oldest leaves.
class RecentRows {
 public:
  explicit RecentRows(int64_t capacity) : capacity_(static_cast<size_t>(capacity)) {}

  // Whether it was there.
  bool Use(int32_t row) {
    const auto known = places_.find(row);
    const bool hit = known != places_.end();
    if (hit) order_.erase(known->second);
    order_.push_front(row);
    places_[row] = order_.begin();
    if (order_.size() > capacity_) {
      places_.erase(order_.back());
      order_.pop_back();
    }
    return hit;
  }

 private:
  const size_t capacity_;
  std::list<int32_t> order_;
  absl::flat_hash_map<int32_t, std::list<int32_t>::iterator> places_;
};

CachePoint MeasureCache(const std::vector<TextTrace>& texts, const std::vector<int32_t>& rank,
                        int64_t rows) {
  CachePoint point{.rows = rows};
  RecentRows recent(rows);
  double positions = 0;
  double mass = 0;
  for (const TextTrace& text : texts) {
    RowSet seen(text.tokens.begin(), text.tokens.begin() + static_cast<int64_t>(HalfOf(text)));
    for (size_t i = HalfOf(text); i < text.tokens.size(); ++i) {
      seen.insert(text.tokens[i]);
      const int32_t first = text.best[i][0];
      const bool hot = rank[first] < rows;
      positions += 1;
      point.first_in_hot += hot ? 1 : 0;
      point.first_in_hot_or_seen += hot || seen.contains(first) ? 1 : 0;
      point.first_in_recent += recent.Use(first) ? 1 : 0;
      for (size_t k = 0; k < text.best[i].size(); ++k) {
        mass += text.shares[i][k];
        if (rank[text.best[i][k]] < rows) point.mass_in_hot += text.shares[i][k];
      }
    }
  }
  positions = std::max(positions, 1.0);
  point.first_in_hot /= positions;
  point.first_in_hot_or_seen /= positions;
  point.first_in_recent /= positions;
  point.mass_in_hot /= std::max(mass, 1e-30);
  return point;
}

std::vector<CachePoint> MeasureCaches(const std::vector<TextTrace>& texts,
                                      const std::vector<int32_t>& hottest) {
  std::vector<int32_t> rank(hottest.size());
  for (size_t i = 0; i < hottest.size(); ++i) rank[hottest[i]] = static_cast<int32_t>(i);
  const auto vocabulary = static_cast<int64_t>(hottest.size());
  std::vector<CachePoint> points;
  for (int64_t rows = 64; rows < vocabulary; rows *= 2) {
    points.push_back(MeasureCache(texts, rank, rows));
  }
  points.push_back(MeasureCache(texts, rank, vocabulary));
  return points;
}

std::vector<RowSet> BestRows(const std::vector<TextTrace>& texts) {
  std::vector<RowSet> sets(texts.size());
  for (size_t t = 0; t < texts.size(); ++t) {
    for (const auto& best : texts[t].best) sets[t].insert(best.begin(), best.end());
  }
  return sets;
}

// The rows with the largest TF-IDF: the text takes them often, and few texts take them at all.
std::vector<int32_t> TypicalRows(const TextTrace& text, const std::vector<RowSet>& rows_of_texts) {
  absl::flat_hash_map<int32_t, int64_t> counts;
  for (const auto& best : text.best) {
    for (const int32_t row : best) ++counts[row];
  }
  std::vector<std::pair<double, int32_t>> weights;
  for (const auto& [row, count] : counts) {
    const auto texts =
        std::count_if(rows_of_texts.begin(), rows_of_texts.end(),
                      [row = row](const RowSet& rows) { return rows.contains(row); });
    const double rarity =
        std::log(static_cast<double>(rows_of_texts.size()) / static_cast<double>(texts));
    weights.emplace_back(static_cast<double>(count) * rarity, row);
  }
  std::sort(weights.begin(), weights.end(), [](const auto& a, const auto& b) {
    return a.first != b.first ? a.first > b.first : a.second < b.second;
  });
  std::vector<int32_t> typical;
  for (const auto& [weight, row] : weights) {
    if (typical.size() == kTypicalRows || weight <= 0) break;
    typical.push_back(row);
  }
  return typical;
}

void DescribeTopics(const std::vector<TextTrace>& texts, RegionReport& report) {
  const std::vector<RowSet> sets = BestRows(texts);
  for (size_t t = 0; t < texts.size(); ++t) {
    report.topics.push_back({.name = texts[t].name,
                             .positions = static_cast<int64_t>(texts[t].tokens.size()),
                             .best_rows = static_cast<int64_t>(sets[t].size()),
                             .typical = TypicalRows(texts[t], sets)});
    for (const RowSet& other : sets) {
      const auto both = std::count_if(sets[t].begin(), sets[t].end(),
                                      [&](int32_t row) { return other.contains(row); });
      const double either =
          static_cast<double>(sets[t].size() + other.size()) - static_cast<double>(both);
      report.together.push_back(either == 0 ? 0 : static_cast<double>(both) / either);
    }
  }
}

}  // namespace

absl::StatusOr<RegionReport> StudyRegions(const std::vector<TextTrace>& texts, int64_t vocabulary,
                                          double wanted_share) {
  RENGA_RETURN_IF_ERROR(CheckTraces(texts, vocabulary));
  RegionReport report;
  report.vocabulary = vocabulary;
  report.wanted_share = wanted_share;
  for (const TextTrace& text : texts) {
    report.positions += static_cast<int64_t>(text.tokens.size());
  }
  report.working_set = WorkingSets(texts, report.positions);
  const std::vector<int32_t> hottest = HottestFirst(texts, vocabulary);
  report.caches = MeasureCaches(texts, hottest);
  report.recommended_rows = vocabulary;
  for (const CachePoint& point : report.caches) {
    if (point.first_in_hot_or_seen < wanted_share) continue;
    report.recommended_rows = point.rows;
    break;
  }
  report.hot_rows.assign(hottest.begin(), hottest.begin() + report.recommended_rows);
  DescribeTopics(texts, report);
  return report;
}

}  // namespace renga::partition
