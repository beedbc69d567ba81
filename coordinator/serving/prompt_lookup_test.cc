#include "coordinator/serving/prompt_lookup.h"

#include <numeric>
#include <random>

#include "gtest/gtest.h"

namespace renga::serving {
namespace {

std::vector<TokenId> Tokens(const std::vector<Guess>& guesses) {
  std::vector<TokenId> tokens;
  for (const Guess& guess : guesses) tokens.push_back(guess.token);
  return tokens;
}

std::vector<TokenId> Propose(const std::vector<TokenId>& tokens, int64_t count) {
  PromptLookup lookup;
  return Tokens(lookup.Propose(tokens, {}, {.found = count}));
}

TEST(PromptLookupTest, WhatNeverOccurredIsNotGuessed) {
  EXPECT_TRUE(Propose({}, 4).empty());
  EXPECT_TRUE(Propose({7}, 4).empty());
  EXPECT_TRUE(Propose({1, 2, 3, 4, 5, 3}, 4).empty());  // one token is no match
}

TEST(PromptLookupTest, GuessesWhatFollowedBefore) {
  const std::vector<TokenId> tokens = {1, 2, 3, 4, 5, 6, 9, 2, 3};
  EXPECT_EQ(Propose(tokens, 3), (std::vector<TokenId>{4, 5, 6}));
  EXPECT_TRUE(Propose(tokens, 0).empty());
}

TEST(PromptLookupTest, TheLatestOfEqualPlacesIsTaken) {
  EXPECT_EQ(Propose({1, 2, 10, 1, 2, 20, 1, 2}, 1), std::vector<TokenId>{20});
}

TEST(PromptLookupTest, MoreAgreementIsWorthMoreThanLess) {
  // 6 tokens agree with the older place, 2 with the newer.
  EXPECT_EQ(Propose({1, 2, 3, 4, 5, 6, 10, 8, 5, 6, 20, 1, 2, 3, 4, 5, 6}, 1),
            std::vector<TokenId>{10});
}

TEST(PromptLookupTest, ALoopGoesRound) {
  EXPECT_EQ(Propose({1, 2, 3, 1, 2}, 7), (std::vector<TokenId>{3, 1, 2, 3, 1, 2, 3}));
  EXPECT_EQ(Propose({5, 5, 5}, 3), (std::vector<TokenId>{5, 5, 5}));
}

TEST(PromptLookupTest, FollowsACopyAndFindsItAgainAfterAChange) {
  std::vector<TokenId> text(100);
  std::iota(text.begin(), text.end(), 0);
  std::vector<TokenId> sequence = text;
  PromptLookup lookup;
  int64_t right = 0;
  for (int64_t i = 0; i < 100; ++i) {
    const std::vector<Guess> guesses = lookup.Propose(sequence, {}, {.found = 1});
    const TokenId next = i == 50 ? 7777 : text[i];  // one token of the copy is another
    right += !guesses.empty() && guesses[0].token == next ? 1 : 0;
    sequence.push_back(next);
  }
  // Not guessed: the first two, the changed one, and two until it is found again.
  EXPECT_EQ(right, 95);
}

TEST(PromptLookupTest, EvidenceGrowsWithTheMatch) {
  EXPECT_EQ(PromptLookup::EvidenceOf(2), 0);
  EXPECT_EQ(PromptLookup::EvidenceOf(PromptLookup::kLongestMatch), kFoundClasses - 1);
  for (int64_t match = 2; match < PromptLookup::kLongestMatch; ++match) {
    EXPECT_LE(PromptLookup::EvidenceOf(match), PromptLookup::EvidenceOf(match + 1));
  }
  std::vector<TokenId> tokens(50);
  std::iota(tokens.begin(), tokens.end(), 0);
  tokens.insert(tokens.end(), {10, 11});
  PromptLookup lookup;
  const std::vector<Guess> guesses = lookup.Propose(tokens, {}, {.found = 5});
  ASSERT_EQ(guesses.size(), 5u);
  for (int64_t i = 0; i < 5; ++i) {
    EXPECT_EQ(guesses[i].evidence, PromptLookup::EvidenceOf(2 + i)) << i;
  }
}

TEST(PromptLookupTest, PendingGuessesAreGoneOnFromUnlessItWouldGuessOtherwise) {
  const std::vector<TokenId> tokens = {1, 2, 3, 4, 5, 6, 7, 9, 1, 2};
  PromptLookup lookup;
  const std::vector<Guess> first = lookup.Propose(tokens, {}, {.found = 2});
  EXPECT_EQ(Tokens(first), (std::vector<TokenId>{3, 4}));
  EXPECT_EQ(Tokens(lookup.Propose(tokens, first, {.found = 2})), (std::vector<TokenId>{5, 6}));
  const std::vector<Guess> other = {{.token = 3}, {.token = 8}};
  EXPECT_TRUE(lookup.Propose(tokens, other, {.found = 2}).empty());
}

TEST(PromptLookupTest, WhatItGuessesFollowedWhatAgrees) {
  // Four token ids only: matches everywhere, of every length.
  std::mt19937 random(7);
  std::vector<TokenId> tokens;
  PromptLookup lookup;
  int64_t guessed = 0;
  for (int64_t i = 0; i < 3000; ++i) {
    tokens.push_back(static_cast<TokenId>(random() % 4));
    const std::vector<Guess> guesses = lookup.Propose(tokens, {}, {.found = 1});
    if (guesses.empty()) continue;
    ++guessed;
    const std::vector<TokenId> end(tokens.end() - 2, tokens.end());
    bool found = false;
    for (size_t p = 2; p < tokens.size() && !found; ++p) {
      found = tokens[p - 2] == end[0] && tokens[p - 1] == end[1] && tokens[p] == guesses[0].token;
    }
    EXPECT_TRUE(found) << "token " << i;
  }
  EXPECT_GT(guessed, 2900);
}

TEST(PromptLookupTest, ASequenceLongerThanTheTableKeepsTheNewest) {
  std::mt19937 random(1);
  std::vector<TokenId> tokens(PromptLookup::kMaxSlots);
  for (TokenId& token : tokens) token = static_cast<TokenId>(random() % 100000);
  const std::vector<TokenId> copied(tokens.end() - 40, tokens.end());
  tokens.insert(tokens.end(), copied.begin(), copied.begin() + 20);
  EXPECT_EQ(Propose(tokens, 10), std::vector<TokenId>(copied.begin() + 20, copied.begin() + 30));
}

}  // namespace
}  // namespace renga::serving
