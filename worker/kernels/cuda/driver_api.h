// The functions of NVIDIA's driver that renga calls, found at run time: a program built with CUDA
// runs on machines without a driver, and the build needs no header of NVIDIA's.
//
// Declarations follow the CUDA driver API's reference; types that are opaque there are pointers to
// nothing here. Tests fill the table with functions of their own.
#ifndef RENGA_WORKER_KERNELS_CUDA_DRIVER_API_H_
#define RENGA_WORKER_KERNELS_CUDA_DRIVER_API_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace renga::kernels::cuda {

using DriverResult = int;        // CUresult
using DriverAddress = uint64_t;  // CUdeviceptr

inline constexpr DriverResult kDriverSuccess = 0;
inline constexpr DriverResult kDriverOutOfMemory = 2;
inline constexpr DriverResult kDriverNoDevice = 100;
inline constexpr DriverResult kDriverNoBinary = 209;  // no code for this card in the module
inline constexpr DriverResult kDriverOldPtx = 222;    // code newer than the driver
inline constexpr DriverResult kDriverNotReady = 600;  // what was asked after goes on
inline constexpr DriverResult kDriverMismatch = 803;  // the kernel module is of another version
inline constexpr int kAttributeMajor = 75;            // compute capability
inline constexpr int kAttributeMinor = 76;
inline constexpr unsigned kNonBlockingStream = 1;
inline constexpr unsigned kEventWithoutTiming = 2;
inline constexpr int kCaptureOfThread = 1;  // other threads may use the driver meanwhile

// X(name here, name in the library, parameters)
#define RENGA_DRIVER_FUNCTIONS(X)                                                                \
  X(Init, "cuInit", (unsigned flags))                                                            \
  X(DriverGetVersion, "cuDriverGetVersion", (int* version))                                      \
  X(DeviceGetCount, "cuDeviceGetCount", (int* count))                                            \
  X(DeviceGet, "cuDeviceGet", (int* device, int ordinal))                                        \
  X(DeviceGetName, "cuDeviceGetName", (char* name, int bytes, int device))                       \
  X(DeviceGetBusId, "cuDeviceGetPCIBusId", (char* id, int bytes, int device))                    \
  X(DeviceGetAttribute, "cuDeviceGetAttribute", (int* value, int attribute, int device))         \
  X(PrimaryContextRetain, "cuDevicePrimaryCtxRetain", (void** context, int device))              \
  X(PrimaryContextRelease, "cuDevicePrimaryCtxRelease_v2", (int device))                         \
  X(ContextSetCurrent, "cuCtxSetCurrent", (void* context))                                       \
  X(MemoryGetInfo, "cuMemGetInfo_v2", (size_t * free_bytes, size_t * total_bytes))               \
  X(MemoryAllocate, "cuMemAlloc_v2", (DriverAddress * address, size_t bytes))                    \
  X(MemoryFree, "cuMemFree_v2", (DriverAddress address))                                         \
  X(HostAllocate, "cuMemHostAlloc", (void** memory, size_t bytes, unsigned flags))               \
  X(HostFree, "cuMemFreeHost", (void* memory))                                                   \
  X(CopyToDevice, "cuMemcpyHtoDAsync_v2",                                                        \
    (DriverAddress to, const void* from, size_t bytes, void* stream))                            \
  X(CopyToHost, "cuMemcpyDtoHAsync_v2",                                                          \
    (void* to, DriverAddress from, size_t bytes, void* stream))                                  \
  X(CopyOnDevice, "cuMemcpyDtoDAsync_v2",                                                        \
    (DriverAddress to, DriverAddress from, size_t bytes, void* stream))                          \
  X(StreamCreate, "cuStreamCreate", (void** stream, unsigned flags))                             \
  X(StreamSynchronize, "cuStreamSynchronize", (void* stream))                                    \
  X(StreamQuery, "cuStreamQuery", (void* stream))                                                \
  X(StreamDestroy, "cuStreamDestroy_v2", (void* stream))                                         \
  X(StreamBeginCapture, "cuStreamBeginCapture_v2", (void* stream, int mode))                     \
  X(StreamEndCapture, "cuStreamEndCapture", (void* stream, void** graph))                        \
  X(GraphInstantiate, "cuGraphInstantiateWithFlags",                                             \
    (void** executable, void* graph, unsigned long long flags))                                  \
  X(GraphLaunch, "cuGraphLaunch", (void* executable, void* stream))                              \
  X(GraphDestroy, "cuGraphDestroy", (void* graph))                                               \
  X(GraphExecDestroy, "cuGraphExecDestroy", (void* executable))                                  \
  X(EventCreate, "cuEventCreate", (void** event, unsigned flags))                                \
  X(EventRecord, "cuEventRecord", (void* event, void* stream))                                   \
  X(EventSynchronize, "cuEventSynchronize", (void* event))                                       \
  X(EventDestroy, "cuEventDestroy_v2", (void* event))                                            \
  X(ModuleLoad, "cuModuleLoadData", (void** module, const void* image))                          \
  X(ModuleUnload, "cuModuleUnload", (void* module))                                              \
  X(ModuleGetFunction, "cuModuleGetFunction", (void** function, void* module, const char* name)) \
  X(LaunchKernel, "cuLaunchKernel",                                                              \
    (void* function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,        \
     unsigned block_y, unsigned block_z, unsigned shared_bytes, void* stream, void** parameters, \
     void** extra))                                                                              \
  X(GetErrorName, "cuGetErrorName", (DriverResult result, const char** name))                    \
  X(GetErrorString, "cuGetErrorString", (DriverResult result, const char** text))

struct DriverApi {
#define RENGA_DRIVER_FUNCTION(name, symbol, parameters) DriverResult(*name) parameters = nullptr;
  RENGA_DRIVER_FUNCTIONS(RENGA_DRIVER_FUNCTION)
#undef RENGA_DRIVER_FUNCTION
};

inline constexpr char kDriverLibrary[] = "libcuda.so.1";

// Loads the driver's library, once found never unloaded. kFailedPrecondition says that this machine
// has none, or one that lacks a function.
absl::StatusOr<DriverApi> LoadDriver(const std::string& library = kDriverLibrary);

// The one place where the driver's results become a Status; `what` says what failed.
absl::Status DriverStatus(const DriverApi& driver, DriverResult result, absl::string_view what);

}  // namespace renga::kernels::cuda

#endif  // RENGA_WORKER_KERNELS_CUDA_DRIVER_API_H_
