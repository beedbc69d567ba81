// renga run: one prompt, answered on this machine.
#include <cstdio>
#include <iostream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_join.h"
#include "absl/synchronization/notification.h"
#include "base/status_macros.h"
#include "cli/cluster_flags.h"
#include "cli/command.h"
#include "cli/grammar_flags.h"
#include "cli/interrupt.h"
#include "cli/local_cluster.h"
#include "cli/sampling_flags.h"

namespace renga::cli {
namespace {

struct RunFlags {
  ClusterFlags cluster;
  std::vector<std::string> prompt;
  std::string system;
  bool raw = false;
  bool timings = false;
  GrammarFlags grammar;
  serving::TextOptions text;
};

absl::StatusOr<std::vector<model::TokenId>> EncodePrompt(const RunFlags& flags,
                                                         serving::TextEngine& text) {
  std::string prompt = absl::StrJoin(flags.prompt, " ");
  if (flags.prompt.empty()) prompt.assign(std::istreambuf_iterator<char>(std::cin), {});
  if (flags.raw) return text.EncodePrompt(prompt);
  std::vector<model::ChatMessage> messages;
  if (!flags.system.empty()) messages.push_back({.role = "system", .content = flags.system});
  messages.push_back({.role = "user", .content = prompt});
  return text.EncodeChat(messages);
}

// `by_screen`: the head was to answer without all of its rows where it can.
void PrintTimings(const serving::GenerateResult& result, bool by_screen) {
  const double prefill_s = absl::ToDoubleSeconds(result.timings.prefill);
  const double decode_s = absl::ToDoubleSeconds(result.timings.decode);
  const auto generated = static_cast<double>(result.usage.completion_tokens);
  std::fprintf(stderr, "prompt %lld tokens in %.2f s, answer %lld tokens, %.1f tokens/s\n",
               static_cast<long long>(result.usage.prompt_tokens), prefill_s,
               static_cast<long long>(result.usage.completion_tokens),
               decode_s > 0 ? (generated - 1) / decode_s : 0.0);
  if (result.screened_tokens > 0) {
    std::fprintf(stderr, "the head proved %lld tokens without reading all of its rows\n",
                 static_cast<long long>(result.screened_tokens));
  }
  const int64_t unproved = result.usage.completion_tokens - result.screened_tokens;
  if (by_screen && unproved > 0) {
    std::fprintf(stderr,
                 "the head read all of its rows for %lld tokens: too many rows could matter (top_p "
                 "without top_k, for one, needs them all)\n",
                 static_cast<long long>(unproved));
  }
  if (result.approximated_tokens > 0) {
    std::fprintf(stderr, "%lld tokens were approximated\n",
                 static_cast<long long>(result.approximated_tokens));
  }
  if (result.left_out > 0) {
    std::fprintf(stderr,
                 "%lld feed-forwards came too late and were left out, those of the prompt among "
                 "them\n",
                 static_cast<long long>(result.left_out));
  }
  if (result.guarded) {
    std::fprintf(stderr,
                 "the prompt has too many tokens outside the hot rows: all rows were read\n");
  }
  if (result.grammar_masks > 0) {
    std::fprintf(stderr, "the grammar looked for the allowed tokens of %lld places in %.1f ms\n",
                 static_cast<long long>(result.grammar_masks),
                 absl::ToDoubleMilliseconds(result.grammar_time));
  }
  if (result.speculation.drafted == 0) return;
  std::fprintf(stderr, "guessed %lld tokens ahead, %lld were right, %lld refuted\n",
               static_cast<long long>(result.speculation.drafted),
               static_cast<long long>(result.speculation.accepted),
               static_cast<long long>(result.speculation.refuted));
}

absl::Status Run(const RunFlags& flags) {
  serving::TextOptions options = flags.text;
  RENGA_ASSIGN_OR_RETURN(options.grammar, ReadGrammar(flags.grammar));
  RENGA_ASSIGN_OR_RETURN(const auto cluster, LocalCluster::Start(flags.cluster));
  if (!flags.cluster.quiet) {
    SayApproximationCost(cluster->coordinator().store(), flags.cluster.plan.approximation,
                         flags.cluster.model);
  }
  serving::TextEngine& text = cluster->coordinator().text();
  RENGA_ASSIGN_OR_RETURN(std::vector<model::TokenId> prompt, EncodePrompt(flags, text));
  absl::StatusOr<serving::GenerateResult> result = absl::InternalError("no result");
  absl::Notification done;
  const serving::RequestHandle handle =
      text.Start(std::move(prompt), options,
                 {.on_text =
                      [](const serving::TextEvent& event) {
                        std::fwrite(event.text.data(), 1, event.text.size(), stdout);
                        std::fflush(stdout);
                      },
                  .on_done =
                      [&](absl::StatusOr<serving::GenerateResult> end) {
                        result = std::move(end);
                        done.Notify();
                      }});
  {
    const InterruptScope interrupt([&handle] { handle.Cancel(); });
    done.WaitForNotification();
  }
  if (!result.ok()) {
    if (absl::IsCancelled(result.status())) std::fputc('\n', stdout);
    return result.status();
  }
  std::fputc('\n', stdout);
  if (flags.timings) PrintTimings(*result, cluster->coordinator().uses_screen());
  return absl::OkStatus();
}

}  // namespace

void AddRunCommand(CLI::App& app, Invocation& invocation) {
  auto flags = std::make_shared<RunFlags>();
  flags->cluster.plan.objective = "one-stream";
  CLI::App* command = app.add_subcommand("run", "Answer a prompt on this machine");
  command->footer(
      "Example:\n  renga run model.gguf \"Why is the sky blue?\"\n"
      "  renga run --workers 2 --memory 500MiB model.gguf \"Why is the sky blue?\"\n"
      "  renga run --memory 2GiB --lazy larger.gguf \"Why is the sky blue?\"\n"
      "  renga run --json-schema city.json model.gguf \"The largest city of Japan?\"");
  AddClusterFlags(*command, flags->cluster);
  AddListenFlag(*command, flags->cluster);
  command->add_option("prompt", flags->prompt, "The question (default: standard input)");
  command->add_option("--system", flags->system, "System message put before the question");
  command->add_flag("--raw", flags->raw, "Continue the text instead of answering it as a chat");
  command->add_flag("--timings", flags->timings, "Print speed on standard error");
  command
      ->add_option("-n,--max-tokens", flags->text.max_tokens,
                   "Longest answer (default: until the model ends or the context is full)")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 24));
  command->add_option("--stop", flags->text.stop, "End the answer before this text; repeatable")
      ->allow_extra_args(false);
  AddGrammarFlags(*command, flags->grammar);
  AddSamplingFlags(*command, flags->text.sampling);
  command->callback([flags, &invocation] { invocation.action = [flags] { return Run(*flags); }; });
}

}  // namespace renga::cli
