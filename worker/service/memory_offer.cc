#include "worker/service/memory_offer.h"

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "base/byte_size.h"
#include "base/file.h"
#include "base/log.h"
#include "base/status_macros.h"

namespace renga::worker {
namespace {

constexpr int64_t kMostFileBytes = 4096;

}  // namespace

absl::StatusOr<int64_t> ReadOffer(const std::string& path) {
  RENGA_ASSIGN_OR_RETURN(const std::string text, base::ReadFile(path, kMostFileBytes));
  const std::string line(absl::StripAsciiWhitespace(text.substr(0, text.find('\n'))));
  const absl::StatusOr<int64_t> bytes = base::ParseByteSize(line);
  if (bytes.ok() && *bytes > 0) return *bytes;
  return absl::InvalidArgumentError(
      absl::StrCat("the first line of ", path, " should say how much memory to offer, as 3.5GiB"));
}

MemoryOffer::MemoryOffer(Options options)
    : options_(std::move(options)),
      first_limit_(options_.limit ? options_.limit() : std::nullopt),
      said_(options_.bytes) {}

int64_t MemoryOffer::Now() {
  if (!options_.file.empty()) {
    const absl::StatusOr<int64_t> bytes = ReadOffer(options_.file);
    const std::string complaint(bytes.status().message());
    if (bytes.ok()) {
      said_ = *bytes;
    } else if (complaint != complaint_) {
      RENGA_LOG(WARNING) << complaint << "; going on with " << base::FormatByteSize(said_);
    }
    complaint_ = complaint;
  }
  const std::optional<int64_t> limit = options_.limit ? options_.limit() : std::nullopt;
  const bool lowered = limit.has_value() && (!first_limit_.has_value() || *limit < *first_limit_);
  return lowered ? std::min(said_, *limit / 10 * 9) : said_;
}

}  // namespace renga::worker
