#include "coordinator/serving/grammar/grammar_walk.h"

#include <span>
#include <utility>

#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "base/status_macros.h"

namespace renga::grammar {

absl::StatusOr<std::unique_ptr<GrammarWalk>> GrammarWalk::Begin(
    std::shared_ptr<const TokenGrammar> grammar, int64_t vocab_size) {
  std::unique_ptr<GrammarWalk> walk(new GrammarWalk(std::move(grammar), vocab_size));
  RENGA_ASSIGN_OR_RETURN(const StateId start, walk->automaton_.Start());
  walk->place_ = {.state = start, .first = true};
  RENGA_RETURN_IF_ERROR(walk->CheckPlace(walk->place_));
  return walk;
}

absl::Status GrammarWalk::Advance(model::TokenId token) {
  // Looking ahead may have exceeded a limit that the text itself does not.
  if (masks_.size() > kManyMasks) masks_.clear();
  for (bool forget = automaton_.crowded();; forget = true) {
    if (forget) {
      place_.state = automaton_.KeepOnly(place_.state);
      masks_.clear();
    }
    automaton_.BeginWork();
    const Place next = Next(place_, token);
    const absl::Status status = CheckPlace(next);
    if (!automaton_.status().ok() && !forget) continue;
    place_ = next;
    return status;
  }
}

absl::Status GrammarWalk::CheckPlace(Place place) {
  const bool goes_on = IsComplete(place) || Allowed(place) != nullptr;
  RENGA_RETURN_IF_ERROR(automaton_.status());
  if (goes_on) return absl::OkStatus();
  return absl::InvalidArgumentError(
      "the grammar asks for a character here that no token of the model's vocabulary can write");
}

GrammarWalk::Place GrammarWalk::Next(Place place, model::TokenId token) {
  if (token < 0 || token >= grammar_->tokens->vocab_size()) return {};
  absl::string_view text = grammar_->tokens->TextOf(token);
  if (place.first && grammar_->drops_first_space) absl::ConsumePrefix(&text, " ");
  if (text.empty()) return {};
  StateId state = place.state;
  for (const char c : text) state = automaton_.Next(state, static_cast<uint8_t>(c));
  return {.state = state, .first = false};
}

bool GrammarWalk::GoesOn(Place place) {
  return automaton_.GoesOn(place.state) && Allowed(place) != nullptr;
}

std::shared_ptr<const model::TokenMask> GrammarWalk::Allowed(Place place) {
  const bool first = place.first && grammar_->drops_first_space;
  std::shared_ptr<const model::TokenMask>& mask = first ? first_mask_ : masks_[place.state];
  if (mask == nullptr) {
    const absl::Time begin = absl::Now();
    automaton_.BeginWork();
    mask = MakeMask(place);
    time_ += absl::Now() - begin;
    ++masks_made_;
  }
  return mask;
}

std::shared_ptr<const model::TokenMask> GrammarWalk::MakeMask(Place place) {
  const TokenTrie& trie = *grammar_->tokens;
  const bool drops_space = place.first && grammar_->drops_first_space;
  path_.resize(static_cast<size_t>(trie.max_depth()) + 1);
  path_[0] = place.state;
  std::vector<uint8_t> bits(static_cast<size_t>((vocab_size_ + 7) / 8));
  bool any = false;
  const auto allow = [&](std::span<const model::TokenId> tokens) {
    for (const model::TokenId token : tokens) {
      if (token >= vocab_size_) continue;
      bits[static_cast<size_t>(token / 8)] |= static_cast<uint8_t>(1 << token % 8);
      any = true;
    }
  };
  const std::span<const TokenTrie::Node> nodes = trie.nodes();
  for (size_t i = 0; i < nodes.size();) {
    const TokenTrie::Node& node = nodes[i];
    const auto depth = static_cast<size_t>(node.depth);
    const bool dropped = drops_space && depth == 1 && node.byte == ' ';
    path_[depth] = dropped ? path_[0] : automaton_.Next(path_[depth - 1], node.byte);
    if (path_[depth] == Automaton::kDead) {
      i = static_cast<size_t>(node.behind);
      continue;
    }
    if (!dropped) allow(trie.TokensOf(i));
    ++i;
  }
  if (automaton_.Accepts(place.state) && !grammar_->ignore_end_tokens) allow(trie.end_tokens());
  if (!any || !automaton_.status().ok()) return nullptr;
  return std::make_shared<const model::TokenMask>(
      model::TokenMask::OfBits(std::move(bits), vocab_size_));
}

}  // namespace renga::grammar
