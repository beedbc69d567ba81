#include "coordinator/http/testing/raw_client.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace renga::http {

bool Eventually(const std::function<bool()>& holds) {
  const absl::Time end = absl::Now() + kTestPatience;
  while (!holds()) {
    if (absl::Now() >= end) return false;
    absl::SleepFor(absl::Milliseconds(2));
  }
  return true;
}

RawClient::RawClient(int port) : socket_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (connect(socket_, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    std::perror("cannot connect to the server under test");
    std::abort();
  }
}

RawClient::~RawClient() { Close(); }

void RawClient::Close() {
  if (socket_ >= 0) close(socket_);
  socket_ = -1;
}

bool RawClient::Send(absl::string_view data) {
  while (!data.empty()) {
    const ssize_t sent = send(socket_, data.data(), data.size(), MSG_NOSIGNAL);
    if (sent <= 0) return false;
    data.remove_prefix(static_cast<size_t>(sent));
  }
  return true;
}

std::string RawClient::ReadUntil(absl::string_view end) {
  const absl::Time deadline = absl::Now() + kTestPatience;
  while (true) {
    const size_t found =
        end.empty() ? std::string::npos : received_.find(end.data(), 0, end.size());
    if (found != std::string::npos) {
      std::string before = received_.substr(0, found + end.size());
      received_.erase(0, before.size());
      return before;
    }
    pollfd descriptor{.fd = socket_, .events = POLLIN, .revents = 0};
    const absl::Duration left = deadline - absl::Now();
    if (left <= absl::ZeroDuration()) break;
    if (poll(&descriptor, 1, static_cast<int>(absl::ToInt64Milliseconds(left)) + 1) <= 0) break;
    char buffer[4096];
    const ssize_t got = recv(socket_, buffer, sizeof buffer, 0);
    if (got <= 0) {
      closed_ = true;
      break;
    }
    received_.append(buffer, static_cast<size_t>(got));
  }
  return std::exchange(received_, "");
}

std::string PostRequest(absl::string_view path, absl::string_view body) {
  return absl::StrCat("POST ", path,
                      " HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n",
                      "Content-Length: ", body.size(), "\r\n\r\n", body);
}

}  // namespace renga::http
