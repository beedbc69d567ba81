// Walking a grammar byte by byte. A state is the set of all places where the text so far may have
// led, each a node of the network and the calls that it lies in. States and the ways between
// them are found when they are first needed and then kept, so that a byte that was seen before
// costs one look-up.
#ifndef RENGA_COORDINATOR_SERVING_GRAMMAR_AUTOMATON_H_
#define RENGA_COORDINATOR_SERVING_GRAMMAR_AUTOMATON_H_

#include <array>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "coordinator/serving/grammar/network.h"

namespace renga::grammar {

using StateId = int32_t;

// Not thread-safe. Bounded: states, calls, the places of one state and of all, and the places that
// are looked at between two calls of BeginWork. An ambiguous grammar may exceed a limit; then that
// stays an error until KeepOnly.
class Automaton {
 public:
  // From here no text of the grammar can be reached.
  static constexpr StateId kDead = 0;
  // States of which there are many, and those that are never exceeded. A state takes about 1.2 KiB.
  static constexpr int64_t kManyStates = 4096;
  static constexpr int64_t kMostStates = 3 * kManyStates;
  // Places of one state, calls inside calls included while it is found.
  static constexpr size_t kMostPlaces = 4096;
  static constexpr int64_t kManyPlaces = 1 << 18;  // of all states
  static constexpr int64_t kMostPlacesInAll = 4 * kManyPlaces;
  static constexpr int64_t kMostVisits = 1 << 22;  // a third of a second
  static constexpr int64_t kMostCalls = 1 << 20;

  explicit Automaton(std::shared_ptr<const Network> network);

  // Before any byte. kInvalidArgument: the grammar is too ambiguous from the start.
  absl::StatusOr<StateId> Start();
  // After one more byte. Once a limit was exceeded this is kDead for bytes that were not seen
  // before, and status() says why.
  StateId Next(StateId state, uint8_t byte) {
    const StateId known = states_[static_cast<size_t>(state)].next[byte];
    return known != kUnknown ? known : FindNext(state, byte);
  }
  // The text may end here.
  bool Accepts(StateId state) const { return states_[static_cast<size_t>(state)].accepts; }
  // The text can go on from here.
  bool GoesOn(StateId state) const { return !states_[static_cast<size_t>(state)].places.empty(); }

  const absl::Status& status() const { return status_; }
  int64_t state_count() const { return std::ssize(states_); }

  // What follows is bounded anew.
  void BeginWork() { visits_ = 0; }
  // It is time for KeepOnly.
  bool crowded() const {
    return state_count() > kManyStates || place_count_ > kManyPlaces ||
           std::ssize(calls_) > kMostCalls / 2;
  }
  // Forgets everything but one state, also that a limit was exceeded. The state gets a new id.
  StateId KeepOnly(StateId state);

 private:
  static constexpr StateId kUnknown = -1;
  // No call: the root itself.
  static constexpr int32_t kNoCall = -1;

  // A rule that is being walked, and where it goes on once it is done.
  struct Call {
    int32_t to = 0;
    int32_t outer = kNoCall;  // the call that `to` lies in
    friend bool operator==(const Call&, const Call&) = default;
    template <typename H>
    friend H AbslHashValue(H h, const Call& call) {
      return H::combine(std::move(h), call.to, call.outer);
    }
  };
  // The node, and the call that it lies in.
  using Place = std::pair<int32_t, int32_t>;

  struct State {
    std::vector<Place> places;  // those with bytes to go on with, ascending
    bool accepts = false;
    std::array<StateId, 256> next;
  };

  void Clear();
  StateId FindNext(StateId state, uint8_t byte);
  // Adds what can be come to from a place without a byte to the state that is being found.
  void Reach(Place place);
  void Visit(Place place);
  int32_t CallId(const Call& call);
  StateId Finish();
  StateId Fail(const char* what);

  const std::shared_ptr<const Network> network_;
  std::vector<State> states_;
  absl::flat_hash_map<std::pair<std::vector<Place>, bool>, StateId> ids_;
  std::vector<Call> calls_;
  absl::flat_hash_map<Call, int32_t> call_ids_;
  absl::Status status_;
  int64_t place_count_ = 0;
  int64_t visits_ = 0;

  // The state that is being found.
  std::vector<Place> open_;
  absl::flat_hash_set<Place> seen_;
  std::vector<Place> places_;
  bool accepts_ = false;
};

}  // namespace renga::grammar

#endif  // RENGA_COORDINATOR_SERVING_GRAMMAR_AUTOMATON_H_
