// renga bench: tokens per second of prefill and decode, through the same road as real requests.
#include <algorithm>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "base/byte_size.h"
#include "base/status_macros.h"
#include "cli/approximation_flags.h"
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
  int64_t copy = 0;
  double temperature = 0;
  int64_t streams = 1;
  int repetitions = 3;
  bool json = false;
  bool hops = false;
};

// What the plan is made for follows from --streams.
constexpr char kAutomaticObjective[] = "auto";

// Ids that are neither all equal nor special; what they say does not matter. With `period` above 0
// they say it again after so many tokens.
std::vector<model::TokenId> ArbitraryTokens(int64_t count, int64_t vocab_size, int64_t period) {
  std::vector<model::TokenId> tokens(static_cast<size_t>(count));
  uint64_t state = 1;
  for (size_t i = 0; i < tokens.size(); ++i) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    const bool again = period > 0 && i >= static_cast<size_t>(period);
    tokens[i] =
        again ? tokens[i - static_cast<size_t>(period)]
              : static_cast<model::TokenId>((state >> 33) % static_cast<uint64_t>(vocab_size));
  }
  return tokens;
}

// Generates `generated` tokens after `prompt` prompt tokens, in each of `streams` answers side by
// side. The result of the one that took longest to decode.
absl::StatusOr<serving::GenerateResult> TimeRequest(LocalCluster& cluster, int64_t prompt,
                                                    int64_t generated, int64_t streams = 1,
                                                    int64_t period = 0, double temperature = 0) {
  serving::GenerateRequest request;
  request.prompt = ArbitraryTokens(prompt, cluster.config().vocab_size, period);
  request.max_tokens = generated;
  request.ignore_eos = true;
  request.sampling.temperature = temperature;
  request.logprobs = false;
  const std::vector<serving::GenerateRequest> requests(static_cast<size_t>(streams), request);
  RENGA_ASSIGN_OR_RETURN(const std::vector<GeneratedTokens> done, GenerateAll(cluster, requests));
  return std::max_element(done.begin(), done.end(),
                          [](const auto& a, const auto& b) {
                            return a.result.timings.decode < b.result.timings.decode;
                          })
      ->result;
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

// Where the time of a decoded token went, in milliseconds. What is left of the round trip after
// compute and queue is the network's and the coordinator's; what is left of the whole after the
// round trip is sampling and scheduling.
struct TokenTime {
  double whole = 0;
  double round_trip = 0;
  double compute = 0;
  double queue = 0;
};

struct Rates {
  std::vector<double> prefill;  // tokens per second, one per repetition
  std::vector<double> decode;
  serving::SpeculationCounts speculation;  // of all repetitions
  uint64_t skipped_steps = 0;              // likewise
  std::vector<TokenTime> token_times;
  int64_t streamed_bytes = 0;  // of weights, read from disk for each step
};

// Of all replicas: one stream runs on one of them.
cluster::DecodeTotals ReadTotals(LocalCluster& cluster) {
  cluster::DecodeTotals sum;
  for (const auto& replica : cluster.coordinator().manager().Status().replicas) {
    const cluster::DecodeTotals& totals = replica.times.decode_totals;
    sum.steps += totals.steps;
    sum.round_trip_us += totals.round_trip_us;
    sum.compute_us += totals.compute_us;
    sum.queue_us += totals.queue_us;
  }
  return sum;
}

TokenTime TimePerToken(double tokens_per_second, const cluster::DecodeTotals& before,
                       const cluster::DecodeTotals& after) {
  const double us_to_ms =
      1e-3 / static_cast<double>(std::max<uint64_t>(1, after.steps - before.steps));
  return {.whole = 1e3 / tokens_per_second,
          .round_trip = (after.round_trip_us - before.round_trip_us) * us_to_ms,
          .compute = (after.compute_us - before.compute_us) * us_to_ms,
          .queue = (after.queue_us - before.queue_us) * us_to_ms};
}

// Each part's median over the repetitions.
TokenTime MedianTime(const std::vector<TokenTime>& times) {
  const auto median = [&times](double TokenTime::*part) {
    std::vector<double> values;
    for (const TokenTime& time : times) values.push_back(time.*part);
    return Median(std::move(values));
  };
  return {.whole = median(&TokenTime::whole),
          .round_trip = median(&TokenTime::round_trip),
          .compute = median(&TokenTime::compute),
          .queue = median(&TokenTime::queue)};
}

absl::StatusOr<Rates> Measure(LocalCluster& cluster, const BenchFlags& flags) {
  Rates rates;
  // The first step of a process pays for page faults and thread starts.
  RENGA_RETURN_IF_ERROR(TimeRequest(cluster, 8, 2).status());
  for (int i = 0; i < flags.repetitions; ++i) {
    if (flags.prompt_tokens > 0) {
      RENGA_ASSIGN_OR_RETURN(const auto result, TimeRequest(cluster, flags.prompt_tokens, 1));
      rates.prefill.push_back(static_cast<double>(flags.prompt_tokens) /
                              absl::ToDoubleSeconds(result.timings.prefill));
    }
    if (flags.generated_tokens > 0) {
      const cluster::DecodeTotals before = ReadTotals(cluster);
      // The first token comes out of the prompt's step; decode time begins after it.
      RENGA_ASSIGN_OR_RETURN(
          const auto result,
          TimeRequest(cluster, std::max<int64_t>(1, flags.depth), flags.generated_tokens + 1,
                      flags.streams, flags.copy, flags.temperature));
      rates.decode.push_back(static_cast<double>(flags.streams * flags.generated_tokens) /
                             absl::ToDoubleSeconds(result.timings.decode));
      rates.speculation.drafted += result.speculation.drafted;
      rates.speculation.accepted += result.speculation.accepted;
      // Parts are those of plain steps of one token: what others took says nothing of a token.
      if (result.speculation.drafted > 0 || flags.streams > 1) continue;
      rates.token_times.push_back(TimePerToken(rates.decode.back(), before, ReadTotals(cluster)));
    }
  }
  rates.skipped_steps = cluster.scheduler().Stats().skipped_steps;
  for (const cluster::WorkerStatus& worker : cluster.coordinator().manager().Status().workers) {
    rates.streamed_bytes += worker.heartbeat.streamed_weight_bytes;
  }
  return rates;
}

void PrintRates(const BenchFlags& flags, const Rates& rates, size_t replicas, double predicted_ms,
                const std::vector<transport::RoundTrips>& hops) {
  if (flags.json) {
    nlohmann::json result = {{"model", flags.cluster.model},
                             {"workers", flags.cluster.workers},
                             {"wire", flags.cluster.plan.wire},
                             {"prompt_tokens", flags.prompt_tokens},
                             {"generated_tokens", flags.generated_tokens},
                             {"depth", flags.depth},
                             {"streamed_bytes_per_step", rates.streamed_bytes},
                             {"streams", flags.streams},
                             {"replicas", replicas},
                             {"predicted_ms_per_token", predicted_ms},
                             {"speculation", flags.cluster.plan.speculation},
                             {"drafted_tokens", rates.speculation.drafted},
                             {"accepted_tokens", rates.speculation.accepted},
                             {"skipped_steps", rates.skipped_steps}};
    const auto add = [&result](const char* name, const std::vector<double>& values) {
      if (values.empty()) return;
      result[std::string(name) + "_tokens_per_second"] = Median(values);
      result[std::string(name) + "_samples"] = values;
    };
    add("prefill", rates.prefill);
    add("decode", rates.decode);
    if (!rates.token_times.empty()) {
      const TokenTime time = MedianTime(rates.token_times);
      result["decode_ms_per_token"] = time.whole;
      result["decode_parts_ms"] = {
          {"round_trip", time.round_trip}, {"compute", time.compute}, {"queue", time.queue}};
    }
    for (const transport::RoundTrips& hop : hops) {
      result["hops"].push_back({{"bytes", hop.payload_bytes},
                                {"median_us", hop.p50_us / 2},
                                {"minimum_us", hop.minimum_us / 2}});
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
  if (rates.streamed_bytes > 0) {
    std::printf("from disk for every step: %s of weights\n",
                base::FormatByteSize(rates.streamed_bytes).c_str());
  }
  if (rates.speculation.drafted > 0) {
    std::printf("guessed %8lld tokens: %lld were right\n",
                static_cast<long long>(rates.speculation.drafted),
                static_cast<long long>(rates.speculation.accepted));
  }
  if (!rates.token_times.empty()) {
    const TokenTime time = MedianTime(rates.token_times);
    std::printf(
        "token   %8.2f ms: %.2f compute, %.2f waiting on workers, %.2f network, %.2f between "
        "(predicted %.2f ms)\n",
        time.whole, time.compute, time.queue, time.round_trip - time.compute - time.queue,
        time.whole - time.round_trip, predicted_ms);
  }
  for (const transport::RoundTrips& hop : hops) {
    std::printf("hop     %7lld bytes: %8.1f us one way (fastest %.1f us)\n",
                static_cast<long long>(hop.payload_bytes), hop.p50_us / 2, hop.minimum_us / 2);
  }
}

absl::Status Bench(BenchFlags flags) {
  if (flags.prompt_tokens == 0 && flags.generated_tokens == 0 && !flags.hops) {
    return absl::InvalidArgumentError(
        "nothing to measure: neither a prompt (-p), nor an answer (-n), nor --hops");
  }
  if (flags.copy > 0 && flags.depth == 0) flags.depth = 3 * flags.copy;
  if (flags.cluster.plan.context == 0) {
    flags.cluster.plan.context =
        std::max(flags.prompt_tokens, flags.depth + flags.generated_tokens) + 16;
  }
  if (flags.hops || !flags.cluster.listen.empty()) {
    flags.cluster.workers = std::max(flags.cluster.workers, 1);
  }
  flags.cluster.plan.sequences = flags.streams;
  if (flags.cluster.plan.objective == kAutomaticObjective) {
    const bool many = flags.streams > 1 || flags.cluster.plan.replicas != "1";
    flags.cluster.plan.objective = many ? "many-streams" : "one-stream";
  }
  RENGA_ASSIGN_OR_RETURN(const auto cluster, LocalCluster::Start(flags.cluster));
  if (!flags.cluster.quiet) {
    SayApproximationCost(cluster->coordinator().store(), flags.cluster.plan.approximation,
                         flags.cluster.model);
  }
  RENGA_ASSIGN_OR_RETURN(const Rates rates, Measure(*cluster, flags));
  std::vector<transport::RoundTrips> hops;
  if (flags.hops) {
    RENGA_ASSIGN_OR_RETURN(hops, MeasureHops(*cluster));
  }
  const auto replicas = cluster->coordinator().manager().Status().replicas;
  // Of the first, which is where a single stream runs.
  const double predicted_ms = replicas.empty() ? 0 : replicas.front().predicted_token_ms;
  PrintRates(flags, rates, replicas.size(), predicted_ms, hops);
  return absl::OkStatus();
}

}  // namespace

void AddBenchCommand(CLI::App& app, Invocation& invocation) {
  auto flags = std::make_shared<BenchFlags>();
  // Arbitrary tokens soon make a model repeat itself: guessing that would flatter the machine.
  flags->cluster.plan.speculation = "off";
  flags->cluster.plan.objective = kAutomaticObjective;
  CLI::App* command = app.add_subcommand("bench", "Measure prefill and decode speed");
  command->footer(
      "Example:\n  renga bench model.gguf -p 512 -n 128 -t 2\n"
      "  renga bench model.gguf -p 0 -n 32 --depth 8192\n"
      "  renga bench model.gguf -p 0 --copy 200 --speculation auto\n"
      "  renga bench model.gguf --workers 2 -t 1 --hops --json\n"
      "  renga bench model.gguf --workers 2 -t 1 -p 0 --streams 4\n"
      "  renga bench model.gguf --workers 2 -t 1 -p 0 --streams 4 --replicas 2\n"
      "  renga bench model.gguf --workers 2 --listen 192.168.1.10:7400");
  AddClusterFlags(*command, flags->cluster);
  AddReplicasFlag(*command, flags->cluster.plan);
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
  command
      ->add_option("--copy", flags->copy,
                   "The context says the same so many tokens over and over, and the model goes on "
                   "with it: what --speculation is good at")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 20));
  command
      ->add_option("--temperature", flags->temperature,
                   "Of sampling: above 0 a copy goes astray now and then, the same way each time")
      ->capture_default_str()
      ->check(CLI::Range(0.0, 2.0));
  command
      ->add_option(
          "--streams", flags->streams,
          "Answers side by side; decode is the tokens per second of all together. The plan "
          "is made for one answer or for many accordingly, unless --objective says which")
      ->capture_default_str()
      ->check(CLI::Range(int64_t{1}, int64_t{256}));
  command->add_option("-r,--repetitions", flags->repetitions, "Runs; the median is printed")
      ->capture_default_str()
      ->check(CLI::Range(1, 1000));
  command->add_flag("--json", flags->json, "Print one JSON object");
  command->add_flag("--hops", flags->hops,
                    "Also time handing messages, of the model's rows and of 8 KB to 1 MB, to a "
                    "worker process and back");
  AddListenFlag(*command, flags->cluster);
  command->callback(
      [flags, &invocation] { invocation.action = [flags] { return Bench(*flags); }; });
}

}  // namespace renga::cli
