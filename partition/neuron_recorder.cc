#include "partition/neuron_recorder.h"

#include <algorithm>
#include <functional>
#include <utility>

namespace renga::partition {
namespace {

constexpr int64_t kStrengthSteps = 20;  // of NeuronRecord::strongest
// Sorting a row takes longer than all else that is done with it.
constexpr int64_t kSortedEvery = 8;
constexpr int64_t kSampledLayers = 3;

}  // namespace

NeuronRecorder::NeuronRecorder(int64_t layers, int64_t neurons, std::vector<float> lengths)
    : lengths_(std::move(lengths)),
      first_use_(static_cast<size_t>(layers * neurons), -1),
      added_(static_cast<size_t>(neurons)) {
  record_.layers = layers;
  record_.neurons = neurons;
  record_.active = std::max<int64_t>(1, neurons / kStrengthSteps);
  record_.strongest.assign(kStrengthSteps, 0.0);
  // Evenly over the depth, the ends left out.
  for (int64_t i = 1; i <= kSampledLayers; ++i) {
    const int64_t layer = layers * i / (kSampledLayers + 1);
    if (record_.sampled.empty() || record_.sampled.back().layer != layer) {
      record_.sampled.push_back({.layer = layer, .neurons = {}});
    }
  }
}

void NeuronRecorder::BeginText(const std::string& name, int64_t positions) {
  if (!record_.texts.empty()) positions_before_ += record_.texts.back().positions;
  const auto numbers = static_cast<size_t>(record_.layers * record_.neurons);
  record_.texts.push_back({.name = name,
                           .positions = positions,
                           .first_half = std::vector<float>(numbers),
                           .second_half = std::vector<float>(numbers)});
}

void NeuronRecorder::Add(int64_t layer, int64_t first_position, std::span<const float> rows) {
  const auto width = static_cast<size_t>(record_.neurons);
  for (size_t row = 0; (row + 1) * width <= rows.size(); ++row) {
    AddRow(layer, first_position + static_cast<int64_t>(row), rows.subspan(row * width, width));
  }
}

void NeuronRecorder::AddRow(int64_t layer, int64_t position, std::span<const float> row) {
  NeuronText& text = record_.texts.back();
  const int64_t begin = layer * record_.neurons;
  std::vector<float>& half = position < text.positions / 2 ? text.first_half : text.second_half;
  double all = 0;
  for (size_t n = 0; n < row.size(); ++n) {
    const float added = row[n] * lengths_[static_cast<size_t>(begin) + n];
    added_[n] = added * added;
    all += added_[n];
  }
  // The first tokens of a text make some neurons hundreds of times as strong as any other token.
  const float scale = all > 0 ? static_cast<float>(1 / all) : 0;
  for (size_t n = 0; n < row.size(); ++n) {
    added_[n] *= scale;
    half[static_cast<size_t>(begin) + n] += added_[n];
  }
  const int64_t token = positions_before_ + position;
  sorted_ = added_;
  if (token % kSortedEvery == 0) {
    std::sort(sorted_.begin(), sorted_.end(), std::greater<>());
    if (all > 0) AddStrongest();
  } else {
    std::nth_element(sorted_.begin(), sorted_.begin() + record_.active - 1, sorted_.end(),
                     std::greater<>());
  }
  const float least = sorted_[static_cast<size_t>(record_.active) - 1];
  const auto sampled = std::find_if(record_.sampled.begin(), record_.sampled.end(),
                                    [&](const ActiveNeurons& s) { return s.layer == layer; });
  int64_t left = record_.active;  // several may be as strong as the last
  for (size_t n = 0; n < row.size() && left > 0; ++n) {
    if (added_[n] < least) continue;
    --left;
    int64_t& first = first_use_[static_cast<size_t>(begin) + n];
    if (first < 0) first = token;
    if (sampled != record_.sampled.end()) sampled->neurons.push_back(static_cast<int32_t>(n));
  }
}

void NeuronRecorder::AddStrongest() {
  ++strongest_rows_;
  const auto neurons = static_cast<int64_t>(sorted_.size());
  double sum = 0;
  int64_t n = 0;
  for (int64_t step = 0; step < kStrengthSteps; ++step) {
    for (; n < neurons * (step + 1) / kStrengthSteps; ++n) sum += sorted_[static_cast<size_t>(n)];
    record_.strongest[static_cast<size_t>(step)] += sum;
  }
}

NeuronRecord NeuronRecorder::Finish() {
  const int64_t positions =
      positions_before_ + (record_.texts.empty() ? 0 : record_.texts.back().positions);
  record_.distinct.assign(static_cast<size_t>(positions), 0);
  for (const int64_t token : first_use_) {
    if (token >= 0 && token < positions) ++record_.distinct[static_cast<size_t>(token)];
  }
  for (size_t i = 1; i < record_.distinct.size(); ++i) {
    record_.distinct[i] += record_.distinct[i - 1];
  }
  for (double& share : record_.strongest) share /= std::max<double>(1, strongest_rows_);
  return std::exchange(record_, {});
}

}  // namespace renga::partition
