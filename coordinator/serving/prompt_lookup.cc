#include "coordinator/serving/prompt_lookup.h"

#include <algorithm>

namespace renga::serving {
namespace {

constexpr int64_t kFewestSlots = 1024;
// Four lengths at most, so the table is at least half empty.
constexpr int64_t kSlotsPerToken = 4;
// A run may lie in any slot of its set; a full set loses its oldest.
constexpr int64_t kSetSlots = 4;

// FNV-1a over the tokens; lengths begin differently, so that they share the table.
uint64_t HashRun(std::span<const TokenId> run) {
  uint64_t hash = 0xcbf29ce484222325u + run.size();
  for (TokenId token : run) hash = (hash ^ static_cast<uint32_t>(token)) * 0x100000001b3u;
  return hash ^ (hash >> 29);
}

// Whether the `length` tokens that end with position `a` are those that end with `b`, a < b.
bool EqualRuns(std::span<const TokenId> tokens, int64_t a, int64_t b, int64_t length) {
  if (a + 1 < length) return false;
  return std::equal(tokens.begin() + (a + 1 - length), tokens.begin() + (a + 1),
                    tokens.begin() + (b + 1 - length));
}

// How many tokens that end with position `a` are those that end with position `b`, a < b.
int64_t Agreement(std::span<const TokenId> tokens, int64_t a, int64_t b) {
  int64_t length = 0;
  while (length < PromptLookup::kLongestMatch && length <= a &&
         tokens[a - length] == tokens[b - length]) {
    ++length;
  }
  return length;
}

}  // namespace

int PromptLookup::EvidenceOf(int64_t match) {
  constexpr std::array<int64_t, kFoundClasses> kFrom = {2, 3, 4, 6, 9, 14, 22, 40};
  const auto above = std::upper_bound(kFrom.begin(), kFrom.end(), match);
  return std::max(0, static_cast<int>(above - kFrom.begin()) - 1);
}

const EvidencePriors& PromptLookup::priors() const {
  // Low where matches are common in any text, high where only a copy agrees for so long.
  static constexpr EvidencePriors kPriors = {0.1, 0.2, 0.3, 0.45, 0.6, 0.75, 0.85, 0.9};
  return kPriors;
}

std::vector<Guess> PromptLookup::Propose(std::span<const TokenId> tokens,
                                         std::span<const Guess> pending,
                                         const GuessLimits& limits) {
  Observe(tokens);
  std::vector<Guess> guesses;
  if (source_ < 0 || limits.found <= 0) return guesses;
  const int64_t size = static_cast<int64_t>(tokens.size());
  const int64_t wanted = static_cast<int64_t>(pending.size()) + limits.found;
  for (int64_t i = 0; i < wanted; ++i) {
    // A source that reaches the end goes on with the guesses themselves: a loop goes round.
    const int64_t from = source_ + i;
    const TokenId token = from < size ? tokens[from] : guesses[from - size].token;
    if (i < static_cast<int64_t>(pending.size()) && token != pending[i].token) return {};
    guesses.push_back({token, EvidenceOf(std::min(match_ + i, kLongestMatch))});
  }
  guesses.erase(guesses.begin(), guesses.begin() + static_cast<int64_t>(pending.size()));
  return guesses;
}

void PromptLookup::Observe(std::span<const TokenId> tokens) {
  const int64_t size = static_cast<int64_t>(tokens.size());
  if (size == observed_) return;
  Grow(tokens);
  for (; observed_ < size; ++observed_) {
    Follow(tokens, observed_);
    // A place is looked for where it will be used: at the end.
    const bool last = observed_ + 1 == size;
    Enter(tokens, observed_, last && match_ < kLengths.front());
  }
}

void PromptLookup::Grow(std::span<const TokenId> tokens) {
  const int64_t size = static_cast<int64_t>(tokens.size());
  const int64_t have = static_cast<int64_t>(slots_.size());
  if (have >= kMaxSlots || size * kSlotsPerToken <= have) return;
  int64_t wanted = std::max(have, kFewestSlots);
  while (wanted < 2 * size * kSlotsPerToken && wanted < kMaxSlots) wanted *= 2;
  slots_.assign(wanted, -1);
  for (int64_t position = 0; position < observed_; ++position) Enter(tokens, position, false);
}

void PromptLookup::Follow(std::span<const TokenId> tokens, int64_t position) {
  if (source_ < 0) return;
  if (tokens[source_] == tokens[position]) {
    ++source_;
    match_ = std::min(match_ + 1, kLongestMatch);
  } else {
    source_ = -1;
    match_ = 0;
  }
}

void PromptLookup::Enter(std::span<const TokenId> tokens, int64_t position, bool find) {
  for (const int64_t length : kLengths) {
    if (length > position + 1) continue;
    int32_t& slot = SlotOf(tokens, position, length);
    if (find && slot >= 0 && EqualRuns(tokens, slot, position, length)) {
      const int64_t match = Agreement(tokens, slot, position);
      if (match > match_) {
        match_ = match;
        source_ = slot + 1;
      }
    }
    slot = static_cast<int32_t>(position);
  }
}

int32_t& PromptLookup::SlotOf(std::span<const TokenId> tokens, int64_t position, int64_t length) {
  const uint64_t hash = HashRun(tokens.subspan(position + 1 - length, length));
  const uint64_t sets = slots_.size() / kSetSlots;
  int32_t* const set = &slots_[(hash & (sets - 1)) * kSetSlots];
  for (int64_t i = 0; i < kSetSlots; ++i) {
    // Two lengths of one position may share a set: a slot of this very position is no answer.
    if (set[i] >= 0 && set[i] < position && EqualRuns(tokens, set[i], position, length)) {
      return set[i];
    }
  }
  return *std::min_element(set, set + kSetSlots);
}

}  // namespace renga::serving
