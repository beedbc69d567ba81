#include "coordinator/http/completion_response.h"

#include <string>

#include "coordinator/http/api_error.h"
#include "coordinator/serving/testing/toy_text.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace renga::http {
namespace {

using nlohmann::json;
using serving::ToyTokenizer;

class CompletionResponseTest : public ::testing::Test {
 protected:
  ResponseWriter Writer(Endpoint endpoint, bool logprobs, bool include_usage = false) {
    return ResponseWriter({.endpoint = endpoint,
                           .id = "the-id",
                           .model = "the-model",
                           .created = 12,
                           .include_usage = include_usage},
                          logprobs, &tokenizer_);
  }

  // The text "hi" as the toy vocabulary spells it.
  static AnswerPart Hi() {
    serving::SampledToken h{.id = 'h' - 30, .logprob = -0.5f, .alternatives = {}};
    h.alternatives = {{.id = 'h' - 30, .logprob = -0.5f}, {.id = 98, .logprob = -2}};
    const serving::SampledToken i{.id = 'i' - 30, .logprob = -1.5f, .alternatives = {}};
    return {.text = "hi", .tokens = {h, i}};
  }

  const ToyTokenizer tokenizer_;
  const serving::GenerateResult result_{.reason = serving::FinishReason::kLength,
                                        .usage = {.prompt_tokens = 3, .completion_tokens = 2},
                                        .timings = {}};
};

TEST_F(CompletionResponseTest, WholeChat) {
  json whole = Writer(Endpoint::kChat, false).Whole(Hi(), result_);
  EXPECT_TRUE(whole["timings"].is_object());
  whole.erase("timings");
  EXPECT_EQ(whole, json::parse(R"({
      "id": "the-id", "object": "chat.completion", "created": 12, "model": "the-model",
      "choices": [{"index": 0, "finish_reason": "length", "logprobs": null,
                   "message": {"role": "assistant", "content": "hi"}}],
      "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}})"));
}

TEST_F(CompletionResponseTest, WholeCompletion) {
  json whole = Writer(Endpoint::kCompletions, false).Whole(Hi(), result_);
  whole.erase("timings");
  EXPECT_EQ(whole, json::parse(R"({
      "id": "the-id", "object": "text_completion", "created": 12, "model": "the-model",
      "choices": [{"index": 0, "finish_reason": "length", "logprobs": null, "text": "hi"}],
      "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}})"));
}

TEST_F(CompletionResponseTest, ChatChunks) {
  ResponseWriter writer = Writer(Endpoint::kChat, false);
  const json envelope = {{"id", "the-id"},
                         {"object", "chat.completion.chunk"},
                         {"created", 12},
                         {"model", "the-model"}};
  const auto with_choice = [&](const std::string& choice) {
    json chunk = envelope;
    chunk["choices"] = json::array({json::parse(choice)});
    return chunk;
  };
  ASSERT_TRUE(writer.FirstChunk().has_value());
  EXPECT_EQ(*writer.FirstChunk(), with_choice(R"({"index": 0, "finish_reason": null,
      "logprobs": null, "delta": {"role": "assistant", "content": ""}})"));
  EXPECT_EQ(writer.Chunk(Hi()), with_choice(R"({"index": 0, "finish_reason": null,
      "logprobs": null, "delta": {"content": "hi"}})"));
  json last = writer.LastChunk(result_);
  last.erase("timings");
  EXPECT_EQ(last, with_choice(R"({"index": 0, "finish_reason": "length", "logprobs": null,
      "delta": {}})"));
}

TEST_F(CompletionResponseTest, CompletionChunksHaveNoRole) {
  ResponseWriter writer = Writer(Endpoint::kCompletions, false);
  EXPECT_FALSE(writer.FirstChunk().has_value());
  const json chunk = writer.Chunk(Hi());
  EXPECT_EQ(chunk["object"], "text_completion");
  EXPECT_EQ(chunk["choices"][0]["text"], "hi");
  EXPECT_EQ(chunk["choices"][0]["finish_reason"], nullptr);
  EXPECT_EQ(writer.LastChunk(result_)["choices"][0]["text"], "");
}

TEST_F(CompletionResponseTest, UsageComesLastWithoutChoices) {
  ResponseWriter writer = Writer(Endpoint::kChat, false, /*include_usage=*/true);
  const json usage = writer.UsageChunk(result_);
  EXPECT_EQ(usage["choices"], json::array());
  EXPECT_EQ(usage["usage"]["total_tokens"], 5);
  for (const json& chunk : {*writer.FirstChunk(), writer.Chunk(Hi()), writer.LastChunk(result_)}) {
    ASSERT_TRUE(chunk.contains("usage"));
    EXPECT_EQ(chunk["usage"], nullptr);
  }
}

TEST_F(CompletionResponseTest, ChatLogprobsNameBytes) {
  const json chunk = Writer(Endpoint::kChat, true).Chunk(Hi());
  const json& content = chunk["choices"][0]["logprobs"]["content"];
  ASSERT_EQ(content.size(), 2u);
  EXPECT_EQ(content[0]["token"], "h");
  EXPECT_EQ(content[0]["bytes"], json::array({104}));
  EXPECT_EQ(content[0]["logprob"], -0.5);
  ASSERT_EQ(content[0]["top_logprobs"].size(), 2u);
  // Half of a character: its text is broken, its byte is not.
  EXPECT_EQ(content[0]["top_logprobs"][1]["bytes"], json::array({0xc3}));
  EXPECT_THAT(Dump(chunk), ::testing::HasSubstr("\xEF\xBF\xBD"));
  EXPECT_EQ(content[1]["top_logprobs"], json::array());
}

TEST_F(CompletionResponseTest, CompletionLogprobsCountOffsetsOverChunks) {
  ResponseWriter writer = Writer(Endpoint::kCompletions, true);
  const json first = writer.Chunk(Hi())["choices"][0]["logprobs"];
  EXPECT_EQ(first["tokens"], json::array({"h", "i"}));
  EXPECT_EQ(first["token_logprobs"], json::array({-0.5, -1.5}));
  EXPECT_EQ(first["text_offset"], json::array({0, 1}));
  EXPECT_EQ(first["top_logprobs"][0].size(), 2u);
  EXPECT_EQ(writer.Chunk(Hi())["choices"][0]["logprobs"]["text_offset"], json::array({2, 3}));
}

TEST(ApiErrorTest, StatusesBecomeOpenAiErrors) {
  const auto expect = [](const absl::Status& status, int http_status, const std::string& type,
                         const json& code) {
    EXPECT_EQ(HttpStatus(status), http_status) << status;
    EXPECT_EQ(ErrorJson(status), json({{"error",
                                        {{"message", std::string(status.message())},
                                         {"type", type},
                                         {"param", nullptr},
                                         {"code", code}}}}));
  };
  expect(absl::InvalidArgumentError("a"), 400, "invalid_request_error", nullptr);
  expect(absl::UnimplementedError("a"), 400, "invalid_request_error", nullptr);
  expect(absl::NotFoundError("b"), 404, "invalid_request_error", "model_not_found");
  expect(absl::ResourceExhaustedError("c"), 429, "rate_limit_error", "rate_limit_exceeded");
  expect(absl::UnavailableError("d"), 503, "service_unavailable_error", "service_unavailable");
  expect(absl::CancelledError("e"), 503, "service_unavailable_error", "service_unavailable");
  expect(absl::DeadlineExceededError("f"), 504, "service_unavailable_error", nullptr);
  expect(absl::InternalError("g"), 500, "server_error", nullptr);
  EXPECT_EQ(ErrorJson(401, "x")["error"]["code"], "invalid_api_key");
  EXPECT_EQ(ErrorJson(404, "x")["error"]["code"], nullptr);
}

}  // namespace
}  // namespace renga::http
