#include "cli/approximation_flags.h"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <iterator>
#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "base/byte_size.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "model/footprint.h"
#include "nlohmann/json.hpp"
#include "partition/heat_order.h"

namespace renga::cli {
namespace {

using nlohmann::json;

constexpr char kLateSlice[] = "late-slice";
constexpr char kHotRows[] = "hot-rows";
constexpr char kColdNeurons[] = "cold-neurons";
constexpr char kMissing[] = "missing";
constexpr char kDeadline[] = "deadline";
constexpr char kWithoutLayers[] = "without-layers";
constexpr char kWithoutAttention[] = "without-attention";
constexpr char kWithoutFeedForward[] = "without-feed-forward";
constexpr int64_t kUsualPercent = 25;
// Beyond any model's, so that a typing error fills no memory.
constexpr int32_t kMostLayers = 4096;

// "25%" or "25".
absl::StatusOr<int64_t> ParsePercent(absl::string_view text, int64_t least) {
  int64_t percent = 0;
  if (absl::SimpleAtoi(absl::StripSuffix(text, "%"), &percent) && percent >= least &&
      percent <= 100) {
    return percent;
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "a share is written as a whole number of percent, ", least, "% to 100%: not '", text, "'"));
}

// "20ms" or "20".
absl::StatusOr<int64_t> ParseMilliseconds(absl::string_view text) {
  int64_t milliseconds = 0;
  if (absl::SimpleAtoi(absl::StripSuffix(text, "ms"), &milliseconds) && milliseconds > 0 &&
      milliseconds <= model::kMaxDeadlineMs) {
    return milliseconds;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("a deadline is written as a whole number of milliseconds, 1ms to ",
                   model::kMaxDeadlineMs, "ms: not '", text, "'"));
}

// "3,7-9": ascending, each once. Whether the model has them is not known here.
absl::StatusOr<model::LayerSet> ParseLayers(absl::string_view text) {
  const absl::Status wrong = absl::InvalidArgumentError(
      absl::StrCat("layers are written by their numbers from 0 on, as 3,7-9: not '", text, "'"));
  model::LayerSet layers;
  for (const absl::string_view part : absl::StrSplit(text, ',')) {
    const std::pair<absl::string_view, absl::string_view> ends =
        absl::StrSplit(part, absl::MaxSplits('-', 1));
    int32_t first = 0;
    int32_t last = 0;
    const bool is_range = absl::StrContains(part, '-');
    if (!absl::SimpleAtoi(ends.first, &first) ||
        !absl::SimpleAtoi(is_range ? ends.second : ends.first, &last)) {
      return wrong;
    }
    if (first < 0 || last < first || last >= kMostLayers) return wrong;
    for (int32_t layer = first; layer <= last; ++layer) layers.push_back(layer);
  }
  if (layers.empty()) return wrong;
  std::sort(layers.begin(), layers.end());
  layers.erase(std::unique(layers.begin(), layers.end()), layers.end());
  return layers;
}

struct Mode {
  std::string name;
  int64_t percent = kUsualPercent;
  int64_t deadline_ms = 0;      // of kDeadline
  model::LayerSet layers = {};  // of those that leave out parts of layers
  bool leaves_out_parts() const {
    return name == kWithoutLayers || name == kWithoutAttention || name == kWithoutFeedForward;
  }
  // As a user would write it.
  std::string text() const {
    if (leaves_out_parts()) return absl::StrCat(name, "=", absl::StrJoin(layers, ","));
    if (name == kDeadline) return absl::StrCat(name, "=", deadline_ms, "ms");
    return absl::StrCat(name, "=", percent, "%");
  }
};

absl::StatusOr<Mode> ParseMode(absl::string_view text) {
  const std::pair<absl::string_view, absl::string_view> parts =
      absl::StrSplit(text, absl::MaxSplits('=', 1));
  Mode mode{.name = std::string(parts.first)};
  const auto names = {kLateSlice, kHotRows,       kColdNeurons,      kDeadline,
                      kMissing,   kWithoutLayers, kWithoutAttention, kWithoutFeedForward};
  if (std::find(names.begin(), names.end(), mode.name) == names.end()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--approximate knows ", absl::StrJoin(names, ", "), "; not '", parts.first, "'"));
  }
  if (mode.name == kDeadline) {
    RENGA_ASSIGN_OR_RETURN(mode.deadline_ms, ParseMilliseconds(parts.second));
    return mode;
  }
  if (mode.leaves_out_parts()) {
    RENGA_ASSIGN_OR_RETURN(mode.layers, ParseLayers(parts.second));
    return mode;
  }
  if (parts.first.size() == text.size()) return mode;
  RENGA_ASSIGN_OR_RETURN(mode.percent, ParsePercent(parts.second, 1));
  return mode;
}

// With the report's path before what is wrong with it.
absl::Status InReport(const std::string& path, const absl::Status& status) {
  return absl::Status(status.code(), absl::StrCat(path, " is ", status.message()));
}

// The rows that texts used most, best first; none without a report.
absl::StatusOr<std::vector<int32_t>> RowsOfReport(const std::string& path, int64_t vocab_size) {
  if (path.empty()) return std::vector<int32_t>();
  RENGA_ASSIGN_OR_RETURN(const std::string report, base::ReadFile(path));
  auto rows = partition::ParseHotRows(report, vocab_size);
  if (!rows.ok()) return InReport(path, rows.status());
  return rows;
}

// The first rows of the report's order, then of the file's: tokenizers number frequent tokens
// first.
absl::StatusOr<model::RowSet> ChooseHotRows(const std::string& regions, int64_t percent,
                                            int64_t vocab_size) {
  RENGA_ASSIGN_OR_RETURN(const std::vector<int32_t> order, RowsOfReport(regions, vocab_size));
  const auto wanted = static_cast<size_t>(std::max<int64_t>(1, vocab_size * percent / 100));
  std::vector<bool> chosen(static_cast<size_t>(vocab_size));
  model::RowSet rows;
  const auto choose = [&](int32_t row) {
    if (rows.size() == wanted || chosen[static_cast<size_t>(row)]) return;
    chosen[static_cast<size_t>(row)] = true;
    rows.push_back(row);
  };
  for (const int32_t row : order) choose(row);
  for (int64_t row = 0; row < vocab_size && rows.size() < wanted; ++row) {
    choose(static_cast<int32_t>(row));
  }
  std::sort(rows.begin(), rows.end());
  return rows;
}

// The last neurons of each layer in the report's order.
absl::StatusOr<model::NeuronSet> ChooseColdNeurons(const ApproximationFlags& flags, int64_t percent,
                                                   const model::ModelConfig& config) {
  if (flags.regions.empty()) {
    return absl::InvalidArgumentError(
        "--approximate cold-neurons needs --regions with the report that `renga regions` writes");
  }
  RENGA_ASSIGN_OR_RETURN(const std::string report, base::ReadFile(flags.regions));
  auto cold = partition::ParseColdNeurons(report, config, percent);
  if (!cold.ok()) return InReport(flags.regions, cold.status());
  return cold;
}

std::string CostFile(const cluster::ModelStore& store) {
  return absl::StrCat(base::CacheDirectory(), "/approximations/", store.manifest().model_id.ToHex(),
                      ".json");
}

// An object, empty when there is no file or something else in it.
json ReadCosts(const std::string& path) {
  const absl::StatusOr<std::string> text = base::ReadFile(path);
  if (!text.ok()) return json::object();
  json costs = json::parse(*text, nullptr, /*allow_exceptions=*/false);
  return costs.is_object() ? costs : json::object();
}

// A number of an object, if there is one.
std::optional<double> NumberOf(const json& object, const char* key) {
  if (!object.is_object() || !object.contains(key) || !object[key].is_number()) return {};
  return object[key].get<double>();
}

}  // namespace

void AddRegionsFlag(CLI::App& command, ApproximationFlags& flags) {
  command.add_option("--regions", flags.regions,
                     "JSON of `renga regions`: its hot rows come first with --approximate hot-rows "
                     "and --near-rows (default: rows in the file's order); says which neurons are "
                     "cold, and, to plans with --lazy, how many experts tokens miss");
}

void AddApproximationFlags(CLI::App& command, ApproximationFlags& flags) {
  command
      .add_option(
          "--approximate", flags.modes,
          "Compute less than the model, or later; repeatable. late-slice=25%: the last 25% "
          "of each layer's feed-forward is added one layer late. hot-rows=25%: tokens are "
          "chosen among 25% of the vocabulary. cold-neurons=75%: the coldest 75% of the "
          "feed-forward's neurons, by --regions, have 3 bits for each weight of the matrices "
          "before the gate, and take that much memory. "
          "deadline=20ms, with --lazy: a layer's feed-forward whose weights have not come "
          "from disk 20 ms after they were needed is left out of the token. missing=10%: "
          "10% of all feed-forwards are left out, drawn for each token and layer. "
          "without-layers=3,7-9: these layers, counted from 0, are neither computed nor held; "
          "without-attention and without-feed-forward leave out one of their parts. Answers "
          "change; `renga perplexity` says by how much (default: nothing)")
      ->allow_extra_args(false);
  command.add_option("--approximate-at-most", flags.at_most,
                     "Approximate at most this share of tokens, e.g. 20% (default: 100%)");
  AddRegionsFlag(command, flags);
}

static void AddLayers(const model::LayerSet& added, model::LayerSet& layers) {
  model::LayerSet both;
  std::set_union(added.begin(), added.end(), layers.begin(), layers.end(),
                 std::back_inserter(both));
  layers = std::move(both);
}

absl::StatusOr<model::Approximation> ToApproximation(const ApproximationFlags& flags,
                                                     const model::ModelConfig& config) {
  model::Approximation approximation;
  if (flags.exact()) {
    if (flags.at_most.empty()) return approximation;
    return absl::InvalidArgumentError("--approximate-at-most needs --approximate");
  }
  for (const std::string& text : flags.modes) {
    RENGA_ASSIGN_OR_RETURN(const Mode mode, ParseMode(text));
    if (mode.name == kLateSlice) {
      approximation.late_percent = mode.percent;
    } else if (mode.name == kDeadline) {
      approximation.deadline_ms = mode.deadline_ms;
    } else if (mode.name == kMissing) {
      approximation.missing_percent = mode.percent;
    } else if (mode.leaves_out_parts()) {
      if (mode.name != kWithoutFeedForward) AddLayers(mode.layers, approximation.without_attention);
      if (mode.name != kWithoutAttention)
        AddLayers(mode.layers, approximation.without_feed_forward);
    } else if (mode.name == kColdNeurons) {
      RENGA_ASSIGN_OR_RETURN(model::NeuronSet cold, ChooseColdNeurons(flags, mode.percent, config));
      approximation.cold_neurons = std::make_shared<const model::NeuronSet>(std::move(cold));
    } else {
      RENGA_ASSIGN_OR_RETURN(model::RowSet rows,
                             ChooseHotRows(flags.regions, mode.percent, config.vocab_size));
      approximation.hot_rows = std::make_shared<const model::RowSet>(std::move(rows));
    }
  }
  if (!flags.at_most.empty()) {
    RENGA_ASSIGN_OR_RETURN(approximation.at_most_percent, ParsePercent(flags.at_most, 0));
  }
  RENGA_RETURN_IF_ERROR(model::CheckApproximation(approximation, config));
  return approximation;
}

absl::StatusOr<model::RowSet> ParseHotRows(absl::string_view share, const std::string& regions,
                                           int64_t vocab_size) {
  RENGA_ASSIGN_OR_RETURN(const int64_t percent, ParsePercent(share, 1));
  return ChooseHotRows(regions, percent, vocab_size);
}

std::string ApproximationName(const ApproximationFlags& flags) {
  std::vector<std::string> parts;
  for (const std::string& text : flags.modes) {
    const absl::StatusOr<Mode> mode = ParseMode(text);
    if (!mode.ok()) continue;
    parts.push_back(mode->text());
    if (mode->name == kHotRows && !flags.regions.empty()) parts.back() += " by regions";
  }
  std::sort(parts.begin(), parts.end());
  if (!flags.at_most.empty()) {
    parts.push_back(absl::StrCat("at most ", absl::StripSuffix(flags.at_most, "%"), "%"));
  }
  return absl::StrJoin(parts, ", ");
}

absl::Status SaveApproximationCost(const cluster::ModelStore& store,
                                   const ApproximationFlags& flags, const serving::Divergence& cost,
                                   const std::string& text) {
  const std::string path = CostFile(store);
  RENGA_RETURN_IF_ERROR(
      base::CreateDirectories(std::filesystem::path(path).parent_path().string()));
  json costs = ReadCosts(path);
  costs[ApproximationName(flags)] = {{"text", text},
                                     {"positions", cost.positions},
                                     {"exact_perplexity", cost.exact_perplexity},
                                     {"approximate_perplexity", cost.approximate_perplexity},
                                     {"kl_mean", cost.kl_mean},
                                     {"kl_p99", cost.kl_p99},
                                     {"reverse_kl_mean", cost.reverse_kl_mean},
                                     {"same_top", cost.same_top}};
  return base::WriteFileAtomically(path, costs.dump(1) + "\n");
}

void SayWhatIsSaved(const cluster::ModelStore& store, const ApproximationFlags& flags) {
  const auto read = ToApproximation(flags, store.model().config);
  const model::Approximation approximation = read.value_or(model::Approximation());
  if (approximation.cold_neurons == nullptr && !approximation.leaves_out_parts()) return;
  model::ModelFootprint held;
  held.layers.resize(static_cast<size_t>(store.model().config.n_layers));
  model::ModelFootprint stored = held;
  if (!model::CountApproximation(store.file(), store.model(), {}, stored).ok() ||
      !model::CountApproximation(store.file(), store.model(), approximation, held).ok()) {
    return;
  }
  int64_t saved = 0;
  for (size_t layer = 0; layer < held.layers.size(); ++layer) {
    saved += stored.layers[layer].total() - held.layers[layer].total();
  }
  int64_t bytes = 0;
  for (const cluster::ManifestTensor& tensor : store.manifest().tensors) bytes += tensor.byte_size;
  std::fprintf(stderr, "approximate: %s of the weights' %s are not held\n",
               base::FormatByteSize(saved).c_str(), base::FormatByteSize(bytes).c_str());
}

void SayApproximationCost(const cluster::ModelStore& store, const ApproximationFlags& flags,
                          const std::string& model_path) {
  if (flags.exact()) return;
  SayWhatIsSaved(store, flags);
  const std::string name = ApproximationName(flags);
  const json costs = ReadCosts(CostFile(store));
  const json cost = costs.contains(name) ? costs[name] : json();
  const auto exact = NumberOf(cost, "exact_perplexity");
  const auto approximate = NumberOf(cost, "approximate_perplexity");
  const auto kl = NumberOf(cost, "kl_mean");
  const auto same = NumberOf(cost, "same_top");
  if (exact && approximate && kl && same) {
    std::fprintf(stderr,
                 "approximate (%s): perplexity %.4g instead of %.4g, KL %.3g nats, the same best "
                 "token in %.1f%% of positions, as measured before\n",
                 name.c_str(), *approximate, *exact, *kl, *same * 100);
    return;
  }
  std::vector<std::string> arguments;
  for (const std::string& mode : flags.modes) {
    arguments.push_back("--approximate " + mode);
    // It is refused without, and what is in memory is never late.
    if (absl::StartsWith(mode, kDeadline)) arguments.push_back("--lazy --memory SIZE");
  }
  if (!flags.at_most.empty()) arguments.push_back("--approximate-at-most " + flags.at_most);
  if (!flags.regions.empty()) arguments.push_back("--regions " + flags.regions);
  std::fprintf(stderr,
               "approximate (%s): its cost was not measured here; this does: renga perplexity %s "
               "%s\n",
               name.c_str(), model_path.c_str(), absl::StrJoin(arguments, " ").c_str());
}

}  // namespace renga::cli
