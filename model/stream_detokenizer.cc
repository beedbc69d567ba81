#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "model/tokenizer.h"
#include "model/unicode.h"

namespace renga::model {
namespace {

constexpr absl::string_view kReplacementText = "\xEF\xBF\xBD";  // U+FFFD

// Takes from `bytes` what is certain: all but an unfinished character at the end.
std::string TakeCertain(std::string* bytes) {
  std::string out;
  absl::string_view rest = *bytes;
  while (!rest.empty()) {
    const Utf8Unit unit = InspectUtf8(rest);
    if (unit.state == Utf8State::kIncomplete) break;
    const bool whole = unit.state == Utf8State::kWhole;
    const absl::string_view text = whole ? rest.substr(0, unit.length) : kReplacementText;
    out.append(text.data(), text.size());
    rest.remove_prefix(unit.length);
  }
  bytes->erase(0, bytes->size() - rest.size());
  return out;
}

}  // namespace

std::string StreamDetokenizer::Add(TokenId id) {
  if (tokenizer_->IsControl(id)) return "";
  const std::string piece = tokenizer_->Piece(id);
  if (piece.empty()) return "";
  absl::string_view text = piece;
  if (at_text_start_ && tokenizer_->strips_leading_space()) absl::ConsumePrefix(&text, " ");
  at_text_start_ = false;
  pending_.append(text.data(), text.size());
  return TakeCertain(&pending_);
}

std::string StreamDetokenizer::Finish() {
  std::string out;
  if (!pending_.empty()) out = std::string(kReplacementText);
  pending_.clear();
  return out;
}

}  // namespace renga::model
