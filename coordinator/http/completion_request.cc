#include "coordinator/http/completion_request.h"

#include <cmath>
#include <limits>
#include <optional>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "coordinator/http/answer_format.h"
#include "nlohmann/json.hpp"

namespace renga::http {
namespace {

using nlohmann::json;

constexpr int kMaxJsonDepth = 32;
constexpr size_t kMaxJsonValues = 1 << 20;  // most of them are a prompt's tokens
constexpr size_t kMaxMessages = 4096;
constexpr size_t kMaxStops = 16;
constexpr size_t kMaxStopBytes = 1024;
constexpr size_t kMaxBiases = 1024;
// OpenAI's default for /v1/completions; chats go on to the end of the context.
constexpr int64_t kDefaultCompletionTokens = 16;

absl::Status Wrong(absl::string_view field, absl::string_view expected) {
  return absl::InvalidArgumentError(absl::StrCat(field, " must be ", expected));
}

// The field, or nullptr when it is absent or null.
const json* Find(const json& object, const char* field) {
  const auto it = object.find(field);
  return it == object.end() || it->is_null() ? nullptr : &*it;
}

absl::Status Read(const json& body, const char* field, double& out) {
  const json* value = Find(body, field);
  if (value == nullptr) return absl::OkStatus();
  if (!value->is_number()) return Wrong(field, "a number");
  out = value->get<double>();
  return absl::OkStatus();
}

absl::Status Read(const json& body, const char* field, bool& out) {
  const json* value = Find(body, field);
  if (value == nullptr) return absl::OkStatus();
  if (!value->is_boolean()) return Wrong(field, "true or false");
  out = value->get<bool>();
  return absl::OkStatus();
}

absl::Status Read(const json& body, const char* field, std::string& out) {
  const json* value = Find(body, field);
  if (value == nullptr) return absl::OkStatus();
  if (!value->is_string()) return Wrong(field, "a string");
  out = value->get<std::string>();
  return absl::OkStatus();
}

std::optional<int64_t> AsInteger(const json& value) {
  if (value.is_number_unsigned()) {
    const uint64_t number = value.get<uint64_t>();
    if (number > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) return std::nullopt;
    return static_cast<int64_t>(number);
  }
  if (value.is_number_integer()) return value.get<int64_t>();
  return std::nullopt;
}

absl::Status ReadInteger(const json& body, const char* field, int64_t min, int64_t max,
                         int64_t& out) {
  const json* value = Find(body, field);
  if (value == nullptr) return absl::OkStatus();
  const std::optional<int64_t> number = AsInteger(*value);
  if (!number.has_value() || *number < min || *number > max) {
    return Wrong(field, max == std::numeric_limits<int64_t>::max()
                            ? absl::StrCat("an integer of at least ", min)
                            : absl::StrCat("an integer from ", min, " to ", max));
  }
  out = *number;
  return absl::OkStatus();
}

absl::Status ReadSeed(const json& body, uint64_t& out) {
  const json* value = Find(body, "seed");
  if (value == nullptr) return absl::OkStatus();
  if (value->is_number_unsigned()) {
    out = value->get<uint64_t>();
  } else if (value->is_number_integer()) {
    out = static_cast<uint64_t>(value->get<int64_t>());
  } else {
    return Wrong("seed", "an integer");
  }
  return absl::OkStatus();
}

absl::Status ReadStops(const json& body, std::vector<std::string>& out) {
  const json* value = Find(body, "stop");
  if (value == nullptr) return absl::OkStatus();
  const json list = value->is_string() ? json::array({*value}) : *value;
  if (!list.is_array() || list.size() > kMaxStops) {
    return Wrong("stop", absl::StrCat("a string or up to ", kMaxStops, " of them"));
  }
  for (const json& stop : list) {
    if (!stop.is_string() || stop.get_ref<const std::string&>().size() > kMaxStopBytes) {
      return Wrong("each stop", absl::StrCat("a string of at most ", kMaxStopBytes, " bytes"));
    }
    out.push_back(stop.get<std::string>());
  }
  return absl::OkStatus();
}

absl::Status ReadLogitBias(const json& body, serving::SamplingParams& params) {
  const json* value = Find(body, "logit_bias");
  if (value == nullptr) return absl::OkStatus();
  if (!value->is_object() || value->size() > kMaxBiases) {
    return Wrong("logit_bias",
                 absl::StrCat("an object of up to ", kMaxBiases, " token ids and numbers"));
  }
  for (const auto& [key, bias] : value->items()) {
    serving::TokenId id = 0;
    if (!absl::SimpleAtoi(key, &id) || !bias.is_number()) {
      return Wrong("logit_bias", "an object of token ids and numbers");
    }
    params.logit_bias[id] = bias.get<double>();
  }
  return absl::OkStatus();
}

absl::Status ReadSampling(const json& body, serving::SamplingParams& params) {
  constexpr int64_t kMax = std::numeric_limits<int64_t>::max();
  params.temperature = 1;
  RENGA_RETURN_IF_ERROR(Read(body, "temperature", params.temperature));
  RENGA_RETURN_IF_ERROR(Read(body, "top_p", params.top_p));
  RENGA_RETURN_IF_ERROR(Read(body, "min_p", params.min_p));
  RENGA_RETURN_IF_ERROR(Read(body, "presence_penalty", params.presence_penalty));
  RENGA_RETURN_IF_ERROR(Read(body, "frequency_penalty", params.frequency_penalty));
  // Two names are in use for it.
  RENGA_RETURN_IF_ERROR(Read(body, "repeat_penalty", params.repetition_penalty));
  RENGA_RETURN_IF_ERROR(Read(body, "repetition_penalty", params.repetition_penalty));
  RENGA_RETURN_IF_ERROR(ReadInteger(body, "repetition_window", 0, kMax, params.repetition_window));
  // -1 is how some clients say "no limit".
  RENGA_RETURN_IF_ERROR(ReadInteger(body, "top_k", -1, kMax, params.top_k));
  if (params.top_k < 0) params.top_k = 0;
  RENGA_RETURN_IF_ERROR(ReadSeed(body, params.seed));
  return ReadLogitBias(body, params);
}

// Asking for what renga doesn't do must not be answered with something else.
absl::Status RefuseUnsupported(const json& body) {
  int64_t n = 1;
  RENGA_RETURN_IF_ERROR(ReadInteger(body, "n", 1, 1024, n));
  int64_t best_of = 1;
  RENGA_RETURN_IF_ERROR(ReadInteger(body, "best_of", 1, 1024, best_of));
  if (n != 1 || best_of != 1) {
    return absl::InvalidArgumentError("n and best_of other than 1 are not supported");
  }
  for (const char* field : {"tools", "functions"}) {
    const json* value = Find(body, field);
    if (value != nullptr && !value->empty()) {
      return absl::InvalidArgumentError(absl::StrCat(field, " are not supported"));
    }
  }
  if (Find(body, "suffix") != nullptr) {
    return absl::InvalidArgumentError("suffix is not supported");
  }
  bool echo = false;
  RENGA_RETURN_IF_ERROR(Read(body, "echo", echo));
  if (echo) return absl::InvalidArgumentError("echo is not supported");
  return absl::OkStatus();
}

absl::StatusOr<std::string> ReadContent(const json& message) {
  const json* content = Find(message, "content");
  if (content == nullptr) return std::string();
  if (content->is_string()) return content->get<std::string>();
  const absl::Status wrong = Wrong("content", "a string or an array of text parts");
  if (!content->is_array()) return wrong;
  std::string text;
  for (const json& part : *content) {
    if (!part.is_object()) return wrong;
    const json* type = Find(part, "type");
    const json* part_text = Find(part, "text");
    if (type == nullptr || *type != "text" || part_text == nullptr || !part_text->is_string()) {
      return Wrong("a part of content", "of type text: renga reads no images, audio or files");
    }
    text += part_text->get_ref<const std::string&>();
  }
  return text;
}

absl::StatusOr<std::vector<model::ChatMessage>> ReadMessages(const json& body) {
  const json* list = Find(body, "messages");
  if (list == nullptr || !list->is_array() || list->empty() || list->size() > kMaxMessages) {
    return Wrong("messages", absl::StrCat("an array of 1 to ", kMaxMessages, " messages"));
  }
  std::vector<model::ChatMessage> messages;
  for (const json& item : *list) {
    if (!item.is_object()) return Wrong("each message", "an object with role and content");
    model::ChatMessage message;
    RENGA_RETURN_IF_ERROR(Read(item, "role", message.role));
    if (message.role == "developer") message.role = "system";  // OpenAI's newer name
    if (message.role != "system" && message.role != "user" && message.role != "assistant") {
      return Wrong("role", "system, user or assistant");
    }
    RENGA_ASSIGN_OR_RETURN(message.content, ReadContent(item));
    messages.push_back(std::move(message));
  }
  return messages;
}

absl::StatusOr<std::vector<serving::TokenId>> ReadTokens(const json& list) {
  std::vector<serving::TokenId> tokens;
  for (const json& item : list) {
    const std::optional<int64_t> id = AsInteger(item);
    if (!id.has_value() || *id < 0 || *id > std::numeric_limits<serving::TokenId>::max()) {
      return Wrong("prompt", "a string or an array of token ids");
    }
    tokens.push_back(static_cast<serving::TokenId>(*id));
  }
  return tokens;
}

absl::Status ReadPrompt(const json& body, CompletionRequest& request) {
  const json* prompt = Find(body, "prompt");
  if (prompt == nullptr) return Wrong("prompt", "a string or an array of token ids");
  // A list of one prompt is that prompt.
  if (prompt->is_array() && prompt->size() == 1 && !prompt->front().is_number()) {
    prompt = &prompt->front();
  }
  if (prompt->is_string()) {
    request.prompt = prompt->get<std::string>();
    return absl::OkStatus();
  }
  if (!prompt->is_array()) return Wrong("prompt", "a string or an array of token ids");
  if (prompt->size() > 1 && !prompt->front().is_number()) {
    return absl::InvalidArgumentError("prompt holds several prompts; send one per request");
  }
  RENGA_ASSIGN_OR_RETURN(request.prompt, ReadTokens(*prompt));
  return absl::OkStatus();
}

absl::Status ReadLogprobs(const json& body, Endpoint endpoint, CompletionRequest& request) {
  if (endpoint == Endpoint::kChat) {
    RENGA_RETURN_IF_ERROR(Read(body, "logprobs", request.logprobs));
    RENGA_RETURN_IF_ERROR(ReadInteger(body, "top_logprobs", 0, serving::kMaxAlternatives,
                                      request.options.alternatives));
    if (request.options.alternatives > 0 && !request.logprobs) {
      return absl::InvalidArgumentError("top_logprobs needs logprobs to be true");
    }
    request.options.logprobs = request.logprobs;
    return absl::OkStatus();
  }
  request.logprobs = Find(body, "logprobs") != nullptr;
  request.options.logprobs = request.logprobs;
  return ReadInteger(body, "logprobs", 0, serving::kMaxAlternatives, request.options.alternatives);
}

// Bounds what parsing may take: the parsed form of a small value is many times its text. Counts
// inside a string, and stops there, only when the text is no JSON anyway.
absl::Status CheckShape(absl::string_view text) {
  int depth = 0;
  size_t values = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
      continue;
    }
    if (c == '"') in_string = true;
    if (c == '[' || c == '{') ++depth;
    if (c == ']' || c == '}') --depth;
    if (c == '[' || c == '{' || c == ',') ++values;
    if (depth > kMaxJsonDepth) {
      return absl::InvalidArgumentError(
          absl::StrCat("the request's JSON is nested deeper than ", kMaxJsonDepth, " levels"));
    }
    if (values > kMaxJsonValues) {
      return absl::InvalidArgumentError(
          absl::StrCat("the request's JSON has more than ", kMaxJsonValues, " values"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<json> ParseJsonObject(absl::string_view body) {
  RENGA_RETURN_IF_ERROR(CheckShape(body));
  json parsed = json::parse(body.begin(), body.end(), nullptr, /*allow_exceptions=*/false);
  if (parsed.is_discarded()) {
    return absl::InvalidArgumentError("the request's body is not valid JSON");
  }
  if (!parsed.is_object()) {
    return absl::InvalidArgumentError("the request's body must be a JSON object");
  }
  return parsed;
}

absl::StatusOr<CompletionRequest> ParseCompletionRequest(const json& body, absl::string_view text,
                                                         Endpoint endpoint, uint64_t random_seed) {
  constexpr int64_t kMax = std::numeric_limits<int64_t>::max();
  CompletionRequest request;
  RENGA_RETURN_IF_ERROR(RefuseUnsupported(body));
  RENGA_RETURN_IF_ERROR(Read(body, "model", request.model));
  if (endpoint == Endpoint::kChat) {
    RENGA_ASSIGN_OR_RETURN(request.prompt, ReadMessages(body));
  } else {
    RENGA_RETURN_IF_ERROR(ReadPrompt(body, request));
    request.options.max_tokens = kDefaultCompletionTokens;
  }
  RENGA_RETURN_IF_ERROR(ReadInteger(body, "max_tokens", 1, kMax, request.options.max_tokens));
  RENGA_RETURN_IF_ERROR(
      ReadInteger(body, "max_completion_tokens", 1, kMax, request.options.max_tokens));
  request.options.sampling.seed = random_seed;
  RENGA_RETURN_IF_ERROR(ReadSampling(body, request.options.sampling));
  RENGA_RETURN_IF_ERROR(ReadStops(body, request.options.stop));
  RENGA_RETURN_IF_ERROR(Read(body, "ignore_eos", request.options.ignore_eos));
  RENGA_RETURN_IF_ERROR(ReadLogprobs(body, endpoint, request));
  RENGA_ASSIGN_OR_RETURN(request.options.grammar, ReadAnswerFormat(body, text));
  RENGA_RETURN_IF_ERROR(Read(body, "stream", request.stream));
  if (const json* options = Find(body, "stream_options"); options != nullptr) {
    if (!options->is_object()) return Wrong("stream_options", "an object");
    RENGA_RETURN_IF_ERROR(Read(*options, "include_usage", request.include_usage));
  }
  return request;
}

}  // namespace renga::http
