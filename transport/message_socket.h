// Messages both ways over one connection to a peer: how frames, credits and results travel.
//
// gRPC's streams carried them before. On the way through its threads a message waited 0.1 to 0.2 ms
// for a core to wake up, at both ends of each hop; here the thread that has a message writes it,
// and one that is about to need one may look for it itself (Poll).
#ifndef RENGA_TRANSPORT_MESSAGE_SOCKET_H_
#define RENGA_TRANSPORT_MESSAGE_SOCKET_H_

#include <atomic>
#include <cstddef>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "base/scoped_fd.h"
#include "transport/message_reader.h"
#include "transport/peer_listener.h"
#include "transport/secure_socket.h"

namespace google::protobuf {
class MessageLite;
}  // namespace google::protobuf

namespace renga::transport {

// Thread-safe. Has a thread that reads, and writes what could not be written at once.
class MessageSocket {
 public:
  // Messages that wait to be written; more means that their sender ignores its window, or that the
  // peer has stopped reading.
  static constexpr size_t kMaxWaiting = 1024;

  struct Handlers {
    // Every message in order, never two at a time; on the socket's thread or in Poll. An error ends
    // the connection and is told to the peer. May call Send and End.
    std::function<absl::Status(std::string& message)> on_message;
    // On the socket's thread, once: the connection ended, by this side's End too, and not by the
    // end of this object. Nothing else runs after it.
    std::function<void(const absl::Status&)> on_end;
  };
  // Handlers must neither block nor destroy the object.
  explicit MessageSocket(Handlers handlers);
  // Hangs up, and waits until no handler runs. What was not written yet is lost.
  ~MessageSocket();
  MessageSocket(const MessageSocket&) = delete;
  MessageSocket& operator=(const MessageSocket&) = delete;

  // Once, one of the two. Connect returns at once; a peer that cannot be reached within some
  // seconds, or is another one, ends the connection.
  void Connect(const PeerAddress& peer,
               absl::StatusOr<std::shared_ptr<const SocketCredentials>> credentials,
               const PeerHello& hello);
  void Accept(std::unique_ptr<SecureSocket> connection);

  // Never blocks: what cannot be written now is written later, in order. The reason when the
  // connection has ended; kResourceExhausted, and the connection ends, when too much waits.
  absl::Status Send(const google::protobuf::MessageLite& message);
  absl::Status SendBytes(absl::string_view message);
  // Tells the peer that no more comes, and why, after what was sent; then hangs up.
  void End(const absl::Status& why);
  // What the destructor does: no handler runs after it, and Send fails. By the owner.
  void Close();
  // Reads what has come, up to one message. Never blocks. The socket's thread leaves reading to
  // whoever calls this, so that what comes wakes nobody, until StopPolling, or until nobody has
  // called it for a second.
  void Poll();
  // Whoever called Poll is about to sleep.
  void StopPolling();

 private:
  void Start(std::function<absl::StatusOr<std::unique_ptr<SecureSocket>>()> connect);
  void Run(const std::function<absl::StatusOr<std::unique_ptr<SecureSocket>>()>& connect);
  absl::Status Serve();
  // Waits until there may be something to do.
  void Wait();
  // True when there was a message.
  absl::StatusOr<bool> ReadSome() ABSL_EXCLUSIVE_LOCKS_REQUIRED(read_mutex_);
  absl::Status Handle() ABSL_EXCLUSIVE_LOCKS_REQUIRED(read_mutex_);
  absl::Status Queue(std::string bytes) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status Flush() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void EndLocked(const absl::Status& why) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void WakeThread();

  const Handlers handlers_;
  const base::ScopedFd wake_;         // an eventfd: something changed for the thread
  std::atomic<bool> polled_ = false;  // another thread reads

  // Taken before mutex_, and held while on_message runs.
  absl::Mutex read_mutex_;
  MessageReader reader_ ABSL_GUARDED_BY(read_mutex_);
  absl::Status read_failure_ ABSL_GUARDED_BY(read_mutex_);  // in Poll; the thread ends with it

  absl::Mutex mutex_;
  std::unique_ptr<SecureSocket> socket_ ABSL_GUARDED_BY(mutex_);  // null: not connected yet
  std::deque<std::string> waiting_ ABSL_GUARDED_BY(mutex_);       // headers and messages
  size_t written_ ABSL_GUARDED_BY(mutex_) = 0;                    // of the first one
  absl::Status ended_ ABSL_GUARDED_BY(mutex_);                    // not OK: nothing more is sent
  bool hanging_up_ ABSL_GUARDED_BY(mutex_) = false;               // once waiting_ is written
  bool closing_ ABSL_GUARDED_BY(mutex_) = false;                  // by the destructor
  std::thread thread_;
};

}  // namespace renga::transport

#endif  // RENGA_TRANSPORT_MESSAGE_SOCKET_H_
