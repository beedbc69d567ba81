// A TCP client for tests that says exactly what it is told: what a well-behaved HTTP client would
// never send, or never stop to send.
#ifndef RENGA_COORDINATOR_HTTP_TESTING_RAW_CLIENT_H_
#define RENGA_COORDINATOR_HTTP_TESTING_RAW_CLIENT_H_

#include <functional>
#include <string>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace renga::http {

// Longer than anything in a test should take.
inline constexpr absl::Duration kTestPatience = absl::Seconds(20);

// Asks again and again until `holds` or the patience is over; says which.
bool Eventually(const std::function<bool()>& holds);

class RawClient {
 public:
  // Connects to a port of loopback. Ends the test program when that fails.
  explicit RawClient(int port);
  ~RawClient();
  RawClient(const RawClient&) = delete;
  RawClient& operator=(const RawClient&) = delete;

  // False when the server does not take it.
  bool Send(absl::string_view data);
  // Everything until `end` was received, the server closed, or the patience is over.
  std::string ReadUntil(absl::string_view end);
  // Everything until the server closes.
  std::string ReadToEnd() { return ReadUntil(""); }
  // The server has closed the connection, and said so within the patience.
  bool closed() const { return closed_; }
  void Close();

 private:
  int socket_ = -1;
  std::string received_;  // beyond the last `end`
  bool closed_ = false;
};

// A POST of JSON, as bytes.
std::string PostRequest(absl::string_view path, absl::string_view body);

}  // namespace renga::http

#endif  // RENGA_COORDINATOR_HTTP_TESTING_RAW_CLIENT_H_
