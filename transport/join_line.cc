#include "transport/join_line.h"

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace renga::transport {
namespace {

constexpr size_t kTokenDigits = 32;
constexpr size_t kFingerprintDigits = 64;

bool IsHex(absl::string_view text) {
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return absl::ascii_isxdigit(static_cast<unsigned char>(c)); });
}

absl::Status CheckPart(absl::string_view part, size_t digits, absl::string_view what) {
  if (part.size() == digits && IsHex(part)) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("--token: the ", what, " has ", digits, " hexadecimal digits, here it has ",
                   part.size(), " characters; copy the whole line that `renga up` printed"));
}

}  // namespace

std::string FormatJoinToken(const JoinToken& join_token) {
  return absl::StrCat(join_token.token, ".", join_token.fingerprint);
}

absl::StatusOr<JoinToken> ParseJoinToken(absl::string_view text) {
  text = absl::StripAsciiWhitespace(text);
  const size_t dot = text.find('.');
  if (dot == absl::string_view::npos) {
    return absl::InvalidArgumentError(
        "--token is TOKEN.FINGERPRINT; copy the whole line that `renga up` printed");
  }
  const absl::string_view token = text.substr(0, dot);
  const absl::string_view fingerprint = text.substr(dot + 1);
  if (auto status = CheckPart(token, kTokenDigits, "token"); !status.ok()) return status;
  if (auto status = CheckPart(fingerprint, kFingerprintDigits, "fingerprint"); !status.ok()) {
    return status;
  }
  return JoinToken{.token = absl::AsciiStrToLower(token),
                   .fingerprint = absl::AsciiStrToLower(fingerprint)};
}

std::string FormatJoinLine(absl::string_view address, const JoinToken& join_token) {
  return absl::StrCat("renga worker ", address, " --token ", FormatJoinToken(join_token));
}

}  // namespace renga::transport
