#include "transport/message_socket.h"

#include <google/protobuf/message_lite.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/status_macros.h"
#include "proto/step.pb.h"
#include "transport/dialer.h"
#include "transport/grpc_status.h"

namespace renga::transport {
namespace {

constexpr absl::Duration kConnectTimeout = absl::Seconds(5);
// How long the peer may take to hear why this side hangs up.
constexpr absl::Duration kHangUpTimeout = absl::Seconds(1);
// After that long without Poll the thread reads again.
constexpr absl::Duration kPollingTimeout = absl::Seconds(1);
constexpr size_t kMaxReasonBytes = 1000;

std::string Header(size_t bytes, MessageHeader::Kind kind) {
  const MessageHeader header = {.bytes = static_cast<uint32_t>(bytes), .kind = kind};
  std::string text(sizeof(header), '\0');
  std::memcpy(text.data(), &header, sizeof(header));
  return text;
}

absl::StatusOr<std::string> Encode(const google::protobuf::MessageLite& message,
                                   MessageHeader::Kind kind) {
  const size_t bytes = message.ByteSizeLong();
  if (bytes > static_cast<size_t>(kMaxMessageBytes)) {
    return absl::ResourceExhaustedError(
        absl::StrCat("a message of ", bytes, " bytes is larger than any that is taken"));
  }
  std::string text = Header(bytes, kind);
  message.AppendToString(&text);
  return text;
}

// What the peer says of why it hangs up.
absl::Status ReasonOf(const std::string& body) {
  proto::StreamEnd end;
  if (!end.ParseFromString(body) || end.error_code() == 0) {
    return absl::UnavailableError("the peer ended the connection");
  }
  return absl::Status(StatusCodeFromWire(end.error_code()),
                      absl::Utf8SafeCHexEscape(end.error_message().substr(0, kMaxReasonBytes)));
}

std::span<const std::byte> BytesFrom(const std::string& text, size_t begin) {
  return std::as_bytes(std::span(text)).subspan(begin);
}

}  // namespace

MessageSocket::MessageSocket(Handlers handlers)
    : handlers_(std::move(handlers)),
      wake_(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)),
      reader_(static_cast<size_t>(kMaxMessageBytes)) {}

MessageSocket::~MessageSocket() { Close(); }

void MessageSocket::Close() {
  {
    absl::MutexLock lock(&mutex_);
    closing_ = true;
  }
  WakeThread();
  if (thread_.joinable()) thread_.join();
}

void MessageSocket::Connect(const PeerAddress& peer,
                            absl::StatusOr<std::shared_ptr<const SocketCredentials>> credentials,
                            const PeerHello& hello) {
  Start([this, peer, credentials = std::move(credentials),
         hello]() -> absl::StatusOr<std::unique_ptr<SecureSocket>> {
    RENGA_RETURN_IF_ERROR(credentials.status());
    const WaitLimit limit(absl::Now() + kConnectTimeout, wake_.get());
    RENGA_ASSIGN_OR_RETURN(auto socket, SecureSocket::Connect(peer, *credentials, limit));
    RENGA_RETURN_IF_ERROR(socket->WriteAll(std::as_bytes(std::span(&hello, 1)), limit));
    return socket;
  });
}

void MessageSocket::Accept(std::unique_ptr<SecureSocket> connection) {
  // std::function wants what it holds to be copied.
  Start([held = std::make_shared<std::unique_ptr<SecureSocket>>(std::move(connection))] {
    return std::move(*held);
  });
}

void MessageSocket::Start(std::function<absl::StatusOr<std::unique_ptr<SecureSocket>>()> connect) {
  thread_ = std::thread([this, connect = std::move(connect)] { Run(connect); });
}

void MessageSocket::Run(
    const std::function<absl::StatusOr<std::unique_ptr<SecureSocket>>()>& connect) {
  absl::StatusOr<std::unique_ptr<SecureSocket>> socket =
      absl::ResourceExhaustedError("this process has too many files open");
  if (wake_.get() >= 0) socket = connect();
  absl::Status reason = socket.status();
  if (socket.ok()) {
    {
      absl::MutexLock lock(&mutex_);
      socket_ = *std::move(socket);
    }
    reason = Serve();
  }
  {
    absl::MutexLock lock(&mutex_);
    if (ended_.ok()) ended_ = reason;
    reason = ended_;
    waiting_.clear();
    if (socket_ != nullptr) socket_->Cancel();
    if (closing_) return;
  }
  {
    absl::MutexLock lock(&read_mutex_);
    if (read_failure_.ok()) read_failure_ = reason;  // Poll reads no more either
  }
  handlers_.on_end(reason);
}

absl::Status MessageSocket::Serve() {
  absl::Time hang_up_at = absl::InfiniteFuture();
  while (true) {
    absl::Status written;
    {
      absl::MutexLock lock(&mutex_);
      written = Flush();
      if (hanging_up_ && waiting_.empty() && hang_up_at == absl::InfiniteFuture()) {
        // What the peer has sent meanwhile is read: hanging up on it would lose the reason as well.
        socket_->FinishWriting();
        hang_up_at = absl::Now() + kHangUpTimeout;
      }
      if (closing_ || absl::Now() >= hang_up_at) return absl::CancelledError("hung up");
    }
    {
      absl::MutexLock lock(&read_mutex_);
      RENGA_RETURN_IF_ERROR(read_failure_);
      RENGA_ASSIGN_OR_RETURN(const bool more, ReadSome());
      if (more) continue;
    }
    // Only now: what was read may have said why.
    RENGA_RETURN_IF_ERROR(written);
    Wait();
  }
}

void MessageSocket::Wait() {
  pollfd entries[2] = {};
  int timeout_ms = -1;
  const bool polled = polled_;
  {
    absl::MutexLock lock(&mutex_);
    entries[0] = {.fd = socket_->fd(), .events = POLLIN, .revents = 0};
    if (polled && !hanging_up_) {
      entries[0].events = 0;
      timeout_ms = static_cast<int>(absl::ToInt64Milliseconds(kPollingTimeout));
    }
    if (!waiting_.empty()) {
      entries[0].events = static_cast<short>(
          entries[0].events | (socket_->write_wants() != 0 ? socket_->write_wants() : POLLOUT));
    }
    if (hanging_up_) timeout_ms = static_cast<int>(absl::ToInt64Milliseconds(kHangUpTimeout));
  }
  entries[1] = {.fd = wake_.get(), .events = POLLIN, .revents = 0};
  const int ready = ::poll(entries, 2, timeout_ms);
  if (ready == 0) polled_ = false;  // the next Poll says otherwise
  uint64_t ignored = 0;
  if (entries[1].revents != 0) (void)!::read(wake_.get(), &ignored, sizeof(ignored));
}

absl::StatusOr<bool> MessageSocket::ReadSome() {
  while (true) {
    const std::span<std::byte> wanted = reader_.Wanted();
    size_t count = 0;
    {
      absl::MutexLock lock(&mutex_);
      if (socket_ == nullptr) return false;
      RENGA_ASSIGN_OR_RETURN(count, socket_->TryRead(wanted));
    }
    if (count == 0) return false;
    RENGA_ASSIGN_OR_RETURN(const bool complete, reader_.Got(count));
    if (!complete) continue;
    RENGA_RETURN_IF_ERROR(Handle());
    return true;
  }
}

absl::Status MessageSocket::Handle() {
  if (reader_.kind() == MessageHeader::Kind::kEnd) return ReasonOf(reader_.body());
  bool wanted = true;
  {
    absl::MutexLock lock(&mutex_);
    wanted = !hanging_up_ && !closing_;
  }
  absl::Status status;
  if (wanted) status = handlers_.on_message(reader_.body());
  reader_.Next();
  if (!status.ok()) End(status);
  return absl::OkStatus();
}

void MessageSocket::Poll() {
  polled_ = true;
  if (!read_mutex_.TryLock()) return;
  if (read_failure_.ok()) {
    read_failure_ = ReadSome().status();
    if (!read_failure_.ok()) WakeThread();
  }
  read_mutex_.Unlock();
}

void MessageSocket::StopPolling() {
  if (polled_.exchange(false)) WakeThread();
}

absl::Status MessageSocket::Send(const google::protobuf::MessageLite& message) {
  RENGA_ASSIGN_OR_RETURN(std::string bytes, Encode(message, MessageHeader::Kind::kMessage));
  absl::MutexLock lock(&mutex_);
  return Queue(std::move(bytes));
}

absl::Status MessageSocket::SendBytes(absl::string_view message) {
  std::string bytes = Header(message.size(), MessageHeader::Kind::kMessage);
  bytes.append(message.data(), message.size());
  absl::MutexLock lock(&mutex_);
  return Queue(std::move(bytes));
}

absl::Status MessageSocket::Queue(std::string bytes) {
  RENGA_RETURN_IF_ERROR(ended_);
  if (waiting_.size() >= kMaxWaiting) {
    EndLocked(absl::ResourceExhaustedError("the peer does not read what is sent to it"));
    return ended_;
  }
  waiting_.push_back(std::move(bytes));
  // An error comes back when the thread tries again.
  Flush().IgnoreError();
  if (socket_ != nullptr && !waiting_.empty()) WakeThread();
  return absl::OkStatus();
}

absl::Status MessageSocket::Flush() {
  while (socket_ != nullptr && !waiting_.empty()) {
    RENGA_ASSIGN_OR_RETURN(const size_t count,
                           socket_->TryWrite(BytesFrom(waiting_.front(), written_)));
    if (count == 0) return absl::OkStatus();
    written_ += count;
    if (written_ < waiting_.front().size()) continue;
    waiting_.pop_front();
    written_ = 0;
  }
  return absl::OkStatus();
}

void MessageSocket::End(const absl::Status& why) {
  absl::MutexLock lock(&mutex_);
  EndLocked(why);
}

void MessageSocket::EndLocked(const absl::Status& why) {
  if (!ended_.ok()) return;
  ended_ = why.ok() ? absl::CancelledError("this side hung up") : why;
  hanging_up_ = true;
  proto::StreamEnd end;
  end.set_error_code(static_cast<int>(why.code()));
  end.set_error_message(std::string(why.message().substr(0, kMaxReasonBytes)));
  if (auto bytes = Encode(end, MessageHeader::Kind::kEnd); bytes.ok()) {
    waiting_.push_back(*std::move(bytes));
  }
  // At once, since the owner may be about to close; the thread tells whether it worked.
  Flush().IgnoreError();
  WakeThread();
}

void MessageSocket::WakeThread() {
  const uint64_t one = 1;
  (void)!::write(wake_.get(), &one, sizeof(one));
}

}  // namespace renga::transport
