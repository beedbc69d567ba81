#include "coordinator/serving/grammar/grammar_walk.h"

#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "base/testing/status_matchers.h"
#include "coordinator/serving/grammar/grammar.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace renga::grammar {
namespace {

using ::renga::testing::StatusIs;

using model::TokenId;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Tokens are what they are told to be; 0 is a control token, 1 ends answers.
class ListTokenizer : public model::Tokenizer {
 public:
  explicit ListTokenizer(std::vector<std::string> pieces) : pieces_(std::move(pieces)) {}

  absl::StatusOr<std::vector<TokenId>> Encode(absl::string_view,
                                              const model::EncodeOptions&) const override {
    return absl::UnimplementedError("");
  }
  std::string Piece(TokenId id) const override { return pieces_[static_cast<size_t>(id)]; }
  int64_t vocab_size() const override { return std::ssize(pieces_); }
  bool strips_leading_space() const override { return true; }
  std::optional<TokenId> bos() const override { return 0; }
  std::optional<TokenId> eos() const override { return 1; }
  bool adds_bos() const override { return true; }
  bool IsEndOfGeneration(TokenId id) const override { return id == 1; }
  bool IsControl(TokenId id) const override { return id < 2; }

 private:
  const std::vector<std::string> pieces_;
};

std::unique_ptr<GrammarWalk> Begin(const std::string& grammar, const model::Tokenizer& tokenizer,
                                   bool drops_first_space = false) {
  auto walk = GrammarWalk::Begin(
      std::make_shared<TokenGrammar>(TokenGrammar{.network = *FromGbnf(grammar),
                                                  .tokens = std::make_shared<TokenTrie>(tokenizer),
                                                  .drops_first_space = drops_first_space}),
      tokenizer.vocab_size());
  EXPECT_OK(walk.status());
  return *std::move(walk);
}

std::vector<TokenId> AllowedTokens(GrammarWalk& walk, GrammarWalk::Place place) {
  const auto mask = walk.Allowed(place);
  return mask == nullptr ? std::vector<TokenId>()
                         : mask->IdsIn(model::Range{.begin = 0, .end = 1 << 20});
}

TEST(GrammarWalkTest, TokensMayBeginAndEndAnywhere) {
  const ListTokenizer tokenizer({"<s>", "</s>", "", "yes", "y", "e", "es", "no", "yesno", "s",
                                 "\xC3", "\xA9", "\xC3\xA9", "\xA9s"});
  auto walk = Begin("root ::= \"yes\" | \"no\" | \"\u00e9s\"?", tokenizer);
  // Nothing at all is a text of it as well.
  EXPECT_THAT(AllowedTokens(*walk, walk->place()), ElementsAre(1, 3, 4, 7, 10, 12));
  EXPECT_OK(walk->Advance(10));
  EXPECT_THAT(AllowedTokens(*walk, walk->place()), ElementsAre(11, 13));
  EXPECT_OK(walk->Advance(11));
  EXPECT_FALSE(walk->Complete());
  EXPECT_THAT(AllowedTokens(*walk, walk->place()), ElementsAre(9));
  EXPECT_OK(walk->Advance(9));
  EXPECT_TRUE(walk->Complete());
  EXPECT_THAT(AllowedTokens(*walk, walk->place()), ElementsAre(1));
}

TEST(GrammarWalkTest, LooksAheadWithoutGoingThere) {
  const ListTokenizer tokenizer({"<s>", "</s>", "a", "b", "c"});
  auto walk = Begin("root ::= \"a\" (\"b\" \"c\")?", tokenizer);
  const auto a = walk->Next(walk->place(), 2);
  EXPECT_TRUE(walk->GoesOn(a));
  EXPECT_THAT(AllowedTokens(*walk, a), ElementsAre(1, 3));
  EXPECT_FALSE(walk->GoesOn(walk->Next(walk->place(), 3)));
  EXPECT_FALSE(walk->GoesOn(walk->Next(walk->Next(a, 3), 4)));  // at its end
  EXPECT_FALSE(walk->GoesOn(walk->Next(a, 1)));
  EXPECT_FALSE(walk->GoesOn(walk->Next(a, 99)));
  EXPECT_THAT(AllowedTokens(*walk, walk->place()), ElementsAre(2));
}

TEST(GrammarWalkTest, TheSpaceThatIsNotShownIsNotSeen) {
  const ListTokenizer tokenizer({"<s>", "</s>", " ", " a", "a", "  a", " b"});
  auto walk = Begin("root ::= \" \"? \"a\" \" b\"", tokenizer, true);
  EXPECT_THAT(AllowedTokens(*walk, walk->place()), ElementsAre(3, 4, 5));
  EXPECT_OK(walk->Advance(5));
  EXPECT_THAT(AllowedTokens(*walk, walk->place()), ElementsAre(2, 6));
  auto plain = Begin("root ::= \" \"? \"a\" \" b\"", tokenizer);
  EXPECT_THAT(AllowedTokens(*plain, plain->place()), ElementsAre(2, 3, 4));
}

TEST(GrammarWalkTest, SaysWhenTheVocabularyCannotGoOn) {
  const ListTokenizer tokenizer({"<s>", "</s>", "a"});
  const auto grammar = std::make_shared<TokenGrammar>(TokenGrammar{
      .network = *FromGbnf("root ::= \"b\""), .tokens = std::make_shared<TokenTrie>(tokenizer)});
  EXPECT_THAT(GrammarWalk::Begin(grammar, 3).status(),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("vocabulary")));
  auto walk = Begin("root ::= \"a\" \"a\" \"b\"", tokenizer);
  EXPECT_OK(walk->Advance(2));
  EXPECT_THAT(walk->Advance(2),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("vocabulary")));
}

TEST(GrammarWalkTest, TokensThatTheModelDoesNotHaveAreNeverAllowed) {
  const ListTokenizer tokenizer({"<s>", "</s>", "a", "b"});
  const auto grammar = std::make_shared<TokenGrammar>(TokenGrammar{
      .network = *FromGbnf("root ::= [ab]"), .tokens = std::make_shared<TokenTrie>(tokenizer)});
  auto small = *GrammarWalk::Begin(grammar, 3);
  EXPECT_THAT(AllowedTokens(*small, small->place()), ElementsAre(2));
  auto large = *GrammarWalk::Begin(grammar, 300);
  EXPECT_THAT(AllowedTokens(*large, large->place()), ElementsAre(2, 3));
  EXPECT_OK(large->Allowed(large->place())->CheckFits(300));
}

TEST(GrammarWalkTest, EndTokensMayBeNone) {
  const ListTokenizer tokenizer({"<s>", "</s>", "a"});
  auto walk = GrammarWalk::Begin(
      std::make_shared<TokenGrammar>(TokenGrammar{.network = *FromGbnf("root ::= \"a\"*"),
                                                  .tokens = std::make_shared<TokenTrie>(tokenizer),
                                                  .ignore_end_tokens = true}),
      tokenizer.vocab_size());
  ASSERT_OK(walk.status());
  EXPECT_THAT(AllowedTokens(**walk, (*walk)->place()), ElementsAre(2));
}

// Random tokens, long and short, of the letters of JSON: a set holds exactly the tokens that lead
// somewhere, whatever was walked before.
TEST(GrammarWalkTest, SetsHoldTheTokensThatLeadSomewhere) {
  std::mt19937_64 random(11);
  std::vector<std::string> pieces = {"<s>", "</s>"};
  const std::string letters = "{}[]\",: ab\\n01.-eulrtfs\n\xC3\xA9";
  for (int i = 0; i < 3000; ++i) {
    std::string piece;
    for (uint64_t left = 1 + random() % 4; left > 0; --left) {
      piece += letters[random() % letters.size()];
    }
    pieces.push_back(piece);
  }
  for (const char c : letters) pieces.emplace_back(1, c);
  const ListTokenizer tokenizer(pieces);
  const auto trie = std::make_shared<TokenTrie>(tokenizer);
  for (int round = 0; round < 5; ++round) {
    auto walk = *GrammarWalk::Begin(
        std::make_shared<TokenGrammar>(TokenGrammar{.network = *OfAnyJsonObject(), .tokens = trie}),
        tokenizer.vocab_size());
    std::string text;
    for (int step = 0; step < 60 && !walk->Complete(); ++step) {
      const std::vector<TokenId> allowed = AllowedTokens(*walk, walk->place());
      std::vector<TokenId> expected;
      for (TokenId token = 2; token < tokenizer.vocab_size(); ++token) {
        if (walk->Next(walk->place(), token).state != Automaton::kDead) expected.push_back(token);
      }
      ASSERT_EQ(allowed, expected) << text;
      const TokenId token = allowed[random() % allowed.size()];
      text += pieces[static_cast<size_t>(token)];
      ASSERT_OK(walk->Advance(token)) << text;
    }
  }
}

}  // namespace
}  // namespace renga::grammar
