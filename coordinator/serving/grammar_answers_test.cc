// Answers under a grammar: the tokens are those of all logits with the others put to minus
// infinity, whatever the head answers, whoever guesses, and however many stages there are.
#include <limits>
#include <string>
#include <vector>

#include "coordinator/serving/grammar/grammar.h"
#include "coordinator/serving/testing/scheduler_bench.h"
#include "coordinator/serving/testing/toy_text.h"

namespace renga::serving {
namespace {

using ::renga::testing::StatusIs;
using ::testing::HasSubstr;

constexpr int64_t kTextVocab = ToyTokenizer::kVocabSize;

std::shared_ptr<const grammar::TokenGrammar> Rules(const std::string& gbnf) {
  return std::make_shared<grammar::TokenGrammar>(
      grammar::TokenGrammar{.network = *grammar::FromGbnf(gbnf),
                            .tokens = std::make_shared<grammar::TokenTrie>(ToyTokenizer())});
}

// As ReferenceTokens, with what is not allowed at minus infinity.
std::vector<SampledToken> MaskedReference(const GenerateRequest& request, const ToyModel& model) {
  auto walk = *grammar::GrammarWalk::Begin(request.grammar, kTextVocab);
  std::vector<TokenId> tokens = request.prompt;
  const auto prompt_tokens = static_cast<int64_t>(tokens.size());
  std::vector<SampledToken> answer;
  SamplingParams params = request.sampling;
  params.presence_penalty += 1e-300;  // asks for all logits, and changes none
  while (std::ssize(answer) < request.max_tokens && !walk->Complete()) {
    const auto allowed = walk->Allowed(walk->place());
    model::HeadRow row = ToyRow(model(tokens, kTextVocab), 0);
    for (TokenId id = 0; id < kTextVocab; ++id) {
      if (!allowed->Contains(id)) row.logits[id] = -std::numeric_limits<float>::infinity();
    }
    absl::StatusOr<SampledToken> sampled =
        SampleToken(row, {tokens, prompt_tokens}, params, 0, kTextVocab);
    EXPECT_OK(sampled.status());
    if (!sampled.ok() || sampled->id == 1) break;
    tokens.push_back(sampled->id);
    answer.push_back(*sampled);
    EXPECT_OK(walk->Advance(sampled->id));
  }
  return answer;
}

std::vector<GenerateRequest> GrammarRequests(int64_t max_tokens) {
  const std::string lists = R"(root ::= item ("," item)* "."
                               item ::= " "? [a-m]{1,9} ("=" [0-9]{1,3})?)";
  const std::string words = "root ::= ([a-z]+ | [ -~\\n\u00e9])*";
  const std::string choice = R"(root ::= ("yes" | "no" | "maybe so")+ "!"?)";
  std::vector<GenerateRequest> requests;
  for (const std::string& gbnf : {lists, words, choice}) {
    const auto rules = Rules(gbnf);
    for (GenerateRequest request : SomeOfEachKind(max_tokens)) {
      request.grammar = rules;
      request.alternatives = 0;
      requests.push_back(request);
    }
    // What a head may prove from few rows.
    GenerateRequest request = requests.back();
    request.sampling = {.temperature = 1, .min_p = 0.1, .seed = 8};
    requests.push_back(request);
    request.sampling = {.temperature = 1.3, .seed = 9};
    requests.push_back(request);
    request.sampling = {.repetition_penalty = 1.2};
    requests.push_back(request);
  }
  return requests;
}

void ExpectReference(const GenerateRequest& request, Answer& answer, const ToyModel& model) {
  ASSERT_OK_AND_ASSIGN(const GenerateResult result, answer.Wait());
  const std::vector<SampledToken> expected = MaskedReference(request, model);
  ASSERT_EQ(answer.sampled().size(), expected.size());
  for (size_t t = 0; t < expected.size(); ++t) {
    ASSERT_EQ(answer.sampled()[t].id, expected[t].id) << "token " << t;
    EXPECT_EQ(answer.sampled()[t].logprob, expected[t].logprob);
  }
  const bool cut = std::ssize(expected) == request.max_tokens;
  if (!cut) {
    EXPECT_EQ(result.reason, FinishReason::kStop);
  }
  EXPECT_GT(result.grammar_masks, 0);
}

TEST(GrammarAnswersTest, TokensAreThoseOfMaskedLogits) {
  const std::vector<GenerateRequest> requests = GrammarRequests(/*max_tokens=*/40);
  // The copier repeats itself, so that guesses come true.
  const ToyModel copier = CopyingModel(/*period=*/5, /*novelty=*/17);
  int64_t accepted = 0;
  for (const bool copies : {false, true}) {
    const ToyModel model = copies ? copier : ToyModel(ToyLogits);
    for (const int64_t stages : {1, 3}) {
      for (const SpeculationMode mode : {SpeculationMode::kOff, SpeculationMode::kLookup}) {
        Bench bench(
            {.vocab_size = kTextVocab, .stage_count = stages, .kv_blocks = 200, .toy = model},
            {.is_end_token = [](TokenId id) { return id == 1; }, .speculation = mode});
        std::vector<Answer> answers(requests.size());
        for (size_t i = 0; i < requests.size(); ++i) {
          answers[i].Start(*bench.scheduler, requests[i]);
        }
        for (size_t i = 0; i < requests.size(); ++i) {
          SCOPED_TRACE(absl::StrCat("request ", i, ", ", stages, " stages, copies: ", copies));
          ExpectReference(requests[i], answers[i], model);
          const auto result = answers[i].Wait();
          accepted += result.ok() ? result->speculation.accepted : 0;
        }
      }
    }
  }
  EXPECT_GT(accepted, 0);
}

TEST(GrammarAnswersTest, NearRowsGuessWhatIsAllowed) {
  const std::vector<GenerateRequest> requests = GrammarRequests(/*max_tokens=*/25);
  Bench bench({.vocab_size = kTextVocab,
               .kv_blocks = 200,
               .near_rows = 100,
               .far_time = absl::Milliseconds(1)},
              {.is_end_token = [](TokenId id) { return id == 1; }, .optimistic = true});
  int64_t accepted = 0;
  for (size_t i = 0; i < requests.size(); ++i) {
    SCOPED_TRACE(absl::StrCat("request ", i));
    Answer answer;
    answer.Start(*bench.scheduler, requests[i]);
    ExpectReference(requests[i], answer, ToyLogits);
    const auto result = answer.Wait();
    accepted += result.ok() ? result->speculation.accepted : 0;
  }
  EXPECT_GT(accepted, 0);
}

TEST(GrammarAnswersTest, AnswersEndWhereTheGrammarDoes) {
  Bench bench({.vocab_size = kTextVocab});
  Answer answer;
  answer.Start(*bench.scheduler, {.prompt = Prompt(5, 1),
                                  .max_tokens = 50,
                                  .ignore_eos = true,
                                  .grammar = Rules("root ::= \"abc\" [0-9]")});
  ASSERT_OK_AND_ASSIGN(const GenerateResult result, answer.Wait());
  EXPECT_EQ(result.reason, FinishReason::kStop);
  EXPECT_EQ(result.usage.completion_tokens, 4);
  EXPECT_EQ(answer.tokens().size(), 4u);
  // Nobody computes what follows the last token.
  EXPECT_EQ(bench.pipeline->Steps().size(), 4u);
}

TEST(GrammarAnswersTest, ACharacterWithoutATokenIsRefusedOrEndsTheAnswer) {
  Bench bench({.vocab_size = kTextVocab});
  Answer at_once;
  at_once.Start(
      *bench.scheduler,
      {.prompt = Prompt(5, 1), .max_tokens = 50, .grammar = Rules("root ::= \"\u3042\"")});
  EXPECT_THAT(at_once.Wait().status(),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("vocabulary")));
  Answer later;
  later.Start(
      *bench.scheduler,
      {.prompt = Prompt(5, 1), .max_tokens = 50, .grammar = Rules("root ::= \"ab\" \"\u3042\"")});
  EXPECT_THAT(later.Wait().status(),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("vocabulary")));
}

TEST(GrammarAnswersTest, BeingSentBackToWaitChangesNothing) {
  std::vector<GenerateRequest> requests = GrammarRequests(/*max_tokens=*/60);
  requests.resize(6);
  Bench bench({.vocab_size = kTextVocab, .kv_blocks = 14},
              {.is_end_token = [](TokenId id) { return id == 1; }});
  std::vector<Answer> answers(requests.size());
  for (size_t i = 0; i < requests.size(); ++i) answers[i].Start(*bench.scheduler, requests[i]);
  for (size_t i = 0; i < requests.size(); ++i) ExpectReference(requests[i], answers[i], ToyLogits);
}

}  // namespace
}  // namespace renga::serving
