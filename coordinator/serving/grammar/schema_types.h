// The types that a JSON schema names.
#ifndef RENGA_COORDINATOR_SERVING_GRAMMAR_SCHEMA_TYPES_H_
#define RENGA_COORDINATOR_SERVING_GRAMMAR_SCHEMA_TYPES_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "nlohmann/json_fwd.hpp"

namespace renga::grammar {

// What `type` lists, each once; empty without the keyword.
absl::StatusOr<std::vector<std::string>> TypesOf(const nlohmann::ordered_json& schema,
                                                 const std::string& where);

bool HasType(const nlohmann::ordered_json& value, const std::string& type);

}  // namespace renga::grammar

#endif  // RENGA_COORDINATOR_SERVING_GRAMMAR_SCHEMA_TYPES_H_
