// The walk over a JSON schema: which keywords stand in an object of keywords, what they say of each
// other, and the schemas that lie in it or that it refers to. What the keywords of one type allow
// is in schema_objects.h, schema_arrays.h, schema_strings.h and schema_numbers.h.
#ifndef RENGA_COORDINATOR_SERVING_GRAMMAR_SCHEMA_WALK_H_
#define RENGA_COORDINATOR_SERVING_GRAMMAR_SCHEMA_WALK_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "coordinator/serving/grammar/exclusive_branches.h"
#include "coordinator/serving/grammar/expression.h"
#include "nlohmann/json_fwd.hpp"

namespace renga::grammar {

// Used once. Errors are kInvalidArgument and name the place in the schema.
class SchemaWalk {
 public:
  // `rules` are those of JSON (json_rules.h). `root`, the whole schema, outlives the walk.
  SchemaWalk(const nlohmann::ordered_json& root, RuleSet rules);

  absl::StatusOr<RuleSet> Finish();

  // The values that `schema` allows; it lies at `where`.
  absl::StatusOr<Expression> Value(const nlohmann::ordered_json& schema, const std::string& where);

  // Those of JSON, and those that were added for the schema so far.
  RuleSet& rules() { return rules_; }

 private:
  using Json = nlohmann::ordered_json;

  absl::StatusOr<int64_t> RuleOf(const std::string& pointer);
  absl::StatusOr<Expression> ObjectOfKeywords(const Json& schema, const std::string& where);
  absl::StatusOr<Expression> AnyOf(const Json& list, const std::string& where);
  absl::StatusOr<Expression> OneOf(const Json& list, const std::string& where);
  absl::StatusOr<Expression> ByType(const Json& schema, const std::string& where);
  absl::StatusOr<Expression> OfType(const std::string& type, const Json& schema,
                                    const std::string& where);

  const Json& root_;
  RuleSet rules_;
  absl::flat_hash_map<std::string, int64_t> by_pointer_;
  ExclusiveBranches exclusive_branches_;
  int depth_ = 0;
};

}  // namespace renga::grammar

#endif  // RENGA_COORDINATOR_SERVING_GRAMMAR_SCHEMA_WALK_H_
