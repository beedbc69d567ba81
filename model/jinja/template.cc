#include "model/jinja/template.h"

#include <utility>

#include "base/status_macros.h"
#include "model/jinja/interpreter.h"
#include "model/jinja/parser.h"

namespace renga::model::jinja {
namespace {

constexpr int64_t kSteps = 2'000'000;
constexpr int64_t kBaseBytes = int64_t{16} << 20;
// How often a template may copy each byte it is given: cutting, joining and printing a message
// copies it a few times.
constexpr int64_t kCopies = 64;

int64_t TextBytes(const Value& value) {
  int64_t bytes = 0;
  if (const std::string* text = value.as_text()) bytes = static_cast<int64_t>(text->size());
  if (const List* list = value.as_list()) {
    for (const Value& item : list->items) bytes += TextBytes(item);
  }
  if (const Dict* dict = value.as_dict()) {
    for (const auto& [key, item] : dict->entries) bytes += TextBytes(item);
  }
  return bytes;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Template>> Template::Parse(absl::string_view source) {
  RENGA_ASSIGN_OR_RETURN(Block block, ParseTemplate(source));
  return std::unique_ptr<Template>(new Template(std::move(block)));
}

absl::StatusOr<std::string> Template::Render(const Dict& globals) const {
  int64_t bytes = kBaseBytes;
  for (const auto& [name, value] : globals.entries) bytes += kCopies * TextBytes(value);
  return Interpreter(globals, Budget(kSteps, bytes)).Run(block_);
}

}  // namespace renga::model::jinja
