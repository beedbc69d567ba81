// The functions of NCCL, NVIDIA's library for groups of cards, that renga calls, found at run time
// when a group wants them: neither the build nor a machine without it needs any of it.
//
// Declarations follow NCCL's API documentation. Tests put a library of their own in its place.
#ifndef RENGA_WORKER_KERNELS_CUDA_NCCL_API_H_
#define RENGA_WORKER_KERNELS_CUDA_NCCL_API_H_

#include <climits>
#include <cstddef>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace renga::kernels::cuda {

using NcclResult = int;  // ncclResult_t
using NcclComm = void*;  // ncclComm_t
struct NcclUniqueId {    // ncclUniqueId
  char internal[128] = {};
};

// ncclConfig_t as of version 2.17: newer libraries take it by its size and version, older ones read
// the part that they know.
struct NcclConfig {
  size_t size = sizeof(NcclConfig);
  unsigned magic = 0xcafebeef;
  unsigned version = 21700;
  int blocking = INT_MIN;  // INT_MIN: as the library likes
  int cga_cluster_size = INT_MIN;
  int min_ctas = INT_MIN;
  int max_ctas = INT_MIN;
  const char* network = nullptr;
};

inline constexpr NcclResult kNcclSuccess = 0;
inline constexpr NcclResult kNcclSystemError = 2;
inline constexpr NcclResult kNcclInvalidUsage = 5;
inline constexpr NcclResult kNcclRemoteError = 6;
inline constexpr NcclResult kNcclInProgress = 7;
inline constexpr int kNcclBytes = 1;   // ncclUint8
inline constexpr int kNcclFloats = 7;  // ncclFloat32

// X(name here, name in the library, parameters). Addresses are of the card's memory; work is queued
// in the stream, which is the driver's.
#define RENGA_NCCL_FUNCTIONS(X)                                                         \
  X(GetVersion, "ncclGetVersion", (int* version))                                       \
  X(GetUniqueId, "ncclGetUniqueId", (NcclUniqueId * id))                                \
  X(CommInitRank, "ncclCommInitRankConfig",                                             \
    (NcclComm * comm, int size, NcclUniqueId id, int rank, NcclConfig* config))         \
  X(CommGetAsyncError, "ncclCommGetAsyncError", (NcclComm comm, NcclResult * error))    \
  X(CommAbort, "ncclCommAbort", (NcclComm comm))                                        \
  X(AllGather, "ncclAllGather",                                                         \
    (const void* mine, void* all, size_t count, int type, NcclComm comm, void* stream)) \
  X(Broadcast, "ncclBroadcast",                                                         \
    (const void* from, void* to, size_t count, int type, int root, NcclComm comm, void* stream))

struct NcclApi {
#define RENGA_NCCL_FUNCTION(name, symbol, parameters) NcclResult(*name) parameters = nullptr;
  RENGA_NCCL_FUNCTIONS(RENGA_NCCL_FUNCTION)
#undef RENGA_NCCL_FUNCTION
  const char* (*GetErrorString)(NcclResult result) = nullptr;
};

inline constexpr char kNcclLibrary[] = "libnccl.so.2";

// Loads the library, once found never unloaded. kFailedPrecondition says that this machine has
// none, or one that lacks a function.
absl::StatusOr<NcclApi> LoadNccl(const std::string& library = kNcclLibrary);

// The one place where NCCL's results become a Status; `what` says what failed.
absl::Status NcclStatus(const NcclApi& nccl, NcclResult result, absl::string_view what);

}  // namespace renga::kernels::cuda

#endif  // RENGA_WORKER_KERNELS_CUDA_NCCL_API_H_
