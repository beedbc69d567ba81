// A small log: one line on standard error per message, with severity, time and file.
// Debian 12's Abseil has no absl/log; the macro keeps its shape so that it can be replaced.
//
//   RENGA_LOG(INFO) << "worker " << name << " joined";
//
// Thread-safe. The threshold comes from SetLogThreshold (the command line's --verbose / --quiet).
#ifndef RENGA_BASE_LOG_H_
#define RENGA_BASE_LOG_H_

#include <sstream>

namespace renga::base {

enum class LogSeverity { kDebug, kInfo, kWarning, kError };

// Messages below `severity` are dropped. The default is kWarning.
void SetLogThreshold(LogSeverity severity);
LogSeverity LogThreshold();

// Collects one message and writes it in one piece when destroyed.
class LogMessage {
 public:
  LogMessage(LogSeverity severity, const char* file, int line);
  ~LogMessage();
  LogMessage(const LogMessage&) = delete;
  LogMessage& operator=(const LogMessage&) = delete;
  std::ostream& stream() { return stream_; }

 private:
  const LogSeverity severity_;
  std::ostringstream stream_;
};

inline constexpr LogSeverity kLogDEBUG = LogSeverity::kDebug;
inline constexpr LogSeverity kLogINFO = LogSeverity::kInfo;
inline constexpr LogSeverity kLogWARNING = LogSeverity::kWarning;
inline constexpr LogSeverity kLogERROR = LogSeverity::kError;

}  // namespace renga::base

#define RENGA_LOG(severity)                                                        \
  if (::renga::base::kLog##severity < ::renga::base::LogThreshold()) {             \
  } else                                                                           \
    ::renga::base::LogMessage(::renga::base::kLog##severity, __FILE__, __LINE__).stream()

#endif  // RENGA_BASE_LOG_H_
