// The HTTP library's server with bounded threads, on connections that are bounded, too.
#ifndef RENGA_COORDINATOR_HTTP_LISTENER_H_
#define RENGA_COORDINATOR_HTTP_LISTENER_H_

#include <atomic>
#include <deque>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "coordinator/http/connection.h"
#include "httplib.h"

namespace renga::http {

// One thread per connection, up to a number; further connections wait in the system's backlog.
// Thread-safe.
class ConnectionThreads : public httplib::TaskQueue {
 public:
  explicit ConnectionThreads(size_t max_threads) : max_threads_(max_threads) {}
  ~ConnectionThreads() override { shutdown(); }

  // Blocks while every thread is busy.
  void enqueue(std::function<void()> task) override;
  void shutdown() override;
  // A connection waits for a thread.
  bool HasWaiting() const;

 private:
  void Work();

  const size_t max_threads_;
  mutable absl::Mutex mutex_;
  std::deque<std::function<void()>> tasks_ ABSL_GUARDED_BY(mutex_);
  size_t idle_ ABSL_GUARDED_BY(mutex_) = 0;
  bool closing_ ABSL_GUARDED_BY(mutex_) = false;
  bool blocked_ ABSL_GUARDED_BY(mutex_) = false;  // enqueue waits
  std::vector<std::thread> threads_;  // touched by the accepting thread and shutdown only
};

// Set handlers first, then Listen, then Close; each once.
class Listener : public httplib::Server {
 public:
  Listener(const ConnectionLimits& limits, size_t max_connections);
  ~Listener() override { Close(); }

  // Accepts connections from now on, on threads of its own. `port` 0 takes any free one.
  absl::Status Listen(const std::string& host, int port);
  int port() const { return port_; }
  // Waits for connections to end: what their handlers wait for must have been stopped before.
  void Close();

 private:
  bool process_and_close_socket(socket_t socket) override;
  bool closing() const { return closing_.load(); }

  const ConnectionLimits limits_;
  const size_t max_connections_;
  std::atomic<ConnectionThreads*> threads_ = nullptr;  // owned by the library while it listens
  std::atomic<bool> closing_ = false;
  int port_ = 0;
  std::thread accept_thread_;
};

}  // namespace renga::http

#endif  // RENGA_COORDINATOR_HTTP_LISTENER_H_
