// renga perplexity: how well the model predicts a text.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "cli/cluster_flags.h"
#include "cli/command.h"
#include "cli/local_cluster.h"
#include "cli/progress_printer.h"
#include "cli/requests.h"

namespace renga::cli {
namespace {

// llama.cpp's convention, so that figures can be compared: windows of 512 tokens that each begin
// with BOS where the vocabulary has one, of which the second half is scored.
constexpr int64_t kWindow = 512;
constexpr int64_t kFirstScored = kWindow / 2;

struct PerplexityFlags {
  ClusterFlags cluster;
  std::string text_file;
};

// -log softmax(logits)[target], in double.
double NegativeLogLikelihood(std::span<const float> logits, model::TokenId target) {
  const double max = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += std::exp(logit - max);
  return max + std::log(sum) - logits[static_cast<size_t>(target)];
}

absl::StatusOr<double> ScoreWindow(LocalCluster& cluster, std::vector<model::TokenId> window) {
  double total = 0;
  RENGA_RETURN_IF_ERROR(
      Score(cluster, {.tokens = window, .first_row = kFirstScored},
            [&](int64_t position, std::span<const float> logits) {
              if (position + 1 < kWindow) {
                total += NegativeLogLikelihood(logits, window[static_cast<size_t>(position) + 1]);
              }
              return absl::OkStatus();
            }));
  return total;
}

absl::Status Perplexity(PerplexityFlags flags) {
  if (flags.cluster.plan.context == 0) flags.cluster.plan.context = kWindow;
  RENGA_ASSIGN_OR_RETURN(const std::string text, base::ReadFile(flags.text_file));
  RENGA_ASSIGN_OR_RETURN(const auto cluster, LocalCluster::Start(flags.cluster));
  const model::Tokenizer& tokenizer = cluster->tokenizer();
  RENGA_ASSIGN_OR_RETURN(const std::vector<model::TokenId> tokens,
                         tokenizer.Encode(text, {.add_bos = true}));
  const int64_t windows = static_cast<int64_t>(tokens.size()) / kWindow;
  if (windows == 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(flags.text_file, " has ", tokens.size(), " tokens; perplexity needs at least ",
                     kWindow));
  }
  ProgressPrinter progress("scoring", flags.cluster.quiet);
  double total = 0;
  for (int64_t i = 0; i < windows; ++i) {
    std::vector<model::TokenId> window(tokens.begin() + i * kWindow,
                                       tokens.begin() + (i + 1) * kWindow);
    if (tokenizer.adds_bos() && tokenizer.bos()) window.front() = *tokenizer.bos();
    RENGA_ASSIGN_OR_RETURN(const double score, ScoreWindow(*cluster, std::move(window)));
    total += score;
    progress.UpdateCount(i + 1, windows, "windows");
  }
  progress.Finish();
  const int64_t scored = windows * (kWindow - 1 - kFirstScored);
  std::printf("perplexity %.4f over %lld tokens (%lld windows of %lld)\n",
              std::exp(total / static_cast<double>(scored)), static_cast<long long>(scored),
              static_cast<long long>(windows), static_cast<long long>(kWindow));
  return absl::OkStatus();
}

}  // namespace

void AddPerplexityCommand(CLI::App& app, Invocation& invocation) {
  auto flags = std::make_shared<PerplexityFlags>();
  CLI::App* command =
      app.add_subcommand("perplexity", "Measure how well the model predicts a text file");
  command->footer("Example:\n  renga perplexity model.gguf text.txt --workers 2");
  AddClusterFlags(*command, flags->cluster);
  command->add_option("text", flags->text_file, "Text file, UTF-8")->required();
  command->callback(
      [flags, &invocation] { invocation.action = [flags] { return Perplexity(*flags); }; });
}

}  // namespace renga::cli
