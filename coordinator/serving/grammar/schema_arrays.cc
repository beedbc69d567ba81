#include "coordinator/serving/grammar/schema_arrays.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "coordinator/serving/grammar/schema_document.h"
#include "nlohmann/json.hpp"

namespace renga::grammar {
namespace {

using nlohmann::ordered_json;

constexpr size_t kMaxPrefixItems = 64;

// An item and the space behind it.
absl::StatusOr<int64_t> ItemRule(const ordered_json& schema, const std::string& where,
                                 SchemaWalk& walk) {
  RENGA_ASSIGN_OR_RETURN(Expression value, walk.Value(schema, where));
  return walk.rules().Add(absl::StrCat("schema ", where),
                          Sequence({std::move(value), walk.rules().Call("space")}));
}

// `other`: the rule of items behind the first ones, or -1.
absl::StatusOr<Expression> Items(const std::vector<int64_t>& first, int64_t other, int64_t least,
                                 int64_t most, const std::string& where, const RuleSet& rules) {
  const auto known = std::ssize(first);
  if (other < 0) most = most == Expression::kNoLimit ? known : std::min(most, known);
  if (most != Expression::kNoLimit && least > most) {
    return SchemaError(where, "minItems is more than the array can have");
  }
  const auto item = [&](int64_t index) {
    Expression one = RuleCall(index < known ? first[static_cast<size_t>(index)] : other);
    return index == 0 ? one : Sequence({Text(","), rules.Call("space"), std::move(one)});
  };
  // From the last one of its own kind forwards: each may be followed by the rest.
  const int64_t listed = std::max(known, int64_t{1});
  Expression rest = Text("");
  if (most == Expression::kNoLimit || most > listed) {
    rest = Repeat(item(listed), std::max<int64_t>(0, least - listed),
                  most == Expression::kNoLimit ? most : most - listed);
  }
  for (int64_t i = std::min(listed, most == Expression::kNoLimit ? listed : most) - 1; i >= 0;
       --i) {
    Expression with = Sequence({item(i), std::move(rest)});
    rest = i < least ? std::move(with) : Optional(std::move(with));
  }
  return Sequence({Text("["), rules.Call("space"), std::move(rest), Text("]")});
}

}  // namespace

absl::StatusOr<Expression> ArraysOf(const ordered_json& schema, const std::string& where,
                                    SchemaWalk& walk) {
  RENGA_ASSIGN_OR_RETURN(const int64_t least, Count(schema, "minItems", 0, where));
  RENGA_ASSIGN_OR_RETURN(const int64_t most,
                         Count(schema, "maxItems", Expression::kNoLimit, where));
  if (most != Expression::kNoLimit && most < least) {
    return SchemaError(where, "maxItems is below minItems");
  }
  std::vector<int64_t> first;  // rules of the first items
  if (const ordered_json* list = Find(schema, "prefixItems")) {
    if (!list->is_array() || list->size() > kMaxPrefixItems) {
      return SchemaError(where, absl::StrCat("prefixItems must be an array of at most ",
                                             kMaxPrefixItems, " schemas"));
    }
    for (size_t i = 0; i < list->size(); ++i) {
      RENGA_ASSIGN_OR_RETURN(const int64_t item,
                             ItemRule((*list)[i], absl::StrCat(where, "/prefixItems/", i), walk));
      first.push_back(item);
    }
  }
  const ordered_json* items = Find(schema, "items");
  const bool no_more = items != nullptr && items->is_boolean() && !items->get<bool>();
  int64_t other = -1;
  if (!no_more) {
    const ordered_json any(true);
    RENGA_ASSIGN_OR_RETURN(
        other, ItemRule(items != nullptr ? *items : any, absl::StrCat(where, "/items"), walk));
  }
  return Items(first, other, least, most, where, walk.rules());
}

}  // namespace renga::grammar
