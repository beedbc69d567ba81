#include "coordinator/http/completion_response.h"

#include <utility>

#include "nlohmann/json.hpp"

namespace renga::http {
namespace {

using nlohmann::json;

json UsageJson(const serving::Usage& usage) {
  return {{"prompt_tokens", usage.prompt_tokens},
          {"completion_tokens", usage.completion_tokens},
          {"total_tokens", usage.prompt_tokens + usage.completion_tokens}};
}

// Not OpenAI's: where the time went, for those who look.
json TimingsJson(const serving::GenerateResult& result) {
  json timings = {{"queued_ms", absl::ToDoubleMilliseconds(result.timings.queued)},
                  {"prefill_ms", absl::ToDoubleMilliseconds(result.timings.prefill)},
                  {"decode_ms", absl::ToDoubleMilliseconds(result.timings.decode)},
                  {"drafted_tokens", result.speculation.drafted},
                  {"accepted_tokens", result.speculation.accepted},
                  {"refuted_guesses", result.speculation.refuted}};
  if (result.approximated_tokens > 0) {
    timings["approximated_tokens"] = result.approximated_tokens;
  }
  if (result.left_out > 0) timings["left_out_feed_forwards"] = result.left_out;
  if (result.grammar_masks > 0) {
    timings["grammar_masks"] = result.grammar_masks;
    timings["grammar_ms"] = absl::ToDoubleMilliseconds(result.grammar_time);
  }
  if (result.guarded) timings["hot_rows_guarded"] = true;
  return timings;
}

std::string ReasonText(const serving::GenerateResult& result) {
  return std::string(serving::FinishReasonName(result.reason));
}

}  // namespace

json ResponseWriter::Envelope(const char* chat_object) const {
  const char* object = head_.endpoint == Endpoint::kChat ? chat_object : "text_completion";
  return {{"id", head_.id}, {"object", object}, {"created", head_.created}, {"model", head_.model}};
}

json ResponseWriter::EmptyChunk() const {
  json chunk = Envelope("chat.completion.chunk");
  if (head_.include_usage) chunk["usage"] = nullptr;
  return chunk;
}

json ResponseWriter::Whole(const AnswerPart& answer, const serving::GenerateResult& result) {
  json choice = {
      {"index", 0}, {"finish_reason", ReasonText(result)}, {"logprobs", Logprobs(answer)}};
  if (head_.endpoint == Endpoint::kChat) {
    choice["message"] = {{"role", "assistant"}, {"content", answer.text}};
  } else {
    choice["text"] = answer.text;
  }
  json whole = Envelope("chat.completion");
  whole["choices"] = json::array({std::move(choice)});
  whole["usage"] = UsageJson(result.usage);
  whole["timings"] = TimingsJson(result);
  return whole;
}

std::optional<json> ResponseWriter::FirstChunk() const {
  if (head_.endpoint != Endpoint::kChat) return std::nullopt;
  json chunk = EmptyChunk();
  chunk["choices"] = json::array({{{"index", 0},
                                   {"delta", {{"role", "assistant"}, {"content", ""}}},
                                   {"logprobs", nullptr},
                                   {"finish_reason", nullptr}}});
  return chunk;
}

json ResponseWriter::Chunk(const AnswerPart& part) {
  json choice = {{"index", 0}, {"finish_reason", nullptr}, {"logprobs", Logprobs(part)}};
  if (head_.endpoint == Endpoint::kChat) {
    choice["delta"] = {{"content", part.text}};
  } else {
    choice["text"] = part.text;
  }
  json chunk = EmptyChunk();
  chunk["choices"] = json::array({std::move(choice)});
  return chunk;
}

json ResponseWriter::LastChunk(const serving::GenerateResult& result) const {
  json choice = {{"index", 0}, {"finish_reason", ReasonText(result)}, {"logprobs", nullptr}};
  if (head_.endpoint == Endpoint::kChat) {
    choice["delta"] = json::object();
  } else {
    choice["text"] = "";
  }
  json chunk = EmptyChunk();
  chunk["choices"] = json::array({std::move(choice)});
  chunk["timings"] = TimingsJson(result);
  return chunk;
}

json ResponseWriter::UsageChunk(const serving::GenerateResult& result) const {
  json chunk = EmptyChunk();
  chunk["choices"] = json::array();
  chunk["usage"] = UsageJson(result.usage);
  return chunk;
}

json ResponseWriter::Logprobs(const AnswerPart& part) {
  if (!logprobs_) return nullptr;
  return head_.endpoint == Endpoint::kChat ? ChatLogprobs(part) : PlainLogprobs(part);
}

json ResponseWriter::ChatLogprobs(const AnswerPart& part) const {
  const auto entry = [this](serving::TokenId id, float logprob) {
    const std::string piece = tokenizer_->Piece(id);
    json bytes = json::array();
    for (const char byte : piece) bytes.push_back(static_cast<unsigned char>(byte));
    return json{{"token", piece}, {"logprob", logprob}, {"bytes", std::move(bytes)}};
  };
  json content = json::array();
  for (const serving::SampledToken& token : part.tokens) {
    json one = entry(token.id, token.logprob);
    one["top_logprobs"] = json::array();
    for (const serving::TokenLogprob& other : token.alternatives) {
      one["top_logprobs"].push_back(entry(other.id, other.logprob));
    }
    content.push_back(std::move(one));
  }
  return {{"content", std::move(content)}};
}

json ResponseWriter::PlainLogprobs(const AnswerPart& part) {
  json tokens = json::array();
  json logprobs = json::array();
  json tops = json::array();
  json offsets = json::array();
  for (const serving::SampledToken& token : part.tokens) {
    const std::string piece = tokenizer_->Piece(token.id);
    json top = json::object();
    for (const serving::TokenLogprob& other : token.alternatives) {
      top[tokenizer_->Piece(other.id)] = other.logprob;
    }
    tokens.push_back(piece);
    logprobs.push_back(token.logprob);
    tops.push_back(std::move(top));
    offsets.push_back(text_offset_);
    text_offset_ += static_cast<int64_t>(piece.size());
  }
  return {{"tokens", std::move(tokens)},
          {"token_logprobs", std::move(logprobs)},
          {"top_logprobs", std::move(tops)},
          {"text_offset", std::move(offsets)}};
}

}  // namespace renga::http
