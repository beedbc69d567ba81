// Bodies of requests to the OpenAI server: whatever comes is understood or refused, and what is
// understood is within the bounds that the rest of the server counts on.
#include <string>
#include <variant>
#include <vector>

#include "absl/strings/string_view.h"
#include "coordinator/http/completion_request.h"
#include "nlohmann/json.hpp"
#include "tests/fuzz/fuzz_target.h"

namespace renga::fuzz {
namespace {

void Examine(absl::string_view body) {
  const auto parsed = http::ParseJsonObject(body);
  if (!parsed.ok()) return;
  Require(parsed->is_object());
  for (const auto endpoint : {http::Endpoint::kCompletions, http::Endpoint::kChat}) {
    const auto request = http::ParseCompletionRequest(*parsed, body, endpoint, /*random_seed=*/1);
    if (!request.ok()) continue;
    const serving::TextOptions& options = request->options;
    Require(options.max_tokens >= 0);
    Require(options.alternatives >= 0 && options.alternatives <= serving::kMaxAlternatives);
    Require(options.sampling.top_k >= 0 && options.sampling.repetition_window >= 0);
    Require(options.stop.size() <= 16 && options.sampling.logit_bias.size() <= 1024);
    using Messages = std::vector<model::ChatMessage>;
    const auto* messages = std::get_if<Messages>(&request->prompt);
    Require((messages != nullptr) == (endpoint == http::Endpoint::kChat));
    if (messages != nullptr) Require(!messages->empty());
  }
}

}  // namespace

std::vector<std::string> Seeds() {
  return {
      R"({"model": "m", "messages": [{"role": "system", "content": "Be brief."},
          {"role": "user", "content": [{"type": "text", "text": "caf\u00e9 \ud83d\ude00"}]}],
          "temperature": 0.5, "top_p": 0.9, "min_p": 0.1, "top_k": -1, "seed": -3, "n": 1,
          "max_completion_tokens": 11, "logprobs": true, "top_logprobs": 3, "stream": true,
          "stream_options": {"include_usage": true}, "tools": [], "response_format":
          {"type": "text"}, "stop": ["a", "b"]})",
      R"({"prompt": "once upon a time", "max_tokens": 5, "logprobs": 2, "echo": false,
          "best_of": 1, "suffix": null, "stop": "\n", "presence_penalty": 0.25,
          "frequency_penalty": -0.5, "repetition_penalty": 1.5, "repeat_penalty": 1.1,
          "repetition_window": 9, "logit_bias": {"5": -100, "7": 2.5}, "ignore_eos": true})",
      R"({"prompt": "x", "grammar": "root ::= [a-z]+", "response_format": null})",
      R"({"prompt": "x", "response_format": {"type": "json_schema", "json_schema": {"name": "s",
          "strict": true, "schema": {"properties": {"b": {"type": "null"}, "a": {}}}}}})",
      R"({"prompt": [[1, 2, 3]], "best_of": 1e0})",
      R"({"prompt": ["x"]})",
      R"([1])"};
}

}  // namespace renga::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  renga::fuzz::Examine(absl::string_view(reinterpret_cast<const char*>(data), size));
  return 0;
}
