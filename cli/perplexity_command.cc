// renga perplexity: how well the model predicts a text, and how far an approximation is from it.
#include <cmath>
#include <cstdio>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "cli/cluster_flags.h"
#include "cli/command.h"
#include "cli/held_out_texts.h"
#include "cli/local_cluster.h"
#include "cli/progress_printer.h"
#include "cli/requests.h"
#include "coordinator/serving/divergence.h"
#include "model/unicode.h"

namespace renga::cli {
namespace {

// llama.cpp's convention, so that figures can be compared: windows of 512 tokens that each begin
// with BOS where the vocabulary has one, of which the second half is scored.
constexpr int64_t kWindow = 512;
constexpr int64_t kFirstScored = kWindow / 2;

struct PerplexityFlags {
  ClusterFlags cluster;
  std::string text_file;  // empty: texts that come with renga
};

// Text in windows, ready to be scored.
struct Windows {
  std::string name;
  std::vector<std::vector<model::TokenId>> windows;
  int64_t scored() const {
    return static_cast<int64_t>(windows.size()) * (kWindow - 1 - kFirstScored);
  }
};

absl::StatusOr<std::vector<NamedText>> TextsToScore(const std::string& file) {
  if (file.empty()) return HeldOutTexts();
  RENGA_ASSIGN_OR_RETURN(std::string text, base::ReadFile(file));
  if (!model::IsValidUtf8(text)) {
    return absl::InvalidArgumentError(absl::StrCat(
        file,
        " is no UTF-8 text, and bytes that spell no character have no perplexity: convert it "
        "first, with iconv for example"));
  }
  std::vector<NamedText> texts;
  texts.push_back({.name = file, .text = std::move(text)});
  return texts;
}

absl::StatusOr<Windows> CutWindows(const NamedText& text, const model::Tokenizer& tokenizer) {
  RENGA_ASSIGN_OR_RETURN(const std::vector<model::TokenId> tokens,
                         tokenizer.Encode(text.text, {.add_bos = true}));
  const int64_t count = static_cast<int64_t>(tokens.size()) / kWindow;
  if (count == 0) {
    return absl::InvalidArgumentError(absl::StrCat(text.name, " has ", tokens.size(),
                                                   " tokens; perplexity needs at least ", kWindow));
  }
  Windows cut{.name = text.name, .windows = {}};
  for (int64_t i = 0; i < count; ++i) {
    auto& window =
        cut.windows.emplace_back(tokens.begin() + i * kWindow, tokens.begin() + (i + 1) * kWindow);
    if (tokenizer.adds_bos() && tokenizer.bos()) window.front() = *tokenizer.bos();
  }
  return cut;
}

// Calls `on_row` with the logits of every scored position and the token that follows it.
absl::Status ScoreWindow(
    LocalCluster& cluster, const std::vector<model::TokenId>& window,
    const std::function<void(std::span<const float>, model::TokenId)>& on_row) {
  return Score(cluster, {.tokens = window, .first_row = kFirstScored},
               [&](int64_t position, std::span<const float> logits) {
                 if (position + 1 < kWindow) {
                   on_row(logits, window[static_cast<size_t>(position) + 1]);
                 }
                 return absl::OkStatus();
               });
}

// The sum of -log likelihoods.
absl::StatusOr<double> ScoreWindows(LocalCluster& cluster, const Windows& text, bool quiet) {
  ProgressPrinter progress("scoring", quiet);
  double total = 0;
  int64_t done = 0;
  for (const std::vector<model::TokenId>& window : text.windows) {
    RENGA_RETURN_IF_ERROR(ScoreWindow(cluster, window, [&](auto logits, model::TokenId next) {
      total += serving::NegativeLogLikelihood(logits, next);
    }));
    progress.UpdateCount(++done, static_cast<int64_t>(text.windows.size()), "windows");
  }
  progress.Finish();
  return total;
}

// Both models on the same windows, one window after the other: what is kept of the exact one are
// the logits of half a window.
absl::StatusOr<serving::DivergenceMeter> CompareWindows(LocalCluster& exact,
                                                        LocalCluster& approximate,
                                                        const Windows& text, bool quiet) {
  ProgressPrinter progress("comparing", quiet);
  serving::DivergenceMeter meter;
  std::vector<float> rows;
  int64_t done = 0;
  for (const std::vector<model::TokenId>& window : text.windows) {
    rows.clear();
    RENGA_RETURN_IF_ERROR(ScoreWindow(exact, window, [&](auto logits, model::TokenId) {
      rows.insert(rows.end(), logits.begin(), logits.end());
    }));
    size_t first = 0;
    RENGA_RETURN_IF_ERROR(ScoreWindow(approximate, window, [&](auto logits, model::TokenId next) {
      meter.Add(std::span(rows).subspan(first, logits.size()), logits, next);
      first += logits.size();
    }));
    progress.UpdateCount(++done, static_cast<int64_t>(text.windows.size()), "windows");
  }
  progress.Finish();
  return meter;
}

void PrintPerplexity(double perplexity, int64_t scored, int64_t windows) {
  std::printf("perplexity %.4f over %lld tokens (%lld windows of %lld)\n", perplexity,
              static_cast<long long>(scored), static_cast<long long>(windows),
              static_cast<long long>(kWindow));
}

void PrintDivergence(const serving::Divergence& found) {
  std::printf(
      "  approximate: perplexity %.4f; KL(exact || approximate) %.5f nats a token, 99th "
      "percentile %.4f; KL(approximate || exact) %.5f; the same best token in %.2f%% of "
      "positions\n",
      found.approximate_perplexity, found.kl_mean, found.kl_p99, found.reverse_kl_mean,
      found.same_top * 100);
}

// What a deadline cost, next to what it came from.
void PrintLeftOut(LocalCluster& cluster, int64_t windows) {
  const auto left_out = static_cast<int64_t>(cluster.scheduler().Stats().left_out);
  if (left_out == 0) return;
  const int64_t all = windows * kWindow * cluster.config().n_layers;
  std::printf("  %lld of %lld feed-forwards came too late and were left out (%.2f%%)\n",
              static_cast<long long>(left_out), static_cast<long long>(all),
              100.0 * static_cast<double>(left_out) / static_cast<double>(all));
}

void PrintName(const std::vector<Windows>& texts, const std::string& name) {
  if (texts.size() > 1) std::printf("%s: ", name.c_str());
}

absl::Status MeasureExact(LocalCluster& cluster, const std::vector<Windows>& texts, bool quiet) {
  for (const Windows& text : texts) {
    RENGA_ASSIGN_OR_RETURN(const double total, ScoreWindows(cluster, text, quiet));
    PrintName(texts, text.name);
    PrintPerplexity(std::exp(total / static_cast<double>(text.scored())), text.scored(),
                    static_cast<int64_t>(text.windows.size()));
  }
  return absl::OkStatus();
}

absl::Status MeasureApproximation(const PerplexityFlags& flags, LocalCluster& exact,
                                  const std::vector<Windows>& texts) {
  const ApproximationFlags& approximation = flags.cluster.plan.approximation;
  SayWhatIsSaved(exact.coordinator().store(), approximation);
  RENGA_ASSIGN_OR_RETURN(const auto approximate, LocalCluster::Start(flags.cluster));
  serving::DivergenceMeter all;
  int64_t windows = 0;
  const auto print = [&](const std::string& name, const serving::DivergenceMeter& meter,
                         int64_t count) {
    const serving::Divergence found = meter.Summary();
    PrintName(texts, name);
    PrintPerplexity(found.exact_perplexity, found.positions, count);
    PrintDivergence(found);
    return found;
  };
  for (const Windows& text : texts) {
    RENGA_ASSIGN_OR_RETURN(const serving::DivergenceMeter meter,
                           CompareWindows(exact, *approximate, text, flags.cluster.quiet));
    const auto count = static_cast<int64_t>(text.windows.size());
    if (texts.size() > 1) print(text.name, meter, count);
    all.Add(meter);
    windows += count;
  }
  const serving::Divergence found = print("all", all, windows);
  PrintLeftOut(*approximate, windows);
  return SaveApproximationCost(exact.coordinator().store(), approximation, found,
                               flags.text_file.empty() ? "held out" : flags.text_file);
}

absl::Status Perplexity(PerplexityFlags flags) {
  if (flags.cluster.plan.context == 0) flags.cluster.plan.context = kWindow;
  RENGA_ASSIGN_OR_RETURN(const std::vector<NamedText> texts, TextsToScore(flags.text_file));
  ClusterFlags exact_flags = flags.cluster;
  exact_flags.plan.approximation = {};
  RENGA_ASSIGN_OR_RETURN(const auto exact, LocalCluster::Start(exact_flags));
  std::vector<Windows> windows;
  for (const NamedText& text : texts) {
    RENGA_ASSIGN_OR_RETURN(windows.emplace_back(), CutWindows(text, exact->tokenizer()));
  }
  if (flags.cluster.plan.approximation.exact() &&
      flags.cluster.plan.approximation.at_most.empty()) {
    return MeasureExact(*exact, windows, flags.cluster.quiet);
  }
  return MeasureApproximation(flags, *exact, windows);
}

}  // namespace

void AddPerplexityCommand(CLI::App& app, Invocation& invocation) {
  auto flags = std::make_shared<PerplexityFlags>();
  CLI::App* command = app.add_subcommand(
      "perplexity", "Measure how well the model predicts a text, and what an approximation costs");
  command->footer(
      "Example:\n  renga perplexity model.gguf text.txt --workers 2\n"
      "  renga perplexity model.gguf --approximate late-slice=25%");
  AddClusterFlags(*command, flags->cluster);
  command->add_option("text", flags->text_file,
                      "Text file, UTF-8 (default: English and Japanese texts that come with renga, "
                      "which `renga regions` never reads)");
  command->callback(
      [flags, &invocation] { invocation.action = [flags] { return Perplexity(*flags); }; });
}

}  // namespace renga::cli
