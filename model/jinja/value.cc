#include "model/jinja/value.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "model/unicode.h"

namespace renga::model::jinja {
namespace {

constexpr int kMaxValueDepth = 64;
// What a budget is charged for one element of a list, beside the element's own text.
constexpr uint64_t kElementBytes = 32;

absl::Status TooDeep() {
  return absl::InvalidArgumentError("stopped: it puts lists into lists too deeply");
}

int DepthOf(const Value& value) {
  if (const List* list = value.as_list()) return list->depth;
  if (const Dict* dict = value.as_dict()) return dict->depth;
  return 0;
}

absl::StatusOr<bool> EqualLists(const List& a, const List& b, Budget* budget) {
  if (a.items.size() != b.items.size() || a.is_tuple != b.is_tuple) return false;
  for (size_t i = 0; i < a.items.size(); ++i) {
    RENGA_ASSIGN_OR_RETURN(const bool equal, Equal(a.items[i], b.items[i], budget));
    if (!equal) return false;
  }
  return true;
}

absl::StatusOr<bool> EqualDicts(const Dict& a, const Dict& b, Budget* budget) {
  if (a.entries.size() != b.entries.size()) return false;
  for (const auto& [key, value] : a.entries) {
    RENGA_RETURN_IF_ERROR(budget->Step(static_cast<int64_t>(b.entries.size())));
    const Value* other = b.Find(key);
    if (other == nullptr) return false;
    RENGA_ASSIGN_OR_RETURN(const bool equal, Equal(value, *other, budget));
    if (!equal) return false;
  }
  return true;
}

}  // namespace

absl::Status Budget::Exhausted(const char* why) {
  return absl::InvalidArgumentError(absl::StrCat("stopped: ", why));
}

const Value* Dict::Find(absl::string_view key) const {
  for (const auto& [name, value] : entries) {
    if (name == key) return &value;
  }
  return nullptr;
}

void Dict::Set(absl::string_view key, Value value) {
  depth = std::max(depth, DepthOf(value) + 1);
  for (auto& [name, old] : entries) {
    if (name == key) {
      old = std::move(value);
      return;
    }
  }
  entries.emplace_back(std::string(key), std::move(value));
}

Value Value::MakeNone() {
  Value value;
  value.data_ = None{};
  return value;
}

Value Value::MakeUndefined(absl::string_view name) {
  Value value;
  value.data_ = Undefined{std::make_shared<const std::string>(name)};
  return value;
}

absl::StatusOr<Value> Value::MakeList(std::vector<Value> items, Budget* budget, bool is_tuple) {
  RENGA_RETURN_IF_ERROR(budget->Charge(kElementBytes * (items.size() + 1)));
  List list;
  for (const Value& item : items) list.depth = std::max(list.depth, DepthOf(item) + 1);
  if (list.depth > kMaxValueDepth) return TooDeep();
  list.items = std::move(items);
  list.is_tuple = is_tuple;
  Value value;
  value.data_ = std::make_shared<const List>(std::move(list));
  return value;
}

absl::StatusOr<Value> Value::MakeDict(Dict dict, Budget* budget) {
  uint64_t bytes = kElementBytes;
  for (const auto& [key, value] : dict.entries) bytes += key.size() + 2 * kElementBytes;
  RENGA_RETURN_IF_ERROR(budget->Charge(bytes));
  if (dict.depth > kMaxValueDepth) return TooDeep();
  Value value;
  value.data_ = std::make_shared<const Dict>(std::move(dict));
  return value;
}

absl::StatusOr<Value> Value::MakeText(std::string text, Budget* budget) {
  RENGA_RETURN_IF_ERROR(budget->Charge(text.size()));
  return Value(std::move(text));
}

int64_t Value::integer() const {
  if (const bool* b = as_bool()) return *b ? 1 : 0;
  const int64_t* i = std::get_if<int64_t>(&data_);
  return i == nullptr ? 0 : *i;
}

double Value::number() const {
  const double* d = as_float();
  return d == nullptr ? static_cast<double>(integer()) : *d;
}

bool Value::Truthy() const {
  if (is_undefined() || is_none()) return false;
  if (is_number()) return number() != 0;
  if (const std::string* text = as_text()) return !text->empty();
  if (const List* list = as_list()) return !list->items.empty();
  if (const Dict* dict = as_dict()) return !dict->entries.empty();
  return true;
}

absl::string_view Value::TypeName() const {
  if (is_undefined()) return "Undefined";
  if (is_none()) return "NoneType";
  if (as_bool() != nullptr) return "bool";
  if (is_integer()) return "int";
  if (is_number()) return "float";
  if (as_text() != nullptr) return "str";
  if (const List* list = as_list()) return list->is_tuple ? "tuple" : "list";
  if (as_dict() != nullptr) return "dict";
  return as_namespace() != nullptr ? "Namespace" : "function";
}

absl::string_view Value::undefined_name() const {
  const Undefined* undefined = std::get_if<Undefined>(&data_);
  if (undefined == nullptr || undefined->name == nullptr) return "value";
  return *undefined->name;
}

absl::StatusOr<bool> Equal(const Value& a, const Value& b, Budget* budget) {
  RENGA_RETURN_IF_ERROR(budget->Step());
  if (a.is_integer() && b.is_integer()) return a.integer() == b.integer();
  if (a.is_number() && b.is_number()) return a.number() == b.number();
  if (a.as_text() != nullptr && b.as_text() != nullptr) return *a.as_text() == *b.as_text();
  if (a.as_list() != nullptr && b.as_list() != nullptr) {
    return EqualLists(*a.as_list(), *b.as_list(), budget);
  }
  if (a.as_dict() != nullptr && b.as_dict() != nullptr) {
    return EqualDicts(*a.as_dict(), *b.as_dict(), budget);
  }
  if (a.as_namespace() != nullptr && b.as_namespace() != nullptr) {
    return a.as_namespace()->index == b.as_namespace()->index;
  }
  return (a.is_none() && b.is_none()) || (a.is_undefined() && b.is_undefined());
}

absl::StatusOr<bool> Less(const Value& a, const Value& b) {
  if (a.is_integer() && b.is_integer()) return a.integer() < b.integer();
  if (a.is_number() && b.is_number()) return a.number() < b.number();
  if (a.as_text() != nullptr && b.as_text() != nullptr) return *a.as_text() < *b.as_text();
  return absl::InvalidArgumentError(
      absl::StrCat("it compares a ", a.TypeName(), " with a ", b.TypeName()));
}

absl::StatusOr<bool> Contains(const Value& container, const Value& item, Budget* budget) {
  if (const std::string* text = container.as_text()) {
    if (item.as_text() == nullptr) {
      return absl::InvalidArgumentError(
          absl::StrCat("it looks for a ", item.TypeName(), " in a text"));
    }
    RENGA_RETURN_IF_ERROR(budget->Charge(text->size()));
    return absl::StrContains(*text, *item.as_text());
  }
  if (const Dict* dict = container.as_dict()) {
    RENGA_RETURN_IF_ERROR(budget->Step(static_cast<int64_t>(dict->entries.size())));
    return item.as_text() != nullptr && dict->Find(*item.as_text()) != nullptr;
  }
  RENGA_ASSIGN_OR_RETURN(const std::vector<Value> elements, Elements(container, budget));
  for (const Value& element : elements) {
    RENGA_ASSIGN_OR_RETURN(const bool equal, Equal(element, item, budget));
    if (equal) return true;
  }
  return false;
}

absl::StatusOr<std::vector<Value>> Elements(const Value& value, Budget* budget) {
  std::vector<Value> elements;
  if (const List* list = value.as_list()) {
    RENGA_RETURN_IF_ERROR(budget->Charge(kElementBytes * list->items.size()));
    return list->items;
  }
  if (const Dict* dict = value.as_dict()) {
    for (const auto& [key, unused] : dict->entries) {
      RENGA_RETURN_IF_ERROR(budget->Charge(kElementBytes + key.size()));
      elements.emplace_back(key);
    }
    return elements;
  }
  if (const std::string* text = value.as_text()) {
    for (absl::string_view rest = *text; !rest.empty();) {
      RENGA_RETURN_IF_ERROR(budget->Charge(2 * kElementBytes));
      const size_t length = DecodeChar(rest).length;
      elements.emplace_back(std::string(rest.substr(0, length)));
      rest.remove_prefix(length);
    }
    return elements;
  }
  if (value.is_undefined()) return elements;
  return absl::InvalidArgumentError(
      absl::StrCat("it goes through a ", value.TypeName(), " as if it were a list"));
}

}  // namespace renga::model::jinja
