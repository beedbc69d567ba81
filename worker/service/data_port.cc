#include "worker/service/data_port.h"

#include <algorithm>
#include <atomic>
#include <string>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "proto/step.pb.h"
#include "transport/identity.h"
#include "transport/local_worker.h"
#include "transport/message_socket.h"
#include "transport/wire.h"

namespace renga::worker {
namespace {

// A window's credits go back in as many parts.
constexpr uint32_t kCreditShare = 4;

}  // namespace

// The port holds it until it is over or closed, so that it never goes away on its own thread.
class DataPort::Connection {
 public:
  Connection()
      : socket_({.on_message = [this](std::string& message) { return OnMessage(message); },
                 .on_end = [this](const absl::Status&) { over_ = true; }}) {}
  virtual ~Connection() = default;

  void Accept(std::unique_ptr<transport::SecureSocket> socket) {
    socket_.Accept(std::move(socket));
  }
  void End(const absl::Status& why) { socket_.End(why); }
  void Close() { socket_.Close(); }
  bool over() const { return over_; }

  // Before anything is read of the peer: who hears why this connection ended, and opens another,
  // has it begin after this one. What is sent here waits for the socket.
  virtual void Begin() {}
  // A plan is loaded.
  virtual void GrantWindow(uint32_t) {}
  // Looks for frames.
  virtual void Poll() {}
  virtual void StopPolling() {}

 protected:
  virtual absl::Status OnMessage(std::string& message) = 0;
  transport::MessageSocket& socket() { return socket_; }

 private:
  std::atomic<bool> over_ = false;
  transport::MessageSocket socket_;
};

// The receiving end of an edge: frames in, credits out.
class DataPort::Edge : public Connection, public std::enable_shared_from_this<Edge> {
 public:
  explicit Edge(ShardHost* host) : host_(host) {}

  void Begin() override { GrantWindow(host_->edge_window()); }
  // The first credits; later calls do nothing.
  void GrantWindow(uint32_t window) override {
    {
      absl::MutexLock lock(&mutex_);
      if (window_ > 0 || window == 0) return;
      window_ = window;
    }
    Grant(window);
  }
  void Poll() override { socket().Poll(); }
  void StopPolling() override { socket().StopPolling(); }

 private:
  absl::Status OnMessage(std::string& message) override {
    proto::StepFrame frame;
    if (!frame.ParseFromString(message)) {
      return absl::InvalidArgumentError("what comes on an edge is no frame");
    }
    {
      absl::MutexLock lock(&mutex_);
      if (++outstanding_ > window_) {
        return absl::ResourceExhaustedError(
            absl::StrCat("more frames than the window of ", window_, " allows"));
      }
    }
    // What waits here is bounded by the window's frames only if each of them is.
    const size_t bytes =
        frame.activations().size() + sizeof(int32_t) * static_cast<size_t>(frame.tokens_size());
    if (bytes > host_->max_frame_bytes()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "a frame of ", bytes, " bytes, but the plan's largest has ", host_->max_frame_bytes()));
    }
    host_->RunFrame(std::move(frame), [edge = weak_from_this()] {
      if (const auto held = edge.lock(); held != nullptr) held->FrameDone();
    });
    return absl::OkStatus();
  }

  // Several frames' credits go back at once: each message takes as long to send and to read as a
  // step's, and whoever sends one frame after the other never needs the whole window.
  void FrameDone() {
    uint32_t credits = 0;
    {
      absl::MutexLock lock(&mutex_);
      --outstanding_;
      if (++owed_ < std::max(window_ / kCreditShare, 1u)) return;
      credits = std::exchange(owed_, 0);
    }
    // A result has just been sent: if its reader was woken on this core, it goes first.
    std::this_thread::yield();
    Grant(credits);
  }
  void Grant(uint32_t frames) {
    proto::StepCredit credit;
    credit.set_frames(frames);
    // A connection that has ended needs none.
    socket().Send(credit).IgnoreError();
  }

  ShardHost* const host_;
  absl::Mutex mutex_;
  uint32_t window_ ABSL_GUARDED_BY(mutex_) = 0;       // as granted; 0: not yet
  uint32_t outstanding_ ABSL_GUARDED_BY(mutex_) = 0;  // frames here that are not done
  uint32_t owed_ ABSL_GUARDED_BY(mutex_) = 0;         // credits of frames that are
};

// Results of an epoch, to the coordinator, which may say that it no longer waits for some.
class DataPort::Results : public Connection,
                          public transport::ResultSink,
                          public std::enable_shared_from_this<Results> {
 public:
  Results(ShardHost* host, uint64_t epoch) : host_(host), epoch_(epoch) {}

  void Begin() override { host_->AttachResults(epoch_, shared_from_this()); }
  bool Write(proto::StepResult&& result) override { return socket().Send(result).ok(); }
  void End(const absl::Status& status) override { Connection::End(status); }

 private:
  absl::Status OnMessage(std::string& message) override {
    proto::StepWithdrawal withdrawal;
    if (!withdrawal.ParseFromString(message) || withdrawal.epoch() != epoch_) {
      return absl::InvalidArgumentError(
          "what comes where results go is no withdrawal of their epoch's steps");
    }
    RENGA_ASSIGN_OR_RETURN(const std::vector<uint64_t> numbers, transport::StepNumbers(withdrawal));
    host_->WithdrawSteps(epoch_, numbers);
    return absl::OkStatus();
  }

  ShardHost* const host_;
  const uint64_t epoch_;
};

// Sends back what it gets.
class DataPort::Echo : public Connection {
  absl::Status OnMessage(std::string& message) override { return socket().SendBytes(message); }
};

// Says why, and hangs up.
class DataPort::Refusal : public Connection {
 public:
  explicit Refusal(absl::Status why) : why_(std::move(why)) {}
  void Begin() override { End(why_); }

 private:
  absl::Status OnMessage(std::string&) override { return why_; }

  const absl::Status why_;
};

DataPort::~DataPort() {
  Close();
  std::vector<std::shared_ptr<Connection>> ended;
  {
    absl::MutexLock lock(&mutex_);
    ended.swap(connections_);
  }
  for (const auto& connection : ended) connection->Close();
}

void DataPort::SetHost(ShardHost* host) {
  absl::MutexLock lock(&mutex_);
  host_ = host;
}

std::shared_ptr<DataPort::Connection> DataPort::Open(const transport::PeerHello& hello,
                                                     const std::string& peer_name) {
  if (connections_.size() >= kMaxConnections) {
    return std::make_shared<Refusal>(
        absl::ResourceExhaustedError("too many connections to one worker"));
  }
  switch (hello.purpose) {
    case transport::PeerPurpose::kSteps:
      return std::make_shared<Edge>(host_);
    case transport::PeerPurpose::kProbe:
      return std::make_shared<Echo>();
    case transport::PeerPurpose::kResults:
      if (policy_ == transport::PeerPolicy::kTrustEveryone ||
          peer_name == transport::kCoordinatorName) {
        return std::make_shared<Results>(host_, hello.epoch);
      }
      return std::make_shared<Refusal>(absl::PermissionDeniedError(
          absl::StrCat("results are the coordinator's, not ", peer_name, "'s")));
    case transport::PeerPurpose::kGroup:
      break;
  }
  return std::make_shared<Refusal>(absl::InvalidArgumentError("a connection for nothing known"));
}

std::vector<std::shared_ptr<DataPort::Connection>> DataPort::TakeOver() {
  const auto kept = std::partition(connections_.begin(), connections_.end(),
                                   [](const auto& known) { return !known->over(); });
  std::vector<std::shared_ptr<Connection>> over(std::make_move_iterator(kept),
                                                std::make_move_iterator(connections_.end()));
  connections_.erase(kept, connections_.end());
  return over;
}

void DataPort::Serve(const transport::PeerHello& hello,
                     std::unique_ptr<transport::SecureSocket> socket) {
  std::shared_ptr<Connection> connection;
  std::vector<std::shared_ptr<Connection>> over;  // their threads are waited for without the lock
  {
    absl::MutexLock lock(&mutex_);
    over = TakeOver();
    if (closed_ || host_ == nullptr) return;
    if (connections_.size() >= 2 * kMaxConnections) return;  // whoever does not hear refusals
    connection = Open(hello, socket->peer_name());
    connections_.push_back(connection);
  }
  // After it was added: a plan loaded in between grants to every edge it finds.
  connection->Begin();
  connection->Accept(std::move(socket));
}

void DataPort::GrantWindows(uint32_t window) {
  absl::MutexLock lock(&mutex_);
  for (const auto& connection : connections_) connection->GrantWindow(window);
}

void DataPort::Poll() {
  absl::MutexLock lock(&mutex_);
  for (const auto& connection : connections_) connection->Poll();
}

void DataPort::StopPolling() {
  absl::MutexLock lock(&mutex_);
  for (const auto& connection : connections_) connection->StopPolling();
}

void DataPort::Close() {
  absl::MutexLock lock(&mutex_);
  closed_ = true;
  for (const auto& connection : connections_) {
    connection->End(absl::UnavailableError("the worker is leaving"));
  }
}

}  // namespace renga::worker
