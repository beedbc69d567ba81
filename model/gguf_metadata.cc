#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "model/gguf_file.h"

namespace renga::model {
namespace {

absl::string_view KindOf(const GgufArray& array) {
  switch (array.index()) {
    case 0:
    case 1:
      return "an array of integers";
    case 2:
      return "an array of floats";
    case 3:
      return "an array of booleans";
    default:
      return "an array of strings";
  }
}

absl::string_view KindOf(const GgufValue& value) {
  switch (value.index()) {
    case 0:
    case 1:
      return "an integer";
    case 2:
      return "a float";
    case 3:
      return "a boolean";
    case 4:
      return "a string";
    default:
      return KindOf(std::get<GgufArray>(value));
  }
}

absl::Status WrongKind(absl::string_view key, const GgufValue& value, absl::string_view wanted) {
  return absl::InvalidArgumentError(
      absl::StrCat("metadata key ", key, " must be ", wanted, " but is ", KindOf(value)));
}

// A copy of an array of numbers as T, from whichever of `Sources` it holds; nullopt when it holds
// something else.
template <typename T, typename... Sources>
std::optional<std::vector<T>> ConvertArray(const GgufArray& array) {
  std::optional<std::vector<T>> result;
  (
      [&] {
        if (const auto* source = std::get_if<std::vector<Sources>>(&array)) {
          result.emplace(source->begin(), source->end());
        }
      }(),
      ...);
  return result;
}

}  // namespace

void GgufMetadata::Set(std::string key, GgufValue value) {
  const auto [it, is_new] = values_.insert_or_assign(key, std::move(value));
  if (is_new) keys_.push_back(std::move(key));
}

const GgufValue* GgufMetadata::Find(absl::string_view key) const {
  const auto it = values_.find(key);
  return it == values_.end() ? nullptr : &it->second;
}

absl::StatusOr<std::optional<std::string>> GgufMetadata::GetString(absl::string_view key) const {
  const GgufValue* value = Find(key);
  if (value == nullptr) return std::nullopt;
  if (const auto* text = std::get_if<std::string>(value)) return *text;
  return WrongKind(key, *value, "a string");
}

absl::StatusOr<std::optional<bool>> GgufMetadata::GetBool(absl::string_view key) const {
  const GgufValue* value = Find(key);
  if (value == nullptr) return std::nullopt;
  if (const auto* flag = std::get_if<bool>(value)) return *flag;
  return WrongKind(key, *value, "a boolean");
}

absl::StatusOr<std::optional<double>> GgufMetadata::GetFloat(absl::string_view key) const {
  const GgufValue* value = Find(key);
  if (value == nullptr) return std::nullopt;
  if (const auto* number = std::get_if<double>(value)) return *number;
  if (const auto* number = std::get_if<int64_t>(value)) return static_cast<double>(*number);
  if (const auto* number = std::get_if<uint64_t>(value)) return static_cast<double>(*number);
  return WrongKind(key, *value, "a number");
}

absl::StatusOr<std::optional<int64_t>> GgufMetadata::GetInt(absl::string_view key, int64_t min,
                                                            int64_t max) const {
  const GgufValue* value = Find(key);
  if (value == nullptr) return std::nullopt;
  if (const auto* number = std::get_if<int64_t>(value)) {
    if (*number >= min && *number <= max) return *number;
    return absl::InvalidArgumentError(absl::StrCat("metadata key ", key, " must lie between ", min,
                                                   " and ", max, " but is ", *number));
  }
  if (const auto* number = std::get_if<uint64_t>(value)) {
    if (std::in_range<int64_t>(*number) && static_cast<int64_t>(*number) >= min &&
        static_cast<int64_t>(*number) <= max) {
      return static_cast<int64_t>(*number);
    }
    return absl::InvalidArgumentError(absl::StrCat("metadata key ", key, " must lie between ", min,
                                                   " and ", max, " but is ", *number));
  }
  return WrongKind(key, *value, "an integer");
}

absl::StatusOr<const std::vector<std::string>*> GgufMetadata::GetStrings(
    absl::string_view key) const {
  const GgufValue* value = Find(key);
  if (value == nullptr) return static_cast<const std::vector<std::string>*>(nullptr);
  if (const auto* array = std::get_if<GgufArray>(value)) {
    if (const auto* strings = std::get_if<std::vector<std::string>>(array)) return strings;
  }
  return WrongKind(key, *value, "an array of strings");
}

absl::StatusOr<std::optional<std::vector<int64_t>>> GgufMetadata::GetInts(
    absl::string_view key) const {
  const GgufValue* value = Find(key);
  if (value == nullptr) return std::nullopt;
  const auto* array = std::get_if<GgufArray>(value);
  if (array == nullptr) return WrongKind(key, *value, "an array of integers");
  if (const auto* numbers = std::get_if<std::vector<uint64_t>>(array)) {
    for (const uint64_t number : *numbers) {
      if (std::in_range<int64_t>(number)) continue;
      return absl::InvalidArgumentError(
          absl::StrCat("metadata key ", key, " holds a number that is too large: ", number));
    }
  }
  auto result = ConvertArray<int64_t, int64_t, uint64_t>(*array);
  if (!result) return WrongKind(key, *value, "an array of integers");
  return result;
}

absl::StatusOr<std::optional<std::vector<double>>> GgufMetadata::GetFloats(
    absl::string_view key) const {
  const GgufValue* value = Find(key);
  if (value == nullptr) return std::nullopt;
  const auto* array = std::get_if<GgufArray>(value);
  if (array == nullptr) return WrongKind(key, *value, "an array of numbers");
  auto result = ConvertArray<double, double, int64_t, uint64_t>(*array);
  if (!result) return WrongKind(key, *value, "an array of numbers");
  return result;
}

}  // namespace renga::model
