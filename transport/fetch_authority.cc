// Reads a server's certificate chain before anything is trusted: the caller knows nothing but the
// authority's fingerprint. gRPC gives no access to an unverified chain, so this speaks TLS itself
// and hangs up after the handshake.
#include <fcntl.h>
#include <netdb.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/status_macros.h"
#include "transport/certificate.h"
#include "transport/dialer.h"
#include "transport/identity.h"

namespace renga::transport {
namespace {

struct SocketDeleter {
  void operator()(SSL_CTX* context) const { SSL_CTX_free(context); }
  void operator()(SSL* ssl) const { SSL_free(ssl); }
  void operator()(addrinfo* addresses) const { ::freeaddrinfo(addresses); }
};

class Socket {
 public:
  explicit Socket(int fd) : fd_(fd) {}
  ~Socket() {
    if (fd_ >= 0) ::close(fd_);
  }
  Socket(Socket&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;
  int fd() const { return fd_; }

 private:
  int fd_;
};

// While it lives, writing to a socket the peer has closed is an error code in this thread and not a
// signal that ends the process: OpenSSL writes without MSG_NOSIGNAL.
class NoPipeSignal {
 public:
  NoPipeSignal() {
    sigemptyset(&pipe_);
    sigaddset(&pipe_, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &pipe_, &before_);
  }
  ~NoPipeSignal() {
    const timespec now = {};
    while (sigtimedwait(&pipe_, nullptr, &now) > 0) {
    }
    pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }
  NoPipeSignal(const NoPipeSignal&) = delete;
  NoPipeSignal& operator=(const NoPipeSignal&) = delete;

 private:
  sigset_t pipe_;
  sigset_t before_;
};

// True when the socket became ready before the deadline.
bool WaitFor(int fd, short events, absl::Time deadline) {
  while (true) {
    const int64_t left_ms = absl::ToInt64Milliseconds(deadline - absl::Now());
    if (left_ms <= 0) return false;
    pollfd entry = {.fd = fd, .events = events, .revents = 0};
    const int ready = ::poll(&entry, 1, static_cast<int>(std::min<int64_t>(left_ms, 60'000)));
    if (ready > 0) return true;
    if (ready < 0 && errno != EINTR) return false;
  }
}

// A connected socket that doesn't block, or the errno of the failure in `error`.
Socket ConnectTo(const addrinfo& address, absl::Time deadline, int& error) {
  Socket socket(::socket(address.ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (socket.fd() < 0) {
    error = errno;
    return Socket(-1);
  }
  if (::connect(socket.fd(), address.ai_addr, address.ai_addrlen) == 0) return socket;
  if (errno != EINPROGRESS) {
    error = errno;
    return Socket(-1);
  }
  if (!WaitFor(socket.fd(), POLLOUT, deadline)) {
    error = ETIMEDOUT;
    return Socket(-1);
  }
  socklen_t size = sizeof(error);
  if (::getsockopt(socket.fd(), SOL_SOCKET, SO_ERROR, &error, &size) != 0) error = errno;
  return error == 0 ? std::move(socket) : Socket(-1);
}

absl::StatusOr<Socket> Connect(const std::string& address, absl::Time deadline) {
  RENGA_ASSIGN_OR_RETURN(const HostPort host_port, ParseHostPort(address));
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int code =
      ::getaddrinfo(host_port.host.c_str(), absl::StrCat(host_port.port).c_str(), &hints, &found);
  if (code != 0) {
    return absl::UnavailableError(
        absl::StrCat("cannot find ", host_port.host, ": ", ::gai_strerror(code)));
  }
  const std::unique_ptr<addrinfo, SocketDeleter> addresses(found);
  int error = 0;
  for (const addrinfo* entry = found; entry != nullptr; entry = entry->ai_next) {
    error = 0;
    Socket socket = ConnectTo(*entry, deadline, error);
    if (socket.fd() >= 0) return socket;
  }
  return absl::UnavailableError(
      absl::StrCat("cannot connect to ", address, ": ", std::strerror(error)));
}

absl::Status Handshake(SSL* ssl, int fd, const std::string& address, absl::Time deadline) {
  while (true) {
    ERR_clear_error();
    const int result = SSL_connect(ssl);
    if (result == 1) return absl::OkStatus();
    const int reason = SSL_get_error(ssl, result);
    if (reason == SSL_ERROR_WANT_READ || reason == SSL_ERROR_WANT_WRITE) {
      if (WaitFor(fd, reason == SSL_ERROR_WANT_READ ? POLLIN : POLLOUT, deadline)) continue;
      return absl::UnavailableError(absl::StrCat(address, " does not answer"));
    }
    ERR_clear_error();
    return absl::UnavailableError(
        absl::StrCat(address, " does not speak TLS: is a renga coordinator listening there?"));
  }
}

// The certificate of the chain that has the fingerprint.
absl::StatusOr<std::string> FindInChain(SSL* ssl, const std::string& fingerprint,
                                        const std::string& address) {
  const STACK_OF(X509)* chain = SSL_get_peer_cert_chain(ssl);
  for (int i = 0; chain != nullptr && i < sk_X509_num(chain); ++i) {
    X509* certificate = sk_X509_value(chain, i);
    RENGA_ASSIGN_OR_RETURN(const std::string found, CertificateFingerprint(certificate));
    if (found == fingerprint) return CertificateToPem(certificate);
  }
  return absl::PermissionDeniedError(
      absl::StrCat("the coordinator at ", address,
                   " does not have the fingerprint of the join line: it is another cluster's, or "
                   "somebody is in between"));
}

}  // namespace

absl::StatusOr<std::string> FetchAuthority(const std::string& address,
                                           const std::string& fingerprint, absl::Duration timeout) {
  const absl::Time deadline = absl::Now() + timeout;
  const NoPipeSignal no_pipe_signal;
  RENGA_ASSIGN_OR_RETURN(const Socket socket, Connect(address, deadline));
  const std::unique_ptr<SSL_CTX, SocketDeleter> context(SSL_CTX_new(TLS_client_method()));
  if (context == nullptr) return OpenSslError("cannot start TLS");
  SSL_CTX_set_verify(context.get(), SSL_VERIFY_NONE, nullptr);
  SSL_CTX_set_min_proto_version(context.get(), TLS1_2_VERSION);
  static constexpr unsigned char kHttp2[] = {2, 'h', '2'};
  SSL_CTX_set_alpn_protos(context.get(), kHttp2, sizeof(kHttp2));
  const std::unique_ptr<SSL, SocketDeleter> ssl(SSL_new(context.get()));
  if (ssl == nullptr || SSL_set_fd(ssl.get(), socket.fd()) != 1) {
    return OpenSslError("cannot start TLS");
  }
  RENGA_RETURN_IF_ERROR(Handshake(ssl.get(), socket.fd(), address, deadline));
  return FindInChain(ssl.get(), absl::AsciiStrToLower(fingerprint), address);
}

}  // namespace renga::transport
