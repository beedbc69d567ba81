// NCCL's few functions over host memory, among threads and processes of one machine: a library that
// takes the place of libnccl.so.2, beside the made-up driver. As in NCCL's nonblocking mode calls
// return at once; their work is done by a thread of the communicator, since the made-up card has
// no stream that could wait. A member that is gone is waited for without end, as a card would,
// until the communicator is aborted. Two ranks may be on one card.
//
// The first rank has a socket, in the system's names without files; every other one sends its part
// there and gets everybody's.
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <condition_variable>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "worker/kernels/cuda/nccl_api.h"

namespace renga::kernels::cuda::emulation {
namespace {

constexpr NcclResult kInvalidArgument = 4;
constexpr int kNobody = -1;

size_t BytesOf(size_t count, int type) { return count * (type == kNcclFloats ? 4 : 1); }

// Where rank 0 of a group listens: a name that no file has.
sockaddr_un AddressOf(const NcclUniqueId& id, socklen_t& bytes) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  const size_t length = ::strnlen(id.internal, sizeof(address.sun_path) - 2);
  std::memcpy(address.sun_path + 1, id.internal, length);
  bytes = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + length);
  return address;
}

// False when the other side is gone.
bool SendAll(int to, const char* data, size_t bytes) {
  for (ssize_t n = 0; bytes > 0; data += n, bytes -= static_cast<size_t>(n)) {
    n = ::send(to, data, bytes, MSG_NOSIGNAL);
    if (n <= 0) return false;
  }
  return true;
}
bool ReceiveAll(int from, char* data, size_t bytes) {
  return bytes == 0 || ::recv(from, data, bytes, MSG_WAITALL) == static_cast<ssize_t>(bytes);
}

class Comm {
 public:
  Comm(int size, const NcclUniqueId& id, int rank, int listener)
      : size_(size), rank_(rank), id_(id), listener_(listener), peers_(size, kNobody) {
    Do([this] { return Connect(); });
    thread_ = std::thread([this] { Work(); });
  }
  ~Comm() {
    for (const int peer : peers_) {
      if (peer != kNobody) ::close(peer);
    }
    if (listener_ != kNobody) ::close(listener_);
  }

  int rank() const { return rank_; }
  int size() const { return size_; }

  NcclResult Do(std::function<bool()> work) {
    const std::lock_guard<std::mutex> lock(mutex_);
    queued_.push_back(std::move(work));
    changed_.notify_all();
    return kNcclInProgress;
  }
  NcclResult state() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return queued_.empty() ? kNcclSuccess : kNcclInProgress;
  }
  void Abort() {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      aborted_ = true;
      for (const int peer : peers_) ::shutdown(peer, SHUT_RDWR);
      ::shutdown(listener_, SHUT_RDWR);
      changed_.notify_all();
    }
    thread_.join();
  }
  // Everybody's part of `bytes`, in rank order.
  bool Exchange(const char* mine, char* all, size_t bytes) {
    const size_t whole = bytes * static_cast<size_t>(size_);
    std::memcpy(all + bytes * static_cast<size_t>(rank_), mine, bytes);
    if (rank_ > 0) return SendAll(peers_[0], mine, bytes) && ReceiveAll(peers_[0], all, whole);
    for (int r = 1; r < size_; ++r) {
      if (!ReceiveAll(peers_[r], all + bytes * static_cast<size_t>(r), bytes)) return false;
    }
    for (int r = 1; r < size_; ++r) {
      if (!SendAll(peers_[r], all, whole)) return false;
    }
    return true;
  }

 private:
  void SetPeer(int rank, int socket) {
    const std::lock_guard<std::mutex> lock(mutex_);
    peers_[rank] = socket;
    if (aborted_) ::shutdown(socket, SHUT_RDWR);
  }
  bool Connect() {
    if (rank_ > 0) {
      socklen_t bytes = 0;
      const sockaddr_un address = AddressOf(id_, bytes);
      const int socket = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
      SetPeer(0, socket);
      return ::connect(socket, reinterpret_cast<const sockaddr*>(&address), bytes) == 0 &&
             SendAll(socket, reinterpret_cast<const char*>(&rank_), sizeof(rank_));
    }
    for (int i = 1; i < size_; ++i) {
      const int socket = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
      int rank = 0;
      if (socket < 0 || !ReceiveAll(socket, reinterpret_cast<char*>(&rank), sizeof(rank)) ||
          rank < 1 || rank >= size_) {
        return false;
      }
      SetPeer(rank, socket);
    }
    return true;
  }
  void Work() {
    std::unique_lock<std::mutex> lock(mutex_);
    while (true) {
      changed_.wait(lock, [this] { return aborted_ || !queued_.empty(); });
      if (aborted_) return;
      lock.unlock();
      const bool done = queued_.front()();
      lock.lock();
      // A part that never comes: the work is never done.
      if (!done) changed_.wait(lock, [this] { return aborted_; });
      if (!aborted_) queued_.pop_front();
    }
  }

  const int size_;
  const int rank_;
  const NcclUniqueId id_;
  const int listener_;  // of rank 0
  std::mutex mutex_;
  std::condition_variable changed_;
  bool aborted_ = false;
  std::vector<int> peers_;                    // sockets by rank; others than rank 0 have that one's
  std::deque<std::function<bool()>> queued_;  // the first is being done
  std::thread thread_;
};

// Sockets of groups that this process has named.
struct Names {
  std::mutex mutex;
  int count = 0;
  std::map<std::string, int> listeners;
};
Names& AllNames() {
  static Names names;
  return names;
}

}  // namespace

namespace made_up_nccl {
#define RENGA_NCCL_FUNCTION(name, symbol, parameters) NcclResult name parameters __asm__(symbol);
RENGA_NCCL_FUNCTIONS(RENGA_NCCL_FUNCTION)
#undef RENGA_NCCL_FUNCTION
const char* GetErrorString(NcclResult result) __asm__("ncclGetErrorString");

const char* GetErrorString(NcclResult) { return "it went wrong"; }
NcclResult GetVersion(int* version) {
  *version = 22000;
  return kNcclSuccess;
}

NcclResult GetUniqueId(NcclUniqueId* id) {
  Names& names = AllNames();
  const std::lock_guard<std::mutex> lock(names.mutex);
  *id = NcclUniqueId();
  std::snprintf(id->internal, sizeof(id->internal), "made-up-nccl-%d-%d", ::getpid(),
                ++names.count);
  socklen_t bytes = 0;
  const sockaddr_un address = AddressOf(*id, bytes);
  const int socket = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (::bind(socket, reinterpret_cast<const sockaddr*>(&address), bytes) != 0 ||
      ::listen(socket, 64) != 0) {
    ::close(socket);
    return kNcclSystemError;
  }
  names.listeners[id->internal] = socket;
  return kNcclSuccess;
}

NcclResult CommInitRank(NcclComm* comm, int size, NcclUniqueId id, int rank, NcclConfig* config) {
  if (size < 1 || rank < 0 || rank >= size || config->magic != NcclConfig().magic ||
      config->blocking != 0) {
    return kInvalidArgument;
  }
  int listener = kNobody;
  if (rank == 0) {
    Names& names = AllNames();
    const std::lock_guard<std::mutex> lock(names.mutex);
    const auto found = names.listeners.find(id.internal);
    if (found == names.listeners.end()) return kInvalidArgument;
    listener = found->second;
    names.listeners.erase(found);
  }
  *comm = new Comm(size, id, rank, listener);
  return kNcclInProgress;
}

NcclResult CommGetAsyncError(NcclComm comm, NcclResult* error) {
  *error = static_cast<Comm*>(comm)->state();
  return kNcclSuccess;
}
NcclResult CommAbort(NcclComm comm) {
  const std::unique_ptr<Comm> gone(static_cast<Comm*>(comm));
  gone->Abort();
  return kNcclSuccess;
}

NcclResult AllGather(const void* mine, void* all, size_t count, int type, NcclComm comm, void*) {
  auto* const member = static_cast<Comm*>(comm);
  return member->Do([=] {
    return member->Exchange(static_cast<const char*>(mine), static_cast<char*>(all),
                            BytesOf(count, type));
  });
}

NcclResult Broadcast(const void* from, void* to, size_t count, int type, int root, NcclComm comm,
                     void*) {
  auto* const member = static_cast<Comm*>(comm);
  return member->Do([=, size = member->size()] {
    const size_t bytes = BytesOf(count, type);
    std::vector<char> all(bytes * static_cast<size_t>(size));
    if (!member->Exchange(static_cast<const char*>(from), all.data(), bytes)) return false;
    if (member->rank() != root) {
      std::memcpy(to, all.data() + bytes * static_cast<size_t>(root), bytes);
    }
    return true;
  });
}
}  // namespace made_up_nccl

}  // namespace renga::kernels::cuda::emulation
