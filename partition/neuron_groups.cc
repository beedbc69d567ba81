#include "partition/neuron_groups.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <numeric>
#include <random>
#include <span>
#include <string>
#include <vector>

namespace renga::partition {
namespace {

constexpr size_t kGroups = 16;
constexpr int kRounds = 12;

using Matrix = std::vector<float>;  // square, row after row

// The neurons that are active at each token.
class Tokens {
 public:
  Tokens(const ActiveNeurons& active, int64_t per_token)
      : neurons_(active.neurons), per_token_(static_cast<size_t>(per_token)) {}
  size_t count() const { return neurons_.size() / per_token_; }
  std::span<const int32_t> At(size_t token) const {
    return neurons_.subspan(token * per_token_, per_token_);
  }

 private:
  const std::span<const int32_t> neurons_;
  const size_t per_token_;
};

// Tokens of the first half of the texts.
size_t TokensToLearnFrom(const NeuronRecord& record) {
  int64_t tokens = 0;
  for (size_t t = 0; t < (record.texts.size() + 1) / 2; ++t) tokens += record.texts[t].positions;
  return static_cast<size_t>(tokens);
}

// Of each pair, how often it is active together, over the geometric mean of how often each is. Rows
// have length 1.
Matrix Likeness(const Tokens& tokens, size_t end, size_t neurons) {
  Matrix together(neurons * neurons, 0.0f);
  for (size_t token = 0; token < end; ++token) {
    for (const int32_t a : tokens.At(token)) {
      for (const int32_t b : tokens.At(token)) together[static_cast<size_t>(a) * neurons + b] += 1;
    }
  }
  std::vector<float> count(neurons);
  for (size_t n = 0; n < neurons; ++n) count[n] = together[n * neurons + n];
  for (size_t a = 0; a < neurons; ++a) {
    float squares = 0;
    for (size_t b = 0; b < neurons; ++b) {
      float& pair = together[a * neurons + b];
      if (pair > 0) pair /= std::sqrt(count[a] * count[b]);
      squares += pair * pair;
    }
    for (size_t b = 0; b < neurons && squares > 0; ++b) {
      together[a * neurons + b] /= std::sqrt(squares);
    }
  }
  return together;
}

double Distance(const float* a, const float* b, size_t size) {
  float sum = 0;
  for (size_t i = 0; i < size; ++i) sum += (a[i] - b[i]) * (a[i] - b[i]);
  return sum;
}

// Rows drawn by how far they are from those before: k-means++ (Arthur and Vassilvitskii 2007).
Matrix FirstCentres(const Matrix& rows, size_t size, size_t groups) {
  std::mt19937 random(1);  // the standard says which numbers it gives
  Matrix centres(rows.begin(), rows.begin() + static_cast<ptrdiff_t>(size));
  std::vector<double> nearest(size, std::numeric_limits<double>::max());
  while (centres.size() < groups * size) {
    for (size_t n = 0; n < size; ++n) {
      nearest[n] =
          std::min(nearest[n], Distance(&rows[n * size], &centres[centres.size() - size], size));
    }
    double left = std::accumulate(nearest.begin(), nearest.end(), 0.0) * random() / 4294967296.0;
    size_t drawn = 0;
    while (drawn + 1 < size && (left -= nearest[drawn]) >= 0) ++drawn;
    centres.insert(centres.end(), rows.begin() + static_cast<ptrdiff_t>(drawn * size),
                   rows.begin() + static_cast<ptrdiff_t>((drawn + 1) * size));
  }
  return centres;
}

// Lloyd's algorithm.
std::vector<int32_t> KMeans(const Matrix& rows, size_t size, size_t groups) {
  Matrix centres = FirstCentres(rows, size, groups);
  std::vector<int32_t> group_of(size, 0);
  for (int round = 0; round < kRounds; ++round) {
    for (size_t n = 0; n < size; ++n) {
      double best = std::numeric_limits<double>::max();
      for (size_t g = 0; g < groups; ++g) {
        const double distance = Distance(&rows[n * size], &centres[g * size], size);
        if (distance >= best) continue;
        best = distance;
        group_of[n] = static_cast<int32_t>(g);
      }
    }
    std::vector<float> members(groups, 0.0f);
    Matrix sums(centres.size(), 0.0f);
    for (size_t n = 0; n < size; ++n) {
      const auto g = static_cast<size_t>(group_of[n]);
      members[g] += 1;
      for (size_t i = 0; i < size; ++i) sums[g * size + i] += rows[n * size + i];
    }
    for (size_t g = 0; g < groups; ++g) {
      // A group that lost all its neurons stays where it was.
      for (size_t i = 0; i < size && members[g] > 0; ++i) {
        centres[g * size + i] = sums[g * size + i] / members[g];
      }
    }
  }
  return group_of;
}

// lift, inside and inside_by_chance, from the tokens from `begin` on.
void CountPairs(const Tokens& tokens, size_t begin, NeuronGroups& found) {
  const size_t groups = found.sizes.size();
  std::vector<double> pairs(groups * groups, 0.0);
  std::vector<double> uses(groups, 0.0);
  for (size_t token = begin; token < tokens.count(); ++token) {
    std::vector<double> here(groups, 0.0);
    for (const int32_t n : tokens.At(token)) {
      here[static_cast<size_t>(found.group_of[static_cast<size_t>(n)])] += 1;
    }
    for (size_t a = 0; a < groups; ++a) {
      uses[a] += here[a];
      for (size_t b = 0; b < groups; ++b) {
        pairs[a * groups + b] += here[a] * (a == b ? here[b] - 1 : here[b]);
      }
    }
  }
  double all_pairs = 0;
  double all_uses = 0;
  for (const double pair : pairs) all_pairs += pair;
  for (const double use : uses) all_uses += use;
  found.lift.assign(groups * groups, 0.0);
  if (all_pairs <= 0) return;
  for (size_t a = 0; a < groups; ++a) {
    for (size_t b = 0; b < groups; ++b) {
      const double expected = uses[a] / all_uses * uses[b] / all_uses;
      const double share = pairs[a * groups + b] / all_pairs;
      if (expected > 0) found.lift[a * groups + b] = share / expected;
      if (a != b) continue;
      found.inside += share;
      found.inside_by_chance += expected;
    }
  }
}

// By group the text whose share of heat in the group is largest, compared with the other texts.
void NameGroups(const NeuronRecord& record, NeuronGroups& found) {
  const size_t groups = found.sizes.size();
  std::vector<double> best(groups, -1.0);
  found.texts.assign(groups, "");
  for (const NeuronText& text : record.texts) {
    const auto begin = static_cast<size_t>(found.layer * record.neurons);
    std::vector<double> heat(groups, 0.0);
    double all = 0;
    for (size_t n = 0; n < found.group_of.size(); ++n) {
      const double added = double{text.first_half[begin + n]} + text.second_half[begin + n];
      heat[static_cast<size_t>(found.group_of[n])] += added;
      all += added;
    }
    for (size_t g = 0; g < groups && all > 0; ++g) {
      if (heat[g] / all <= best[g]) continue;
      best[g] = heat[g] / all;
      found.texts[g] = text.name;
    }
  }
}

}  // namespace

NeuronGroups GroupNeurons(const NeuronRecord& record, const ActiveNeurons& active) {
  const auto neurons = static_cast<size_t>(record.neurons);
  const size_t groups = std::min(kGroups, neurons);
  const Tokens tokens(active, record.active);
  const size_t learned = std::min(TokensToLearnFrom(record), tokens.count());
  NeuronGroups found;
  found.layer = active.layer;
  found.group_of = KMeans(Likeness(tokens, learned, neurons), neurons, groups);
  found.sizes.assign(groups, 0);
  for (const int32_t group : found.group_of) ++found.sizes[static_cast<size_t>(group)];
  CountPairs(tokens, learned, found);
  NameGroups(record, found);
  return found;
}

}  // namespace renga::partition
