#include "base/byte_size.h"

#include <cmath>
#include <cstdlib>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace renga::base {
namespace {

// Factor of a unit such as "", "B", "k", "KiB", "MB"; 0 for anything else.
double UnitFactor(absl::string_view unit) {
  const std::string lower = absl::AsciiStrToLower(unit);
  if (lower.empty() || lower == "b") return 1;
  static constexpr absl::string_view kPrefixes = "kmgtp";
  const size_t power = kPrefixes.find(lower[0]);
  if (power == absl::string_view::npos) return 0;
  const absl::string_view rest = absl::string_view(lower).substr(1);
  if (rest.empty() || rest == "i" || rest == "ib") return std::pow(1024.0, power + 1.0);
  if (rest == "b") return std::pow(1000.0, power + 1.0);
  return 0;
}

}  // namespace

absl::StatusOr<int64_t> ParseByteSize(absl::string_view text) {
  const absl::string_view trimmed = absl::StripAsciiWhitespace(text);
  size_t split = 0;
  while (split < trimmed.size() && (absl::ascii_isdigit(trimmed[split]) || trimmed[split] == '.')) {
    ++split;
  }
  double number = 0;
  const double factor = UnitFactor(absl::StripLeadingAsciiWhitespace(trimmed.substr(split)));
  if (split == 0 || !absl::SimpleAtod(trimmed.substr(0, split), &number) || factor == 0 ||
      number * factor >= 9.2e18) {
    return absl::InvalidArgumentError(
        absl::StrCat("not a byte size: write it like 500MiB, 3.5GiB or 4GB, not '", text, "'"));
  }
  return static_cast<int64_t>(number * factor);
}

std::string FormatByteSize(int64_t bytes) {
  static constexpr const char* kUnits[] = {"KiB", "MiB", "GiB", "TiB", "PiB"};
  if (bytes > -1024 && bytes < 1024) return absl::StrCat(bytes, " B");
  double value = static_cast<double>(bytes) / 1024;
  size_t unit = 0;
  while (std::abs(value) >= 1024 && unit + 1 < std::size(kUnits)) {
    value /= 1024;
    ++unit;
  }
  return absl::StrFormat("%.1f %s", value, kUnits[unit]);
}

}  // namespace renga::base
