#include "model/jinja/filters.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/status_macros.h"
#include "model/jinja/printing.h"
#include "model/jinja/tests.h"
#include "model/jinja/text_functions.h"
#include "model/unicode.h"

namespace renga::model::jinja {
namespace {

using ValueOr = absl::StatusOr<Value>;

bool IsSet(const Value* value) { return value != nullptr && value->Truthy(); }

// "role" or "function.name", from dicts inside each other.
Value AttributeOf(Value value, absl::string_view path) {
  for (absl::string_view name : absl::StrSplit(path, '.')) {
    const Dict* dict = value.as_dict();
    const Value* found = dict == nullptr ? nullptr : dict->Find(name);
    if (found == nullptr) return Value::MakeUndefined(name);
    // The copy keeps the attribute alive when its dict goes.
    Value attribute = *found;
    value = std::move(attribute);
  }
  return value;
}

ValueOr FilterLength(const Value& value, const Arguments& arguments, Budget* budget) {
  RENGA_RETURN_IF_ERROR(arguments.Check("length", {}));
  if (const std::string* text = value.as_text()) return Value(CountChars(*text));
  if (const Dict* dict = value.as_dict()) return Value(static_cast<int64_t>(dict->entries.size()));
  if (const List* list = value.as_list()) return Value(static_cast<int64_t>(list->items.size()));
  if (value.is_undefined()) return Value(int64_t{0});
  return absl::InvalidArgumentError(absl::StrCat("it wants the length of a ", value.TypeName()));
}

ValueOr FilterDefault(const Value& value, const Arguments& arguments, Budget* budget) {
  RENGA_RETURN_IF_ERROR(arguments.Check("default", {"default_value", "boolean"}));
  const bool missing =
      value.is_undefined() || (IsSet(arguments.Get(1, "boolean")) && !value.Truthy());
  if (!missing) return value;
  const Value* fallback = arguments.Get(0, "default_value");
  return fallback == nullptr ? Value(std::string()) : *fallback;
}

ValueOr FilterFirst(const Value& value, const Arguments& arguments, Budget* budget) {
  RENGA_RETURN_IF_ERROR(arguments.Check("first", {}));
  RENGA_ASSIGN_OR_RETURN(const std::vector<Value> elements, Elements(value, budget));
  return elements.empty() ? Value::MakeUndefined("first") : elements.front();
}

ValueOr FilterLast(const Value& value, const Arguments& arguments, Budget* budget) {
  RENGA_RETURN_IF_ERROR(arguments.Check("last", {}));
  RENGA_ASSIGN_OR_RETURN(const std::vector<Value> elements, Elements(value, budget));
  return elements.empty() ? Value::MakeUndefined("last") : elements.back();
}

ValueOr FilterList(const Value& value, const Arguments& arguments, Budget* budget) {
  RENGA_RETURN_IF_ERROR(arguments.Check("list", {}));
  RENGA_ASSIGN_OR_RETURN(std::vector<Value> elements, Elements(value, budget));
  return Value::MakeList(std::move(elements), budget);
}

ValueOr FilterReverse(const Value& value, const Arguments& arguments, Budget* budget) {
  RENGA_RETURN_IF_ERROR(arguments.Check("reverse", {}));
  if (const std::string* text = value.as_text()) {
    return Value::MakeText(SliceText(*text, {std::nullopt, std::nullopt, -1}), budget);
  }
  RENGA_ASSIGN_OR_RETURN(std::vector<Value> elements, Elements(value, budget));
  std::reverse(elements.begin(), elements.end());
  return Value::MakeList(std::move(elements), budget);
}

ValueOr FilterItems(const Value& value, const Arguments& arguments, Budget* budget) {
  RENGA_RETURN_IF_ERROR(arguments.Check("items", {}));
  std::vector<Value> items;
  if (const Dict* dict = value.as_dict()) {
    for (const auto& [key, element] : dict->entries) {
      RENGA_ASSIGN_OR_RETURN(Value pair,
                             Value::MakeList({Value(key), element}, budget, /*is_tuple=*/true));
      items.push_back(std::move(pair));
    }
  } else if (!value.is_undefined()) {
    return absl::InvalidArgumentError(absl::StrCat("it wants the items of a ", value.TypeName()));
  }
  return Value::MakeList(std::move(items), budget);
}

ValueOr FilterJoin(const Value& value, const Arguments& arguments, Budget* budget) {
  RENGA_RETURN_IF_ERROR(arguments.Check("join", {"d", "attribute"}));
  const std::string* separator = arguments.Text(0, "d");
  const std::string* attribute = arguments.Text(1, "attribute");
  RENGA_ASSIGN_OR_RETURN(const std::vector<Value> elements, Elements(value, budget));
  std::string out;
  for (size_t i = 0; i < elements.size(); ++i) {
    if (i > 0 && separator != nullptr) {
      RENGA_RETURN_IF_ERROR(budget->Charge(separator->size()));
      out += *separator;
    }
    RENGA_ASSIGN_OR_RETURN(
        const std::string text,
        ToText(attribute == nullptr ? elements[i] : AttributeOf(elements[i], *attribute), budget));
    out += text;
  }
  return Value(std::move(out));
}

ValueOr FilterReplace(const Value& value, const Arguments& arguments, Budget* budget) {
  RENGA_RETURN_IF_ERROR(arguments.Check("replace", {"old", "new", "count"}));
  const std::string* from = arguments.Text(0, "old");
  const std::string* to = arguments.Text(1, "new");
  if (from == nullptr || to == nullptr) {
    return absl::InvalidArgumentError("the replace needs two texts");
  }
  const Value* count = arguments.Get(2, "count");
  const int64_t most = count == nullptr || count->is_none() ? -1 : count->integer();
  RENGA_ASSIGN_OR_RETURN(const std::string text, ToText(value, budget));
  // What it may grow to is paid for first: every character could be replaced.
  RENGA_RETURN_IF_ERROR(
      budget->Charge((text.size() / std::max<size_t>(from->size(), 1) + 1) * to->size()));
  return Value::MakeText(ReplaceText(text, *from, *to, most), budget);
}

ValueOr FilterTrim(const Value& value, const Arguments& arguments, Budget* budget) {
  RENGA_RETURN_IF_ERROR(arguments.Check("trim", {"chars"}));
  RENGA_ASSIGN_OR_RETURN(const std::string text, ToText(value, budget));
  const std::string* chars = arguments.Text(0, "chars");
  std::optional<absl::string_view> set;
  if (chars != nullptr) set = *chars;
  return Value::MakeText(std::string(StripText(text, set, StripSide::kBoth)), budget);
}

// A filter that makes text of text.
template <std::string (*kFunction)(absl::string_view)>
ValueOr FilterText(const Value& value, const Arguments& arguments, Budget* budget) {
  RENGA_RETURN_IF_ERROR(arguments.Check("this filter", {}));
  RENGA_ASSIGN_OR_RETURN(const std::string text, ToText(value, budget));
  return Value::MakeText(kFunction(text), budget);
}

std::string SameText(absl::string_view text) { return std::string(text); }

// Jinja's own title case: words begin after white space, hyphens and opening brackets only.
std::string TitleWords(absl::string_view text) {
  std::string out;
  std::string word;
  for (absl::string_view c : SplitChars(text)) {
    absl::StrAppend(&word, c);
    const bool ends = ClassifyChar(DecodeChar(c).code_point) == CharClass::kSpace ||
                      absl::string_view("-({[<").find(c) != absl::string_view::npos;
    if (!ends) continue;
    out += CapitalizeText(word);
    word.clear();
  }
  return out + CapitalizeText(word);
}

ValueOr FilterInt(const Value& value, const Arguments& arguments, Budget* budget) {
  RENGA_RETURN_IF_ERROR(arguments.Check("int", {"default"}));
  double number = value.number();
  if (value.is_integer()) return value;
  if (const std::string* text = value.as_text()) {
    int64_t integer = 0;
    if (absl::SimpleAtoi(*text, &integer)) return Value(integer);
    if (!absl::SimpleAtod(*text, &number)) number = NAN;
  } else if (!value.is_number()) {
    number = NAN;
  }
  constexpr double kLimit = 9.2e18;  // just inside int64
  if (number > -kLimit && number < kLimit) return Value(static_cast<int64_t>(number));
  const Value* fallback = arguments.Get(0, "default");
  return fallback == nullptr ? Value(int64_t{0}) : *fallback;
}

ValueOr FilterFloat(const Value& value, const Arguments& arguments, Budget* budget) {
  RENGA_RETURN_IF_ERROR(arguments.Check("float", {"default"}));
  if (value.is_number()) return Value(value.number());
  double number = 0;
  if (value.as_text() != nullptr && absl::SimpleAtod(*value.as_text(), &number)) {
    return Value(number);
  }
  const Value* fallback = arguments.Get(0, "default");
  return fallback == nullptr ? Value(0.0) : *fallback;
}

ValueOr FilterIndent(const Value& value, const Arguments& arguments, Budget* budget) {
  RENGA_RETURN_IF_ERROR(arguments.Check("indent", {"width", "first", "blank"}));
  const Value* width = arguments.Get(0, "width");
  std::string indentation = "    ";
  if (width != nullptr && width->as_text() != nullptr) {
    indentation = *width->as_text();
  } else if (width != nullptr) {
    indentation.assign(static_cast<size_t>(std::clamp<int64_t>(width->integer(), 0, 1000)), ' ');
  }
  const bool first = IsSet(arguments.Get(1, "first"));
  const bool blank = IsSet(arguments.Get(2, "blank"));
  RENGA_ASSIGN_OR_RETURN(const std::string text, ToText(value, budget));
  const std::vector<absl::string_view> lines = absl::StrSplit(text, '\n');
  RENGA_RETURN_IF_ERROR(budget->Charge(lines.size() * (indentation.size() + 16)));
  std::string out;
  for (size_t i = 0; i < lines.size(); ++i) {
    const bool indented = i == 0 ? first : blank || !lines[i].empty();
    absl::StrAppend(&out, i > 0 ? "\n" : "", indented ? indentation : "", lines[i]);
  }
  return Value::MakeText(std::move(out), budget);
}

ValueOr FilterToJson(const Value& value, const Arguments& arguments, Budget* budget) {
  RENGA_RETURN_IF_ERROR(
      arguments.Check("tojson", {"ensure_ascii", "indent", "separators", "sort_keys"}));
  JsonStyle style;
  style.ascii_only = IsSet(arguments.Get(0, "ensure_ascii"));
  style.sort_keys = IsSet(arguments.Get(3, "sort_keys"));
  const Value* indent = arguments.Get(1, "indent");
  if (indent != nullptr && indent->is_integer()) {
    style.indent = static_cast<int>(std::clamp<int64_t>(indent->integer(), 0, 100));
  }
  const Value* separators = arguments.Get(2, "separators");
  const List* pair = separators == nullptr ? nullptr : separators->as_list();
  if (pair != nullptr && pair->items.size() == 2 && pair->items[0].as_text() != nullptr &&
      pair->items[1].as_text() != nullptr) {
    style.item_separator = *pair->items[0].as_text();
    style.key_separator = *pair->items[1].as_text();
  }
  RENGA_ASSIGN_OR_RETURN(std::string text, ToJson(value, style, budget));
  return Value(std::move(text));
}

// For map and select, whatever is empty or false has no elements, none included.
absl::StatusOr<std::vector<Value>> ElementsIfAny(const Value& value, Budget* budget) {
  if (!value.Truthy()) return std::vector<Value>();
  return Elements(value, budget);
}

ValueOr FilterMap(const Value& value, const Arguments& arguments, Budget* budget) {
  RENGA_ASSIGN_OR_RETURN(const std::vector<Value> elements, ElementsIfAny(value, budget));
  const std::string* attribute = arguments.Text(SIZE_MAX, "attribute");
  const std::string* filter = arguments.Text(0, "");
  if (attribute == nullptr && filter == nullptr) {
    return absl::InvalidArgumentError("the map needs a filter or an attribute");
  }
  std::vector<Value> mapped;
  if (attribute != nullptr) {
    const Value* fallback = arguments.Get(SIZE_MAX, "default");
    for (const Value& element : elements) {
      mapped.push_back(AttributeOf(element, *attribute));
      if (mapped.back().is_undefined() && fallback != nullptr) mapped.back() = *fallback;
    }
  } else {
    // Maps inside maps would let the length of an argument list decide how deep this recurses.
    if (*filter == "map") return absl::UnimplementedError("a map of maps is not supported");
    const Arguments rest{{arguments.positional.begin() + 1, arguments.positional.end()},
                         arguments.named};
    for (const Value& element : elements) {
      RENGA_RETURN_IF_ERROR(budget->Step());
      RENGA_ASSIGN_OR_RETURN(Value result, ApplyFilter(*filter, element, rest, budget));
      mapped.push_back(std::move(result));
    }
  }
  return Value::MakeList(std::move(mapped), budget);
}

// select, reject, selectattr and rejectattr: the elements for which a test says `wanted`.
template <bool kWanted, bool kByAttribute>
ValueOr FilterSelect(const Value& value, const Arguments& arguments, Budget* budget) {
  RENGA_ASSIGN_OR_RETURN(const std::vector<Value> elements, ElementsIfAny(value, budget));
  const std::string* attribute = kByAttribute ? arguments.Text(0, "") : nullptr;
  if (kByAttribute && attribute == nullptr) {
    return absl::InvalidArgumentError("it selects by an attribute it doesn't name");
  }
  const size_t test_position = kByAttribute ? 1 : 0;
  const std::string* test = arguments.Text(test_position, "");
  Arguments rest;
  if (test != nullptr) {
    rest.positional.assign(arguments.positional.begin() + static_cast<ptrdiff_t>(test_position) + 1,
                           arguments.positional.end());
  }
  std::vector<Value> selected;
  for (const Value& element : elements) {
    RENGA_RETURN_IF_ERROR(budget->Step());
    const Value subject = kByAttribute ? AttributeOf(element, *attribute) : element;
    bool passes = subject.Truthy();
    if (test != nullptr) {
      RENGA_ASSIGN_OR_RETURN(passes, ApplyTest(*test, subject, rest, budget));
    }
    if (passes == kWanted) selected.push_back(element);
  }
  return Value::MakeList(std::move(selected), budget);
}

// What sort and unique compare: an attribute, and texts without case unless asked.
Value SortKey(const Value& element, const std::string* attribute, bool case_sensitive) {
  const Value key = attribute == nullptr ? element : AttributeOf(element, *attribute);
  if (case_sensitive || key.as_text() == nullptr) return key;
  return Value(LowerText(*key.as_text()));
}

ValueOr FilterSort(const Value& value, const Arguments& arguments, Budget* budget) {
  RENGA_RETURN_IF_ERROR(arguments.Check("sort", {"reverse", "case_sensitive", "attribute"}));
  const bool reverse = IsSet(arguments.Get(0, "reverse"));
  const bool case_sensitive = IsSet(arguments.Get(1, "case_sensitive"));
  const std::string* attribute = arguments.Text(2, "attribute");
  RENGA_ASSIGN_OR_RETURN(const std::vector<Value> elements, Elements(value, budget));
  std::vector<std::pair<Value, Value>> keyed;  // key, element
  for (const Value& element : elements) {
    keyed.emplace_back(SortKey(element, attribute, case_sensitive), element);
    // Once every key has an order with the first, all have one with each other.
    RENGA_RETURN_IF_ERROR(Less(keyed.back().first, keyed.front().first).status());
    if (keyed.back().first.as_text() != nullptr) {
      RENGA_RETURN_IF_ERROR(budget->Charge(keyed.back().first.as_text()->size()));
    }
  }
  std::stable_sort(keyed.begin(), keyed.end(), [reverse](const auto& a, const auto& b) {
    return reverse ? *Less(b.first, a.first) : *Less(a.first, b.first);
  });
  std::vector<Value> sorted;
  for (auto& [key, element] : keyed) sorted.push_back(std::move(element));
  return Value::MakeList(std::move(sorted), budget);
}

ValueOr FilterUnique(const Value& value, const Arguments& arguments, Budget* budget) {
  RENGA_RETURN_IF_ERROR(arguments.Check("unique", {"case_sensitive", "attribute"}));
  const bool case_sensitive = IsSet(arguments.Get(0, "case_sensitive"));
  const std::string* attribute = arguments.Text(1, "attribute");
  RENGA_ASSIGN_OR_RETURN(const std::vector<Value> elements, Elements(value, budget));
  std::vector<Value> keys;
  std::vector<Value> unique;
  for (const Value& element : elements) {
    Value key = SortKey(element, attribute, case_sensitive);
    bool known = false;
    for (size_t i = 0; i < keys.size() && !known; ++i) {
      RENGA_ASSIGN_OR_RETURN(known, Equal(keys[i], key, budget));
    }
    if (known) continue;
    keys.push_back(std::move(key));
    unique.push_back(element);
  }
  return Value::MakeList(std::move(unique), budget);
}

struct NamedFilter {
  absl::string_view name;
  ValueOr (*function)(const Value& value, const Arguments& arguments, Budget* budget);
};

constexpr NamedFilter kFilters[] = {
    {"capitalize", FilterText<CapitalizeText>},
    {"count", FilterLength},
    {"d", FilterDefault},
    {"default", FilterDefault},
    {"first", FilterFirst},
    {"float", FilterFloat},
    {"indent", FilterIndent},
    {"int", FilterInt},
    {"items", FilterItems},
    {"join", FilterJoin},
    {"last", FilterLast},
    {"length", FilterLength},
    {"list", FilterList},
    {"lower", FilterText<LowerText>},
    {"map", FilterMap},
    {"reject", FilterSelect<false, false>},
    {"rejectattr", FilterSelect<false, true>},
    {"replace", FilterReplace},
    {"reverse", FilterReverse},
    {"safe", FilterText<SameText>},
    {"select", FilterSelect<true, false>},
    {"selectattr", FilterSelect<true, true>},
    {"sort", FilterSort},
    {"string", FilterText<SameText>},
    {"title", FilterText<TitleWords>},
    {"tojson", FilterToJson},
    {"trim", FilterTrim},
    {"unique", FilterUnique},
    {"upper", FilterText<UpperText>},
};

}  // namespace

absl::StatusOr<Value> ApplyFilter(absl::string_view name, const Value& value,
                                  const Arguments& arguments, Budget* budget) {
  for (const NamedFilter& filter : kFilters) {
    if (filter.name == name) return filter.function(value, arguments, budget);
  }
  return absl::UnimplementedError(absl::StrCat("the filter \"", name, "\" is not supported"));
}

}  // namespace renga::model::jinja
