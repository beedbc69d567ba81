// oneOf: whether its branches exclude each other, so that a value of one branch is none of another.
#ifndef RENGA_COORDINATOR_SERVING_GRAMMAR_EXCLUSIVE_BRANCHES_H_
#define RENGA_COORDINATOR_SERVING_GRAMMAR_EXCLUSIVE_BRANCHES_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "nlohmann/json_fwd.hpp"

namespace renga::grammar {

// For one schema. What was found out about a place in it is kept, since many may refer to it.
class ExclusiveBranches {
 public:
  static constexpr size_t kMostBranches = 64;

  // `root`, the whole schema, outlives this.
  explicit ExclusiveBranches(const nlohmann::ordered_json& root) : root_(root) {}

  // Two branches exclude each other if they name different types, if they are const or enum with
  // different values, or if they allow no common type but objects, and require a property for
  // which they list (const, enum) different values. kInvalidArgument: two of the branches at
  // `where` don't, or there are too many. `list` is an array of schemas that a SchemaWalk
  // understood.
  absl::Status Check(const nlohmann::ordered_json& list, const std::string& where);

 private:
  // JSON texts.
  using Values = absl::flat_hash_set<std::string>;

  // What is certain of every value of a branch.
  struct Branch {
    uint32_t types = 0;            // its type is one of these bits
    std::optional<Values> values;  // it is one of these
    absl::flat_hash_map<std::string, Values>
        members;  // as an object it has these, with such values
  };

  // Those that `schema` lists, if it lists them, if they are few, and if equal ones have one text.
  static std::optional<Values> ListedValues(const nlohmann::ordered_json& schema);
  static uint32_t TypesOfBranch(const nlohmann::ordered_json& schema);
  static Branch Read(const nlohmann::ordered_json& schema);
  static bool Disjoint(const Values& a, const Values& b);
  static bool Exclude(const Branch& a, const Branch& b);

  const Branch& BranchOf(const nlohmann::ordered_json& schema);

  const nlohmann::ordered_json& root_;
  absl::flat_hash_map<const nlohmann::ordered_json*, std::unique_ptr<Branch>> known_;
};

}  // namespace renga::grammar

#endif  // RENGA_COORDINATOR_SERVING_GRAMMAR_EXCLUSIVE_BRANCHES_H_
