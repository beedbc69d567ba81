#include "base/log.h"

#include <atomic>
#include <cstdio>
#include <cstring>
#include <string>

#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace renga::base {
namespace {

std::atomic<LogSeverity> g_threshold{LogSeverity::kWarning};

char Letter(LogSeverity severity) {
  switch (severity) {
    case LogSeverity::kDebug: return 'D';
    case LogSeverity::kInfo: return 'I';
    case LogSeverity::kWarning: return 'W';
    case LogSeverity::kError: return 'E';
  }
  return '?';
}

}  // namespace

void SetLogThreshold(LogSeverity severity) { g_threshold = severity; }
LogSeverity LogThreshold() { return g_threshold.load(std::memory_order_relaxed); }

LogMessage::LogMessage(LogSeverity severity, const char* file, int line) : severity_(severity) {
  const char* slash = std::strrchr(file, '/');
  stream_ << Letter(severity_) << absl::FormatTime("%H:%M:%E3S", absl::Now(), absl::LocalTimeZone())
          << ' ' << (slash ? slash + 1 : file) << ':' << line << "] ";
}

LogMessage::~LogMessage() {
  stream_ << '\n';
  const std::string text = stream_.str();
  // One write per message: lines of several threads and processes do not mix.
  std::fwrite(text.data(), 1, text.size(), stderr);
}

}  // namespace renga::base
