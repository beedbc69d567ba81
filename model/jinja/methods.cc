#include "model/jinja/methods.h"

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/status_macros.h"
#include "model/jinja/filters.h"
#include "model/jinja/printing.h"
#include "model/jinja/text_functions.h"

namespace renga::model::jinja {
namespace {

using ValueOr = absl::StatusOr<Value>;
using Method = ValueOr (*)(const Value& self, const Arguments& arguments, Budget* budget);

absl::Status BadArguments(absl::string_view method) {
  return absl::InvalidArgumentError(
      absl::StrCat("it calls ", method, " with arguments it doesn't take"));
}

// Absent or None is nothing; anything but a text is an error.
absl::StatusOr<std::optional<absl::string_view>> OptionalText(const Arguments& arguments,
                                                              size_t position,
                                                              absl::string_view name) {
  const Value* value = arguments.Get(position, name);
  if (value == nullptr || value->is_none()) return std::nullopt;
  if (value->as_text() == nullptr) return BadArguments(name);
  return std::optional<absl::string_view>(*value->as_text());
}

ValueOr ListOfTexts(const std::vector<absl::string_view>& texts, Budget* budget) {
  std::vector<Value> items;
  for (absl::string_view text : texts) {
    RENGA_ASSIGN_OR_RETURN(Value item, Value::MakeText(std::string(text), budget));
    items.push_back(std::move(item));
  }
  return Value::MakeList(std::move(items), budget);
}

template <StripSide kSide>
ValueOr Strip(const Value& self, const Arguments& arguments, Budget* budget) {
  RENGA_RETURN_IF_ERROR(arguments.Check("strip", {"chars"}));
  RENGA_ASSIGN_OR_RETURN(const auto chars, OptionalText(arguments, 0, "chars"));
  return Value::MakeText(std::string(StripText(*self.as_text(), chars, kSide)), budget);
}

template <bool kFromRight>
ValueOr Split(const Value& self, const Arguments& arguments, Budget* budget) {
  RENGA_RETURN_IF_ERROR(arguments.Check("split", {"sep", "maxsplit"}));
  RENGA_ASSIGN_OR_RETURN(const auto separator, OptionalText(arguments, 0, "sep"));
  if (separator.has_value() && separator->empty()) {
    return absl::InvalidArgumentError("it splits by an empty separator");
  }
  const Value* limit = arguments.Get(1, "maxsplit");
  const int64_t most = limit == nullptr ? -1 : limit->integer();
  RENGA_RETURN_IF_ERROR(budget->Charge(self.as_text()->size()));
  return ListOfTexts(kFromRight ? SplitTextFromRight(*self.as_text(), separator, most)
                                : SplitText(*self.as_text(), separator, most),
                     budget);
}

ValueOr SplitIntoLines(const Value& self, const Arguments& arguments, Budget* budget) {
  RENGA_RETURN_IF_ERROR(arguments.Check("splitlines", {}));
  return ListOfTexts(SplitLines(*self.as_text()), budget);
}

// startswith and endswith take a text or a tuple of texts.
template <bool kAtStart>
ValueOr HasAffix(const Value& self, const Arguments& arguments, Budget* budget) {
  RENGA_RETURN_IF_ERROR(arguments.Check("startswith", {"affix"}));
  const Value* affix = arguments.Get(0, "affix");
  if (affix == nullptr) return BadArguments("startswith");
  std::vector<Value> choices = {*affix};
  if (const List* list = affix->as_list()) choices = list->items;
  RENGA_RETURN_IF_ERROR(budget->Step(static_cast<int64_t>(choices.size())));
  for (const Value& choice : choices) {
    const std::string* text = choice.as_text();
    if (text == nullptr) return BadArguments("startswith");
    if (kAtStart ? absl::StartsWith(*self.as_text(), *text)
                 : absl::EndsWith(*self.as_text(), *text)) {
      return Value(true);
    }
  }
  return Value(false);
}

template <bool kPrefix>
ValueOr RemoveAffix(const Value& self, const Arguments& arguments, Budget* budget) {
  RENGA_RETURN_IF_ERROR(arguments.Check("removeprefix", {"affix"}));
  const std::string* affix = arguments.Text(0, "affix");
  if (affix == nullptr) return BadArguments("removeprefix");
  absl::string_view text = *self.as_text();
  if (kPrefix && absl::StartsWith(text, *affix)) text.remove_prefix(affix->size());
  if (!kPrefix && absl::EndsWith(text, *affix)) text.remove_suffix(affix->size());
  return Value::MakeText(std::string(text), budget);
}

template <bool kLast>
ValueOr Find(const Value& self, const Arguments& arguments, Budget* budget) {
  RENGA_RETURN_IF_ERROR(arguments.Check("find", {"sub"}));
  const std::string* needle = arguments.Text(0, "sub");
  if (needle == nullptr) return BadArguments("find");
  RENGA_RETURN_IF_ERROR(budget->Charge(self.as_text()->size()));
  return Value(FindText(*self.as_text(), *needle, kLast));
}

ValueOr CountText(const Value& self, const Arguments& arguments, Budget* budget) {
  RENGA_RETURN_IF_ERROR(arguments.Check("count", {"sub"}));
  const std::string* needle = arguments.Text(0, "sub");
  if (needle == nullptr) return BadArguments("count");
  RENGA_RETURN_IF_ERROR(budget->Charge(self.as_text()->size()));
  if (needle->empty()) return Value(CountChars(*self.as_text()) + 1);
  int64_t count = 0;
  for (size_t at = self.as_text()->find(*needle); at != std::string::npos; ++count) {
    at = self.as_text()->find(*needle, at + needle->size());
  }
  return Value(count);
}

// "sep".join(list): the filter with the roles exchanged.
ValueOr Join(const Value& self, const Arguments& arguments, Budget* budget) {
  RENGA_RETURN_IF_ERROR(arguments.Check("join", {"iterable"}));
  const Value* list = arguments.Get(0, "iterable");
  if (list == nullptr) return BadArguments("join");
  return ApplyFilter("join", *list, {{self}, {}}, budget);
}

template <bool (*kPredicate)(absl::string_view)>
ValueOr Is(const Value& self, const Arguments& arguments, Budget* budget) {
  RENGA_RETURN_IF_ERROR(arguments.Check("this method", {}));
  RENGA_RETURN_IF_ERROR(budget->Charge(self.as_text()->size()));
  return Value(kPredicate(*self.as_text()));
}

template <std::string (*kFunction)(absl::string_view)>
ValueOr Convert(const Value& self, const Arguments& arguments, Budget* budget) {
  RENGA_RETURN_IF_ERROR(arguments.Check("this method", {}));
  return Value::MakeText(kFunction(*self.as_text()), budget);
}

// "{} and {name}".format(1, name=2), without format specifications.
ValueOr Format(const Value& self, const Arguments& arguments, Budget* budget) {
  std::string out;
  size_t next = 0;
  absl::string_view rest = *self.as_text();
  for (size_t at = rest.find_first_of("{}"); at != absl::string_view::npos;
       at = rest.find_first_of("{}")) {
    absl::StrAppend(&out, rest.substr(0, at));
    const char brace = rest[at];
    rest.remove_prefix(at + 1);
    if (absl::ConsumePrefix(&rest, absl::string_view(&brace, 1))) {
      out.push_back(brace);
      continue;
    }
    const size_t end = rest.find('}');
    if (brace == '}' || end == absl::string_view::npos) return BadArguments("format");
    const absl::string_view field = rest.substr(0, end);
    rest.remove_prefix(end + 1);
    if (field.find_first_of(":!.[{") != absl::string_view::npos) {
      return absl::UnimplementedError(
          absl::StrCat("the format field {", field, "} is not supported"));
    }
    size_t position = 0;
    if (field.empty()) position = next++;
    const bool numbered = field.empty() || absl::SimpleAtoi(field, &position);
    const Value* value = arguments.Get(numbered ? position : SIZE_MAX, field);
    if (value == nullptr) return BadArguments("format");
    RENGA_ASSIGN_OR_RETURN(const std::string text, ToText(*value, budget));
    out += text;
  }
  absl::StrAppend(&out, rest);
  return Value::MakeText(std::move(out), budget);
}

ValueOr Replace(const Value& self, const Arguments& arguments, Budget* budget) {
  return ApplyFilter("replace", self, arguments, budget);
}

ValueOr Get(const Value& self, const Arguments& arguments, Budget* budget) {
  RENGA_RETURN_IF_ERROR(arguments.Check("get", {"key", "default"}));
  const Value* key = arguments.Get(0, "key");
  if (key == nullptr) return BadArguments("get");
  const Value* found = key->as_text() == nullptr ? nullptr : self.as_dict()->Find(*key->as_text());
  if (found != nullptr) return *found;
  const Value* fallback = arguments.Get(1, "default");
  return fallback == nullptr ? Value::MakeNone() : *fallback;
}

ValueOr Items(const Value& self, const Arguments& arguments, Budget* budget) {
  return ApplyFilter("items", self, arguments, budget);
}

ValueOr Keys(const Value& self, const Arguments& arguments, Budget* budget) {
  return ApplyFilter("list", self, arguments, budget);
}

ValueOr Values(const Value& self, const Arguments& arguments, Budget* budget) {
  RENGA_RETURN_IF_ERROR(arguments.Check("values", {}));
  std::vector<Value> values;
  for (const auto& [key, value] : self.as_dict()->entries) values.push_back(value);
  return Value::MakeList(std::move(values), budget);
}

ValueOr CountItems(const Value& self, const Arguments& arguments, Budget* budget) {
  RENGA_RETURN_IF_ERROR(arguments.Check("count", {"value"}));
  const Value* wanted = arguments.Get(0, "value");
  if (wanted == nullptr) return BadArguments("count");
  int64_t count = 0;
  for (const Value& item : self.as_list()->items) {
    RENGA_ASSIGN_OR_RETURN(const bool equal, Equal(item, *wanted, budget));
    count += equal ? 1 : 0;
  }
  return Value(count);
}

struct NamedMethod {
  absl::string_view name;
  Method method;
};

constexpr NamedMethod kTextMethods[] = {
    {"capitalize", Convert<CapitalizeText>},
    {"count", CountText},
    {"endswith", HasAffix<false>},
    {"find", Find<false>},
    {"format", Format},
    {"isalpha", Is<IsAllLetters>},
    {"isdigit", Is<IsAllDigits>},
    {"isspace", Is<IsAllSpace>},
    {"join", Join},
    {"lower", Convert<LowerText>},
    {"lstrip", Strip<StripSide::kLeft>},
    {"removeprefix", RemoveAffix<true>},
    {"removesuffix", RemoveAffix<false>},
    {"replace", Replace},
    {"rfind", Find<true>},
    {"rsplit", Split<true>},
    {"rstrip", Strip<StripSide::kRight>},
    {"split", Split<false>},
    {"splitlines", SplitIntoLines},
    {"startswith", HasAffix<true>},
    {"strip", Strip<StripSide::kBoth>},
    {"title", Convert<TitleText>},
    {"upper", Convert<UpperText>},
};

constexpr NamedMethod kDictMethods[] = {
    {"get", Get}, {"items", Items}, {"keys", Keys}, {"values", Values}};

constexpr NamedMethod kListMethods[] = {{"count", CountItems}};

template <size_t kSize>
Method FindIn(const NamedMethod (&methods)[kSize], absl::string_view name) {
  for (const NamedMethod& method : methods) {
    if (method.name == name) return method.method;
  }
  return nullptr;
}

Method FindMethod(const Value& object, absl::string_view name) {
  if (object.as_text() != nullptr) return FindIn(kTextMethods, name);
  if (object.as_dict() != nullptr) return FindIn(kDictMethods, name);
  if (object.as_list() != nullptr) return FindIn(kListMethods, name);
  return nullptr;
}

}  // namespace

bool HasMethod(const Value& object, absl::string_view name) {
  return FindMethod(object, name) != nullptr;
}

absl::StatusOr<Value> CallMethod(const Value& object, absl::string_view name,
                                 const Arguments& arguments, Budget* budget) {
  const Method method = FindMethod(object, name);
  if (method != nullptr) return method(object, arguments, budget);
  return absl::UnimplementedError(
      absl::StrCat("the method \"", name, "\" of a ", object.TypeName(), " is not supported"));
}

}  // namespace renga::model::jinja
