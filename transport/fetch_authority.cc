// Reads a server's certificate chain before anything is trusted: the caller knows nothing but the
// authority's fingerprint. gRPC gives no access to an unverified chain, so this speaks TLS itself
// and hangs up after the handshake.
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>

#include <memory>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/scoped_fd.h"
#include "base/status_macros.h"
#include "transport/certificate.h"
#include "transport/dialer.h"
#include "transport/identity.h"
#include "transport/tcp.h"

namespace renga::transport {
namespace {

struct SslDeleter {
  void operator()(SSL_CTX* context) const { SSL_CTX_free(context); }
  void operator()(SSL* ssl) const { SSL_free(ssl); }
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

absl::Status Handshake(SSL* ssl, int fd, const std::string& address, absl::Time deadline) {
  while (true) {
    ERR_clear_error();
    const int result = SSL_connect(ssl);
    if (result == 1) return absl::OkStatus();
    const int reason = SSL_get_error(ssl, result);
    if (reason == SSL_ERROR_WANT_READ || reason == SSL_ERROR_WANT_WRITE) {
      if (WaitForSocket(fd, reason == SSL_ERROR_WANT_READ ? POLLIN : POLLOUT, deadline)) continue;
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
  RENGA_ASSIGN_OR_RETURN(const base::ScopedFd socket, ConnectTcp(address, deadline));
  const std::unique_ptr<SSL_CTX, SslDeleter> context(SSL_CTX_new(TLS_client_method()));
  if (context == nullptr) return OpenSslError("cannot start TLS");
  SSL_CTX_set_verify(context.get(), SSL_VERIFY_NONE, nullptr);
  SSL_CTX_set_min_proto_version(context.get(), TLS1_2_VERSION);
  static constexpr unsigned char kHttp2[] = {2, 'h', '2'};
  SSL_CTX_set_alpn_protos(context.get(), kHttp2, sizeof(kHttp2));
  const std::unique_ptr<SSL, SslDeleter> ssl(SSL_new(context.get()));
  if (ssl == nullptr || SSL_set_fd(ssl.get(), socket.get()) != 1) {
    return OpenSslError("cannot start TLS");
  }
  RENGA_RETURN_IF_ERROR(Handshake(ssl.get(), socket.get(), address, deadline));
  return FindInChain(ssl.get(), absl::AsciiStrToLower(fingerprint), address);
}

}  // namespace renga::transport
