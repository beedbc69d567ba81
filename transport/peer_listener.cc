#include "transport/peer_listener.h"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <iterator>
#include <type_traits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "transport/machine_socket.h"
#include "transport/tcp.h"

namespace renga::transport {
namespace {

static_assert(sizeof(PeerHello) == 32 && std::is_trivially_copyable_v<PeerHello>);

// How long a peer may take to say who it is, and how many may take it at one time: more are hung up
// on.
constexpr absl::Duration kHelloTimeout = absl::Seconds(1);
constexpr size_t kMaxGreetings = 64;
constexpr int kPollMs = 100;
constexpr absl::Duration kClaimInterval = absl::Milliseconds(20);
constexpr size_t kMaxWaiting = 64;

}  // namespace

absl::StatusOr<std::unique_ptr<PeerListener>> PeerListener::Start(
    const std::string& host, int port, std::shared_ptr<const SocketCredentials> credentials,
    Serve serve) {
  if (!credentials->secure() && !IsLoopbackHost(host)) {
    return absl::InvalidArgumentError(
        absl::StrCat("without certificates workers listen on loopback only, not on ", host));
  }
  RENGA_ASSIGN_OR_RETURN(TcpListener listener, ListenTcp(host, port));
  base::ScopedFd beside = ListenBeside(listener.port);
  return std::unique_ptr<PeerListener>(new PeerListener(std::move(listener.socket),
                                                        std::move(beside), listener.port,
                                                        std::move(credentials), std::move(serve)));
}

PeerListener::PeerListener(base::ScopedFd socket, base::ScopedFd beside, int port,
                           std::shared_ptr<const SocketCredentials> credentials, Serve serve)
    : socket_(std::move(socket)),
      beside_(std::move(beside)),
      port_(port),
      credentials_(std::move(credentials)),
      serve_(std::move(serve)),
      thread_([this] { Listen(); }) {}

PeerListener::~PeerListener() {
  stopped_ = true;
  ::shutdown(socket_.get(), SHUT_RDWR);  // wakes the thread
  thread_.join();
  for (Greeting& greeting : greetings_) greeting.thread.join();
}

void PeerListener::Listen() {
  while (!stopped_) {
    if (!WaitForConnection()) continue;
    Accept(socket_);
    Accept(beside_);
  }
}

bool PeerListener::WaitForConnection() const {
  // poll ignores negative descriptors.
  pollfd entries[] = {{.fd = socket_.get(), .events = POLLIN, .revents = 0},
                      {.fd = beside_.get(), .events = POLLIN, .revents = 0}};
  return ::poll(entries, std::size(entries), kPollMs) > 0;
}

void PeerListener::Accept(const base::ScopedFd& listening) {
  base::ScopedFd connection(
      ::accept4(listening.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
  if (connection.get() >= 0) Greet(std::move(connection));
}

void PeerListener::Greet(base::ScopedFd connection) {
  greetings_.remove_if([](Greeting& greeting) {
    if (!greeting.done) return false;
    greeting.thread.join();
    return true;
  });
  if (greetings_.size() >= kMaxGreetings) return;
  Greeting& greeting = greetings_.emplace_back();
  greeting.thread = std::thread([this, &greeting, fd = connection.release()] {
    Welcome(base::ScopedFd(fd));
    greeting.done = true;
  });
}

void PeerListener::Welcome(base::ScopedFd connection) {
  const absl::Time deadline = absl::Now() + kHelloTimeout;
  auto socket = SecureSocket::Accept(std::move(connection), credentials_, deadline);
  if (!socket.ok()) {
    RENGA_LOG(INFO) << "a connection to the data port was refused: " << socket.status().message();
    return;
  }
  Waiting waiting = {.hello = {}, .socket = *std::move(socket)};
  const absl::Status read =
      waiting.socket->ReadAll(std::as_writable_bytes(std::span(&waiting.hello, 1)), deadline);
  if (!read.ok() || waiting.hello.magic != PeerHello().magic) return;
  if (waiting.hello.protocol_version != kProtocolVersion) {
    RENGA_LOG(WARNING) << waiting.socket->peer_name() << " speaks protocol "
                       << waiting.hello.protocol_version << ", this process " << kProtocolVersion;
    return;
  }
  if (waiting.hello.purpose != PeerPurpose::kGroup) {
    if (serve_) serve_(waiting.hello, std::move(waiting.socket));
    return;
  }
  absl::MutexLock lock(&mutex_);
  if (waiting_.size() >= kMaxWaiting) waiting_.pop_front();
  waiting_.push_back(std::move(waiting));
}

absl::StatusOr<std::unique_ptr<SecureSocket>> PeerListener::Claim(
    const PeerHello& hello, const std::string& peer_name, const std::atomic<bool>& cancelled,
    absl::Time deadline) {
  absl::MutexLock lock(&mutex_);
  while (true) {
    std::erase_if(waiting_,
                  [&](const Waiting& waiting) { return waiting.hello.epoch < hello.epoch; });
    const auto found = std::find_if(waiting_.begin(), waiting_.end(), [&](const Waiting& waiting) {
      return waiting.hello == hello &&
             (!credentials_->secure() || waiting.socket->peer_name() == peer_name);
    });
    if (found != waiting_.end()) {
      std::unique_ptr<SecureSocket> socket = std::move(found->socket);
      waiting_.erase(found);
      return socket;
    }
    if (cancelled) return absl::CancelledError("the group was given up");
    if (absl::Now() >= deadline) {
      return absl::UnavailableError(
          absl::StrCat(peer_name, " did not connect to this worker's data port ", port_,
                       ": open that port for the other workers, or plan with --tensor-parallel 1"));
    }
    // Arrivals are few; asking again is simpler than a condition for each.
    mutex_.AwaitWithTimeout(
        absl::Condition(
            +[](const std::atomic<bool>* flag) { return flag->load(); }, &cancelled),
        kClaimInterval);
  }
}

}  // namespace renga::transport
