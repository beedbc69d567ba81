#include <string>
#include <vector>

#include "absl/synchronization/notification.h"
#include "base/testing/status_matchers.h"
#include "coordinator/serving/testing/fake_pipeline.h"
#include "coordinator/serving/testing/toy_text.h"
#include "coordinator/serving/text_engine.h"
#include "coordinator/serving/text_stream.h"

namespace renga::serving {
namespace {

using renga::testing::StatusIs;
using ::testing::HasSubstr;

// The filter's output for `text` in pieces of `piece` bytes.
std::string Filter(std::vector<std::string> stops, const std::string& text, size_t piece) {
  StopFilter filter(std::move(stops));
  std::string out;
  for (size_t i = 0; i < text.size(); i += piece) out += filter.Add(text.substr(i, piece));
  if (!filter.stopped()) out += filter.Finish();
  return out;
}

TEST(StopFilterTest, CutsBeforeTheFirstStopHoweverTheTextComes) {
  for (size_t piece = 1; piece < 20; ++piece) {
    EXPECT_EQ(Filter({"END"}, "some ENtext END more", piece), "some ENtext ");
    EXPECT_EQ(Filter({"\n\n", "text"}, "a\nb text\n\n", piece), "a\nb ");
    EXPECT_EQ(Filter({"aab"}, "aaaab", piece), "aa");
    EXPECT_EQ(Filter({"abac", "bad"}, "ababacus", piece), "ab");
    EXPECT_EQ(Filter({"never"}, "nothing of it: neve", piece), "nothing of it: neve");
    EXPECT_EQ(Filter({"", "x"}, "abc", piece), "abc");
    EXPECT_EQ(Filter({}, "abc", piece), "abc");
  }
}

TEST(StopFilterTest, HoldsBackOnlyWhatMayBecomeAStop) {
  StopFilter filter({"###"});
  EXPECT_EQ(filter.Add("one #"), "one ");
  EXPECT_EQ(filter.Add("#"), "");
  EXPECT_EQ(filter.Add(" two"), "## two");
  EXPECT_EQ(filter.Add("###three"), "");
  EXPECT_TRUE(filter.stopped());
  EXPECT_EQ(filter.Add("four"), "");
}

TEST(TextStreamTest, WholeCharactersAndStopsAcrossTokens) {
  const ToyTokenizer tokenizer;
  TextStream stream(&tokenizer, /*at_text_start=*/false, {"b\xc3\xa9"});
  EXPECT_EQ(stream.Add(98), "");
  EXPECT_EQ(stream.Add(99), "\xc3\xa9");
  EXPECT_EQ(stream.Add('b' - 30), "");
  EXPECT_EQ(stream.Add(98), "");
  EXPECT_EQ(stream.Add(99), "");
  EXPECT_TRUE(stream.stopped());
}

// The text engine over the toy model.
class TextEngineTest : public ::testing::Test {
 protected:
  TextEngineTest()
      : source_(std::make_shared<FakePipeline>(
            FakePipelineOptions{.vocab_size = ToyTokenizer::kVocabSize})),
        scheduler_(
            {.replicas = {&source_},
             .is_end_token = [this](TokenId id) { return tokenizer_.IsEndOfGeneration(id); }}),
        engine_(&tokenizer_, &chat_template_, &scheduler_) {}

  const ToyTokenizer tokenizer_;
  const ToyChatTemplate chat_template_;
  FakePipelineSource source_;
  Scheduler scheduler_;
  TextEngine engine_;
};

TEST_F(TextEngineTest, PromptsAndChatsBecomeTokensWithOneBos) {
  ASSERT_OK_AND_ASSIGN(std::vector<TokenId> prompt, engine_.EncodePrompt("hi"));
  EXPECT_EQ(prompt, (std::vector<TokenId>{0, 'h' - 30, 'i' - 30}));
  ASSERT_OK_AND_ASSIGN(std::vector<TokenId> chat, engine_.EncodeChat({{"user", "hi"}}));
  EXPECT_EQ(std::count(chat.begin(), chat.end(), 0), 1);
  EXPECT_EQ(std::count(chat.begin(), chat.end(), 1), 1);
  EXPECT_THAT(engine_.EncodeChat({{"robot", "hi"}}), StatusIs(absl::StatusCode::kInvalidArgument));
  TextEngine plain(&tokenizer_, nullptr, &scheduler_);
  EXPECT_THAT(plain.EncodeChat({{"user", "hi"}}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("chat template")));
}

TEST_F(TextEngineTest, TextIsThatOfTheTokensAndStopsEndIt) {
  ASSERT_OK_AND_ASSIGN(std::vector<TokenId> prompt, engine_.EncodePrompt("once"));
  TextOptions options{.max_tokens = 40, .ignore_eos = true};
  std::string streamed;
  ASSERT_OK_AND_ASSIGN(TextResult whole,
                       engine_.Generate(prompt, options, [&](absl::string_view text) {
                         streamed += std::string(text);
                       }));
  EXPECT_EQ(streamed, whole.text);
  EXPECT_EQ(whole.result.reason, FinishReason::kLength);
  EXPECT_EQ(whole.result.usage.completion_tokens, 40);
  ASSERT_GT(whole.text.size(), 20u);

  const std::string stop = whole.text.substr(12, 5);
  options.stop = {"not in there at all", stop};
  ASSERT_OK_AND_ASSIGN(TextResult stopped, engine_.Generate(prompt, options, nullptr));
  EXPECT_EQ(stopped.text, whole.text.substr(0, whole.text.find(stop)));
  EXPECT_EQ(stopped.result.reason, FinishReason::kStop);
  EXPECT_LT(stopped.result.usage.completion_tokens, 40);
}

TEST_F(TextEngineTest, ErrorsComeBack) {
  EXPECT_THAT(engine_.Generate({}, {}, nullptr), StatusIs(absl::StatusCode::kInvalidArgument));
  source_.Set(std::make_shared<FakePipeline>(
      FakePipelineOptions{.vocab_size = ToyTokenizer::kVocabSize, .kv_blocks = 1}));
  ASSERT_OK_AND_ASSIGN(std::vector<TokenId> prompt, engine_.EncodePrompt(std::string(50, 'x')));
  EXPECT_THAT(engine_.Generate(prompt, {}, nullptr),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("context of 32")));
}

}  // namespace
}  // namespace renga::serving
