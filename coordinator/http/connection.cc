#include "coordinator/http/connection.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "absl/time/clock.h"

namespace renga::http {
namespace {

constexpr size_t kBufferBytes = 16 << 10;
constexpr absl::Duration kPollInterval = absl::Milliseconds(100);
constexpr absl::Duration kDrainTime = absl::Seconds(1);
constexpr int64_t kDrainBytes = int64_t{16} << 20;

thread_local Connection* current = nullptr;

void NameAddress(const sockaddr_storage& address, socklen_t length, std::string& ip, int& port) {
  char host[NI_MAXHOST];
  char service[NI_MAXSERV];
  if (getnameinfo(reinterpret_cast<const sockaddr*>(&address), length, host, sizeof host, service,
                  sizeof service, NI_NUMERICHOST | NI_NUMERICSERV) == 0) {
    ip = host;
    port = std::atoi(service);
  }
}

}  // namespace

Connection::Connection(socket_t socket, const ConnectionLimits& limits)
    : socket_(socket), limits_(limits), buffer_(kBufferBytes) {
  current = this;
}

Connection::~Connection() {
  current = nullptr;
  shutdown(socket_, SHUT_WR);
  if (close_after_response_) Drain();
  close(socket_);
}

Connection* Connection::Current() { return current; }

bool Connection::Wait(short events, absl::Duration timeout) const {
  pollfd descriptor{.fd = socket_, .events = events, .revents = 0};
  const int64_t ms = std::clamp<int64_t>(
      absl::ToInt64Milliseconds(absl::Ceil(timeout, absl::Milliseconds(1))), 0, 1 << 30);
  int ready = 0;
  do {
    ready = poll(&descriptor, 1, static_cast<int>(ms));
  } while (ready < 0 && errno == EINTR);
  return ready > 0;
}

bool Connection::AwaitRequest(const std::function<bool()>& give_up) {
  if (close_after_response_) return false;
  const absl::Time idle_end = absl::Now() + limits_.keep_alive_time;
  // What has come already is never given up.
  while (begin_ == end_ && !Wait(POLLIN, std::min(kPollInterval, limits_.keep_alive_time))) {
    if (give_up() || absl::Now() >= idle_end) return false;
  }
  bytes_left_ = limits_.max_request_bytes;
  read_deadline_ = absl::Now() + limits_.request_time;
  return true;
}

bool Connection::PeerGone() const {
  pollfd descriptor{.fd = socket_, .events = POLLRDHUP, .revents = 0};
  return poll(&descriptor, 1, 0) > 0;
}

bool Connection::is_readable() const {
  return begin_ < end_ || Wait(POLLIN, read_deadline_ - absl::Now());
}

bool Connection::is_writable() const { return !PeerGone() && Wait(POLLOUT, limits_.write_time); }

bool Connection::Fill() {
  while (true) {
    const absl::Duration left = read_deadline_ - absl::Now();
    if (left <= absl::ZeroDuration() || !Wait(POLLIN, left)) return false;
    const ssize_t got = recv(socket_, buffer_.data(), buffer_.size(), MSG_DONTWAIT);
    if (got > 0) {
      begin_ = 0;
      end_ = static_cast<size_t>(got);
      return true;
    }
    if (got == 0 || (errno != EINTR && errno != EAGAIN)) return false;
  }
}

ssize_t Connection::read(char* out, size_t size) {
  if (bytes_left_ <= 0 || (begin_ == end_ && !Fill())) {
    // Where the next request would begin is not known.
    close_after_response_ = true;
    return -1;
  }
  const size_t count = std::min({size, end_ - begin_, static_cast<size_t>(bytes_left_)});
  std::memcpy(out, buffer_.data() + begin_, count);
  begin_ += count;
  bytes_left_ -= static_cast<int64_t>(count);
  return static_cast<ssize_t>(count);
}

ssize_t Connection::write(const char* data, size_t size) {
  while (true) {
    const ssize_t sent = send(socket_, data, size, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent >= 0) return sent;
    if (errno == EAGAIN) {
      if (!Wait(POLLOUT, limits_.write_time)) return -1;
    } else if (errno != EINTR) {
      return -1;
    }
  }
}

void Connection::get_remote_ip_and_port(std::string& ip, int& port) const {
  sockaddr_storage address{};
  socklen_t length = sizeof address;
  if (getpeername(socket_, reinterpret_cast<sockaddr*>(&address), &length) == 0) {
    NameAddress(address, length, ip, port);
  }
}

void Connection::get_local_ip_and_port(std::string& ip, int& port) const {
  sockaddr_storage address{};
  socklen_t length = sizeof address;
  if (getsockname(socket_, reinterpret_cast<sockaddr*>(&address), &length) == 0) {
    NameAddress(address, length, ip, port);
  }
}

void Connection::Drain() {
  const absl::Time end = absl::Now() + kDrainTime;
  int64_t drained = 0;
  while (drained < kDrainBytes && absl::Now() < end && Wait(POLLIN, end - absl::Now())) {
    const ssize_t got = recv(socket_, buffer_.data(), buffer_.size(), MSG_DONTWAIT);
    if (got <= 0) return;
    drained += got;
  }
}

}  // namespace renga::http
