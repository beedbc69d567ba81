// NCCL's few functions over host memory, among the threads of one process: a library that tests
// load in the place of libnccl.so.2, beside the made-up driver. Calls wait until every rank is in
// them, where the real ones queue work that waits; and two ranks may be on one card.
#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "worker/kernels/cuda/nccl_api.h"

namespace renga::kernels::cuda::emulation {
namespace {

constexpr NcclResult kInvalidArgument = 4;

// What the ranks of one group share.
struct Group {
  std::mutex mutex;
  std::condition_variable changed;
  int size = 0;
  bool aborted = false;
  int arrived = 0;   // in the present exchange
  int exchange = 0;  // done so far
  std::vector<const void*> from;

  // Puts `mine` up until every rank has done so, lets each take what it wants, and waits until all
  // have. The last to arrive opens the exchange.
  template <class Take>
  NcclResult Exchange(int rank, const void* mine, const Take& take) {
    std::unique_lock<std::mutex> lock(mutex);
    from[static_cast<size_t>(rank)] = mine;
    if (!Meet(lock)) return kNcclRemoteError;
    take(from);
    return Meet(lock) ? kNcclSuccess : kNcclRemoteError;
  }
  bool Meet(std::unique_lock<std::mutex>& lock) {
    const int present = exchange;
    if (++arrived == size) {
      arrived = 0;
      ++exchange;
      changed.notify_all();
    }
    changed.wait(lock, [&] { return aborted || exchange != present; });
    return !aborted;
  }
};

struct Comm {
  std::shared_ptr<Group> group;
  int rank = 0;
};

struct Groups {
  std::mutex mutex;
  int ids = 0;
  std::map<int, std::shared_ptr<Group>> by_id;
  // Of aborted communicators too: another thread may be in a call with one.
  std::vector<std::unique_ptr<Comm>> comms;
};
Groups& AllGroups() {
  static Groups groups;
  return groups;
}

size_t BytesOf(size_t count, int type) { return count * (type == kNcclFloats ? 4 : 1); }

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
  Groups& groups = AllGroups();
  const std::lock_guard<std::mutex> lock(groups.mutex);
  const int number = ++groups.ids;
  *id = NcclUniqueId();
  std::memcpy(id->internal, &number, sizeof(number));
  return kNcclSuccess;
}

NcclResult CommInitRank(NcclComm* comm, int size, NcclUniqueId id, int rank) {
  if (size < 1 || rank < 0 || rank >= size) return kInvalidArgument;
  int number = 0;
  std::memcpy(&number, id.internal, sizeof(number));
  Groups& groups = AllGroups();
  std::shared_ptr<Group> group;
  {
    const std::lock_guard<std::mutex> lock(groups.mutex);
    if (number < 1 || number > groups.ids) return kInvalidArgument;
    std::shared_ptr<Group>& known = groups.by_id[number];
    if (known == nullptr) {
      known = std::make_shared<Group>();
      known->size = size;
      known->from.resize(static_cast<size_t>(size));
    }
    group = known;
    auto made = std::make_unique<Comm>(Comm{.group = group, .rank = rank});
    *comm = made.get();
    groups.comms.push_back(std::move(made));
  }
  return group->Exchange(rank, nullptr, [](const auto&) {});
}

NcclResult CommGetAsyncError(NcclComm, NcclResult* error) {
  *error = kNcclSuccess;
  return kNcclSuccess;
}
NcclResult CommAbort(NcclComm comm) {
  Group& group = *static_cast<Comm*>(comm)->group;
  const std::lock_guard<std::mutex> lock(group.mutex);
  group.aborted = true;
  group.changed.notify_all();
  return kNcclSuccess;
}
NcclResult CommDestroy(NcclComm) { return kNcclSuccess; }

NcclResult AllGather(const void* mine, void* all, size_t count, int type, NcclComm comm, void*) {
  const Comm& member = *static_cast<Comm*>(comm);
  const size_t bytes = BytesOf(count, type);
  return member.group->Exchange(member.rank, mine, [&](const std::vector<const void*>& from) {
    for (size_t rank = 0; rank < from.size(); ++rank) {
      std::memcpy(static_cast<char*>(all) + rank * bytes, from[rank], bytes);
    }
  });
}

NcclResult Broadcast(const void* from, void* to, size_t count, int type, int root, NcclComm comm,
                     void*) {
  const Comm& member = *static_cast<Comm*>(comm);
  return member.group->Exchange(member.rank, from, [&](const std::vector<const void*>& all) {
    if (member.rank != root) {
      std::memcpy(to, all[static_cast<size_t>(root)], BytesOf(count, type));
    }
  });
}
}  // namespace made_up_nccl

}  // namespace renga::kernels::cuda::emulation
