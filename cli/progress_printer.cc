#include "cli/progress_printer.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/byte_size.h"

namespace renga::cli {
namespace {

constexpr int kBarWidth = 30;
constexpr absl::Duration kTerminalInterval = absl::Milliseconds(100);
// A log file wants to know that work goes on, not how smoothly.
constexpr absl::Duration kPlainInterval = absl::Seconds(5);

}  // namespace

ProgressPrinter::ProgressPrinter(std::string label, bool quiet)
    : label_(std::move(label)),
      quiet_(quiet),
      terminal_(::isatty(STDERR_FILENO) == 1),
      // Work that ends within the first interval prints nothing.
      last_print_(absl::Now()) {}

ProgressPrinter::~ProgressPrinter() { Finish(); }

void ProgressPrinter::Update(int64_t done_bytes, int64_t total_bytes) {
  Draw(total_bytes > 0 ? static_cast<double>(done_bytes) / static_cast<double>(total_bytes) : 0,
       base::FormatByteSize(done_bytes) + " of " + base::FormatByteSize(total_bytes));
}

void ProgressPrinter::UpdateCount(int64_t done, int64_t total, const std::string& unit) {
  Draw(total > 0 ? static_cast<double>(done) / static_cast<double>(total) : 0,
       absl::StrCat(done, " of ", total, " ", unit));
}

void ProgressPrinter::Draw(double share, const std::string& amount) {
  absl::MutexLock lock(&mutex_);
  const absl::Time now = absl::Now();
  if (quiet_ || now - last_print_ < (terminal_ ? kTerminalInterval : kPlainInterval)) return;
  last_print_ = now;
  share = std::clamp(share, 0.0, 1.0);
  if (!terminal_) {
    std::fprintf(stderr, "%s: %s (%.0f%%)\n", label_.c_str(), amount.c_str(), 100 * share);
    return;
  }
  const int filled = static_cast<int>(share * kBarWidth);
  std::fprintf(stderr, "\r\033[K%s [%s%s] %s", label_.c_str(), std::string(filled, '#').c_str(),
               std::string(kBarWidth - filled, '.').c_str(), amount.c_str());
  std::fflush(stderr);
  drawn_ = true;
}

void ProgressPrinter::Finish() {
  absl::MutexLock lock(&mutex_);
  if (drawn_) std::fputs("\r\033[K", stderr);
  drawn_ = false;
}

}  // namespace renga::cli
