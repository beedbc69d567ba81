// renga-head-bench: the output matrix behind a screen beside the whole one, on hidden states of the
// model's own continuations.
//
// Each token goes through the layers once, and then through both heads in turn, asked for the same;
// answers are compared number by number. Continuations are drawn from the 40 best rows, so that
// hidden states are as various as in use. Times are of one head's answer: final norm, logits or
// screen, best rows; on the clock, and of the processor over all threads, which a busy machine
// changes less.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <iostream>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "base/thread_pool.h"
#include "model/embedding.h"
#include "model/gguf_file.h"
#include "model/tokenizer.h"
#include "worker/engine/local_weights.h"
#include "worker/engine/memory_budget.h"
#include "worker/engine/screen_file.h"
#include "worker/engine/screened_head.h"
#include "worker/engine/shard.h"
#include "worker/kernels/backend_factory.h"

namespace renga::bench {
namespace {

constexpr char kUsage[] =
    "usage: renga-head-bench MODEL.gguf FILE.screen [--tokens=1000] [--threads=all] [--seed=1]\n"
    "       [--asked=best]\n"
    "The screen is what `renga regions MODEL.gguf` wrote.\n";

constexpr int64_t kContext = 256;

struct Options {
  std::string model;
  std::string screen;
  int64_t tokens = 1000;
  int64_t threads = base::UsableCpuCount();
  int64_t seed = 1;
  std::string asked;  // a question's name; empty: all
};

const std::vector<std::string>& Prompts() {
  static const auto* const prompts = new std::vector<std::string>{
      "The history of the railway began",
      "Once upon a time there was a little girl who",
      "To bake a loaf of bread at home, first",
      "def read_numbers(path):\n    ",
      "The court held that the contract",
      "春の朝、庭に出ると",
      "Dear Anna, thank you for your letter.",
      "The heart pumps blood through",
      "Q: Why is the sky blue?\nA:",
      "日本の首都は",
  };
  return *prompts;
}

// What heads are asked for.
struct Question {
  const char* name;
  int64_t top_k;
  float within;
  double draw_temperature;  // above 0: the row that a seeded draw takes
};
// min_p of 0.05 at temperature 1 keeps what is 3 from the best.
constexpr Question kQuestions[] = {
    {"best", 1, 0, 0}, {"min-p", 0, 3, 0}, {"draw", 0, 1e-4F, 1}, {"best 40", 40, 0, 0}};

// The model file's weights, with a screen beside them.
class ScreenedWeights : public engine::WeightSource {
 public:
  ScreenedWeights(engine::WeightSource* weights, std::shared_ptr<const engine::ScreenFile> screen)
      : weights_(weights), screen_(std::move(screen)) {}

  absl::StatusOr<base::DataType> TensorType(const std::string& name) override {
    return weights_->TensorType(name);
  }
  absl::Status Read(const std::string& name, int64_t offset, std::span<std::byte> out) override {
    return weights_->Read(name, offset, out);
  }
  std::shared_ptr<const engine::ScreenFile> FindScreen() override { return screen_; }

 private:
  engine::WeightSource* const weights_;
  const std::shared_ptr<const engine::ScreenFile> screen_;
};

// In milliseconds.
double ProcessorNow() {
  return static_cast<double>(std::clock()) * 1e3 / static_cast<double>(CLOCKS_PER_SEC);
}

struct Times {
  std::vector<double> milliseconds;
  double processor = 0;  // of all together

  double Count() const { return static_cast<double>(std::max<size_t>(1, milliseconds.size())); }
  double Processor() const { return processor / Count(); }
  double Mean() const {
    return std::accumulate(milliseconds.begin(), milliseconds.end(), 0.0) / Count();
  }
  double Median() {
    if (milliseconds.empty()) return 0;
    const auto middle = milliseconds.begin() + static_cast<int64_t>(milliseconds.size() / 2);
    std::nth_element(milliseconds.begin(), middle, milliseconds.end());
    return *middle;
  }
};

struct Tally {
  Times full;
  Times screened;
  int64_t proved = 0;
  int64_t differ = 0;
};

// Of a draw's rows the best logit of all need not be one.
bool Same(const model::HeadRow& a, const model::HeadRow& b, bool drawn) {
  return a.ids == b.ids && a.logits == b.logits && (drawn || a.max_logit == b.max_logit);
}

// Both heads and the layers before them.
class Bench {
 public:
  static absl::StatusOr<std::unique_ptr<Bench>> Create(const Options& options) {
    std::unique_ptr<Bench> bench(new Bench(options));
    RENGA_ASSIGN_OR_RETURN(bench->file_, model::GgufFile::Open(options.model));
    RENGA_ASSIGN_OR_RETURN(bench->model_, model::ReadModel(*bench->file_));
    RENGA_ASSIGN_OR_RETURN(bench->tokenizer_, model::Tokenizer::Create(bench->file_->metadata()));
    RENGA_ASSIGN_OR_RETURN(auto embedding,
                           model::EmbeddingTable::Create(*bench->file_, bench->model_.config));
    bench->embedding_ = std::make_unique<model::EmbeddingTable>(std::move(embedding));
    RENGA_RETURN_IF_ERROR(bench->LoadShards());
    return bench;
  }

  absl::Status Run() {
    int64_t left = options_.tokens;
    for (size_t round = 0; left > 0; ++round) {
      const std::string& prompt = Prompts()[round % Prompts().size()];
      RENGA_ASSIGN_OR_RETURN(const std::vector<int32_t> tokens,
                             tokenizer_->Encode(prompt, {.add_bos = true}));
      RENGA_ASSIGN_OR_RETURN(const int64_t done, Continue(tokens, left));
      left -= done;
    }
    return absl::OkStatus();
  }

  void Print() {
    std::printf("%-8s %7s %7s %7s | %s | %s | %s\n", "asked", "tokens", "proved", "differ",
                "full ms: mean median processor", "screen: mean median processor",
                "shares of the full head's");
    for (size_t q = 0; q < std::size(kQuestions); ++q) {
      Tally& tally = tallies_[q];
      if (tally.full.milliseconds.empty()) continue;
      std::printf("%-8s %7zu %7lld %7lld", kQuestions[q].name, tally.full.milliseconds.size(),
                  static_cast<long long>(tally.proved), static_cast<long long>(tally.differ));
      for (Times* times : {&tally.full, &tally.screened}) {
        std::printf(" | %8.3f %8.3f %8.3f", times->Mean(), times->Median(), times->Processor());
      }
      std::printf(" | %.2f %.2f %.2f\n", tally.screened.Mean() / tally.full.Mean(),
                  tally.screened.Median() / tally.full.Median(),
                  tally.screened.Processor() / tally.full.Processor());
    }
  }
  bool all_same() const {
    return std::all_of(std::begin(tallies_), std::end(tallies_),
                       [](const Tally& tally) { return tally.differ == 0; });
  }

 private:
  explicit Bench(const Options& options)
      : options_(options), random_(static_cast<uint32_t>(options.seed)) {}

  absl::Status LoadShards() {
    RENGA_ASSIGN_OR_RETURN(weights_, engine::LocalWeights::Create(file_.get()));
    RENGA_ASSIGN_OR_RETURN(auto screen, engine::ScreenFile::Open(options_.screen));
    screened_weights_ = std::make_unique<ScreenedWeights>(weights_.get(), std::move(screen));
    RENGA_ASSIGN_OR_RETURN(
        backend_,
        kernels::CreateBackend({.device = "cpu", .threads = static_cast<int>(options_.threads)}));
    const model::RuntimeLimits limits{.kv_blocks = kContext / model::kKvBlockTokens,
                                      .max_step_tokens = kContext,
                                      .max_step_outputs = 1};
    const model::Range rows{0, model_.config.vocab_size};
    RENGA_ASSIGN_OR_RETURN(
        full_,
        engine::Shard::Load(model_, {.layers = {0, model_.config.n_layers}, .head_rows = rows},
                            limits, backend_.get(), &budget_, weights_.get(), nullptr));
    RENGA_ASSIGN_OR_RETURN(
        screened_, engine::Shard::Load(model_, {.layers = {}, .head_rows = rows}, limits,
                                       backend_.get(), &budget_, screened_weights_.get(), nullptr));
    return absl::OkStatus();
  }

  // At most `most` tokens after the prompt, as many as the context holds. How many they were.
  absl::StatusOr<int64_t> Continue(std::vector<int32_t> tokens, int64_t most) {
    full_->ResetSequences();
    int64_t position = 0;
    int64_t done = 0;
    while (done < most && position + static_cast<int64_t>(tokens.size()) <= kContext) {
      const model::Step step = NextStep(position, static_cast<int64_t>(tokens.size()));
      RENGA_ASSIGN_OR_RETURN(std::vector<float> rows, embedding_->Rows(tokens));
      RENGA_RETURN_IF_ERROR(full_->RunLayers(step, rows, nullptr));
      position += static_cast<int64_t>(tokens.size());
      const std::vector<float> outputs = engine::GatherOutputs(step, rows, model_.config.d_model);
      model::HeadRow last;
      for (size_t q = 0; q < std::size(kQuestions); ++q) {
        if (!options_.asked.empty() && options_.asked != kQuestions[q].name) continue;
        RENGA_ASSIGN_OR_RETURN(last, Ask(step, outputs, q, done % 2 == 0));
      }
      tokens = {Draw(last)};
      ++done;
    }
    return done;
  }

  model::Step NextStep(int64_t position, int64_t count) {
    model::Step step{.epoch = 1, .number = ++steps_, .commands = {}, .slots = {}};
    model::KvCommand grow;
    grow.kind = model::KvCommand::Kind::kAppendBlocks;
    grow.sequence = 1;
    if (position == 0) {
      for (int64_t b = 0; b < kContext / model::kKvBlockTokens; ++b) {
        grow.blocks.push_back(static_cast<int32_t>(b));
      }
      step.commands.push_back(std::move(grow));
    }
    step.slots.push_back({.sequence = 1,
                          .first_position = position,
                          .token_count = count,
                          .output_count = 1,
                          .top_k = 1,
                          .sum_wanted = false});
    return step;
  }

  // Both heads' answers, compared and timed. Who is first takes turns.
  absl::StatusOr<model::HeadRow> Ask(model::Step step, std::span<const float> outputs, size_t q,
                                     bool full_first) {
    step.slots[0].top_k = kQuestions[q].top_k;
    step.slots[0].within = kQuestions[q].within;
    step.slots[0].draw_temperature = kQuestions[q].draw_temperature;
    step.slots[0].draw_seed = static_cast<uint64_t>(options_.seed);
    Tally& tally = tallies_[q];
    std::vector<model::HeadRow> answers[2];
    for (const bool full : {full_first, !full_first}) {
      const double processor = ProcessorNow();
      const auto begin = std::chrono::steady_clock::now();
      RENGA_ASSIGN_OR_RETURN(answers[full ? 0 : 1],
                             (full ? full_ : screened_)->RunHead(step, outputs));
      const std::chrono::duration<double, std::milli> took =
          std::chrono::steady_clock::now() - begin;
      Times& times = full ? tally.full : tally.screened;
      times.processor += ProcessorNow() - processor;
      times.milliseconds.push_back(took.count());
    }
    if (answers[1][0].sum_exp == 0) ++tally.proved;
    if (!Same(answers[0][0], answers[1][0], kQuestions[q].draw_temperature > 0)) ++tally.differ;
    return std::move(answers[0][0]);
  }

  int32_t Draw(const model::HeadRow& row) {
    std::vector<double> weights;
    for (const float logit : row.logits) weights.push_back(std::exp(double{logit} - row.max_logit));
    return row.ids[std::discrete_distribution<size_t>(weights.begin(), weights.end())(random_)];
  }

  const Options options_;
  std::mt19937 random_;
  std::unique_ptr<model::GgufFile> file_;
  model::Model model_;
  std::unique_ptr<model::Tokenizer> tokenizer_;
  std::unique_ptr<model::EmbeddingTable> embedding_;
  std::unique_ptr<engine::LocalWeights> weights_;
  std::unique_ptr<ScreenedWeights> screened_weights_;
  std::unique_ptr<kernels::Backend> backend_;
  engine::MemoryBudget budget_{int64_t{1} << 40};
  std::unique_ptr<engine::Shard> full_;
  std::unique_ptr<engine::Shard> screened_;
  uint64_t steps_ = 0;
  Tally tallies_[std::size(kQuestions)];
};

absl::StatusOr<Options> ParseOptions(int argc, char** argv) {
  Options options;
  std::vector<std::string> files;
  for (int i = 1; i < argc; ++i) {
    const std::pair<std::string, std::string> option =
        absl::StrSplit(argv[i], absl::MaxSplits('=', 1));
    if (option.first == "--asked") {
      options.asked = option.second;
      continue;
    }
    int64_t* number = nullptr;
    if (option.first == "--tokens") number = &options.tokens;
    if (option.first == "--threads") number = &options.threads;
    if (option.first == "--seed") number = &options.seed;
    if (number == nullptr) {
      files.push_back(argv[i]);
    } else if (!absl::SimpleAtoi(option.second, number) || *number < 1) {
      return absl::InvalidArgumentError(absl::StrCat("no positive number: '", argv[i], "'"));
    }
  }
  if (files.size() != 2) return absl::InvalidArgumentError(kUsage);
  options.model = files[0];
  options.screen = files[1];
  return options;
}

absl::StatusOr<bool> Main(int argc, char** argv) {
  RENGA_ASSIGN_OR_RETURN(const Options options, ParseOptions(argc, argv));
  base::SetLogThreshold(base::LogSeverity::kInfo);  // heads say what they read
  RENGA_ASSIGN_OR_RETURN(const auto bench, Bench::Create(options));
  RENGA_RETURN_IF_ERROR(bench->Run());
  bench->Print();
  return bench->all_same();
}

}  // namespace
}  // namespace renga::bench

int main(int argc, char** argv) {
  const absl::StatusOr<bool> same = renga::bench::Main(argc, argv);
  if (!same.ok()) std::cerr << same.status().message() << "\n";
  return same.ok() && *same ? EXIT_SUCCESS : EXIT_FAILURE;
}
