#include "coordinator/serving/grammar/automaton.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace renga::grammar {

Automaton::Automaton(std::shared_ptr<const Network> network) : network_(std::move(network)) {
  Clear();
}

void Automaton::Clear() {
  states_.clear();
  ids_.clear();
  calls_.clear();
  call_ids_.clear();
  place_count_ = 0;
  State& dead = states_.emplace_back();
  dead.next.fill(kDead);
  ids_[{dead.places, false}] = kDead;
}

absl::StatusOr<StateId> Automaton::Start() {
  Reach({network_->starts[static_cast<size_t>(network_->root)], kNoCall});
  const StateId start = Finish();
  if (!status_.ok()) return status_;
  return start;
}

StateId Automaton::FindNext(StateId state, uint8_t byte) {
  if (!status_.ok()) return kDead;
  // Finish moves the states.
  for (const auto& [node, call] : states_[static_cast<size_t>(state)].places) {
    for (const ByteEdge& edge : network_->nodes[static_cast<size_t>(node)].bytes) {
      if (byte >= edge.bytes.first && byte <= edge.bytes.last) Reach({edge.to, call});
    }
  }
  const StateId next = Finish();
  states_[static_cast<size_t>(state)].next[byte] = next;
  return next;
}

void Automaton::Visit(Place place) {
  if (seen_.size() >= kMostPlaces || ++visits_ > kMostVisits) {
    Fail("the grammar is too ambiguous: the text so far can be read in too many ways");
    return;
  }
  if (seen_.insert(place).second) open_.push_back(place);
}

void Automaton::Reach(Place from) {
  Visit(from);
  while (!open_.empty() && status_.ok()) {
    const auto [at, call] = open_.back();
    open_.pop_back();
    const Node& node = network_->nodes[static_cast<size_t>(at)];
    if (!node.bytes.empty()) places_.emplace_back(at, call);
    for (const int32_t to : node.free) Visit({to, call});
    for (const CallEdge& edge : node.calls) {
      // A rule that ends with another one is done when that is: so recursion at the end of a rule
      // takes no room.
      const bool last = network_->nodes[static_cast<size_t>(edge.to)].only_end;
      const int32_t inner = last ? call : CallId({.to = edge.to, .outer = call});
      Visit({network_->starts[static_cast<size_t>(edge.rule)], inner});
    }
    if (!node.end) continue;
    if (call == kNoCall) {
      accepts_ = true;
    } else {
      const Call& done = calls_[static_cast<size_t>(call)];
      Visit({done.to, done.outer});
    }
  }
  open_.clear();
}

int32_t Automaton::CallId(const Call& call) {
  const auto [it, is_new] = call_ids_.try_emplace(call, static_cast<int32_t>(calls_.size()));
  if (is_new) {
    if (std::ssize(calls_) >= kMostCalls) {
      Fail("the grammar is too large: too many rules lie in each other");
      call_ids_.erase(it);
      return kNoCall;
    }
    calls_.push_back(call);
  }
  return it->second;
}

StateId Automaton::Finish() {
  std::vector<Place> places = std::exchange(places_, {});
  const bool accepts = std::exchange(accepts_, false);
  seen_.clear();
  if (!status_.ok()) return kDead;
  std::sort(places.begin(), places.end());
  const auto [it, is_new] =
      ids_.try_emplace({places, accepts}, static_cast<StateId>(states_.size()));
  if (!is_new) return it->second;
  place_count_ += std::ssize(places);
  if (std::ssize(states_) >= kMostStates || place_count_ > kMostPlacesInAll) {
    ids_.erase(it);
    return Fail("the grammar is too ambiguous: too many different texts can follow");
  }
  State& state = states_.emplace_back();
  state.places = std::move(places);
  state.accepts = accepts;
  // Where nothing goes on nothing has to be looked for.
  state.next.fill(state.places.empty() ? kDead : kUnknown);
  return it->second;
}

StateId Automaton::Fail(const char* what) {
  if (status_.ok()) status_ = absl::InvalidArgumentError(what);
  return kDead;
}

StateId Automaton::KeepOnly(StateId state) {
  const State kept = states_[static_cast<size_t>(state)];
  const std::vector<Call> calls = calls_;
  Clear();
  status_ = absl::OkStatus();
  // Outer calls have lower ids than those inside them.
  std::vector<bool> used(calls.size(), false);
  for (const auto& [node, call] : kept.places) {
    for (int32_t at = call; at != kNoCall; at = calls[static_cast<size_t>(at)].outer) {
      if (used[static_cast<size_t>(at)]) break;
      used[static_cast<size_t>(at)] = true;
    }
  }
  std::vector<int32_t> renamed(calls.size(), kNoCall);
  for (size_t id = 0; id < calls.size(); ++id) {
    if (!used[id]) continue;
    Call call = calls[id];
    if (call.outer != kNoCall) call.outer = renamed[static_cast<size_t>(call.outer)];
    renamed[id] = CallId(call);
  }
  for (const auto& [node, call] : kept.places) {
    places_.emplace_back(node, call == kNoCall ? kNoCall : renamed[static_cast<size_t>(call)]);
  }
  accepts_ = kept.accepts;
  return Finish();
}

}  // namespace renga::grammar
