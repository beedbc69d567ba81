// renga logits: the model's raw answer, for checking and for research.
#include <cerrno>
#include <cstdio>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "cli/cluster_flags.h"
#include "cli/command.h"
#include "cli/local_cluster.h"
#include "cli/requests.h"
#include "nlohmann/json.hpp"

namespace renga::cli {
namespace {

struct LogitsFlags {
  ClusterFlags cluster;
  std::string tokens;
  int64_t greedy = 0;
  int64_t chunk = 0;
  std::string output;
};

absl::StatusOr<std::vector<model::TokenId>> ParseTokens(const std::string& text,
                                                        int64_t vocab_size) {
  std::vector<model::TokenId> tokens;
  for (const absl::string_view part : absl::StrSplit(text, ',')) {
    int64_t id = -1;
    if (!absl::SimpleAtoi(part, &id) || id < 0 || id >= vocab_size) {
      return absl::InvalidArgumentError(absl::StrCat("tokens are numbers from 0 to ",
                                                     vocab_size - 1, " with commas between, not '",
                                                     part, "'"));
    }
    tokens.push_back(static_cast<model::TokenId>(id));
  }
  return tokens;
}

// Rows in order as they are computed; nothing is kept.
class LogitsFile {
 public:
  static absl::StatusOr<LogitsFile> Open(const std::string& path) {
    std::FILE* file = std::fopen(path.c_str(), "wb");
    if (file == nullptr) return base::FileError(errno, "cannot write", path);
    return LogitsFile(path, file);
  }
  absl::Status Append(std::span<const float> row) {
    if (std::fwrite(row.data(), sizeof(float), row.size(), file_.get()) != row.size()) {
      return base::FileError(errno, "cannot write", path_);
    }
    return absl::OkStatus();
  }
  absl::Status Close() {
    if (std::fclose(file_.release()) != 0) return base::FileError(errno, "cannot write", path_);
    return absl::OkStatus();
  }

 private:
  struct Closer {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };
  LogitsFile(std::string path, std::FILE* file) : path_(std::move(path)), file_(file) {}
  std::string path_;
  std::unique_ptr<std::FILE, Closer> file_;
};

absl::Status Logits(const LogitsFlags& flags) {
  RENGA_ASSIGN_OR_RETURN(const auto cluster, LocalCluster::Start(flags.cluster));
  RENGA_ASSIGN_OR_RETURN(const std::vector<model::TokenId> tokens,
                         ParseTokens(flags.tokens, cluster->config().vocab_size));
  RENGA_ASSIGN_OR_RETURN(LogitsFile file, LogitsFile::Open(flags.output));
  RENGA_RETURN_IF_ERROR(
      Score(*cluster, {.tokens = tokens, .chunk_tokens = flags.chunk},
            [&file](int64_t, std::span<const float> row) { return file.Append(row); }));
  RENGA_RETURN_IF_ERROR(file.Close());
  if (flags.greedy == 0) return absl::OkStatus();
  serving::GenerateRequest request;
  request.prompt = tokens;
  request.max_tokens = flags.greedy;
  request.sampling.temperature = 0;
  request.logprobs = false;
  request.ignore_eos = true;
  request.chunk_tokens = flags.chunk;
  RENGA_ASSIGN_OR_RETURN(const GeneratedTokens generated, Generate(*cluster, request));
  std::cout << nlohmann::json{{"greedy", generated.tokens}}.dump() << std::endl;
  return absl::OkStatus();
}

}  // namespace

void AddLogitsCommand(CLI::App& app, Invocation& invocation) {
  auto flags = std::make_shared<LogitsFlags>();
  CLI::App* command = app.add_subcommand(
      "logits", "Write the logits after each given token as little-endian float32 rows");
  command->footer("Example:\n  renga logits model.gguf --tokens 1,17,300 --greedy 8 -o logits.f32");
  AddClusterFlags(*command, flags->cluster);
  command->add_option("--tokens", flags->tokens, "Token ids with commas between; no BOS is added")
      ->required();
  command
      ->add_option("--greedy", flags->greedy,
                   "Also print this many greedy tokens as JSON; end tokens don't stop it")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 24));
  command->add_option("--chunk", flags->chunk, "Prompt tokens per step (default: automatic)")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 16));
  command->add_option("-o,--output", flags->output, "File for the rows: [tokens][vocab]")
      ->required();
  command->callback(
      [flags, &invocation] { invocation.action = [flags] { return Logits(*flags); }; });
}

}  // namespace renga::cli
