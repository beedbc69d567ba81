#include "coordinator/http/openai_server.h"

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/testing/status_matchers.h"
#include "coordinator/http/testing/raw_client.h"
#include "coordinator/serving/testing/fake_pipeline.h"
#include "coordinator/serving/testing/toy_text.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "httplib.h"
#include "model/unicode.h"
#include "nlohmann/json.hpp"

namespace renga::http {
namespace {

using nlohmann::json;
using serving::FakePipeline;
using serving::FakePipelineOptions;
using serving::ToyTokenizer;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr const char* kChat = "/v1/chat/completions";
constexpr const char* kPlain = "/v1/completions";

// The server over the toy model of serving's tests.
class OpenAiServerTest : public ::testing::Test {
 protected:
  OpenAiServerTest()
      : pipeline_(std::make_shared<FakePipeline>(
            FakePipelineOptions{.vocab_size = ToyTokenizer::kVocabSize, .kv_blocks = 32})),
        source_(pipeline_),
        scheduler_(
            {.replicas = {&source_},
             .is_end_token = [this](model::TokenId id) { return tokenizer_.IsEndOfGeneration(id); },
             .context_tokens = 512}),
        engine_(&tokenizer_, &chat_template_, &scheduler_) {
    options_.port = 0;
    options_.model_name = "toy";
  }
  ~OpenAiServerTest() override { pipeline_->Release(); }

  // One whose tokens come one by one.
  void UseSlowPipeline() {
    pipeline_ = std::make_shared<FakePipeline>(FakePipelineOptions{
        .vocab_size = ToyTokenizer::kVocabSize, .step_time = absl::Milliseconds(5)});
    source_.Set(pipeline_);
  }
  void Start() { ASSERT_OK_AND_ASSIGN(server_, OpenAiServer::Start(options_, &engine_)); }

  struct Reply {
    int status = 0;
    std::string body;
    httplib::Headers headers;
    json parsed() const { return json::parse(body, nullptr, /*allow_exceptions=*/false); }
    std::string error() const { return parsed()["error"]["message"]; }
  };
  Reply Send(const std::string& method, const std::string& path, const std::string& body = "",
             httplib::Headers headers = {}) {
    httplib::Client client("127.0.0.1", server_->port());
    client.set_read_timeout(20);
    httplib::Request request;
    request.method = method;
    request.path = path;
    request.body = body;
    request.headers = std::move(headers);
    const httplib::Result result = client.send(request);
    if (!result) {
      ADD_FAILURE() << "no answer: " << httplib::to_string(result.error());
      return {};
    }
    return {result->status, result->body, result->headers};
  }
  Reply Get(const std::string& path) { return Send("GET", path); }
  Reply Post(const std::string& path, const json& body) { return Send("POST", path, body.dump()); }

  static json ChatBody(json fields = json::object()) {
    fields["messages"] = json::array({{{"role", "user"}, {"content", "hi"}}});
    fields["temperature"] = 0;
    if (!fields.contains("max_tokens")) fields["max_tokens"] = 12;
    return fields;
  }
  // The data of a stream's events.
  static std::vector<std::string> Events(const std::string& body) {
    std::vector<std::string> events;
    for (absl::string_view event : absl::StrSplit(body, "\n\n", absl::SkipEmpty())) {
      EXPECT_TRUE(absl::ConsumePrefix(&event, "data: ")) << event;
      events.emplace_back(event);
    }
    return events;
  }
  static std::string StreamedText(const std::vector<std::string>& events) {
    std::string text;
    for (const std::string& event : events) {
      EXPECT_TRUE(model::IsValidUtf8(event));
      if (event == "[DONE]") continue;
      const json chunk = json::parse(event);
      if (chunk["choices"].empty()) continue;
      const json& choice = chunk["choices"][0];
      text += choice.contains("delta") ? choice["delta"].value("content", "")
                                       : choice.value("text", "");
    }
    return text;
  }
  uint64_t Cancelled() const { return scheduler_.Stats().requests_cancelled; }

  const ToyTokenizer tokenizer_;
  const serving::ToyChatTemplate chat_template_;
  std::shared_ptr<FakePipeline> pipeline_;
  serving::FakePipelineSource source_;
  serving::Scheduler scheduler_;
  serving::TextEngine engine_;
  OpenAiServerOptions options_;
  std::unique_ptr<OpenAiServer> server_;
};

TEST_F(OpenAiServerTest, ModelsAreListedAndFoundByName) {
  Start();
  const Reply list = Get("/v1/models");
  EXPECT_EQ(list.status, 200);
  EXPECT_EQ(list.parsed()["object"], "list");
  ASSERT_EQ(list.parsed()["data"].size(), 1u);
  const json model = list.parsed()["data"][0];
  EXPECT_EQ(model["id"], "toy");
  EXPECT_EQ(model["object"], "model");
  EXPECT_TRUE(model["created"].is_number_integer());
  EXPECT_TRUE(model["owned_by"].is_string());
  EXPECT_EQ(Get("/v1/models/toy").parsed(), model);
  const Reply other = Get("/v1/models/gpt-4");
  EXPECT_EQ(other.status, 404);
  EXPECT_EQ(other.parsed()["error"]["code"], "model_not_found");
  // A name as long as the library lets it become.
  EXPECT_EQ(Get("/v1/models/" + std::string(8000, 'x')).status, 404);
}

TEST_F(OpenAiServerTest, StreamedChatsEqualWholeOnes) {
  Start();
  const json whole = Post(kChat, ChatBody()).parsed();
  const std::string text = whole["choices"][0]["message"]["content"];
  EXPECT_EQ(whole["object"], "chat.completion");
  EXPECT_EQ(whole["usage"]["completion_tokens"], 12);
  EXPECT_THAT(whole["id"], ::testing::StartsWith("chatcmpl-"));

  const Reply reply = Post(kChat, ChatBody({{"stream", true}}));
  EXPECT_EQ(reply.status, 200);
  EXPECT_EQ(reply.headers.find("Content-Type")->second, "text/event-stream");
  const std::vector<std::string> events = Events(reply.body);
  ASSERT_GE(events.size(), 4u);
  EXPECT_EQ(events.back(), "[DONE]");
  const json first = json::parse(events[0]);
  EXPECT_EQ(first["object"], "chat.completion.chunk");
  EXPECT_EQ(first["choices"][0]["delta"]["role"], "assistant");
  for (size_t i = 0; i + 1 < events.size(); ++i) {
    const json chunk = json::parse(events[i]);
    EXPECT_EQ(chunk["id"], first["id"]);
    EXPECT_FALSE(chunk.contains("usage"));
    EXPECT_EQ(chunk["choices"][0]["finish_reason"].is_null(), i + 2 < events.size());
    EXPECT_EQ(chunk["choices"][0]["delta"].contains("role"), i == 0);
  }
  EXPECT_EQ(json::parse(events[events.size() - 2])["choices"][0]["finish_reason"], "length");
  EXPECT_EQ(StreamedText(events), text);
}

TEST_F(OpenAiServerTest, StreamedCompletionsEqualWholeOnes) {
  Start();
  const json body = {{"prompt", "once upon"}, {"temperature", 0}, {"max_tokens", 20}};
  const json whole = Post(kPlain, body).parsed();
  EXPECT_EQ(whole["object"], "text_completion");
  EXPECT_EQ(whole["choices"][0]["finish_reason"], "length");
  json streamed = body;
  streamed["stream"] = true;
  streamed["stream_options"] = {{"include_usage", true}};
  const std::vector<std::string> events = Events(Post(kPlain, streamed).body);
  ASSERT_GE(events.size(), 3u);
  EXPECT_EQ(StreamedText(events), whole["choices"][0]["text"]);
  EXPECT_EQ(events.back(), "[DONE]");
  const json usage = json::parse(events[events.size() - 2]);
  EXPECT_EQ(usage["choices"], json::array());
  EXPECT_EQ(usage["usage"], whole["usage"]);
  EXPECT_EQ(json::parse(events[0])["usage"], nullptr);
}

TEST_F(OpenAiServerTest, StopStringsAndEndTokensSayStop) {
  Start();
  const json whole = Post(kChat, ChatBody({{"max_tokens", 40}, {"ignore_eos", true}})).parsed();
  const std::string text = whole["choices"][0]["message"]["content"];
  const std::string stop = text.substr(5, 3);
  for (const bool stream : {false, true}) {
    const Reply reply = Post(kChat, ChatBody({{"max_tokens", 40},
                                              {"ignore_eos", true},
                                              {"stop", json::array({"nowhere in it", stop})},
                                              {"stream", stream}}));
    const std::string before = text.substr(0, text.find(stop));
    if (stream) {
      const std::vector<std::string> events = Events(reply.body);
      EXPECT_EQ(StreamedText(events), before);
      EXPECT_EQ(json::parse(events[events.size() - 2])["choices"][0]["finish_reason"], "stop");
    } else {
      EXPECT_EQ(reply.parsed()["choices"][0]["message"]["content"], before);
      EXPECT_EQ(reply.parsed()["choices"][0]["finish_reason"], "stop");
    }
  }
  const json ended = Post(kChat, ChatBody({{"logit_bias", {{"1", 1000}}}})).parsed();
  EXPECT_EQ(ended["choices"][0]["message"]["content"], "");
  EXPECT_EQ(ended["choices"][0]["finish_reason"], "stop");
}

// Tokens 98 and 99 are the two bytes of é: with all others far away, the answer is a row of them.
TEST_F(OpenAiServerTest, CharactersOfSeveralTokensAreNeverBroken) {
  UseSlowPipeline();
  Start();
  const json fields = {{"max_tokens", 60}, {"logit_bias", {{"98", 900}, {"99", 900}}}};
  const std::string whole =
      Post(kChat, ChatBody(fields)).parsed()["choices"][0]["message"]["content"];
  EXPECT_THAT(whole, HasSubstr("\u00e9"));
  json streamed = fields;
  streamed["stream"] = true;
  const std::vector<std::string> events = Events(Post(kChat, ChatBody(streamed)).body);
  EXPECT_EQ(StreamedText(events), whole);
  EXPECT_GT(events.size(), 20u);
}

TEST_F(OpenAiServerTest, LogprobsComeWithTheirTokens) {
  Start();
  const json fields = {{"logprobs", true}, {"top_logprobs", 2}, {"max_tokens", 6}};
  const json whole = Post(kChat, ChatBody(fields)).parsed();
  const json content = whole["choices"][0]["logprobs"]["content"];
  ASSERT_EQ(content.size(), 6u);
  EXPECT_EQ(content[0]["top_logprobs"].size(), 2u);
  EXPECT_LE(content[0]["logprob"], 0);
  json streamed = fields;
  streamed["stream"] = true;
  json collected = json::array();
  for (const std::string& event : Events(Post(kChat, ChatBody(streamed)).body)) {
    if (event == "[DONE]") continue;
    const json logprobs = json::parse(event)["choices"][0]["logprobs"];
    if (logprobs.is_null()) continue;
    for (const json& token : logprobs["content"]) collected.push_back(token);
  }
  EXPECT_EQ(collected, content);
  const json asked = {
      {"prompt", "once upon"}, {"temperature", 0}, {"logprobs", 1}, {"max_tokens", 3}};
  const json plain = Post(kPlain, asked).parsed();
  EXPECT_EQ(plain["choices"][0]["logprobs"]["tokens"].size(), 3u) << plain;
}

TEST_F(OpenAiServerTest, WrongRequestsGetOpenAiErrors) {
  Start();
  const auto expect = [](const Reply& reply, int status, const std::string& message) {
    EXPECT_EQ(reply.status, status) << reply.body;
    const json error = reply.parsed()["error"];
    EXPECT_TRUE(error["type"].is_string());
    EXPECT_TRUE(error.contains("code"));
    EXPECT_TRUE(error.contains("param"));
    EXPECT_THAT(error["message"], HasSubstr(message));
  };
  expect(Send("POST", kChat, "{\"messages\": "), 400, "JSON");
  expect(Post(kChat, json::object()), 400, "messages");
  expect(Post(kChat, ChatBody({{"n", 3}})), 400, "n and best_of");
  expect(Post(kChat, ChatBody({{"top_p", 2}})), 400, "top_p");
  expect(Post(kChat, ChatBody({{"logit_bias", {{"5", 1e9}}}})), 400, "logit_bias");
  expect(Post(kChat, ChatBody({{"logit_bias", {{"128", 1}}}})), 400, "vocabulary");
  expect(Post(kChat, ChatBody({{"logit_bias", {{"-1", 1}}}})), 400, "vocabulary");
  expect(Post(kPlain, {{"prompt", json::array({5, 128})}}), 400, "vocabulary");
  expect(Post(kPlain, {{"prompt", json::array()}}), 400, "no tokens");
  expect(Post(kPlain, {{"prompt", std::string(600, 'x')}}), 400, "context of 512");
  expect(Post(kPlain, {{"prompt", "x"}, {"max_tokens", 511}}), 400, "context of 512");
  expect(Post(kPlain, {{"prompt", "x"}, {"max_tokens", INT64_MAX}}), 400, "context of 512");
  const Reply unknown = Post(kChat, ChatBody({{"model", "gpt-4"}}));
  expect(unknown, 404, "the one served is toy");
  EXPECT_EQ(unknown.parsed()["error"]["code"], "model_not_found");
  expect(Get("/v1/nothing"), 404, "nothing at this path");
  expect(Get(kChat), 404, "nothing at this path");
  expect(Send("DELETE", "/v1/models/toy"), 404, "nothing at this path");
  expect(Post("/v1/embeddings", {{"input", "x"}}), 404, "nothing at this path");
  EXPECT_EQ(Post(kPlain, {{"prompt", "x"}, {"max_tokens", 510}, {"model", "toy"}}).status, 200);
}

TEST_F(OpenAiServerTest, BodiesAreBounded) {
  options_.max_body_bytes = 1000;
  Start();
  const std::string fits = json({{"prompt", "x"}, {"pad", std::string(900, ' ')}}).dump();
  EXPECT_EQ(Send("POST", kPlain, fits).status, 200);
  const Reply large = Send("POST", kPlain, std::string(1 << 20, ' '));
  EXPECT_EQ(large.status, 413);
  EXPECT_EQ(large.parsed()["error"]["code"], "request_too_large");
  // Told before the body has come, and when it never ends.
  RawClient announced(server_->port());
  announced.Send("POST /v1/completions HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n");
  EXPECT_THAT(announced.ReadToEnd(), HasSubstr(" 413 "));
  RawClient endless(server_->port());
  endless.Send("POST /v1/completions HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n");
  const std::string chunk = absl::StrCat("1000\r\n", std::string(0x1000, ' '), "\r\n");
  for (int i = 0; i < 1000 && endless.Send(chunk); ++i) continue;
  endless.ReadToEnd();
  EXPECT_TRUE(endless.closed());
}

TEST_F(OpenAiServerTest, BodiesThatCannotBeReadAreRefusedAtOnce) {
  Start();
  RawClient unannounced(server_->port());
  unannounced.Send("POST /v1/completions HTTP/1.1\r\nHost: test\r\n\r\n");
  EXPECT_THAT(unannounced.ReadToEnd(), HasSubstr(" 411 "));
  for (const std::string length : {"-5", "x", "99999999999999999999999"}) {
    RawClient client(server_->port());
    client.Send("POST /v1/completions HTTP/1.1\r\nContent-Length: " + length + "\r\n\r\n{}");
    EXPECT_THAT(client.ReadToEnd(), HasSubstr(" 400 ")) << length;
  }
  // A few bytes may stand for more than there is memory.
  for (const std::string encoding : {"gzip", "br", "deflate"}) {
    const Reply packed = Send("POST", kPlain, "x", {{"Content-Encoding", encoding}});
    EXPECT_EQ(packed.status, 415) << encoding;
    EXPECT_THAT(packed.error(), HasSubstr("compressed"));
  }
  EXPECT_EQ(Send("POST", kPlain, R"({"prompt": "x"})", {{"Content-Encoding", "identity"}}).status,
            200);
}

TEST_F(OpenAiServerTest, ClientsThatLeaveEndTheirRequests) {
  Start();
  pipeline_->Hold();
  RawClient whole(server_->port());
  RawClient streaming(server_->port());
  ASSERT_TRUE(whole.Send(PostRequest(kChat, ChatBody({{"max_tokens", 400}}).dump())));
  ASSERT_TRUE(
      streaming.Send(PostRequest(kChat, ChatBody({{"max_tokens", 400}, {"stream", true}}).dump())));
  ASSERT_TRUE(Eventually([this] { return scheduler_.Stats().requests_running == 2; }));
  whole.Close();
  EXPECT_TRUE(Eventually([this] { return Cancelled() == 1; }));
  streaming.Close();
  EXPECT_TRUE(Eventually([this] { return Cancelled() == 2; }));
  EXPECT_EQ(scheduler_.Stats().requests_running, 0);
}

TEST_F(OpenAiServerTest, ClientsThatLeaveInTheMiddleOfAStreamEndTheirRequests) {
  UseSlowPipeline();
  Start();
  RawClient client(server_->port());
  ASSERT_TRUE(client.Send(PostRequest(
      kChat, ChatBody({{"max_tokens", 400}, {"ignore_eos", true}, {"stream", true}}).dump())));
  for (int i = 0; i < 4; ++i) EXPECT_THAT(client.ReadUntil("\n\n"), HasSubstr("data: "));
  EXPECT_EQ(Cancelled(), 0u);
  client.Close();
  EXPECT_TRUE(Eventually([this] { return Cancelled() == 1; }));
  EXPECT_TRUE(Eventually(
      [this] { return scheduler_.Stats().kv_blocks_free == scheduler_.Stats().kv_blocks; }));
  EXPECT_OK(pipeline_->Violation());
}

TEST_F(OpenAiServerTest, RequestsBeyondTheLimitAreTurnedAway) {
  options_.max_concurrent = 1;
  Start();
  pipeline_->Hold();
  RawClient first(server_->port());
  ASSERT_TRUE(first.Send(PostRequest(kChat, ChatBody().dump())));
  ASSERT_TRUE(Eventually([this] { return scheduler_.Stats().requests_running == 1; }));
  const Reply second = Post(kChat, ChatBody());
  EXPECT_EQ(second.status, 429);
  EXPECT_EQ(second.parsed()["error"]["type"], "rate_limit_error");
  EXPECT_EQ(Get("/health").status, 200);
  pipeline_->Release();
  EXPECT_THAT(first.ReadUntil("}}"), HasSubstr("200 OK"));
  ASSERT_TRUE(Eventually([this] { return Post(kChat, ChatBody()).status == 200; }));
}

TEST_F(OpenAiServerTest, LateAnswersAreTimeouts) {
  options_.request_timeout = absl::Milliseconds(50);
  Start();
  pipeline_->Hold();
  EXPECT_EQ(Post(kChat, ChatBody()).status, 504);
  const Reply streamed = Post(kChat, ChatBody({{"stream", true}}));
  EXPECT_EQ(streamed.status, 504);
  EXPECT_THAT(streamed.error(), HasSubstr("longer"));
}

TEST_F(OpenAiServerTest, WithoutWorkersThereIsNoService) {
  source_.Set(nullptr);
  Start();
  for (const bool stream : {false, true}) {
    const Reply reply = Post(kChat, ChatBody({{"stream", stream}}));
    EXPECT_EQ(reply.status, 503);
    EXPECT_THAT(reply.error(), HasSubstr("waiting for workers"));
  }
}

TEST_F(OpenAiServerTest, AWorkerLostInTheMiddleOfAStreamIsAnEvent) {
  UseSlowPipeline();
  Start();
  RawClient client(server_->port());
  ASSERT_TRUE(client.Send(PostRequest(
      kChat, ChatBody({{"max_tokens", 400}, {"ignore_eos", true}, {"stream", true}}).dump())));
  for (int i = 0; i < 4; ++i) EXPECT_THAT(client.ReadUntil("\n\n"), HasSubstr("data: "));
  pipeline_->Break(absl::UnavailableError("worker ruth failed"));
  const std::string rest = client.ReadUntil("0\r\n\r\n");
  EXPECT_THAT(rest, HasSubstr("worker ruth failed"));
  EXPECT_THAT(rest, HasSubstr("\"error\""));
  EXPECT_THAT(rest, Not(HasSubstr("[DONE]")));
}

TEST_F(OpenAiServerTest, StoppingEndsWhatIsUnderWay) {
  Start();
  pipeline_->Hold();
  RawClient client(server_->port());
  RawClient idle(server_->port());
  ASSERT_TRUE(client.Send(PostRequest(kChat, ChatBody().dump())));
  ASSERT_TRUE(Eventually([this] { return scheduler_.Stats().requests_running == 1; }));
  server_->Stop();
  EXPECT_THAT(client.ReadToEnd(), HasSubstr(" 503 "));
  EXPECT_TRUE(client.closed());
  idle.ReadToEnd();
  EXPECT_TRUE(idle.closed());
  EXPECT_TRUE(Eventually([this] { return Cancelled() == 1; }));
}

TEST_F(OpenAiServerTest, AKeyIsWantedForEverythingButHealth) {
  options_.api_key = "secret";
  Start();
  EXPECT_EQ(Get("/health").status, 200);
  for (const std::string path : {"/v1/models", "/metrics", "/renga/status", "/v1/nothing"}) {
    EXPECT_EQ(Get(path).status, 401) << path;
  }
  for (const std::string key :
       {"", "Bearer", "Bearer ", "Bearer secre", "Bearer secret2", "secret", "Basic secret"}) {
    const Reply reply = Send("GET", "/v1/models", "", {{"Authorization", key}});
    EXPECT_EQ(reply.status, 401) << key;
    EXPECT_EQ(reply.parsed()["error"]["code"], "invalid_api_key");
  }
  EXPECT_EQ(Send("GET", "/v1/models", "", {{"Authorization", "Bearer secret"}}).status, 200);
}

TEST_F(OpenAiServerTest, PagesMayUseItWhenToldSo) {
  options_.cors_origin = "https://page.example";
  options_.api_key = "secret";
  Start();
  const Reply preflight = Send("OPTIONS", kChat);
  EXPECT_EQ(preflight.status, 204);
  EXPECT_EQ(preflight.headers.find("Access-Control-Allow-Origin")->second, options_.cors_origin);
}

TEST_F(OpenAiServerTest, HealthStatusAndMetrics) {
  absl::Status health = absl::UnavailableError("waiting for workers");
  options_.health = [&health] { return health; };
  options_.status = [] { return json({{"workers", 2}}); };
  Start();
  const Reply sick = Get("/health");
  EXPECT_EQ(sick.status, 503);
  EXPECT_EQ(sick.parsed()["message"], "waiting for workers");
  health = absl::OkStatus();
  EXPECT_EQ(Get("/health").parsed()["status"], "ok");
  EXPECT_EQ(Get("/renga/status").parsed()["workers"], 2);

  EXPECT_EQ(Post(kChat, ChatBody()).status, 200);
  EXPECT_EQ(Post(kPlain, json::object()).status, 400);
  Reply metrics = Get("/metrics");
  // The answer may be here before the scheduler has counted it.
  const absl::Time deadline = absl::Now() + absl::Seconds(20);
  while (!absl::StrContains(metrics.body, "renga_requests_running 0\n") && absl::Now() < deadline) {
    metrics = Get("/metrics");
  }
  EXPECT_THAT(metrics.headers.find("Content-Type")->second, HasSubstr("text/plain"));
  for (const std::string line :
       {"renga_http_requests_total{route=\"chat\",code=\"200\"} 1",
        "renga_http_requests_total{route=\"error\",code=\"400\"} 1",
        "renga_requests_total{end=\"finished\"} 1", "renga_generated_tokens_total 12",
        "renga_requests_running 0", "renga_kv_blocks 32",
        "renga_first_token_seconds_bucket{le=\"+Inf\"} 1", "# TYPE renga_step_seconds histogram"}) {
    EXPECT_THAT(metrics.body, HasSubstr(absl::StrCat(line, "\n")));
  }
}

TEST_F(OpenAiServerTest, OddRequestsHarmNothing) {
  Start();
  const std::vector<std::string> requests = {
      "GET /\r\n\r\n",
      "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
      "\x16\x03\x01\x02\x01\x01",
      "GET /v1/models/%00%ff HTTP/1.1\r\n\r\n",
      absl::StrCat("GET /v1/models HTTP/1.1\r\nRange: bytes=", std::string(7000, '1'), "\r\n\r\n"),
      absl::StrCat("GET /", std::string(20000, 'a'), " HTTP/1.1\r\n\r\n"),
      "POST /v1/completions HTTP/1.1\r\nContent-Type: multipart/form-data; boundary=x\r\n"
      "Content-Length: 4\r\n\r\n--x-",
      absl::StrCat("POST /v1/chat/completions HTTP/1.1\r\nRange: bytes=5-9\r\nContent-Length: ",
                   ChatBody({{"stream", true}}).dump().size(), "\r\n\r\n",
                   ChatBody({{"stream", true}}).dump())};
  for (const std::string& request : requests) {
    RawClient client(server_->port());
    client.Send(request);
    client.Close();
  }
  EXPECT_EQ(Post(kChat, ChatBody()).status, 200);
  EXPECT_TRUE(Eventually([this] { return scheduler_.Stats().requests_running == 0; }));
}

}  // namespace
}  // namespace renga::http
