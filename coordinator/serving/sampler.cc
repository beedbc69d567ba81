#include "coordinator/serving/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "model/gumbel.h"

namespace renga::serving {
namespace {

// For what logarithms on two machines may differ by.
constexpr float kDrawSlack = 1e-4F;

struct Candidate {
  double logit;
  TokenId id;
};

// Best first; equal logits in order of their ids, so that the order is total.
bool Better(const Candidate& a, const Candidate& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
}

bool AltersLogits(const SamplingParams& params) {
  return params.repetition_penalty != 1 || params.presence_penalty != 0 ||
         params.frequency_penalty != 0 || !params.logit_bias.empty();
}

// How many tokens' logits `params` may lower; nullopt where it may raise some, or any number of
// them may change. The best k of the changed logits are among the best k + so many of the model's
// own: only tokens that were lowered can have fallen behind.
std::optional<int64_t> MostLowered(const SamplingParams& params) {
  const bool window = params.repetition_window > 0 && params.repetition_window <= kMaxHeadTopK;
  const bool lowers = params.repetition_penalty == 1 || (params.repetition_penalty > 1 && window);
  if (!lowers || params.presence_penalty != 0 || params.frequency_penalty != 0) return std::nullopt;
  for (const auto& [id, bias] : params.logit_bias) {
    if (bias > 0) return std::nullopt;
  }
  return static_cast<int64_t>(params.logit_bias.size()) +
         (params.repetition_penalty == 1 ? 0 : params.repetition_window);
}

// Whether more than a distance from the best token, or from the best with noise, says which tokens
// can be drawn; also where none is drawn.
bool DependsOnAllRows(const SamplingParams& params, int64_t alternatives) {
  return AltersLogits(params) || alternatives > 0 || params.temperature == 0 || params.top_k > 0 ||
         params.top_p < 1;
}

absl::Status OutOfRange(const char* name, double value, const char* range) {
  return absl::InvalidArgumentError(absl::StrCat(name, " must be ", range, ", not ", value));
}

absl::flat_hash_map<TokenId, int64_t> Count(std::span<const TokenId> tokens) {
  absl::flat_hash_map<TokenId, int64_t> counts;
  for (TokenId token : tokens) ++counts[token];
  return counts;
}

// `by_id` is whether candidates are in the order of their ids.
void ApplyPenalties(const History& history, const SamplingParams& params, bool by_id,
                    std::vector<Candidate>& candidates) {
  const auto find = [&](TokenId id) -> Candidate* {
    const auto found =
        by_id ? std::lower_bound(candidates.begin(), candidates.end(), id,
                                 [](const Candidate& c, TokenId wanted) { return c.id < wanted; })
              : std::find_if(candidates.begin(), candidates.end(),
                             [id](const Candidate& c) { return c.id == id; });
    return found == candidates.end() || found->id != id ? nullptr : &*found;
  };
  for (const auto& [id, bias] : params.logit_bias) {
    if (Candidate* const candidate = find(id)) candidate->logit += bias;
  }
  if (params.repetition_penalty != 1) {
    std::span<const TokenId> window = history.tokens;
    const size_t limit = static_cast<size_t>(params.repetition_window);
    if (limit > 0 && window.size() > limit) window = window.last(limit);
    for (const auto& [id, count] : Count(window)) {
      Candidate* const candidate = find(id);
      if (candidate == nullptr) continue;
      double& logit = candidate->logit;
      logit = logit > 0 ? logit / params.repetition_penalty : logit * params.repetition_penalty;
    }
  }
  if (params.presence_penalty != 0 || params.frequency_penalty != 0) {
    const auto answer =
        history.tokens.subspan(std::min<size_t>(history.prompt_tokens, history.tokens.size()));
    for (const auto& [id, count] : Count(answer)) {
      Candidate* const candidate = find(id);
      if (candidate == nullptr) continue;
      candidate->logit -=
          params.presence_penalty + params.frequency_penalty * static_cast<double>(count);
    }
  }
}

// Candidates with their unnormalised probabilities: exp((logit - best logit) / temperature).
class Distribution {
 public:
  Distribution(std::vector<Candidate> candidates, double temperature)
      : candidates_(std::move(candidates)), temperature_(temperature) {
    best_ = std::min_element(candidates_.begin(), candidates_.end(), Better)->logit;
  }

  double Weight(const Candidate& candidate) const {
    return std::exp((candidate.logit - best_) / temperature_);
  }

  void KeepTopK(int64_t k) {
    if (k <= 0 || static_cast<size_t>(k) >= candidates_.size()) k = candidates_.size();
    std::partial_sort(candidates_.begin(), candidates_.begin() + k, candidates_.end(), Better);
    candidates_.resize(k);
    sorted_ = candidates_.size();
  }

  // Keeps the shortest run of best candidates whose share reaches `p`, at least one. Sorts only as
  // far as that run goes: most of a vocabulary never matters.
  void KeepTopP(double p) {
    double total = 0;
    for (const Candidate& candidate : candidates_) total += Weight(candidate);
    double sum = 0;
    for (size_t i = 0; i < candidates_.size(); ++i) {
      if (i >= sorted_) SortMore();
      sum += Weight(candidates_[i]);
      if (sum >= p * total) {
        candidates_.resize(i + 1);
        return;
      }
    }
  }

  void KeepMinP(double min_p) {
    std::erase_if(candidates_, [&](const Candidate& c) { return Weight(c) < min_p; });
  }

  // No overflow, whatever the temperature. Equal ones, which noise all but rules out, go to the
  // lowest id.
  TokenId Draw(const model::GumbelNoise& noise) const {
    Candidate winner{-std::numeric_limits<double>::infinity(), candidates_.front().id};
    for (const Candidate& candidate : candidates_) {
      if (candidate.logit + temperature_ * noise.AtMost(candidate.id) < winner.logit) continue;
      const Candidate noisy{candidate.logit + temperature_ * noise.Of(candidate.id), candidate.id};
      if (Better(noisy, winner)) winner = noisy;
    }
    return winner.id;
  }

 private:
  void SortMore() {
    const size_t end = std::min(candidates_.size(), sorted_ == 0 ? 64 : 4 * sorted_);
    std::partial_sort(candidates_.begin() + sorted_, candidates_.begin() + end, candidates_.end(),
                      Better);
    sorted_ = end;
  }

  std::vector<Candidate> candidates_;
  const double temperature_;
  double best_ = 0;
  size_t sorted_ = 0;  // this many at the front are in their final order
};

// Whether a head may answer this row when asked for `wanted` best rows, or with 0 for all, or for
// those within some distance of the best.
bool Fits(const model::HeadRow& row, int64_t wanted, bool within, int64_t vocab_size,
          const model::TokenMask* allowed) {
  if (wanted == 0 && within && !row.ids.empty()) return row.ids.size() == row.logits.size();
  const int64_t most = allowed == nullptr ? vocab_size : allowed->count();
  const size_t expected = static_cast<size_t>(wanted == 0 ? vocab_size : std::min(wanted, most));
  return row.logits.size() == expected && row.ids.size() == (wanted == 0 ? 0 : expected);
}

// The row as candidates: the best ones in the row's own order, all others in order of their ids,
// so that a draw from those that min_p keeps is the same as one from all. A NaN can never be
// chosen.
absl::StatusOr<std::vector<Candidate>> Candidates(const model::HeadRow& row, int64_t wanted,
                                                  bool within, int64_t vocab_size,
                                                  const model::TokenMask* allowed) {
  if (!Fits(row, wanted, within, vocab_size, allowed)) {
    return absl::InternalError(absl::StrCat("the head answered ", row.ids.size(), " ids and ",
                                            row.logits.size(), " logits where ",
                                            wanted == 0 ? vocab_size : wanted, " were asked for"));
  }
  std::vector<Candidate> candidates;
  candidates.reserve(row.logits.size());
  bool any_finite = false;
  bool infinite = false;
  // Of all rows only the allowed ones are looked at.
  const bool pick = row.ids.empty() && allowed != nullptr;
  const std::vector<TokenId> picked =
      pick ? allowed->IdsIn({0, vocab_size}) : std::vector<TokenId>();
  for (size_t n = 0; n < (pick ? picked.size() : row.logits.size()); ++n) {
    const size_t i = pick ? static_cast<size_t>(picked[n]) : n;
    const double logit = row.logits[i];
    const TokenId id = row.ids.empty() ? static_cast<TokenId>(i) : row.ids[i];
    if (id < 0 || id >= vocab_size) {
      return absl::InternalError(absl::StrCat("the head answered token id ", id,
                                              " outside the vocabulary of ", vocab_size));
    }
    if (!pick && allowed != nullptr && !allowed->Contains(id)) continue;
    any_finite |= std::isfinite(logit);
    infinite |= logit == std::numeric_limits<double>::infinity();
    const bool nan = std::isnan(logit);
    candidates.push_back({nan ? -std::numeric_limits<double>::infinity() : logit, id});
  }
  if (!any_finite || infinite) {
    return absl::InternalError("the model's output for this position holds no usable numbers");
  }
  if (wanted == 0 && !row.ids.empty()) {
    std::sort(candidates.begin(), candidates.end(),
              [](const Candidate& a, const Candidate& b) { return a.id < b.id; });
  }
  return candidates;
}

TokenId Choose(std::vector<Candidate> candidates, const History& history,
               const SamplingParams& params, bool by_id) {
  if (AltersLogits(params)) ApplyPenalties(history, params, by_id, candidates);
  if (params.temperature == 0) {
    return std::min_element(candidates.begin(), candidates.end(), Better)->id;
  }
  Distribution distribution(std::move(candidates), params.temperature);
  if (params.top_k > 0) distribution.KeepTopK(params.top_k);
  if (params.top_p < 1) distribution.KeepTopP(params.top_p);
  if (params.min_p > 0) distribution.KeepMinP(params.min_p);
  return distribution.Draw(model::GumbelNoise(params.seed, history.tokens.size()));
}

}  // namespace

absl::Status CheckSamplingParams(const SamplingParams& params, int64_t vocab_size) {
  // Written so that NaN fails every test.
  if (!(params.temperature >= 0 && params.temperature <= 100)) {
    return OutOfRange("temperature", params.temperature, "between 0 and 100");
  }
  if (params.top_k < 0) return OutOfRange("top_k", params.top_k, "0 (off) or more");
  if (!(params.top_p > 0 && params.top_p <= 1)) {
    return OutOfRange("top_p", params.top_p, "above 0 and at most 1");
  }
  if (!(params.min_p >= 0 && params.min_p <= 1)) {
    return OutOfRange("min_p", params.min_p, "between 0 and 1");
  }
  if (!(params.repetition_penalty > 0 && params.repetition_penalty <= 100)) {
    return OutOfRange("repetition_penalty", params.repetition_penalty, "above 0 and at most 100");
  }
  if (params.repetition_window < 0) {
    return OutOfRange("repetition_window", params.repetition_window, "0 (all tokens) or more");
  }
  if (!(std::abs(params.presence_penalty) <= 100)) {
    return OutOfRange("presence_penalty", params.presence_penalty, "between -100 and 100");
  }
  if (!(std::abs(params.frequency_penalty) <= 100)) {
    return OutOfRange("frequency_penalty", params.frequency_penalty, "between -100 and 100");
  }
  for (const auto& [id, bias] : params.logit_bias) {
    if (id < 0 || id >= vocab_size) {
      return absl::InvalidArgumentError(absl::StrCat(
          "logit_bias names token ", id, ", but the vocabulary ends at ", vocab_size - 1));
    }
    if (!(std::abs(bias) <= 1000)) {
      return OutOfRange("logit_bias", bias, "between -1000 and 1000");
    }
  }
  return absl::OkStatus();
}

int64_t HeadTopK(const SamplingParams& params, int64_t alternatives, int64_t vocab_size) {
  const std::optional<int64_t> lowered = MostLowered(params);
  int64_t k = params.top_k;
  if (params.temperature == 0) k = 1;
  if (k == 0 || k > kMaxHeadTopK || !lowered.has_value()) return 0;
  k = std::max(k + *lowered, alternatives);
  return k <= kMaxHeadTopK && k < vocab_size ? k : 0;
}

float HeadWithin(const SamplingParams& params, int64_t alternatives) {
  if (HeadDraw(params, alternatives) > 0) return kDrawSlack;
  if (DependsOnAllRows(params, alternatives) || params.min_p == 0) return 0;
  // A little more, for what sums and logarithms round: the sampler looks once more.
  const double within = -params.temperature * std::log(params.min_p);
  return static_cast<float>(within * (1 + 1e-6) + 1e-5);
}

double HeadDraw(const SamplingParams& params, int64_t alternatives) {
  if (DependsOnAllRows(params, alternatives) || params.min_p > 0) return 0;
  return params.temperature;
}

absl::StatusOr<SampledToken> SampleToken(const model::HeadRow& row, const History& history,
                                         const SamplingParams& params, int64_t alternatives,
                                         int64_t vocab_size, const model::TokenMask* allowed) {
  const int64_t wanted = HeadTopK(params, alternatives, vocab_size);
  RENGA_ASSIGN_OR_RETURN(
      std::vector<Candidate> candidates,
      Candidates(row, wanted, HeadWithin(params, alternatives) > 0, vocab_size, allowed));
  const double log_total = row.sum_exp == 0 ? std::numeric_limits<double>::quiet_NaN()
                                            : row.max_logit + std::log(row.sum_exp);
  const auto logprob = [&](const Candidate& candidate) {
    return TokenLogprob{candidate.id, static_cast<float>(candidate.logit - log_total)};
  };

  SampledToken sampled;
  if (alternatives > 0) {
    std::vector<Candidate> best(std::min<size_t>(alternatives, candidates.size()));
    std::partial_sort_copy(candidates.begin(), candidates.end(), best.begin(), best.end(), Better);
    for (const Candidate& candidate : best) sampled.alternatives.push_back(logprob(candidate));
  }
  sampled.id = Choose(candidates, history, params, wanted == 0);
  const bool all = row.ids.empty() && allowed == nullptr;
  const auto chosen = all ? candidates.begin() + sampled.id
                          : std::find_if(candidates.begin(), candidates.end(),
                                         [&](const Candidate& c) { return c.id == sampled.id; });
  sampled.logprob = logprob(*chosen).logprob;
  return sampled;
}

}  // namespace renga::serving
