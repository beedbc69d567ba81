#include "coordinator/serving/speculation_policy.h"

#include <algorithm>
#include <cmath>
#include <optional>

namespace renga::serving {
namespace {

// Predicted gains below this are noise.
constexpr double kMargin = 1.05;
// Streaming must win by more: its wasted frames keep workers busy.
constexpr double kStreamMargin = 1.1;
// What the costs of guesses were when they did not pay may have changed: they are tried again after
// so many plain steps, where they would pay if rows were free. With rows that cost as much as whole
// steps that is 7 steps in 512. The other way round, the cost of a plain step is measured again.
constexpr int64_t kPlainStepsPerTry = 512;
constexpr int64_t kDraftedStepsPerPlain = 128;
constexpr double kHopefulGain = 1.5;
// Where computing guesses does not pay, this share of the time goes into trying it again, so many
// at a time: the text may have become easier.
constexpr double kTrialShare = 0.01;
constexpr int64_t kTrialGuesses = 2;

struct Row {
  double chance = 0;  // that it gives a token
  size_t sequence = 0;
};

// All guesses, the likeliest first; those of a sequence stay in their order.
std::vector<Row> InOrderOfWorth(std::span<const std::vector<double>> acceptance) {
  std::vector<Row> rows;
  for (size_t i = 0; i < acceptance.size(); ++i) {
    double chance = 1;
    for (double own : acceptance[i]) rows.push_back({chance *= own, i});
  }
  std::stable_sort(rows.begin(), rows.end(),
                   [](const Row& a, const Row& b) { return a.chance > b.chance; });
  return rows;
}

std::vector<int64_t> Count(std::span<const Row> rows, size_t sequences) {
  std::vector<int64_t> lengths(sequences, 0);
  for (const Row& row : rows) ++lengths[row.sequence];
  return lengths;
}

}  // namespace

std::optional<SpeculationMode> SpeculationModeFromName(absl::string_view name) {
  if (name == "auto") return SpeculationMode::kAuto;
  if (name == "off") return SpeculationMode::kOff;
  if (name == "lookup") return SpeculationMode::kLookup;
  return std::nullopt;
}

int64_t SpeculationPolicy::WorthComputing(double chance, double guess_us, int64_t sequences,
                                          bool full_rows) {
  const std::optional<StepCost> plain = costs_[full_rows].Predict(sequences);
  if (mode_ != SpeculationMode::kAuto || !plain || sequences < 1) return 0;
  if (guess_us <= 0) return 1;  // to know what it takes
  int64_t best = 0;
  double best_rate = kMargin / plain->round_trip_us;
  double tokens = 1;
  double next = chance;
  for (int64_t n = 1; n <= kMaxDraftTokens; ++n, next *= chance) {
    tokens += next;
    const double us = costs_[full_rows].Predict(sequences * (n + 1))->round_trip_us +
                      guess_us * static_cast<double>(n * sequences);
    if (tokens / us > best_rate) {
      best_rate = tokens / us;
      best = n;
    }
  }
  if (best > 0) return best;
  spare_us_ += kTrialShare * plain->round_trip_us;
  const double trial_us = guess_us * static_cast<double>(kTrialGuesses * sequences);
  if (spare_us_ < trial_us) return 0;
  spare_us_ = 0;
  return kTrialGuesses;
}

std::vector<int64_t> SpeculationPolicy::Lengths(std::span<const std::vector<double>> acceptance,
                                                bool full_rows, int64_t room) {
  const std::vector<int64_t> lengths = Best(acceptance, costs_[full_rows], room);
  const bool drafted = std::any_of(lengths.begin(), lengths.end(), [](int64_t n) { return n > 0; });
  plain_in_a_row_ = drafted ? 0 : plain_in_a_row_ + 1;
  drafted_in_a_row_ = drafted ? drafted_in_a_row_ + 1 : 0;
  return lengths;
}

std::vector<int64_t> SpeculationPolicy::Best(std::span<const std::vector<double>> acceptance,
                                             const StepCosts& costs, int64_t room) const {
  std::vector<Row> rows = InOrderOfWorth(acceptance);
  if (static_cast<int64_t>(rows.size()) > room) rows.resize(std::max<int64_t>(0, room));
  if (mode_ == SpeculationMode::kLookup) return Count(rows, acceptance.size());

  const auto base = static_cast<int64_t>(acceptance.size());
  const std::optional<StepCost> plain = costs.Predict(std::max<int64_t>(1, base));
  const bool measure_plain = drafted_in_a_row_ >= kDraftedStepsPerPlain;
  if (mode_ == SpeculationMode::kOff || !plain || measure_plain) rows.clear();
  size_t best = 0;
  double tokens = static_cast<double>(base);
  double best_rate = plain ? kMargin * tokens / plain->round_trip_us : 0;
  for (size_t n = 1; n <= rows.size(); ++n) {
    tokens += rows[n - 1].chance;
    const double us = costs.Predict(base + static_cast<int64_t>(n))->round_trip_us;
    if (tokens / us > best_rate) {
      best_rate = tokens / us;
      best = n;
    }
  }
  const bool hopeful = tokens >= kHopefulGain * static_cast<double>(base);
  if (best == 0 && hopeful && plain_in_a_row_ >= kPlainStepsPerTry) best = rows.size();
  rows.resize(best);
  return Count(rows, acceptance.size());
}

FrameStream SpeculationPolicy::Stream(std::span<const double> acceptance, double guess_us,
                                      int64_t length, int64_t most_frames) const {
  const StepCosts& costs = costs_[false];
  if (mode_ == SpeculationMode::kOff || acceptance.empty() || !costs.Predict(1)) return {};
  double chance = 1;
  double tokens = 1;
  for (size_t i = 0; i < acceptance.size(); ++i) {
    chance *= acceptance[i];
    if (static_cast<int64_t>(i) < length) tokens += chance;
  }
  const double a = std::min(std::pow(chance, 1 / static_cast<double>(acceptance.size())), 0.98);
  FrameStream best;
  double best_rate = kStreamMargin * tokens / costs.Predict(length + 1)->round_trip_us;
  for (int64_t rows = 1; rows <= kMaxDraftTokens + 1; ++rows) {
    const StepCost cost = *costs.Predict(rows);
    const double whole = std::pow(a, static_cast<double>(rows));
    const double interval = std::max({cost.busiest_us, guess_us * static_cast<double>(rows),
                                      cost.round_trip_us / static_cast<double>(most_frames)});
    const double rate = 1 / (1 - a) / (cost.round_trip_us + interval * whole / (1 - whole));
    if (rate <= best_rate) continue;
    best_rate = rate;
    best = {
        rows,
        std::clamp<int64_t>(std::llround(std::ceil(cost.round_trip_us / interval)), 1, most_frames),
        absl::Microseconds(interval)};
  }
  return best.frames > 1 ? best : FrameStream{};
}

}  // namespace renga::serving
