#include "coordinator/serving/divergence.h"

#include <algorithm>
#include <cmath>

namespace renga::serving {
namespace {

// log(sum(exp(logit))).
double LogSum(std::span<const float> logits) {
  const double max = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += std::exp(logit - max);
  return max + std::log(sum);
}

}  // namespace

double NegativeLogLikelihood(std::span<const float> logits, model::TokenId target) {
  return LogSum(logits) - logits[static_cast<size_t>(target)];
}

void DivergenceMeter::Add(std::span<const float> exact, std::span<const float> approximate,
                          model::TokenId target) {
  const double exact_sum = LogSum(exact);
  const double approximate_sum = LogSum(approximate);
  double kl = 0;
  double reverse_kl = 0;
  for (size_t i = 0; i < exact.size(); ++i) {
    const double log_p = exact[i] - exact_sum;
    const double log_q = approximate[i] - approximate_sum;
    kl += std::exp(log_p) * (log_p - log_q);
    reverse_kl += std::exp(log_q) * (log_q - log_p);
  }
  // Below 0 only by rounding.
  kl_.push_back(std::max(0.0, kl));
  reverse_kl_ += std::max(0.0, reverse_kl);
  const auto row = static_cast<size_t>(target);
  exact_nll_ += exact_sum - exact[row];
  approximate_nll_ += approximate_sum - approximate[row];
  const auto top = [](std::span<const float> logits) {
    return std::max_element(logits.begin(), logits.end()) - logits.begin();
  };
  same_top_ += top(exact) == top(approximate) ? 1 : 0;
}

void DivergenceMeter::Add(const DivergenceMeter& other) {
  kl_.insert(kl_.end(), other.kl_.begin(), other.kl_.end());
  reverse_kl_ += other.reverse_kl_;
  exact_nll_ += other.exact_nll_;
  approximate_nll_ += other.approximate_nll_;
  same_top_ += other.same_top_;
}

Divergence DivergenceMeter::Summary() const {
  Divergence found;
  found.positions = static_cast<int64_t>(kl_.size());
  const auto count = static_cast<double>(kl_.size());
  found.exact_perplexity = std::exp(exact_nll_ / count);
  found.approximate_perplexity = std::exp(approximate_nll_ / count);
  found.same_top = static_cast<double>(same_top_) / count;
  double sum = 0;
  for (const double kl : kl_) sum += kl;
  found.kl_mean = sum / count;
  found.reverse_kl_mean = reverse_kl_ / count;
  found.kl_p99 = std::nan("");
  if (kl_.empty()) return found;
  std::vector<double> sorted = kl_;
  std::sort(sorted.begin(), sorted.end());
  found.kl_p99 = sorted[(sorted.size() * 99 + 99) / 100 - 1];
  return found;
}

}  // namespace renga::serving
