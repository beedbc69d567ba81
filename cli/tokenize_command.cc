// renga tokenize: text on standard input to token ids on standard output.
#include <iostream>
#include <iterator>
#include <memory>
#include <string>

#include "base/status_macros.h"
#include "cli/command.h"
#include "model/gguf_file.h"
#include "model/tokenizer.h"
#include "nlohmann/json.hpp"

namespace renga::cli {
namespace {

struct TokenizeFlags {
  std::string model;
  bool bos = false;
  bool parse_special = false;
};

absl::Status Tokenize(const TokenizeFlags& flags) {
  RENGA_ASSIGN_OR_RETURN(auto file, model::GgufFile::Open(flags.model));
  RENGA_ASSIGN_OR_RETURN(auto tokenizer, model::Tokenizer::Create(file->metadata()));
  const std::string text{std::istreambuf_iterator<char>(std::cin), {}};
  RENGA_ASSIGN_OR_RETURN(
      const std::vector<model::TokenId> ids,
      tokenizer->Encode(text, {.add_bos = flags.bos, .parse_special = flags.parse_special}));
  std::cout << nlohmann::json(ids).dump() << std::endl;
  return absl::OkStatus();
}

}  // namespace

void AddTokenizeCommand(CLI::App& app, Invocation& invocation) {
  auto flags = std::make_shared<TokenizeFlags>();
  CLI::App* command = app.add_subcommand(
      "tokenize", "Print the token ids of the text on standard input as a JSON array");
  command->footer("Example:\n  printf 'Hello' | renga tokenize model.gguf --bos");
  command->add_option("model", flags->model, "GGUF file; its vocabulary alone is enough")
      ->required();
  command->add_flag("--bos", flags->bos, "Put BOS in front where the vocabulary says so");
  command->add_flag("--parse-special", flags->parse_special,
                    "Control tokens named in the text become those tokens");
  command->callback([flags, &invocation] { invocation.action = [flags] { return Tokenize(*flags); }; });
}

}  // namespace renga::cli
