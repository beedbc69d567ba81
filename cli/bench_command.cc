// renga bench: tokens per second of prefill and decode, through the same road as real requests.
#include <algorithm>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "base/status_macros.h"
#include "cli/cluster_flags.h"
#include "cli/command.h"
#include "cli/hop_bench.h"
#include "cli/local_cluster.h"
#include "cli/requests.h"
#include "nlohmann/json.hpp"

namespace renga::cli {
namespace {

struct BenchFlags {
  ClusterFlags cluster;
  int64_t prompt_tokens = 512;
  int64_t generated_tokens = 128;
  int64_t depth = 0;
  int repetitions = 3;
  bool json = false;
  bool hops = false;
};

// Ids that are neither all equal nor special; what they say does not matter.
std::vector<model::TokenId> ArbitraryTokens(int64_t count, int64_t vocab_size) {
  std::vector<model::TokenId> tokens(static_cast<size_t>(count));
  uint64_t state = 1;
  for (model::TokenId& token : tokens) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    token = static_cast<model::TokenId>((state >> 33) % static_cast<uint64_t>(vocab_size));
  }
  return tokens;
}

// Generates `generated` tokens after `prompt` prompt tokens.
absl::StatusOr<serving::RequestTimings> TimeRequest(LocalCluster& cluster, int64_t prompt,
                                                    int64_t generated) {
  serving::GenerateRequest request;
  request.prompt = ArbitraryTokens(prompt, cluster.config().vocab_size);
  request.max_tokens = generated;
  request.ignore_eos = true;
  request.sampling.temperature = 0;
  RENGA_ASSIGN_OR_RETURN(const GeneratedTokens done, Generate(cluster, request));
  return done.result.timings;
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

struct Rates {
  std::vector<double> prefill;  // tokens per second, one per repetition
  std::vector<double> decode;
};

absl::StatusOr<Rates> Measure(LocalCluster& cluster, const BenchFlags& flags) {
  Rates rates;
  // The first step of a process pays for page faults and thread starts.
  RENGA_RETURN_IF_ERROR(TimeRequest(cluster, 8, 2).status());
  for (int i = 0; i < flags.repetitions; ++i) {
    if (flags.prompt_tokens > 0) {
      RENGA_ASSIGN_OR_RETURN(const auto timings, TimeRequest(cluster, flags.prompt_tokens, 1));
      rates.prefill.push_back(static_cast<double>(flags.prompt_tokens) /
                              absl::ToDoubleSeconds(timings.prefill));
    }
    if (flags.generated_tokens > 0) {
      // The first token comes out of the prompt's step; decode time begins after it.
      RENGA_ASSIGN_OR_RETURN(
          const auto timings,
          TimeRequest(cluster, std::max<int64_t>(1, flags.depth), flags.generated_tokens + 1));
      rates.decode.push_back(static_cast<double>(flags.generated_tokens) /
                             absl::ToDoubleSeconds(timings.decode));
    }
  }
  return rates;
}

void PrintRates(const BenchFlags& flags, const Rates& rates, const std::vector<HopTime>& hops) {
  if (flags.json) {
    nlohmann::json result = {{"model", flags.cluster.model},
                             {"workers", flags.cluster.workers},
                             {"prompt_tokens", flags.prompt_tokens},
                             {"generated_tokens", flags.generated_tokens},
                             {"depth", flags.depth}};
    const auto add = [&result](const char* name, const std::vector<double>& values) {
      if (values.empty()) return;
      result[std::string(name) + "_tokens_per_second"] = Median(values);
      result[std::string(name) + "_samples"] = values;
    };
    add("prefill", rates.prefill);
    add("decode", rates.decode);
    for (const HopTime& hop : hops) {
      result["hops"].push_back({{"bytes", hop.payload_bytes},
                                {"median_us", hop.median_us},
                                {"minimum_us", hop.minimum_us}});
    }
    std::printf("%s\n", result.dump().c_str());
    return;
  }
  const auto print = [](const char* name, int64_t tokens, std::vector<double> values) {
    if (values.empty()) return;
    const auto [low, high] = std::minmax_element(values.begin(), values.end());
    std::printf("%s %6lld tokens: %8.2f tokens/s (%.2f to %.2f)\n", name,
                static_cast<long long>(tokens), Median(values), *low, *high);
  };
  print("prefill", flags.prompt_tokens, rates.prefill);
  print("decode ", flags.generated_tokens, rates.decode);
  for (const HopTime& hop : hops) {
    std::printf("hop     %7lld bytes: %8.1f us one way (fastest %.1f us)\n",
                static_cast<long long>(hop.payload_bytes), hop.median_us, hop.minimum_us);
  }
}

absl::Status Bench(BenchFlags flags) {
  if (flags.cluster.plan.context == 0) {
    flags.cluster.plan.context =
        std::max(flags.prompt_tokens, flags.depth + flags.generated_tokens) + 16;
  }
  if (flags.hops) flags.cluster.workers = std::max(flags.cluster.workers, 1);
  RENGA_ASSIGN_OR_RETURN(const auto cluster, LocalCluster::Start(flags.cluster));
  RENGA_ASSIGN_OR_RETURN(const Rates rates, Measure(*cluster, flags));
  std::vector<HopTime> hops;
  if (flags.hops) {
    RENGA_ASSIGN_OR_RETURN(hops, MeasureHops(*cluster));
  }
  PrintRates(flags, rates, hops);
  return absl::OkStatus();
}

}  // namespace

void AddBenchCommand(CLI::App& app, Invocation& invocation) {
  auto flags = std::make_shared<BenchFlags>();
  CLI::App* command = app.add_subcommand("bench", "Measure prefill and decode speed");
  command->footer(
      "Example:\n  renga bench model.gguf -p 512 -n 128 -t 2\n"
      "  renga bench model.gguf -p 0 -n 32 --depth 8192\n"
      "  renga bench model.gguf --workers 2 -t 1 --hops --json");
  AddClusterFlags(*command, flags->cluster);
  command->add_option("-p,--prompt-tokens", flags->prompt_tokens, "Prompt tokens; 0 skips prefill")
      ->capture_default_str()
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 20));
  command
      ->add_option("-n,--generate", flags->generated_tokens, "Tokens to generate; 0 skips decode")
      ->capture_default_str()
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 20));
  command->add_option("-d,--depth", flags->depth, "Tokens of context before the generated ones")
      ->capture_default_str()
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 20));
  command->add_option("-r,--repetitions", flags->repetitions, "Runs; the median is printed")
      ->capture_default_str()
      ->check(CLI::Range(1, 1000));
  command->add_flag("--json", flags->json, "Print one JSON object");
  command->add_flag("--hops", flags->hops,
                    "Also time handing 8 KB to 1 MB to a worker process and back");
  command->callback(
      [flags, &invocation] { invocation.action = [flags] { return Bench(*flags); }; });
}

}  // namespace renga::cli
