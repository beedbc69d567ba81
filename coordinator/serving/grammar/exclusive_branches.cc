#include "coordinator/serving/grammar/exclusive_branches.h"

#include <algorithm>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "coordinator/serving/grammar/schema_document.h"
#include "coordinator/serving/grammar/schema_types.h"
#include "nlohmann/json.hpp"

namespace renga::grammar {
namespace {

using nlohmann::ordered_json;

// Every two branches are compared, value by value.
constexpr size_t kMostListedValues = 128;
// From a branch to the schema that it stands for.
constexpr int kMostSteps = 8;

constexpr uint32_t kAnyType = 0x3F;
constexpr uint32_t kObjectType = 1;

// Integers are numbers.
uint32_t TypeBit(absl::string_view type) {
  if (type == "object") return kObjectType;
  if (type == "array") return 1 << 1;
  if (type == "string") return 1 << 2;
  if (type == "boolean") return 1 << 3;
  return type == "null" ? 1 << 4 : 1 << 5;
}

// The values of const or enum, or nothing.
std::vector<const ordered_json*> Listed(const ordered_json& schema) {
  std::vector<const ordered_json*> listed;
  if (!schema.is_object()) return listed;
  if (const ordered_json* value = Find(schema, "const")) {
    listed.push_back(value);
  } else if (const ordered_json* values = Find(schema, "enum")) {
    for (const ordered_json& one : *values) listed.push_back(&one);
  }
  return listed;
}

// What the branch stands for: behind $ref, and inside an allOf of one part. Nothing is taken for
// granted here: keywords that say nothing of a schema's type may hold anything.
const ordered_json& Behind(const ordered_json& branch, const ordered_json& root) {
  const ordered_json* at = &branch;
  for (int step = 0; step < kMostSteps && at->is_object(); ++step) {
    const ordered_json* ref = Find(*at, "$ref");
    const ordered_json* all = Find(*at, "allOf");
    if (ref != nullptr && ref->is_string()) {
      const absl::StatusOr<const ordered_json*> named = Resolve(root, ref->get<std::string>());
      if (!named.ok()) break;
      at = *named;
    } else if (all != nullptr && all->is_array() && all->size() == 1) {
      at = &all->front();
    } else {
      break;
    }
  }
  return *at;
}

absl::flat_hash_set<std::string> RequiredNames(const ordered_json& schema) {
  absl::flat_hash_set<std::string> names;
  const ordered_json* required = schema.is_object() ? Find(schema, "required") : nullptr;
  if (required == nullptr || !required->is_array()) return names;
  for (const ordered_json& name : *required) {
    if (name.is_string()) names.insert(name.get<std::string>());
  }
  return names;
}

}  // namespace

std::optional<ExclusiveBranches::Values> ExclusiveBranches::ListedValues(
    const ordered_json& schema) {
  const std::vector<const ordered_json*> listed = Listed(schema);
  if (listed.empty() || listed.size() > kMostListedValues) return std::nullopt;
  Values values;
  for (const ordered_json* value : listed) {
    // 1.0 equals 1; members may stand in another order.
    if (value->is_number_float() || value->is_structured()) return std::nullopt;
    values.insert(Dump(*value));
  }
  return values;
}

// A schema without `type` holds for values of other types than its keywords speak of.
uint32_t ExclusiveBranches::TypesOfBranch(const ordered_json& schema) {
  if (!schema.is_object()) return kAnyType;
  uint32_t types = 0;
  for (const ordered_json* value : Listed(schema)) types |= TypeBit(value->type_name());
  if (types != 0) return types;
  const absl::StatusOr<std::vector<std::string>> names = TypesOf(schema, "");
  if (!names.ok() || names->empty()) return kAnyType;
  for (const std::string& name : *names) types |= TypeBit(name);
  return types;
}

ExclusiveBranches::Branch ExclusiveBranches::Read(const ordered_json& schema) {
  Branch branch{.types = TypesOfBranch(schema), .values = ListedValues(schema), .members = {}};
  const absl::flat_hash_set<std::string> names = RequiredNames(schema);
  const ordered_json* properties = names.empty() ? nullptr : Find(schema, "properties");
  if (properties == nullptr || !properties->is_object()) return branch;
  size_t count = 0;
  for (const auto& [name, value] : properties->items()) {
    if (!names.contains(name)) continue;
    std::optional<Values> values = ListedValues(value);
    if (!values.has_value()) continue;
    count += values->size();
    if (count > kMostListedValues) break;
    branch.members[name] = *std::move(values);
  }
  return branch;
}

const ExclusiveBranches::Branch& ExclusiveBranches::BranchOf(const ordered_json& schema) {
  const ordered_json& meant = Behind(schema, root_);
  std::unique_ptr<Branch>& known = known_[&meant];
  if (known == nullptr) known = std::make_unique<Branch>(Read(meant));
  return *known;
}

bool ExclusiveBranches::Disjoint(const Values& a, const Values& b) {
  return std::none_of(a.begin(), a.end(),
                      [&](const std::string& text) { return b.contains(text); });
}

bool ExclusiveBranches::Exclude(const Branch& a, const Branch& b) {
  const uint32_t common = a.types & b.types;
  if (common == 0) return true;
  if (a.values.has_value() && b.values.has_value()) return Disjoint(*a.values, *b.values);
  if (common != kObjectType) return false;
  return std::any_of(a.members.begin(), a.members.end(), [&](const auto& member) {
    const auto other = b.members.find(member.first);
    return other != b.members.end() && Disjoint(member.second, other->second);
  });
}

absl::Status ExclusiveBranches::Check(const ordered_json& list, const std::string& where) {
  if (list.size() > kMostBranches) {
    return SchemaError(where, absl::StrCat("oneOf has ", list.size(), " branches; the most is ",
                                           kMostBranches, "; write anyOf instead"));
  }
  for (size_t i = 0; i < list.size(); ++i) {
    const Branch& branch = BranchOf(list[i]);
    for (size_t j = 0; j < i; ++j) {
      if (Exclude(branch, BranchOf(list[j]))) continue;
      return SchemaError(
          where, absl::StrCat("branches ", j, " and ", i,
                              " do not visibly exclude each other; write anyOf, or give them "
                              "different types or one required property with different const "
                              "values"));
    }
  }
  return absl::OkStatus();
}

}  // namespace renga::grammar
