#include "coordinator/serving/grammar/json_schema.h"

#include <utility>

#include "base/status_macros.h"
#include "coordinator/serving/grammar/json_rules.h"
#include "coordinator/serving/grammar/schema_document.h"
#include "coordinator/serving/grammar/schema_walk.h"
#include "nlohmann/json.hpp"

namespace renga::grammar {

absl::StatusOr<RuleSet> ParseJsonSchema(absl::string_view text) {
  RENGA_ASSIGN_OR_RETURN(const nlohmann::ordered_json schema, ReadSchemaText(text));
  RENGA_ASSIGN_OR_RETURN(RuleSet rules, AnyJsonObject());
  return SchemaWalk(schema, std::move(rules)).Finish();
}

}  // namespace renga::grammar
