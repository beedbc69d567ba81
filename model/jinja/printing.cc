#include "model/jinja/printing.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/status_macros.h"
#include "model/unicode.h"

namespace renga::model::jinja {
namespace {

// Python's repr of a float: the shortest digits that read back the same, in plain notation while
// the exponent is in [-4, 16).
std::string FloatText(double number) {
  if (std::isnan(number)) return "nan";
  if (std::isinf(number)) return number < 0 ? "-inf" : "inf";
  char buffer[64];
  const auto end =
      std::to_chars(buffer, buffer + sizeof buffer, number, std::chars_format::scientific).ptr;
  const absl::string_view shortest(buffer, static_cast<size_t>(end - buffer));
  const size_t e = shortest.find('e');
  const int exponent = std::atoi(std::string(shortest.substr(e + 1)).c_str());
  if (exponent < -4 || exponent >= 16) return std::string(shortest);
  const auto plain_end =
      std::to_chars(buffer, buffer + sizeof buffer, number, std::chars_format::fixed).ptr;
  std::string text(buffer, plain_end);
  if (text.find('.') == std::string::npos) text += ".0";
  return text;
}

std::string TextRepr(absl::string_view text) {
  const bool has_single = text.find('\'') != absl::string_view::npos;
  const bool has_double = text.find('"') != absl::string_view::npos;
  const char quote = has_single && !has_double ? '"' : '\'';
  std::string out(1, quote);
  for (char c : text) {
    if (c == quote || c == '\\') {
      absl::StrAppend(&out, "\\", std::string(1, c));
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\t') {
      out += "\\t";
    } else if (c == '\r') {
      out += "\\r";
    } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) {
      absl::StrAppendFormat(&out, "\\x%02x", c);
    } else {
      out.push_back(c);
    }
  }
  out.push_back(quote);
  return out;
}

class ReprWriter {
 public:
  explicit ReprWriter(Budget* budget) : budget_(*budget) {}
  std::string& text() { return text_; }

  absl::Status Write(const Value& value) {
    const size_t before = text_.size();
    if (const std::string* text = value.as_text()) {
      text_ += TextRepr(*text);
    } else if (const List* list = value.as_list()) {
      return WriteList(*list);
    } else if (const Dict* dict = value.as_dict()) {
      return WriteDict(*dict);
    } else {
      text_ += Plain(value);
    }
    return budget_.Charge(text_.size() - before);
  }

  static std::string Plain(const Value& value) {
    if (value.is_undefined()) return "Undefined";
    if (value.is_none()) return "None";
    if (const bool* b = value.as_bool()) return *b ? "True" : "False";
    if (value.is_integer()) return absl::StrCat(value.integer());
    if (value.is_number()) return FloatText(value.number());
    return absl::StrCat("<", value.TypeName(), ">");
  }

 private:
  absl::Status WriteList(const List& list) {
    RENGA_RETURN_IF_ERROR(budget_.Charge(2 + 2 * list.items.size()));
    text_ += list.is_tuple ? "(" : "[";
    for (size_t i = 0; i < list.items.size(); ++i) {
      if (i > 0) text_ += ", ";
      RENGA_RETURN_IF_ERROR(Write(list.items[i]));
    }
    if (list.is_tuple && list.items.size() == 1) text_ += ",";
    text_ += list.is_tuple ? ")" : "]";
    return absl::OkStatus();
  }

  absl::Status WriteDict(const Dict& dict) {
    text_ += "{";
    for (size_t i = 0; i < dict.entries.size(); ++i) {
      if (i > 0) text_ += ", ";
      const std::string key = TextRepr(dict.entries[i].first);
      RENGA_RETURN_IF_ERROR(budget_.Charge(key.size() + 4));
      absl::StrAppend(&text_, key, ": ");
      RENGA_RETURN_IF_ERROR(Write(dict.entries[i].second));
    }
    text_ += "}";
    return budget_.Charge(2);
  }

  Budget& budget_;
  std::string text_;
};

class JsonWriter {
 public:
  JsonWriter(const JsonStyle& style, Budget* budget) : style_(style), budget_(*budget) {}
  std::string& text() { return text_; }

  absl::Status Write(const Value& value) {
    const size_t before = text_.size();
    if (value.is_none()) {
      text_ += "null";
    } else if (const bool* b = value.as_bool()) {
      text_ += *b ? "true" : "false";
    } else if (value.is_number()) {
      text_ += ReprWriter::Plain(value);
    } else if (const std::string* text = value.as_text()) {
      WriteText(*text);
    } else if (const List* list = value.as_list()) {
      return WriteList(*list);
    } else if (const Dict* dict = value.as_dict()) {
      return WriteDict(*dict);
    } else {
      return absl::InvalidArgumentError(
          absl::StrCat("the chat template writes a ", value.TypeName(), " as JSON"));
    }
    return budget_.Charge(text_.size() - before);
  }

 private:
  void WriteText(absl::string_view text) {
    text_ += '"';
    while (!text.empty()) {
      const DecodedChar c = DecodeChar(text);
      WriteChar(c.code_point, text.substr(0, c.length));
      text.remove_prefix(c.length);
    }
    text_ += '"';
  }

  void WriteChar(char32_t c, absl::string_view bytes) {
    constexpr absl::string_view kEscaped = "\"\\\n\r\t\b\f";
    constexpr absl::string_view kLetters = "\"\\nrtbf";
    const size_t known = c < 0x80 ? kEscaped.find(static_cast<char>(c)) : absl::string_view::npos;
    if (known != absl::string_view::npos) {
      text_ += '\\';
      text_ += kLetters[known];
    } else if (c >= 0x10000 && style_.ascii_only) {
      absl::StrAppendFormat(&text_, "\\u%04x\\u%04x", 0xD800 + ((c - 0x10000) >> 10),
                            0xDC00 + (c & 0x3FF));
    } else if (c < 0x20 || (c >= 0x7F && style_.ascii_only)) {
      absl::StrAppendFormat(&text_, "\\u%04x", static_cast<uint32_t>(c));
    } else {
      absl::StrAppend(&text_, bytes);
    }
  }

  // The line end and indentation in front of an element or a closing bracket.
  absl::Status NewLine() {
    if (style_.indent < 0) return absl::OkStatus();
    const size_t spaces = static_cast<size_t>(style_.indent) * static_cast<size_t>(level_);
    RENGA_RETURN_IF_ERROR(budget_.Charge(spaces + 1));
    text_ += '\n';
    text_.append(spaces, ' ');
    return absl::OkStatus();
  }

  // Between elements; with indentation the space after the comma goes.
  absl::Status Separate() {
    absl::string_view separator = style_.item_separator;
    if (style_.indent >= 0 && separator == ", ") separator = ",";
    RENGA_RETURN_IF_ERROR(budget_.Charge(separator.size()));
    absl::StrAppend(&text_, separator);
    return absl::OkStatus();
  }

  absl::Status WriteList(const List& list) {
    RENGA_RETURN_IF_ERROR(budget_.Charge(2));
    text_ += '[';
    ++level_;
    for (size_t i = 0; i < list.items.size(); ++i) {
      if (i > 0) RENGA_RETURN_IF_ERROR(Separate());
      RENGA_RETURN_IF_ERROR(NewLine());
      RENGA_RETURN_IF_ERROR(Write(list.items[i]));
    }
    --level_;
    if (!list.items.empty()) RENGA_RETURN_IF_ERROR(NewLine());
    text_ += ']';
    return absl::OkStatus();
  }

  absl::Status WriteDict(const Dict& dict) {
    RENGA_RETURN_IF_ERROR(budget_.Charge(2));
    std::vector<const std::pair<std::string, Value>*> entries;
    for (const auto& entry : dict.entries) entries.push_back(&entry);
    if (style_.sort_keys) {
      std::sort(entries.begin(), entries.end(),
                [](const auto* a, const auto* b) { return a->first < b->first; });
    }
    text_ += '{';
    ++level_;
    for (size_t i = 0; i < entries.size(); ++i) {
      if (i > 0) RENGA_RETURN_IF_ERROR(Separate());
      RENGA_RETURN_IF_ERROR(NewLine());
      RENGA_RETURN_IF_ERROR(budget_.Charge(entries[i]->first.size() + style_.key_separator.size()));
      WriteText(entries[i]->first);
      text_ += style_.key_separator;
      RENGA_RETURN_IF_ERROR(Write(entries[i]->second));
    }
    --level_;
    if (!entries.empty()) RENGA_RETURN_IF_ERROR(NewLine());
    text_ += '}';
    return absl::OkStatus();
  }

  const JsonStyle& style_;
  Budget& budget_;
  std::string text_;
  int level_ = 0;
};

}  // namespace

absl::StatusOr<std::string> ToText(const Value& value, Budget* budget) {
  if (value.is_undefined()) return std::string();
  if (const std::string* text = value.as_text()) {
    RENGA_RETURN_IF_ERROR(budget->Charge(text->size()));
    return *text;
  }
  ReprWriter writer(budget);
  RENGA_RETURN_IF_ERROR(writer.Write(value));
  return std::move(writer.text());
}

absl::StatusOr<std::string> ToJson(const Value& value, const JsonStyle& style, Budget* budget) {
  JsonWriter writer(style, budget);
  RENGA_RETURN_IF_ERROR(writer.Write(value));
  return std::move(writer.text());
}

}  // namespace renga::model::jinja
