#include "worker/kernels/cuda/emulation/made_up_driver.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <mutex>
#include <utility>
#include <vector>

#include "worker/kernels/cuda/emulation/emulated_kernels.h"
#include "worker/kernels/cuda/kernel_list.h"

namespace renga::kernels::cuda::emulation {
namespace {

constexpr size_t kFilledBytes = size_t{64} << 20;
constexpr DriverResult kInvalidValue = 1;
constexpr DriverResult kNotFound = 500;
constexpr DriverResult kIllegalAddress = 700;

// Guards the machine; not held while kernels run.
std::mutex& MachineMutex() {
  static std::mutex mutex;
  return mutex;
}

struct Launched {
  Kernel kernel;
  Grid grid;
  std::vector<char> args;
};
using Graph = std::vector<Launched>;
Graph& Captured() {
  static Graph captured;
  return captured;
}

template <class T>
DriverResult Give(T* to, T value) {
  *to = value;
  return kDriverSuccess;
}

void* PointerOf(DriverAddress address) {
  return reinterpret_cast<void*>(static_cast<uintptr_t>(address));
}

// Adds to one of the machine's counts.
DriverResult Count(int MadeUpMachine::*count, int change) {
  const std::lock_guard<std::mutex> lock(MachineMutex());
  ThisMachine().*count += change;
  return kDriverSuccess;
}

// What others left of the card's memory. Under the mutex.
int64_t FreeBytes() {
  const MadeUpMachine& machine = ThisMachine();
  int64_t taken = 0;
  if (!machine.taken_file.empty()) std::ifstream(machine.taken_file) >> taken;
  return std::max<int64_t>(machine.free_bytes - taken, 0);
}

DriverResult Run(const Launched& launched) {
  const absl::Status status = RunGrid(KernelOf(launched.kernel).function, launched.args.data(),
                                      launched.grid, Turns::kForwards);
  if (status.ok()) return kDriverSuccess;
  std::fprintf(stderr, "a kernel on the made-up card: %s\n", std::string(status.message()).c_str());
  return kIllegalAddress;
}

}  // namespace

// The functions, each under the name that it has in the driver's library.
namespace made_up {
#define RENGA_DRIVER_FUNCTION(name, symbol, parameters) \
  DriverResult name parameters __asm__(symbol);
RENGA_DRIVER_FUNCTIONS(RENGA_DRIVER_FUNCTION)
#undef RENGA_DRIVER_FUNCTION

DriverResult Init(unsigned) { return ThisMachine().init; }
DriverResult DriverGetVersion(int* version) { return Give(version, ThisMachine().version); }
DriverResult DeviceGetCount(int* count) { return Give(count, ThisMachine().cards); }
DriverResult DeviceGet(int* device, int ordinal) { return Give(device, ordinal); }
DriverResult DeviceGetName(char* name, int bytes, int) {
  std::snprintf(name, static_cast<size_t>(bytes), "%s", ThisMachine().name.c_str());
  return kDriverSuccess;
}
DriverResult DeviceGetBusId(char* id, int bytes, int device) {
  std::snprintf(id, static_cast<size_t>(bytes), "0000:%02x:00.0", device + 1);
  return kDriverSuccess;
}
DriverResult DeviceGetAttribute(int* value, int attribute, int) {
  return Give(value, attribute == kAttributeMajor ? ThisMachine().major : ThisMachine().minor);
}

DriverResult PrimaryContextRetain(void** context, int) {
  MadeUpMachine& machine = ThisMachine();
  *context = &machine;
  if (machine.context != kDriverSuccess) return machine.context;
  return Count(&MadeUpMachine::contexts, 1);
}
DriverResult PrimaryContextRelease(int) { return Count(&MadeUpMachine::contexts, -1); }
DriverResult ContextSetCurrent(void*) { return kDriverSuccess; }

DriverResult MemoryGetInfo(size_t* free_bytes, size_t* total_bytes) {
  const std::lock_guard<std::mutex> lock(MachineMutex());
  *total_bytes = static_cast<size_t>(ThisMachine().total_bytes);
  return Give(free_bytes, static_cast<size_t>(FreeBytes()));
}
DriverResult MemoryAllocate(DriverAddress* address, size_t bytes) {
  const std::lock_guard<std::mutex> lock(MachineMutex());
  MadeUpMachine& machine = ThisMachine();
  void* memory = nullptr;
  if (static_cast<int64_t>(bytes) > FreeBytes() || posix_memalign(&memory, 256, bytes) != 0) {
    return kDriverOutOfMemory;
  }
  // No kernel may count on zeros; but an arena of gigabytes is not to become memory of the host.
  std::memset(memory, 0xff, std::min(bytes, kFilledBytes));
  *address = reinterpret_cast<uintptr_t>(memory);
  machine.memory[*address] = static_cast<int64_t>(bytes);
  machine.free_bytes -= static_cast<int64_t>(bytes);
  return kDriverSuccess;
}
DriverResult MemoryFree(DriverAddress address) {
  const std::lock_guard<std::mutex> lock(MachineMutex());
  MadeUpMachine& machine = ThisMachine();
  const auto found = machine.memory.find(address);
  if (found == machine.memory.end()) return kInvalidValue;
  machine.free_bytes += found->second;
  machine.memory.erase(found);
  std::free(PointerOf(address));
  return kDriverSuccess;
}
DriverResult HostAllocate(void** memory, size_t bytes, unsigned) {
  Count(&MadeUpMachine::host_allocations, 1);
  return Give(memory, std::malloc(bytes));
}
DriverResult HostFree(void* memory) {
  std::free(memory);
  return Count(&MadeUpMachine::host_allocations, -1);
}

DriverResult CopyToDevice(DriverAddress to, const void* from, size_t bytes, void*) {
  std::memcpy(PointerOf(to), from, bytes);
  return kDriverSuccess;
}
DriverResult CopyToHost(void* to, DriverAddress from, size_t bytes, void*) {
  std::memcpy(to, PointerOf(from), bytes);
  return kDriverSuccess;
}
DriverResult CopyOnDevice(DriverAddress to, DriverAddress from, size_t bytes, void*) {
  std::memcpy(PointerOf(to), PointerOf(from), bytes);
  return kDriverSuccess;
}

DriverResult StreamCreate(void** stream, unsigned) {
  *stream = &ThisMachine();
  return Count(&MadeUpMachine::streams_and_events, 1);
}
DriverResult StreamSynchronize(void*) { return ThisMachine().synchronize; }
DriverResult StreamQuery(void*) { return ThisMachine().synchronize; }
DriverResult StreamDestroy(void*) { return Count(&MadeUpMachine::streams_and_events, -1); }
DriverResult EventCreate(void** event, unsigned) {
  *event = &ThisMachine();
  return Count(&MadeUpMachine::streams_and_events, 1);
}
DriverResult EventRecord(void*, void*) { return kDriverSuccess; }
DriverResult EventSynchronize(void*) { return kDriverSuccess; }
DriverResult EventDestroy(void*) { return Count(&MadeUpMachine::streams_and_events, -1); }

// Graphs, as the driver makes them of what is launched while it captures.
DriverResult StreamBeginCapture(void*, int) {
  ThisMachine().capturing = true;
  Captured().clear();
  return kDriverSuccess;
}
DriverResult StreamEndCapture(void*, void** graph) {
  ThisMachine().capturing = false;
  *graph = new Graph(std::move(Captured()));
  return Count(&MadeUpMachine::graphs, 1);
}
DriverResult GraphInstantiate(void** executable, void* graph, unsigned long long) {
  if (ThisMachine().instantiate != kDriverSuccess) return ThisMachine().instantiate;
  *executable = new Graph(*static_cast<Graph*>(graph));
  Count(&MadeUpMachine::made_graphs, 1);
  return Count(&MadeUpMachine::executables, 1);
}
DriverResult GraphLaunch(void* executable, void*) {
  Count(&MadeUpMachine::graph_launches, 1);
  for (const Launched& launched : *static_cast<Graph*>(executable)) {
    if (const DriverResult result = Run(launched); result != kDriverSuccess) return result;
  }
  return kDriverSuccess;
}
DriverResult GraphDestroy(void* graph) {
  delete static_cast<Graph*>(graph);
  return Count(&MadeUpMachine::graphs, -1);
}
DriverResult GraphExecDestroy(void* executable) {
  delete static_cast<Graph*>(executable);
  return Count(&MadeUpMachine::executables, -1);
}

DriverResult ModuleLoad(void** module, const void*) {
  *module = &ThisMachine();
  return Count(&MadeUpMachine::modules, 1);
}
DriverResult ModuleUnload(void*) { return Count(&MadeUpMachine::modules, -1); }
DriverResult ModuleGetFunction(void** function, void*, const char* name) {
  for (int i = 0; i < kKernelCount; ++i) {
    if (std::strcmp(kKernelNames[i], name) != 0) continue;
    *function = reinterpret_cast<void*>(static_cast<uintptr_t>(i + 1));
    return kDriverSuccess;
  }
  return kNotFound;
}
DriverResult LaunchKernel(void* function, unsigned x, unsigned y, unsigned z, unsigned threads,
                          unsigned block_y, unsigned block_z, unsigned, void*, void** parameters,
                          void**) {
  if (z != 1 || block_y != 1 || block_z != 1) return kInvalidValue;
  const auto kernel = static_cast<Kernel>(reinterpret_cast<uintptr_t>(function) - 1);
  const auto* const args = static_cast<const char*>(parameters[0]);
  Launched launched = {.kernel = kernel,
                       .grid = {.blocks_x = x, .blocks_y = y, .threads = static_cast<int>(threads)},
                       .args = {args, args + KernelOf(kernel).args_bytes}};
  if (ThisMachine().capturing) {
    Captured().push_back(std::move(launched));
    return kDriverSuccess;
  }
  Count(&MadeUpMachine::plain_launches, 1);
  return Run(launched);
}

DriverResult GetErrorName(DriverResult, const char** name) { return Give(name, "CUDA_ERROR_X"); }
DriverResult GetErrorString(DriverResult, const char** text) { return Give(text, "it went wrong"); }
}  // namespace made_up

MadeUpMachine& ThisMachine() {
  static MadeUpMachine machine;
  return machine;
}

std::span<const DeviceImage> MadeUpImages() {
  static constexpr std::byte kCode[1] = {};
  static const DeviceImage kImages[] = {
      {.first = 75, .last = 999, .driver_version = 13000, .code = kCode, .first_tensor = 75},
      {.first = 61, .last = 62, .driver_version = 12000, .code = kCode}};
  return kImages;
}

DriverApi MadeUpDriver() {
  DriverApi driver;
#define RENGA_DRIVER_FUNCTION(name, symbol, parameters) driver.name = &made_up::name;
  RENGA_DRIVER_FUNCTIONS(RENGA_DRIVER_FUNCTION)
#undef RENGA_DRIVER_FUNCTION
  return driver;
}

}  // namespace renga::kernels::cuda::emulation
