// One client's connection as the HTTP library reads and writes it, with the bounds that the library
// does not have: bytes and time for a request to arrive, time for a client to read, and whether the
// client is still there.
#ifndef RENGA_COORDINATOR_HTTP_CONNECTION_H_
#define RENGA_COORDINATOR_HTTP_CONNECTION_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "httplib.h"

namespace renga::http {

struct ConnectionLimits {
  int64_t max_request_bytes = 0;                       // line, headers and body
  absl::Duration request_time = absl::Seconds(30);     // from its first byte to its last
  absl::Duration write_time = absl::Seconds(30);       // without the client taking anything
  absl::Duration keep_alive_time = absl::Seconds(30);  // between requests
};

// Used by the thread that serves the connection, and by no other.
class Connection : public httplib::Stream {
 public:
  // Takes over `socket`.
  Connection(socket_t socket, const ConnectionLimits& limits);
  ~Connection() override;
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  // The connection that the calling thread is serving: handlers of the HTTP library are not told.
  static Connection* Current();

  // Waits for the next request to begin. False: there can be none, because the client left or its
  // last request did not come whole; or the client was idle for too long, or `give_up`, which is
  // asked several times per second while nothing comes, said so.
  bool AwaitRequest(const std::function<bool()>& give_up);
  // The client closed its side or the connection broke.
  bool PeerGone() const;
  // Nothing more is read after the present request: some of it may be left unread.
  void CloseAfterResponse() { close_after_response_ = true; }
  bool close_after_response() const { return close_after_response_; }

  bool is_readable() const override;
  bool is_writable() const override;
  ssize_t read(char* out, size_t size) override;
  ssize_t write(const char* data, size_t size) override;
  void get_remote_ip_and_port(std::string& ip, int& port) const override;
  void get_local_ip_and_port(std::string& ip, int& port) const override;
  socket_t socket() const override { return socket_; }

 private:
  // Waits for any of poll's `events`.
  bool Wait(short events, absl::Duration timeout) const;
  bool Fill();
  // Lets the client read the answer before the socket goes: closing with unread bytes resets it.
  void Drain();

  const socket_t socket_;
  const ConnectionLimits limits_;
  std::vector<char> buffer_;
  size_t begin_ = 0;
  size_t end_ = 0;
  int64_t bytes_left_ = 0;
  absl::Time read_deadline_;
  bool close_after_response_ = false;
};

}  // namespace renga::http

#endif  // RENGA_COORDINATOR_HTTP_CONNECTION_H_
