// The answers of /v1/completions and /v1/chat/completions, whole or in chunks.
#ifndef RENGA_COORDINATOR_HTTP_COMPLETION_RESPONSE_H_
#define RENGA_COORDINATOR_HTTP_COMPLETION_RESPONSE_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "coordinator/http/completion_request.h"
#include "coordinator/serving/request.h"
#include "model/tokenizer.h"
#include "nlohmann/json_fwd.hpp"

namespace renga::http {

// What is the same in every part of an answer.
struct ResponseHead {
  Endpoint endpoint = Endpoint::kChat;
  std::string id;
  std::string model;
  int64_t created = 0;         // seconds since 1970
  bool include_usage = false;  // a stream ends with a UsageChunk
};

// A piece of the answer's text and the tokens it came with (only when logprobs were asked for).
struct AnswerPart {
  std::string text;
  std::vector<serving::SampledToken> tokens;
};

class ResponseWriter {
 public:
  // `tokenizer` outlives this.
  ResponseWriter(ResponseHead head, bool logprobs, const model::Tokenizer* tokenizer)
      : head_(std::move(head)), logprobs_(logprobs), tokenizer_(tokenizer) {}

  nlohmann::json Whole(const AnswerPart& answer, const serving::GenerateResult& result);

  // Chunks of a stream, in this order.
  std::optional<nlohmann::json> FirstChunk() const;  // a chat's names the role
  nlohmann::json Chunk(const AnswerPart& part);
  nlohmann::json LastChunk(const serving::GenerateResult& result) const;
  nlohmann::json UsageChunk(const serving::GenerateResult& result) const;

 private:
  nlohmann::json Envelope(const char* chat_object) const;
  nlohmann::json EmptyChunk() const;
  nlohmann::json Logprobs(const AnswerPart& part);
  nlohmann::json ChatLogprobs(const AnswerPart& part) const;
  nlohmann::json PlainLogprobs(const AnswerPart& part);

  const ResponseHead head_;
  const bool logprobs_;
  const model::Tokenizer* const tokenizer_;
  int64_t text_offset_ = 0;  // bytes of the tokens written so far
};

}  // namespace renga::http

#endif  // RENGA_COORDINATOR_HTTP_COMPLETION_RESPONSE_H_
