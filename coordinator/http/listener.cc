#include "coordinator/http/listener.h"

#include <netdb.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace renga::http {
namespace {

// There is no limit, but no way to say so.
constexpr size_t kKeepAliveRequests = 1000000;

// The library's default lets a second server take the same port without a word.
void ReuseAddressOnly(socket_t socket) {
  const int yes = 1;
  setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
}

absl::Status BindError(const std::string& host, int port, int error) {
  const std::string where = absl::StrCat(host, " port ", port);
  switch (error) {
    case EADDRINUSE:
      return absl::FailedPreconditionError(
          absl::StrCat("cannot listen on ", where, ": another program uses this port"));
    case EACCES:
      return absl::FailedPreconditionError(
          absl::StrCat("cannot listen on ", where, ": ports below 1024 need more rights"));
    case EADDRNOTAVAIL:
      return absl::InvalidArgumentError(
          absl::StrCat("cannot listen on ", where, ": not an address of this machine"));
    default:
      return absl::InvalidArgumentError(absl::StrCat(
          "cannot listen on ", where, error == 0 ? "" : ": ", error == 0 ? "" : strerror(error)));
  }
}

bool Resolves(const std::string& host) {
  addrinfo* found = nullptr;
  addrinfo hints{};
  hints.ai_flags = AI_PASSIVE;
  hints.ai_socktype = SOCK_STREAM;
  if (getaddrinfo(host.c_str(), nullptr, &hints, &found) != 0) return false;
  freeaddrinfo(found);
  return true;
}

}  // namespace

void ConnectionThreads::enqueue(std::function<void()> task) {
  absl::MutexLock lock(&mutex_);
  if (idle_ <= tasks_.size() && threads_.size() < max_threads_) {
    threads_.emplace_back([this] { Work(); });
  } else if (idle_ <= tasks_.size()) {
    const auto room = [this]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
      return closing_ || idle_ > tasks_.size();
    };
    blocked_ = true;
    mutex_.Await(absl::Condition(&room));
    blocked_ = false;
  }
  tasks_.push_back(std::move(task));
}

void ConnectionThreads::Work() {
  while (true) {
    std::function<void()> task;
    {
      absl::MutexLock lock(&mutex_);
      const auto wake = [this]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
        return closing_ || !tasks_.empty();
      };
      ++idle_;
      mutex_.Await(absl::Condition(&wake));
      --idle_;
      if (tasks_.empty()) return;
      task = std::move(tasks_.front());
      tasks_.pop_front();
    }
    task();
  }
}

void ConnectionThreads::shutdown() {
  {
    absl::MutexLock lock(&mutex_);
    closing_ = true;
  }
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

bool ConnectionThreads::HasWaiting() const {
  absl::MutexLock lock(&mutex_);
  return blocked_;
}

Listener::Listener(const ConnectionLimits& limits, size_t max_connections)
    : limits_(limits), max_connections_(max_connections) {
  set_socket_options(ReuseAddressOnly);
  set_tcp_nodelay(true);
  // What answers say of the connection; AwaitRequest is what keeps to it.
  set_keep_alive_timeout(absl::ToInt64Seconds(limits.keep_alive_time));
  set_keep_alive_max_count(kKeepAliveRequests);
  new_task_queue = [this] {
    auto* threads = new ConnectionThreads(max_connections_);
    threads_.store(threads);
    return threads;
  };
}

absl::Status Listener::Listen(const std::string& host, int port) {
  if (port < 0 || port > 65535) {
    return absl::InvalidArgumentError(absl::StrCat("a port is from 0 to 65535, not ", port));
  }
  if (!Resolves(host)) {
    return absl::InvalidArgumentError(absl::StrCat("\"", host, "\" is no address to listen on"));
  }
  errno = 0;
  port_ = port == 0 ? bind_to_any_port(host) : (bind_to_port(host, port) ? port : -1);
  if (port_ < 0) return BindError(host, port, errno);
  accept_thread_ = std::thread([this] { listen_after_bind(); });
  // The library can be stopped only once it runs.
  while (!is_running()) absl::SleepFor(absl::Milliseconds(1));
  return absl::OkStatus();
}

void Listener::Close() {
  if (!accept_thread_.joinable()) return;
  closing_.store(true);
  stop();
  accept_thread_.join();
}

bool Listener::process_and_close_socket(socket_t socket) {
  Connection connection(socket, limits_);
  const auto give_up = [this] { return closing() || threads_.load()->HasWaiting(); };
  bool written = true;
  bool asked_to_close = false;
  while (written && !asked_to_close && connection.AwaitRequest(give_up)) {
    written = process_request(connection, /*close_connection=*/false, asked_to_close, nullptr);
  }
  return written;
}

}  // namespace renga::http
