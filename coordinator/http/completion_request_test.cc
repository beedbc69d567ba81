#include "coordinator/http/completion_request.h"

#include <limits>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/testing/status_matchers.h"
#include "coordinator/serving/grammar/automaton.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace renga::http {
namespace {

using ::renga::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr uint64_t kSeed = 7;
constexpr const char* kMessages = R"("messages": [{"role": "user", "content": "hi"}])";

absl::StatusOr<CompletionRequest> Parse(Endpoint endpoint, const std::string& body) {
  auto json = ParseJsonObject(body);
  if (!json.ok()) return json.status();
  return ParseCompletionRequest(*json, body, endpoint, kSeed);
}

// A chat whose body has these fields beside its messages.
absl::StatusOr<CompletionRequest> Chat(const std::string& fields) {
  return Parse(Endpoint::kChat,
               absl::StrCat("{", kMessages, fields.empty() ? "" : ", ", fields, "}"));
}
absl::StatusOr<CompletionRequest> Plain(const std::string& fields) {
  return Parse(Endpoint::kCompletions, absl::StrCat("{", fields, "}"));
}

auto Refused(const std::string& substring) {
  return StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(substring));
}

TEST(CompletionRequestTest, WhatIsNoJsonObjectIsRefused) {
  for (const std::string body :
       {"", "{", "nothing", "[1]", "\"text\"", "null", "3", "{\"a\":1}}", "{\"a\":1e999}",
        "{\"a\":\"\xff\"}", "{'a': 1}", "{\"a\":1,}", "\xef\xbb"}) {
    EXPECT_THAT(ParseJsonObject(body), StatusIs(absl::StatusCode::kInvalidArgument)) << body;
  }
  EXPECT_OK(ParseJsonObject("{}"));
}

TEST(CompletionRequestTest, DeepNestingIsRefusedBeforeItIsParsed) {
  const auto nested = [](int depth) {
    return absl::StrCat("{\"a\":", std::string(static_cast<size_t>(depth), '['),
                        std::string(static_cast<size_t>(depth), ']'), "}");
  };
  EXPECT_OK(ParseJsonObject(nested(31)));
  EXPECT_THAT(ParseJsonObject(nested(32)), Refused("nested"));
  EXPECT_THAT(ParseJsonObject(nested(1000000)), Refused("nested"));
  // Brackets in text are text, behind quotes that are text, too.
  EXPECT_OK(ParseJsonObject(absl::StrCat("{\"a\":\"\\\"", std::string(1000, '['), "\\\\\"}")));
}

TEST(CompletionRequestTest, MoreValuesThanAnyPromptHasAreRefused) {
  const auto list = [](size_t count) {
    std::string text = "{\"prompt\":[1";
    for (size_t i = 1; i < count; ++i) text += ",1";
    return text + "]}";
  };
  EXPECT_OK(Parse(Endpoint::kCompletions, list(1000000)));
  EXPECT_THAT(ParseJsonObject(list(2000000)), Refused("values"));
}

TEST(CompletionRequestTest, ChatsAndTheirDefaults) {
  ASSERT_OK_AND_ASSIGN(const CompletionRequest request, Chat(""));
  const auto& messages = std::get<std::vector<model::ChatMessage>>(request.prompt);
  ASSERT_EQ(messages.size(), 1u);
  EXPECT_EQ(messages[0].role, "user");
  EXPECT_EQ(messages[0].content, "hi");
  EXPECT_EQ(request.model, "");
  EXPECT_EQ(request.options.max_tokens, 0);
  EXPECT_EQ(request.options.sampling.temperature, 1);
  EXPECT_EQ(request.options.sampling.top_p, 1);
  EXPECT_EQ(request.options.sampling.seed, kSeed);
  EXPECT_FALSE(request.stream);
  EXPECT_FALSE(request.logprobs);
  EXPECT_THAT(request.options.stop, IsEmpty());
}

TEST(CompletionRequestTest, EveryFieldArrives) {
  ASSERT_OK_AND_ASSIGN(const CompletionRequest request, Chat(R"(
      "model": "m", "temperature": 0.5, "top_p": 0.9, "min_p": 0.1, "top_k": 40, "seed": 3,
      "presence_penalty": 0.25, "frequency_penalty": -0.5, "repetition_penalty": 1.5,
      "repetition_window": 9, "logit_bias": {"5": -100, "7": 2.5}, "stop": ["a", "b"],
      "max_tokens": 11, "ignore_eos": true, "logprobs": true, "top_logprobs": 3, "stream": true,
      "stream_options": {"include_usage": true}, "user": "somebody", "tools": [], "n": 1,
      "response_format": {"type": "text"}, "unheard_of": {}, "tool_choice": null)"));
  const serving::SamplingParams& sampling = request.options.sampling;
  EXPECT_EQ(request.model, "m");
  EXPECT_EQ(sampling.temperature, 0.5);
  EXPECT_EQ(sampling.top_p, 0.9);
  EXPECT_EQ(sampling.min_p, 0.1);
  EXPECT_EQ(sampling.top_k, 40);
  EXPECT_EQ(sampling.seed, 3u);
  EXPECT_EQ(sampling.presence_penalty, 0.25);
  EXPECT_EQ(sampling.frequency_penalty, -0.5);
  EXPECT_EQ(sampling.repetition_penalty, 1.5);
  EXPECT_EQ(sampling.repetition_window, 9);
  EXPECT_EQ(sampling.logit_bias.size(), 2u);
  EXPECT_EQ(sampling.logit_bias.at(5), -100);
  EXPECT_EQ(sampling.logit_bias.at(7), 2.5);
  EXPECT_THAT(request.options.stop, ElementsAre("a", "b"));
  EXPECT_EQ(request.options.max_tokens, 11);
  EXPECT_TRUE(request.options.ignore_eos);
  EXPECT_TRUE(request.logprobs);
  EXPECT_EQ(request.options.alternatives, 3);
  EXPECT_TRUE(request.stream);
  EXPECT_TRUE(request.include_usage);
}

TEST(CompletionRequestTest, NullIsAsGoodAsAbsent) {
  ASSERT_OK_AND_ASSIGN(const CompletionRequest request, Chat(R"(
      "temperature": null, "max_tokens": null, "stop": null, "seed": null, "logit_bias": null,
      "stream": null, "stream_options": null, "n": null, "tools": null, "model": null)"));
  EXPECT_EQ(request.options.sampling.temperature, 1);
  EXPECT_EQ(request.options.sampling.seed, kSeed);
}

TEST(CompletionRequestTest, WrongTypesAreRefusedByName) {
  const std::vector<std::pair<std::string, std::string>> wrong = {{"model", "3"},
                                                                  {"temperature", "\"hot\""},
                                                                  {"temperature", "[]"},
                                                                  {"top_p", "true"},
                                                                  {"top_k", "1.5"},
                                                                  {"top_k", "\"1\""},
                                                                  {"seed", "1.5"},
                                                                  {"seed", "\"x\""},
                                                                  {"max_tokens", "16.0"},
                                                                  {"max_tokens", "\"\""},
                                                                  {"stop", "3"},
                                                                  {"stop", "{}"},
                                                                  {"stream", "1"},
                                                                  {"stream", "\"true\""},
                                                                  {"stream_options", "true"},
                                                                  {"logit_bias", "[]"},
                                                                  {"logit_bias", "3"},
                                                                  {"logprobs", "3"},
                                                                  {"ignore_eos", "0"},
                                                                  {"presence_penalty", "{}"},
                                                                  {"frequency_penalty", "\"0\""}};
  for (const auto& [field, value] : wrong) {
    EXPECT_THAT(Chat(absl::StrCat("\"", field, "\": ", value)), Refused(field)) << value;
  }
  EXPECT_THAT(Chat(R"("stream_options": {"include_usage": 1})"), Refused("include_usage"));
}

TEST(CompletionRequestTest, AbsurdNumbersAreRefused) {
  for (const std::string number : {"0", "-1", "9223372036854775808", "18446744073709551615",
                                   "-9223372036854775808", "1e30", "1e-30"}) {
    EXPECT_THAT(Chat(absl::StrCat("\"max_tokens\": ", number)), Refused("max_tokens")) << number;
  }
  EXPECT_THAT(Chat(R"("top_k": -2)"), Refused("top_k"));
  EXPECT_THAT(Chat(R"("logprobs": true, "top_logprobs": 21)"), Refused("top_logprobs"));
  EXPECT_THAT(Chat(R"("logprobs": true, "top_logprobs": -1)"), Refused("top_logprobs"));
  EXPECT_THAT(Chat(R"("top_logprobs": 2)"), Refused("logprobs"));
  EXPECT_THAT(Chat(R"("repetition_window": -1)"), Refused("repetition_window"));
  ASSERT_OK_AND_ASSIGN(const CompletionRequest most, Chat(R"(
      "max_tokens": 9223372036854775807, "seed": 18446744073709551615, "top_k": -1)"));
  EXPECT_EQ(most.options.max_tokens, std::numeric_limits<int64_t>::max());
  EXPECT_EQ(most.options.sampling.seed, std::numeric_limits<uint64_t>::max());
  EXPECT_EQ(most.options.sampling.top_k, 0);
  ASSERT_OK_AND_ASSIGN(const CompletionRequest negative, Chat(R"("seed": -1)"));
  EXPECT_EQ(negative.options.sampling.seed, std::numeric_limits<uint64_t>::max());
}

TEST(CompletionRequestTest, StopStringsAreBounded) {
  ASSERT_OK_AND_ASSIGN(const CompletionRequest one, Chat(R"("stop": "\n")"));
  EXPECT_THAT(one.options.stop, ElementsAre("\n"));
  const auto stops = [](size_t count, size_t bytes) {
    return absl::StrCat("\"stop\": ",
                        nlohmann::json(std::vector(count, std::string(bytes, 'x'))).dump());
  };
  EXPECT_OK(Chat(stops(16, 1024)));
  EXPECT_THAT(Chat(stops(17, 1)), Refused("stop"));
  EXPECT_THAT(Chat(stops(1, 1025)), Refused("1024 bytes"));
  EXPECT_THAT(Chat(R"("stop": ["a", 3])"), Refused("stop"));
}

TEST(CompletionRequestTest, LogitBiasIsTokensAndNumbers) {
  for (const std::string value : {R"({"x": 1})", R"({"": 1})", R"({"1.5": 1})", R"({"5": "1"})",
                                  R"({"5": null})", R"({"99999999999": 1})", R"({" ": 1})"}) {
    EXPECT_THAT(Chat(absl::StrCat("\"logit_bias\": ", value)), Refused("logit_bias")) << value;
  }
  nlohmann::json many = nlohmann::json::object();
  for (int i = 0; i < 1024; ++i) many[std::to_string(i)] = 1;
  EXPECT_OK(Chat(absl::StrCat("\"logit_bias\": ", many.dump())));
  many["1024"] = 1;
  EXPECT_THAT(Chat(absl::StrCat("\"logit_bias\": ", many.dump())), Refused("1024"));
}

TEST(CompletionRequestTest, WhatWouldChangeTheAnswerIsRefused) {
  EXPECT_THAT(Chat(R"("n": 2)"), Refused("n and best_of"));
  EXPECT_THAT(Chat(R"("n": 0)"), Refused("n must be"));
  EXPECT_THAT(Plain(R"("prompt": "x", "best_of": 3)"), Refused("best_of"));
  EXPECT_THAT(Chat(R"("tools": [{"type": "function"}])"), Refused("tools"));
  EXPECT_THAT(Chat(R"("functions": [{"name": "f"}])"), Refused("functions"));
  EXPECT_THAT(Chat(R"("response_format": "text")"), Refused("response_format"));
  EXPECT_THAT(Chat(R"("response_format": {})"), Refused("response_format"));
  EXPECT_THAT(Plain(R"("prompt": "x", "echo": true)"), Refused("echo"));
  EXPECT_THAT(Plain(R"("prompt": "x", "suffix": "y")"), Refused("suffix"));
  EXPECT_OK(Plain(R"("prompt": "x", "echo": false, "best_of": 1, "suffix": null)"));
}

// Whether the request's answer may be this text.
bool MayAnswer(const absl::StatusOr<CompletionRequest>& request, const std::string& text) {
  EXPECT_OK(request.status());
  if (!request.ok() || request->options.grammar == nullptr) return true;
  grammar::Automaton automaton(request->options.grammar);
  grammar::StateId state = *automaton.Start();
  for (const char c : text) state = automaton.Next(state, static_cast<uint8_t>(c));
  return automaton.Accepts(state);
}

TEST(CompletionRequestTest, AnswersMayBeOfAForm) {
  EXPECT_EQ(Chat("")->options.grammar, nullptr);
  EXPECT_EQ(Chat(R"("response_format": {"type": "text"}, "grammar": null)")->options.grammar,
            nullptr);
  const auto object = Chat(R"("response_format": {"type": "json_object"})");
  EXPECT_TRUE(MayAnswer(object, R"({"a":[1]})"));
  EXPECT_FALSE(MayAnswer(object, "[1]"));
  const auto rules = Plain(R"("prompt": "x", "grammar": "root ::= \"a\"+ # caf\u00e9")");
  EXPECT_TRUE(MayAnswer(rules, "aa"));
  EXPECT_FALSE(MayAnswer(rules, "ab"));
  // In the order in which the schema has them, whatever stands before it in the body.
  const auto schema = Plain(R"("z": {"y": [{"response_format": 1}], "x": 2}, "prompt": "x",
      "response_format": {"type": "json_schema", "json_schema": {"name": "n", "strict": true,
      "schema": {"required": ["b", "a", "c"], "properties": {"b": {"const": 1}, "a": {"const": 2},
      "c": {"const": "\u00e9"}}}}})");
  EXPECT_TRUE(MayAnswer(schema, "{\"b\":1,\"a\":2,\"c\":\"\u00e9\"}"));
  EXPECT_FALSE(MayAnswer(schema, "{\"a\":2,\"b\":1,\"c\":\"\u00e9\"}"));
}

TEST(CompletionRequestTest, FormsThatAreNotUnderstoodAreRefused) {
  EXPECT_THAT(Chat(R"("response_format": {"type": "json_schema"})"), Refused("response_format: "));
  EXPECT_THAT(Chat(R"("response_format": {"type": "json_schema", "json_schema": []})"),
              Refused("with a schema"));
  EXPECT_THAT(Chat(R"("response_format": {"type": "json_schema",
                      "json_schema": {"schema": {"multipleOf": 3}}})"),
              Refused("response_format: schema #: keyword multipleOf is not supported"));
  EXPECT_THAT(Chat(R"("grammar": "")"), Refused("grammar: the grammar has no rule named root"));
  EXPECT_THAT(Chat(R"("grammar": ["x"])"), Refused("grammar must be a string"));
  EXPECT_THAT(Chat(R"("grammar": "root ::= [a]", "response_format": {"type": "json_object"})"),
              Refused("together"));
  std::string many = R"("response_format": {"type": "json_schema", "json_schema": {"schema": {)";
  for (int i = 0; i < 20000; ++i) absl::StrAppend(&many, "\"x-", i, "\": 1,");
  EXPECT_THAT(Chat(many + R"("title": ""}}})"), Refused("more than 8192 fields"));
}

TEST(CompletionRequestTest, MessagesHaveRolesAndText) {
  const auto chat = [](const std::string& messages) {
    return Parse(Endpoint::kChat, absl::StrCat("{\"messages\": ", messages, "}"));
  };
  ASSERT_OK_AND_ASSIGN(const CompletionRequest request, chat(R"([
      {"role": "developer", "content": "be brief"}, {"role": "assistant", "content": null},
      {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}
      ])"));
  const auto& messages = std::get<std::vector<model::ChatMessage>>(request.prompt);
  ASSERT_EQ(messages.size(), 3u);
  EXPECT_EQ(messages[0].role, "system");
  EXPECT_EQ(messages[1].content, "");
  EXPECT_EQ(messages[2].content, "ab");
  for (const std::string wrong :
       {"null", "\"x\"", "[]", "[3]", "[{}]", R"([{"role": "robot", "content": "x"}])",
        R"([{"role": 3, "content": "x"}])", R"([{"role": "user", "content": 3}])",
        R"([{"role": "user", "content": ["x"]}])",
        R"([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": ""}}]}])",
        R"([{"role": "user", "content": [{"type": "text"}]}])"}) {
    EXPECT_THAT(chat(wrong), StatusIs(absl::StatusCode::kInvalidArgument)) << wrong;
  }
  EXPECT_THAT(Parse(Endpoint::kChat, "{}"), Refused("messages"));
  const nlohmann::json message = {{"role", "user"}, {"content", "x"}};
  EXPECT_OK(chat(nlohmann::json(std::vector(4096, message)).dump()));
  EXPECT_THAT(chat(nlohmann::json(std::vector(4097, message)).dump()), Refused("4096"));
}

TEST(CompletionRequestTest, PromptsAreTextOrTokens) {
  ASSERT_OK_AND_ASSIGN(const CompletionRequest text, Plain(R"("prompt": "once")"));
  EXPECT_EQ(std::get<std::string>(text.prompt), "once");
  EXPECT_EQ(text.options.max_tokens, 16);
  ASSERT_OK_AND_ASSIGN(const CompletionRequest single, Plain(R"("prompt": ["once"])"));
  EXPECT_EQ(std::get<std::string>(single.prompt), "once");
  ASSERT_OK_AND_ASSIGN(const CompletionRequest tokens, Plain(R"("prompt": [1, 2])"));
  EXPECT_THAT(std::get<std::vector<serving::TokenId>>(tokens.prompt), ElementsAre(1, 2));
  ASSERT_OK_AND_ASSIGN(const CompletionRequest inner, Plain(R"("prompt": [[7]])"));
  EXPECT_THAT(std::get<std::vector<serving::TokenId>>(inner.prompt), ElementsAre(7));
  EXPECT_THAT(Plain(R"("prompt": ["a", "b"])"), Refused("one per request"));
  EXPECT_THAT(Plain(R"("prompt": [[1], [2]])"), Refused("one per request"));
  for (const std::string wrong : {"null", "3", "{}", "[null]", "[1, \"a\"]", "[-1]", "[1.5]",
                                  "[2147483648]", "[[\"a\"]]", "true"}) {
    EXPECT_THAT(Plain(absl::StrCat("\"prompt\": ", wrong)), Refused("prompt")) << wrong;
  }
  ASSERT_OK_AND_ASSIGN(const CompletionRequest logprobs, Plain(R"("prompt": "x", "logprobs": 2)"));
  EXPECT_TRUE(logprobs.logprobs);
  EXPECT_EQ(logprobs.options.alternatives, 2);
}

}  // namespace
}  // namespace renga::http
