// How many guesses a step verifies, and when frames of them follow each other without waiting.
//
// A guess j tokens ahead is worth a row if all before it come true and it does, with probability
// p_j = a_1 * ... * a_j. A step with k guesses gives 1 + p_1 + ... + p_k tokens (with one `a` for
// all that is (1 - a^(k+1)) / (1 - a), Leviathan et al. 2023, arXiv 2211.17192) in the time that a
// step of k + 1 rows takes. What is wanted is the most tokens per second.
//
// Over many stages or long links most of that time is waiting. Then a frame of c guesses may be
// sent every `interval`, which is the time of the busiest worker, while earlier ones are under way.
// The first miss makes all behind it void: after 1 / (1 - a) tokens on average, which took
// one round trip and an interval for each frame that was right as a whole, a^c / (1 - a^c) of them.
// Where guesses are computed (drafter.h), making n of them adds n times what one takes to the
// step's time; so many are made as are then predicted to give the most tokens per second. Internal
// to serving/.
#ifndef RENGA_COORDINATOR_SERVING_SPECULATION_POLICY_H_
#define RENGA_COORDINATOR_SERVING_SPECULATION_POLICY_H_

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "coordinator/serving/step_costs.h"

namespace renga::serving {

enum class SpeculationMode {
  kOff,
  kAuto,    // as many guesses as are predicted to pay, by prompt lookup and the draft model
  kLookup,  // as many guesses of prompt lookup as fit, whatever they cost
};

// "auto", "off" or "lookup".
std::optional<SpeculationMode> SpeculationModeFromName(absl::string_view name);

// With the token that is known, a frame is at most 8 rows: kernels for so few rows read a weight
// once for all of them, and from 9 rows on other ones take over.
inline constexpr int64_t kMaxDraftTokens = 7;

// Frames that follow each other.
struct FrameStream {
  int64_t rows = 0;    // of a frame; 0: send none before the last one was answered
  int64_t frames = 0;  // under way at once
  absl::Duration interval;
};

// Not thread-safe. Decides by what was measured, never by the clock.
class SpeculationPolicy {
 public:
  explicit SpeculationPolicy(SpeculationMode mode) : mode_(mode) {}

  SpeculationMode mode() const { return mode_; }
  // A step of nothing but answers came back. `full_rows`: some of its rows brought all logits.
  void Measure(int64_t rows, bool full_rows, const StepCost& cost) {
    costs_[full_rows].Add(rows, cost);
  }

  // How many guesses to compute for each of `sequences` answers before their step is sent, where
  // one takes `guess_us` (0: unknown) and comes true with `chance`. `full_rows` as in Measure.
  int64_t WorthComputing(double chance, double guess_us, int64_t sequences, bool full_rows);

  // For each sequence of a step how many of its guesses to send, at most `room` in all.
  // `acceptance[i]` has the chance of each of sequence i's guesses, those before it taken for true.
  // `full_rows` as in Measure.
  std::vector<int64_t> Lengths(std::span<const std::vector<double>> acceptance, bool full_rows,
                               int64_t room);

  // Whether a sequence that has the stages for itself, whose guesses come true with `acceptance`,
  // take `guess_us` each (0: none) and would be verified `length` at a time, had better stream
  // them. `most_frames` >= 1. Not for rows that bring all logits: frames of those would wait for
  // each other on the links.
  FrameStream Stream(std::span<const double> acceptance, double guess_us, int64_t length,
                     int64_t most_frames) const;

 private:
  std::vector<int64_t> Best(std::span<const std::vector<double>> acceptance, const StepCosts& costs,
                            int64_t room) const;

  const SpeculationMode mode_;
  std::array<StepCosts, 2> costs_;  // without and with rows of all logits: those are long answers
  int64_t plain_in_a_row_ = 0;      // steps without guesses
  int64_t drafted_in_a_row_ = 0;    // steps with some
  double spare_us_ = 0;             // that trying to compute guesses may cost
};

}  // namespace renga::serving

#endif  // RENGA_COORDINATOR_SERVING_SPECULATION_POLICY_H_
