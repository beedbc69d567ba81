#include "transport/secure_socket.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/status_macros.h"
#include "transport/certificate.h"
#include "transport/machine_socket.h"
#include "transport/tcp.h"

namespace renga::transport {
namespace {

SSL* AsSsl(void* ssl) { return static_cast<SSL*>(ssl); }

// The longest text of a record, and how many of them one call of the system may bring: a row of
// activations often takes two, being a little longer than one.
constexpr size_t kRecordBytes = SSL3_RT_MAX_PLAIN_LENGTH;
constexpr size_t kReadAheadBytes = 4 * kRecordBytes;

// OpenSSL's own socket BIO writes without MSG_NOSIGNAL: a peer that hangs up would end the process.
const TlsPipe& PipeOf(BIO* bio) { return *static_cast<const TlsPipe*>(BIO_get_data(bio)); }

int BioResult(BIO* bio, ssize_t moved, int flag) {
  BIO_clear_retry_flags(bio);
  if (moved < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) {
    BIO_set_flags(bio, flag | BIO_FLAGS_SHOULD_RETRY);
  }
  return static_cast<int>(moved);
}

int BioWrite(BIO* bio, const char* data, int size) {
  const TlsPipe& pipe = PipeOf(bio);
  const int flags = MSG_NOSIGNAL | (pipe.more_follows ? MSG_MORE : 0);
  return BioResult(bio, ::send(pipe.fd, data, size, flags), BIO_FLAGS_WRITE);
}

int BioRead(BIO* bio, char* data, int size) {
  return BioResult(bio, ::recv(PipeOf(bio).fd, data, size, 0), BIO_FLAGS_READ);
}

long BioControl(BIO* bio, int command, long, void*) { return command == BIO_CTRL_FLUSH ? 1 : 0; }

const BIO_METHOD* SocketBio() {
  static const BIO_METHOD* const kMethod = [] {
    BIO_METHOD* method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "renga socket");
    BIO_meth_set_write(method, BioWrite);
    BIO_meth_set_read(method, BioRead);
    BIO_meth_set_ctrl(method, BioControl);
    return method;
  }();
  return kMethod;
}

absl::Status Ended(absl::string_view why) {
  return absl::UnavailableError(absl::StrCat("the connection ended: ", why));
}

int Size(size_t bytes) { return static_cast<int>(std::min<size_t>(bytes, INT_MAX)); }

}  // namespace

absl::StatusOr<std::shared_ptr<const SocketCredentials>> SocketCredentials::CreateTls(
    const Identity& identity) {
  RENGA_ASSIGN_OR_RETURN(const KeyPtr key, ParseKey(identity.private_key_pem));
  RENGA_ASSIGN_OR_RETURN(const CertificatePtr own, ParseCertificate(identity.certificate_pem));
  RENGA_ASSIGN_OR_RETURN(const CertificatePtr root, ParseCertificate(identity.authority_pem));
  RENGA_RETURN_IF_ERROR(CheckKeyAndSignature(own.get(), key.get(), root.get()));
  SSL_CTX* context = SSL_CTX_new(TLS_method());
  if (context == nullptr) return OpenSslError("cannot start TLS");
  std::shared_ptr<SocketCredentials> credentials(new SocketCredentials());
  credentials->context_ = context;
  SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
  SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  // Several records in one call of the system.
  SSL_CTX_set_read_ahead(context, 1);
  SSL_CTX_set_default_read_buffer_len(context, kReadAheadBytes);
  SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
  // Every message has a known size: nothing can be cut short unnoticed.
  SSL_CTX_set_options(context, SSL_OP_IGNORE_UNEXPECTED_EOF);
  if (SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION) != 1 ||
      SSL_CTX_set_num_tickets(context, 0) != 1 ||
      X509_STORE_add_cert(SSL_CTX_get_cert_store(context), root.get()) != 1 ||
      SSL_CTX_use_certificate(context, own.get()) != 1 ||
      SSL_CTX_use_PrivateKey(context, key.get()) != 1) {
    return OpenSslError("cannot start TLS");
  }
  return credentials;
}

std::shared_ptr<const SocketCredentials> SocketCredentials::CreateInsecureLoopback() {
  return std::shared_ptr<const SocketCredentials>(new SocketCredentials());
}

SocketCredentials::~SocketCredentials() { SSL_CTX_free(static_cast<SSL_CTX*>(context_)); }

SecureSocket::SecureSocket(base::ScopedFd socket,
                           std::shared_ptr<const SocketCredentials> credentials)
    : socket_(std::move(socket)),
      credentials_(std::move(credentials)),
      pipe_{.fd = socket_.get()} {}

SecureSocket::~SecureSocket() { SSL_free(AsSsl(ssl_)); }

absl::StatusOr<std::unique_ptr<SecureSocket>> SecureSocket::Connect(
    const PeerAddress& peer, const std::shared_ptr<const SocketCredentials>& credentials,
    WaitLimit limit, Route route) {
  RENGA_ASSIGN_OR_RETURN(const HostPort host_port, ParseHostPort(peer.address));
  if (!credentials->secure() && !IsLoopbackHost(host_port.host)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "without certificates connections are to loopback only, not to ", peer.address));
  }
  base::ScopedFd beside;
  if (route == Route::kPastTcp) beside = ConnectBeside(host_port);
  if (beside.get() >= 0) {
    auto socket = Prove(std::move(beside), peer, credentials, limit);
    // Otherwise the port may still lead to who is meant.
    if (socket.ok()) return socket;
  }
  RENGA_ASSIGN_OR_RETURN(base::ScopedFd fd, ConnectTcp(peer.address, limit));
  return Prove(std::move(fd), peer, credentials, limit);
}

absl::StatusOr<std::unique_ptr<SecureSocket>> SecureSocket::Prove(
    base::ScopedFd fd, const PeerAddress& peer,
    const std::shared_ptr<const SocketCredentials>& credentials, WaitLimit limit) {
  std::unique_ptr<SecureSocket> socket(new SecureSocket(std::move(fd), credentials));
  if (!credentials->secure()) return socket;
  RENGA_RETURN_IF_ERROR(base::Annotate(socket->Handshake(false, limit), peer.address));
  if (socket->peer_name_ != peer.name) {
    return absl::PermissionDeniedError(
        absl::StrCat("at ", peer.address, " is ", socket->peer_name_, " and not ", peer.name));
  }
  return socket;
}

absl::StatusOr<std::unique_ptr<SecureSocket>> SecureSocket::Accept(
    base::ScopedFd fd, const std::shared_ptr<const SocketCredentials>& credentials,
    WaitLimit limit) {
  TuneTcp(fd.get());
  std::unique_ptr<SecureSocket> socket(new SecureSocket(std::move(fd), credentials));
  if (credentials->secure()) RENGA_RETURN_IF_ERROR(socket->Handshake(true, limit));
  return socket;
}

absl::Status SecureSocket::Handshake(bool accepting, WaitLimit limit) {
  ssl_ = SSL_new(static_cast<SSL_CTX*>(credentials_->context_));
  BIO* bio = ssl_ == nullptr ? nullptr : BIO_new(SocketBio());
  if (bio == nullptr) return OpenSslError("cannot start TLS");
  BIO_set_data(bio, &pipe_);
  BIO_set_init(bio, 1);
  SSL_set_bio(AsSsl(ssl_), bio, bio);
  while (true) {
    ERR_clear_error();
    const int result = accepting ? SSL_accept(AsSsl(ssl_)) : SSL_connect(AsSsl(ssl_));
    if (result == 1) break;
    short wants = 0;
    RENGA_RETURN_IF_ERROR(Judge(result, wants).status());
    if (!WaitForSocket(socket_.get(), wants, limit)) {
      return absl::UnavailableError("the peer does not answer");
    }
  }
  const CertificatePtr certificate(SSL_get1_peer_certificate(AsSsl(ssl_)));
  if (certificate == nullptr) return absl::PermissionDeniedError("the peer shows no certificate");
  RENGA_ASSIGN_OR_RETURN(peer_name_, CertificateName(certificate.get()));
  return absl::OkStatus();
}

// 0 when the call may be repeated once `wants` came, the error otherwise.
absl::StatusOr<size_t> SecureSocket::Judge(int result, short& wants) {
  const int reason = SSL_get_error(AsSsl(ssl_), result);
  if (reason == SSL_ERROR_WANT_READ || reason == SSL_ERROR_WANT_WRITE) {
    wants = reason == SSL_ERROR_WANT_READ ? POLLIN : POLLOUT;
    return 0;
  }
  if (reason == SSL_ERROR_SSL) {
    const unsigned long code = ERR_peek_last_error();
    const char* text = ERR_reason_error_string(code);
    ERR_clear_error();
    return absl::PermissionDeniedError(
        absl::StrCat("TLS failed: ", text == nullptr ? "unknown reason" : text));
  }
  ERR_clear_error();
  return Ended("the peer hung up");
}

absl::StatusOr<size_t> SecureSocket::TryWrite(std::span<const std::byte> bytes) {
  if (bytes.empty()) return 0;
  if (ssl_ != nullptr) {
    ERR_clear_error();
    // One record is written at a time. The system keeps a first one until the last is there: a peer
    // that has got most of a message would only wait awake for its end.
    pipe_.more_follows = bytes.size() > kRecordBytes;
    const int result = SSL_write(AsSsl(ssl_), bytes.data(), Size(bytes.size()));
    return result > 0 ? static_cast<size_t>(result) : Judge(result, write_wants_);
  }
  const ssize_t moved = ::send(socket_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
  if (moved >= 0) return static_cast<size_t>(moved);
  if (errno != EAGAIN && errno != EINTR) return Ended(std::strerror(errno));
  write_wants_ = POLLOUT;
  return 0;
}

absl::StatusOr<size_t> SecureSocket::TryRead(std::span<std::byte> bytes) {
  if (bytes.empty()) return 0;
  if (ssl_ != nullptr) {
    ERR_clear_error();
    const int result = SSL_read(AsSsl(ssl_), bytes.data(), Size(bytes.size()));
    return result > 0 ? static_cast<size_t>(result) : Judge(result, read_wants_);
  }
  const ssize_t moved = ::recv(socket_.get(), bytes.data(), bytes.size(), 0);
  if (moved > 0) return static_cast<size_t>(moved);
  if (moved == 0) return Ended("the peer hung up");
  if (errno != EAGAIN && errno != EINTR) return Ended(std::strerror(errno));
  read_wants_ = POLLIN;
  return 0;
}

absl::Status SecureSocket::WriteAll(std::span<const std::byte> bytes, WaitLimit limit) {
  while (!bytes.empty()) {
    RENGA_ASSIGN_OR_RETURN(const size_t moved, TryWrite(bytes));
    bytes = bytes.subspan(moved);
    if (moved == 0 && !WaitForSocket(socket_.get(), write_wants_, limit)) {
      return absl::UnavailableError("the peer takes nothing");
    }
  }
  return absl::OkStatus();
}

absl::Status SecureSocket::ReadAll(std::span<std::byte> bytes, WaitLimit limit) {
  while (!bytes.empty()) {
    RENGA_ASSIGN_OR_RETURN(const size_t moved, TryRead(bytes));
    bytes = bytes.subspan(moved);
    if (moved == 0 && !WaitForSocket(socket_.get(), read_wants_, limit)) {
      return absl::UnavailableError("the peer says nothing");
    }
  }
  return absl::OkStatus();
}

void SecureSocket::FinishWriting() { ::shutdown(socket_.get(), SHUT_WR); }

void SecureSocket::Cancel() { ::shutdown(socket_.get(), SHUT_RDWR); }

}  // namespace renga::transport
