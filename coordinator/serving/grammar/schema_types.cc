#include "coordinator/serving/grammar/schema_types.h"

#include <algorithm>

#include "coordinator/serving/grammar/schema_document.h"
#include "nlohmann/json.hpp"

namespace renga::grammar {

using nlohmann::ordered_json;

bool HasType(const ordered_json& value, const std::string& type) {
  if (type == "number") return value.is_number();
  if (type == "integer") return value.is_number_integer();
  return type == value.type_name();
}

absl::StatusOr<std::vector<std::string>> TypesOf(const ordered_json& schema,
                                                 const std::string& where) {
  const ordered_json* type = Find(schema, "type");
  const ordered_json list = type == nullptr
                                ? ordered_json::array()
                                : (type->is_array() ? *type : ordered_json::array({*type}));
  std::vector<std::string> types;
  for (const ordered_json& name : list) {
    constexpr absl::string_view kTypes[] = {"object",  "array",   "string", "number",
                                            "integer", "boolean", "null"};
    if (!name.is_string() || !IsOneOf(name.get_ref<const std::string&>(), kTypes)) {
      return SchemaError(
          where,
          "type must be object, array, string, number, integer, boolean, null, or an "
          "array of these");
    }
    const bool again =
        std::find(types.begin(), types.end(), name.get<std::string>()) != types.end();
    if (!again) types.push_back(name.get<std::string>());
  }
  if (type != nullptr && types.empty()) return SchemaError(where, "type has no type in it");
  return types;
}

}  // namespace renga::grammar
