#include "coordinator/serving/grammar/network.h"

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace renga::grammar {
namespace {

// Parts of expressions that are added, each as often as it is repeated.
constexpr int64_t kMaxParts = 1 << 19;

absl::Status TooLarge() {
  return absl::InvalidArgumentError(
      absl::StrCat("the grammar is too large: with all repetitions written out it has more than ",
                   kMaxNodes, " places; use smaller repetition counts or fewer rules"));
}

class Builder {
 public:
  explicit Builder(const RuleSet& rules) : rules_(rules) {}

  absl::StatusOr<Network> Build() {
    const auto count = static_cast<int64_t>(rules_.rules.size());
    if (count > kMaxRules) {
      return absl::InvalidArgumentError(
          absl::StrCat("the grammar has ", count, " rules; the most is ", kMaxRules));
    }
    if (rules_.root < 0 || rules_.root >= count) {
      return absl::InvalidArgumentError("the grammar has no rule to begin with");
    }
    network_.root = static_cast<int32_t>(rules_.root);
    for (const Rule& rule : rules_.rules) {
      RENGA_ASSIGN_OR_RETURN(const int32_t start, AddNode());
      network_.starts.push_back(start);
      RENGA_ASSIGN_OR_RETURN(const int32_t end, Add(rule.expression, start, 0));
      network_.nodes[static_cast<size_t>(end)].end = true;
    }
    return std::move(network_);
  }

 private:
  absl::StatusOr<int32_t> AddNode() {
    if (std::ssize(network_.nodes) >= kMaxNodes) return TooLarge();
    network_.nodes.emplace_back();
    return static_cast<int32_t>(network_.nodes.size() - 1);
  }

  Node& At(int32_t node) { return network_.nodes[static_cast<size_t>(node)]; }

  absl::Status CountEdge() { return ++edges_ > kMaxEdges ? TooLarge() : absl::OkStatus(); }

  absl::Status AddFree(int32_t from, int32_t to) {
    RENGA_RETURN_IF_ERROR(CountEdge());
    At(from).free.push_back(to);
    return absl::OkStatus();
  }

  // One of the bytes, to a new node or to `to`.
  absl::StatusOr<int32_t> AddBytes(int32_t from, const ByteRange& bytes, int32_t to = -1) {
    RENGA_RETURN_IF_ERROR(CountEdge());
    if (to < 0) {
      RENGA_ASSIGN_OR_RETURN(to, AddNode());
    }
    At(from).bytes.push_back({bytes, to});
    return to;
  }

  // Continues at `from`; returns the node where the expression is done.
  absl::StatusOr<int32_t> Add(const Expression& expression, int32_t from, int depth) {
    if (depth > kMaxExpressionDepth) {
      return absl::InvalidArgumentError("the grammar is nested too deeply");
    }
    // Repetitions of nothing add no place, but take time.
    if (++parts_ > kMaxParts) return TooLarge();
    switch (expression.kind) {
      case Expression::Kind::kText:
        return AddText(expression.text, from);
      case Expression::Kind::kClass:
        return AddClass(expression, from);
      case Expression::Kind::kSequence:
        for (const Expression& part : expression.parts) {
          RENGA_ASSIGN_OR_RETURN(from, Add(part, from, depth + 1));
        }
        return from;
      case Expression::Kind::kChoice:
        return AddChoice(expression, from, depth);
      case Expression::Kind::kRepeat:
        return AddRepeat(expression, from, depth);
      case Expression::Kind::kRule:
        return AddCall(expression, from);
    }
    return absl::InternalError("an expression of no kind");
  }

  absl::StatusOr<int32_t> AddText(const std::string& text, int32_t from) {
    for (const char c : text) {
      const auto byte = static_cast<uint8_t>(c);
      RENGA_ASSIGN_OR_RETURN(from, AddBytes(from, {byte, byte}));
    }
    return from;
  }

  absl::StatusOr<int32_t> AddClass(const Expression& expression, int32_t from) {
    RENGA_ASSIGN_OR_RETURN(const int32_t end, AddNode());
    for (const CodeRange& range : expression.ranges) {
      for (const ByteSequence& sequence : Utf8Sequences(range)) {
        int32_t at = from;
        for (size_t i = 0; i < sequence.size(); ++i) {
          RENGA_ASSIGN_OR_RETURN(at,
                                 AddBytes(at, sequence[i], i + 1 == sequence.size() ? end : -1));
        }
      }
    }
    return end;
  }

  absl::StatusOr<int32_t> AddChoice(const Expression& expression, int32_t from, int depth) {
    RENGA_ASSIGN_OR_RETURN(const int32_t end, AddNode());
    for (const Expression& part : expression.parts) {
      // A node of its own: a loop at the beginning of one part must not lead into another.
      RENGA_ASSIGN_OR_RETURN(const int32_t begin, AddNode());
      RENGA_RETURN_IF_ERROR(AddFree(from, begin));
      RENGA_ASSIGN_OR_RETURN(const int32_t last, Add(part, begin, depth + 1));
      RENGA_RETURN_IF_ERROR(AddFree(last, end));
    }
    return end;
  }

  absl::StatusOr<int32_t> AddRepeat(const Expression& expression, int32_t from, int depth) {
    const Expression& part = expression.parts.front();
    for (int64_t i = 0; i < expression.least; ++i) {
      RENGA_ASSIGN_OR_RETURN(from, Add(part, from, depth + 1));
    }
    RENGA_ASSIGN_OR_RETURN(const int32_t end, AddNode());
    if (expression.most == Expression::kNoLimit) {
      RENGA_ASSIGN_OR_RETURN(const int32_t loop, AddNode());
      RENGA_RETURN_IF_ERROR(AddFree(from, loop));
      RENGA_ASSIGN_OR_RETURN(const int32_t last, Add(part, loop, depth + 1));
      RENGA_RETURN_IF_ERROR(AddFree(last, loop));
      RENGA_RETURN_IF_ERROR(AddFree(loop, end));
      return end;
    }
    for (int64_t i = expression.least; i < expression.most; ++i) {
      RENGA_RETURN_IF_ERROR(AddFree(from, end));
      RENGA_ASSIGN_OR_RETURN(const int32_t begin, AddNode());
      RENGA_RETURN_IF_ERROR(AddFree(from, begin));
      RENGA_ASSIGN_OR_RETURN(from, Add(part, begin, depth + 1));
    }
    RENGA_RETURN_IF_ERROR(AddFree(from, end));
    return end;
  }

  absl::StatusOr<int32_t> AddCall(const Expression& expression, int32_t from) {
    if (expression.rule < 0 || expression.rule >= std::ssize(rules_.rules)) {
      return absl::InvalidArgumentError("the grammar names a rule that it does not have");
    }
    RENGA_RETURN_IF_ERROR(CountEdge());
    RENGA_ASSIGN_OR_RETURN(const int32_t end, AddNode());
    At(from).calls.push_back({static_cast<int32_t>(expression.rule), end});
    return end;
  }

  const RuleSet& rules_;
  Network network_;
  int64_t edges_ = 0;
  int64_t parts_ = 0;
};

// From which nodes free edges lead to nothing but the rule's end.
void FindEnds(Network& network) {
  std::vector<std::vector<int32_t>> before(network.nodes.size());  // over free edges
  std::vector<int32_t> open;                                       // nodes that go on
  for (size_t i = 0; i < network.nodes.size(); ++i) {
    Node& node = network.nodes[i];
    for (const int32_t to : node.free)
      before[static_cast<size_t>(to)].push_back(static_cast<int32_t>(i));
    node.only_end = node.bytes.empty() && node.calls.empty();
    if (!node.only_end) open.push_back(static_cast<int32_t>(i));
  }
  while (!open.empty()) {
    const auto at = static_cast<size_t>(open.back());
    open.pop_back();
    for (const int32_t from : before[at]) {
      Node& node = network.nodes[static_cast<size_t>(from)];
      if (std::exchange(node.only_end, false)) open.push_back(from);
    }
  }
}

// What is known of rules once the whole network is there.
class Checker {
 public:
  Checker(const Network& network, const RuleSet& rules)
      : network_(network), rules_(rules), owner_(network.nodes.size()) {
    for (size_t node = 0, rule = 0; node < owner_.size(); ++node) {
      while (rule + 1 < network_.starts.size() &&
             network_.starts[rule + 1] <= static_cast<int32_t>(node)) {
        ++rule;
      }
      owner_[node] = rule;
    }
  }

  absl::Status Check() {
    Reach(/*with_bytes=*/true);
    for (size_t rule = 0; rule < passable_.size(); ++rule) {
      if (!passable_[rule]) {
        return Refused(rule, "can never end: every text of it holds another one of it");
      }
    }
    Reach(/*with_bytes=*/false);
    first_calls_.resize(passable_.size());
    for (size_t node = 0; node < owner_.size(); ++node) {
      if (!reached_[node]) continue;
      for (const CallEdge& call : network_.nodes[node].calls) {
        first_calls_[owner_[node]].push_back(static_cast<size_t>(call.rule));
      }
    }
    state_.assign(passable_.size(), kNew);
    for (size_t rule = 0; rule < state_.size(); ++rule) {
      if (state_[rule] == kNew) RENGA_RETURN_IF_ERROR(FindLoop(rule));
    }
    return absl::OkStatus();
  }

 private:
  enum State : uint8_t { kNew, kOpen, kDone };

  absl::Status Refused(size_t rule, const char* why) const {
    return absl::InvalidArgumentError(absl::StrCat(
        "rule ", absl::CHexEscape(rules_.rules[rule].name.substr(0, 80)), " of the grammar ", why));
  }

  // Finds the nodes that can be come to from their rule's start over free edges, rules that are
  // passable and, `with_bytes`, bytes; a rule is passable when its end can be come to.
  void Reach(bool with_bytes) {
    reached_.assign(owner_.size(), false);
    passable_.assign(network_.starts.size(), false);
    std::vector<std::vector<int32_t>> waiting(network_.starts.size());  // behind calls of a rule
    std::vector<int32_t> open;
    const auto visit = [&](int32_t node) {
      if (reached_[static_cast<size_t>(node)]) return;
      reached_[static_cast<size_t>(node)] = true;
      open.push_back(node);
    };
    for (const int32_t start : network_.starts) visit(start);
    while (!open.empty()) {
      const auto at = static_cast<size_t>(open.back());
      open.pop_back();
      const Node& node = network_.nodes[at];
      for (const int32_t to : node.free) visit(to);
      for (const CallEdge& call : node.calls) {
        const auto callee = static_cast<size_t>(call.rule);
        if (passable_[callee]) {
          visit(call.to);
        } else {
          waiting[callee].push_back(call.to);
        }
      }
      if (with_bytes) {
        for (const ByteEdge& edge : node.bytes) visit(edge.to);
      }
      if (!node.end || passable_[owner_[at]]) continue;
      passable_[owner_[at]] = true;
      for (const int32_t behind : waiting[owner_[at]]) visit(behind);
    }
  }

  // Of rules that call each other before any byte.
  absl::Status FindLoop(size_t first) {
    std::vector<size_t> path = {first};
    state_[first] = kOpen;
    while (!path.empty()) {
      std::vector<size_t>& calls = first_calls_[path.back()];
      if (calls.empty()) {
        state_[path.back()] = kDone;
        path.pop_back();
        continue;
      }
      const size_t next = calls.back();
      calls.pop_back();
      if (state_[next] == kOpen) {
        return Refused(next,
                       "is left recursive: it comes back to itself before any character; write a "
                       "repetition instead, or put a character before the recursion");
      }
      if (state_[next] == kNew) {
        state_[next] = kOpen;
        path.push_back(next);
      }
    }
    return absl::OkStatus();
  }

  const Network& network_;
  const RuleSet& rules_;
  std::vector<size_t> owner_;  // by node: its rule
  std::vector<bool> reached_;  // by node
  std::vector<bool> passable_;
  std::vector<std::vector<size_t>> first_calls_;  // by rule; emptied as they are followed
  std::vector<State> state_;
};

}  // namespace

absl::StatusOr<std::shared_ptr<const Network>> Compile(const RuleSet& rules) {
  RENGA_ASSIGN_OR_RETURN(Network network, Builder(rules).Build());
  FindEnds(network);
  RENGA_RETURN_IF_ERROR(Checker(network, rules).Check());
  return std::make_shared<const Network>(std::move(network));
}

}  // namespace renga::grammar
