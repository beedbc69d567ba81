// GET /metrics: Prometheus text.
#ifndef RENGA_COORDINATOR_HTTP_METRICS_H_
#define RENGA_COORDINATOR_HTTP_METRICS_H_

#include <cstdint>
#include <map>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "coordinator/serving/stats.h"

namespace renga::http {

// Counts answered HTTP requests. Thread-safe.
class RequestCounter {
 public:
  // `route` is one of the server's own, never text from a request: that would be unbounded.
  void Count(const std::string& route, int http_status);
  std::map<std::pair<std::string, int>, uint64_t> Counts() const;

 private:
  mutable absl::Mutex mutex_;
  std::map<std::pair<std::string, int>, uint64_t> counts_ ABSL_GUARDED_BY(mutex_);
};

std::string MetricsText(const RequestCounter& counter, const serving::ServingStats& stats);

}  // namespace renga::http

#endif  // RENGA_COORDINATOR_HTTP_METRICS_H_
