// renga regions: which rows of the vocabulary and which feed-forward neurons or experts texts use,
// and the screen of a head that stays on disk.
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/byte_size.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "base/thread_pool.h"
#include "cli/cluster_flags.h"
#include "cli/command.h"
#include "cli/device_flags.h"
#include "cli/experts_report.h"
#include "cli/neurons_report.h"
#include "cli/progress_printer.h"
#include "cli/region_texts.h"
#include "cli/regions_report.h"
#include "cli/text_tracer.h"
#include "coordinator/cluster/manifest.h"
#include "coordinator/cluster/model_store.h"
#include "model/unicode.h"
#include "partition/expert_usage.h"
#include "partition/neurons.h"
#include "partition/regions.h"
#include "worker/engine/screen_builder.h"
#include "worker/engine/screen_file.h"
#include "worker/engine/screened_head.h"

namespace renga::cli {
namespace {

struct RegionsFlags {
  std::string model;
  std::string text_folder;
  std::string output = "regions";
  std::string cache;
  std::string memory;
  std::string device = "cpu";
  int threads = 0;
  double bits = 3;
  double share = 0.95;
  bool screen = true;
  bool quiet = false;
  bool verbose = false;
};

// Every regular file of the folder, by name.
absl::StatusOr<std::vector<NamedText>> ReadTexts(const std::string& folder) {
  if (folder.empty()) return ShippedTexts();
  std::error_code error;
  std::vector<NamedText> texts;
  for (const auto& entry : std::filesystem::directory_iterator(folder, error)) {
    if (!entry.is_regular_file()) continue;
    RENGA_ASSIGN_OR_RETURN(std::string text, base::ReadFile(entry.path().string()));
    texts.push_back({.name = entry.path().stem().string(), .text = std::move(text)});
  }
  if (error) return base::FileError(error.value(), "cannot list", folder);
  std::sort(texts.begin(), texts.end(),
            [](const NamedText& a, const NamedText& b) { return a.name < b.name; });
  return texts;
}

struct Screened {
  std::string path;
  int64_t resident_bytes = 0;
};

// Builds the screen and keeps it where workers look for it. Nothing for formats that need none.
absl::StatusOr<Screened> BuildAndKeep(const RegionsFlags& flags, const cluster::ModelStore& store,
                                      TextTracer& tracer, int64_t row_bytes) {
  const model::ModelConfig& config = store.model().config;
  const std::string tensor = model::OutputTensor(config).name;
  engine::WeightSource& weights = tracer.weights();
  RENGA_ASSIGN_OR_RETURN(const base::DataType type, weights.TensorType(tensor));
  if (!engine::CanScreen(type)) {
    std::fprintf(stderr, "no screen: a head of %s is small as it is\n",
                 std::string(base::GetDataTypeInfo(type).name).c_str());
    return Screened{};
  }
  ProgressPrinter progress("building the screen", flags.quiet);
  const auto read = [&](int64_t first, std::span<std::byte> out) {
    return weights.Read(tensor, first * row_bytes, out);
  };
  std::vector<std::byte> stored;
  const auto read_numbers = [&](int64_t first, std::span<float> out) -> absl::Status {
    const auto count = static_cast<int64_t>(out.size()) / config.d_model;
    stored.resize(static_cast<size_t>(count * row_bytes));
    RENGA_RETURN_IF_ERROR(read(first, stored));
    base::GetDataTypeInfo(type).to_float(stored.data(), out.data(),
                                         static_cast<int64_t>(out.size()));
    // Before that a few single rows are looked at.
    if (count > 1) progress.UpdateCount(first + count, config.vocab_size, "rows");
    return absl::OkStatus();
  };
  base::ThreadPool pool(flags.threads > 0 ? flags.threads : base::UsableCpuCount());
  RENGA_ASSIGN_OR_RETURN(const engine::HeadScreen screen,
                         engine::BuildScreen(config.vocab_size, read_numbers, tracer.moments(),
                                             {.bits = flags.bits}, pool));
  progress.Finish();
  Screened screened;
  // As workers are told it.
  const std::string id = absl::BytesToHexString(cluster::WireBytes(store.manifest().model_id));
  screened.path =
      engine::ScreenPath(flags.cache.empty() ? base::CacheDirectory() : flags.cache, id);
  RENGA_RETURN_IF_ERROR(
      base::CreateDirectories(std::filesystem::path(screened.path).parent_path().string()));
  RENGA_RETURN_IF_ERROR(
      engine::WriteScreen(screened.path, screen, {.model_id = id, .type = type, .read = read}));
  RENGA_ASSIGN_OR_RETURN(const auto file, engine::ScreenFile::Open(screened.path));
  screened.resident_bytes = engine::ScreenedHead::ResidentBytes(*file, {0, config.vocab_size});
  return screened;
}

absl::StatusOr<std::vector<partition::TextTrace>> TraceTexts(const RegionsFlags& flags,
                                                             const std::vector<NamedText>& texts,
                                                             TextTracer& tracer) {
  ProgressPrinter progress("reading texts", flags.quiet);
  std::vector<partition::TextTrace> traces;
  for (const NamedText& text : texts) {
    RENGA_ASSIGN_OR_RETURN(partition::TextTrace trace, tracer.Trace(text.name, text.text));
    traces.push_back(std::move(trace));
    progress.UpdateCount(static_cast<int64_t>(traces.size()), static_cast<int64_t>(texts.size()),
                         "texts");
  }
  progress.Finish();
  return traces;
}

// Of the matrices that are cut along neurons, in the file.
int64_t FeedForwardBytes(const model::GgufFile& file, const model::Model& model) {
  int64_t bytes = 0;
  for (int64_t layer = 0; layer < model.config.n_layers; ++layer) {
    for (const model::TensorSpec& spec : model.architecture->LayerTensors(model.config, layer)) {
      const bool feeds =
          spec.cut == model::Cut::kFeedForward || spec.cut == model::Cut::kFeedForwardColumns;
      const model::GgufTensor* const tensor = feeds ? file.FindTensor(spec.name) : nullptr;
      if (tensor != nullptr) bytes += tensor->byte_size;
    }
  }
  return bytes;
}

MixtureBytes CountMixture(const model::ModelFootprint& footprint) {
  MixtureBytes bytes;
  for (const model::LayerWeightBytes& layer : footprint.layers) {
    bytes.experts += layer.experts;
    bytes.others += layer.total() - layer.experts;
  }
  return bytes;
}

// What the report says of feed-forwards: of their neurons, or of a mixture's experts.
struct FeedForwardReport {
  const char* key = "neurons";  // in the JSON
  nlohmann::json json;
  std::string section;  // of the page
  std::string summary;  // for people
};

absl::StatusOr<FeedForwardReport> StudyFeedForwards(const cluster::ModelStore& store,
                                                    TextTracer& tracer, double share) {
  if (!store.model().config.has_experts()) {
    RENGA_ASSIGN_OR_RETURN(const partition::NeuronReport neurons,
                           partition::StudyNeurons(tracer.FinishNeurons(), share));
    return FeedForwardReport{
        .json = NeuronsJson(neurons),
        .section = NeuronsSection(neurons, FeedForwardBytes(store.file(), store.model())),
        .summary = absl::StrFormat("the hottest %.0f%% of the neurons add as much of what all add",
                                   neurons.recommended_share * 100)};
  }
  RENGA_ASSIGN_OR_RETURN(const partition::ExpertReport experts,
                         partition::StudyExperts(tracer.FinishExperts(), share));
  const MixtureBytes bytes = CountMixture(store.footprint());
  return FeedForwardReport{.key = "experts",
                           .json = ExpertsJson(experts, bytes),
                           .section = ExpertsSection(experts, bytes),
                           .summary = absl::StrFormat(
                               "%d of the %d experts in memory have as much of what tokens choose",
                               experts.recommended_experts, experts.layers * experts.experts)};
}

// Minutes of measuring should not end with a folder that cannot be written to: it is made, and
// tried, first.
absl::Status PrepareFolderOf(const std::string& output) {
  const std::filesystem::path folder = std::filesystem::path(output).parent_path();
  if (!folder.empty()) RENGA_RETURN_IF_ERROR(base::CreateDirectories(folder.string()));
  const std::string trial = output + ".trial";
  RENGA_RETURN_IF_ERROR(base::Annotate(base::WriteFileAtomically(trial, ""),
                                       "the report needs a place that can be written to (-o)"));
  std::error_code ignored;
  std::filesystem::remove(trial, ignored);
  return absl::OkStatus();
}

absl::Status WriteReport(const std::string& output, const partition::RegionReport& report,
                         const ReportedModel& model, const RowText& text,
                         const FeedForwardReport& feed_forwards) {
  nlohmann::json json = RegionsJson(report, model, text);
  json[feed_forwards.key] = feed_forwards.json;
  RENGA_RETURN_IF_ERROR(base::WriteFileAtomically(output + ".json", json.dump(1) + "\n"));
  return base::WriteFileAtomically(output + ".html",
                                   RegionsPage(report, model, text, feed_forwards.section));
}

absl::Status Regions(const RegionsFlags& flags) {
  ApplyVerbosity(/*quiet=*/!flags.verbose, flags.verbose);
  RENGA_ASSIGN_OR_RETURN(const std::vector<NamedText> texts, ReadTexts(flags.text_folder));
  RENGA_ASSIGN_OR_RETURN(const int64_t memory_bytes, OfferedMemory(flags.memory, flags.device, 1));
  cluster::ModelStore::Options store_options;
  store_options.threads = flags.threads;
  RENGA_ASSIGN_OR_RETURN(const auto store, cluster::ModelStore::Open(flags.model, store_options));
  RENGA_ASSIGN_OR_RETURN(const auto tokenizer, model::Tokenizer::Create(store->file().metadata()));
  RENGA_RETURN_IF_ERROR(PrepareFolderOf(flags.output));
  const int threads = flags.threads > 0 ? flags.threads : base::UsableCpuCount();
  RENGA_ASSIGN_OR_RETURN(const auto tracer, TextTracer::Create(*store, *tokenizer, flags.device,
                                                               threads, memory_bytes));
  RENGA_ASSIGN_OR_RETURN(const std::vector<partition::TextTrace> traces,
                         TraceTexts(flags, texts, *tracer));
  const model::ModelConfig& config = store->model().config;
  RENGA_ASSIGN_OR_RETURN(const partition::RegionReport report,
                         partition::StudyRegions(traces, config.vocab_size, flags.share));
  RENGA_ASSIGN_OR_RETURN(const FeedForwardReport feed_forwards,
                         StudyFeedForwards(*store, *tracer, flags.share));
  ReportedModel reported;
  reported.name = config.name.empty() ? config.architecture : config.name;
  reported.row_bytes = store->footprint().head_row_bytes;
  if (flags.screen) {
    RENGA_ASSIGN_OR_RETURN(const Screened screened,
                           BuildAndKeep(flags, *store, *tracer, reported.row_bytes));
    reported.screen_bytes = screened.resident_bytes;
    reported.screen_file = screened.path;
  }
  const RowText text = [&](int32_t row) {
    const std::string piece = tokenizer->Piece(row);
    // A token may be a part of a character.
    if (!model::IsValidUtf8(piece)) return absl::StrCat("<", absl::BytesToHexString(piece), ">");
    const std::string shown = nlohmann::json(piece).dump();
    return shown.substr(1, shown.size() - 2);
  };
  RENGA_RETURN_IF_ERROR(WriteReport(flags.output, report, reported, text, feed_forwards));
  std::printf(
      "%s.html and %s.json: the %lld hottest of %lld rows, with those of the text itself, "
      "hold the best row in %.0f%% of positions; %s\n",
      flags.output.c_str(), flags.output.c_str(), static_cast<long long>(report.recommended_rows),
      static_cast<long long>(report.vocabulary), report.wanted_share * 100,
      feed_forwards.summary.c_str());
  if (reported.screen_bytes > 0) {
    std::printf("%s: a screen of %s for a head of %s; use it with --lazy-head\n",
                reported.screen_file.c_str(), base::FormatByteSize(reported.screen_bytes).c_str(),
                base::FormatByteSize(report.vocabulary * reported.row_bytes).c_str());
  }
  return absl::OkStatus();
}

}  // namespace

void AddRegionsCommand(CLI::App& app, Invocation& invocation) {
  auto flags = std::make_shared<RegionsFlags>();
  CLI::App* command = app.add_subcommand("regions",
                                         "Measure which vocabulary rows and neurons, or experts of "
                                         "a mixture, texts use, and build the "
                                         "screen of a lazy head");
  command->footer(
      "Example:\n  renga regions model.gguf --text my-texts/ -o regions\n"
      "  renga run model.gguf --lazy-head \"Why is the sky blue?\"");
  command->add_option("model", flags->model, "GGUF file")->required();
  command->add_option("--text", flags->text_folder,
                      "Folder of text files, one topic each (default: texts that come with renga)");
  command
      ->add_option("-o,--output", flags->output,
                   "The report's files, without .html and .json at the end")
      ->capture_default_str();
  command->add_flag("--screen,!--no-screen", flags->screen,
                    "Build the screen of the output matrix (default: yes)");
  command->add_option("--bits", flags->bits, "Bits of the screen for each number, on average")
      ->capture_default_str()
      ->check(CLI::Range(1.0, 8.0));
  command
      ->add_option(
          "--share", flags->share,
          "How often the best row must be near, what part of all that neurons add and of the "
          "experts that tokens choose, for the recommended cuts")
      ->capture_default_str()
      ->check(CLI::Range(0.0, 1.0));
  command->add_option("--cache", flags->cache, "Folder that keeps the screen");
  command->add_option("--memory", flags->memory, "Memory to use (default: what is available)");
  command->add_option("-t,--threads", flags->threads, "Threads (default: all CPUs)")
      ->check(CLI::Range(1, 1024));
  command->add_option("--device", flags->device, "cpu, one of its instruction sets, or reference")
      ->capture_default_str();
  AddVerbosityFlags(*command, flags->quiet, flags->verbose);
  command->callback(
      [flags, &invocation] { invocation.action = [flags] { return Regions(*flags); }; });
}

}  // namespace renga::cli
