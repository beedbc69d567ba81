// The card behind the driver, with a driver made up here: its memory is the host's, its kernels are
// the emulated ones, and it fails when it is told to.
#include "worker/kernels/cuda/driver_device.h"

#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/testing/status_matchers.h"
#include "worker/kernels/backend_factory.h"
#include "worker/kernels/cuda/cuda_backend.h"
#include "worker/kernels/cuda/emulation/emulated_kernels.h"
#include "worker/kernels/cuda/launch_queue.h"
#include "worker/kernels/reference/reference_backend.h"

namespace renga::kernels::cuda {
namespace {

using ::renga::testing::StatusIs;
using ::testing::HasSubstr;

struct MadeUpMachine {
  DriverResult init = kDriverSuccess;
  DriverResult context = kDriverSuccess;
  DriverResult synchronize = kDriverSuccess;
  int version = 13000;
  int cards = 2;
  int major = 6;
  int minor = 1;
  int64_t free_bytes = int64_t{100} << 20;
  int contexts = 0;
  int64_t allocations = 0;
  int64_t host_allocations = 0;
  int streams_and_events = 0;
  int modules = 0;
  DriverResult instantiate = kDriverSuccess;
  int plain_launches = 0;
  int graph_launches = 0;
  int made_graphs = 0;
  int graphs = 0;       // not destroyed
  int executables = 0;  // likewise
  bool capturing = false;
  std::map<DriverAddress, int64_t> memory;
};
MadeUpMachine machine;

constexpr int64_t kTotalBytes = int64_t{4} << 30;

DriverResult FindKernel(void** function, void*, const char* name) {
  for (int i = 0; i < kKernelCount; ++i) {
    if (std::string(kKernelNames[i]) != name) continue;
    *function = reinterpret_cast<void*>(static_cast<uintptr_t>(i + 1));
    return kDriverSuccess;
  }
  return 500;  // CUDA_ERROR_NOT_FOUND
}

struct Launched {
  Kernel kernel;
  emulation::Grid grid;
  std::vector<char> args;
};
using Graph = std::vector<Launched>;
Graph captured;

DriverResult Run(const Launched& launched) {
  const absl::Status status =
      emulation::RunGrid(emulation::KernelOf(launched.kernel).function, launched.args.data(),
                         launched.grid, emulation::Turns::kForwards);
  EXPECT_OK(status);
  return status.ok() ? kDriverSuccess : 700;
}

DriverResult Launch(void* function, unsigned x, unsigned y, unsigned z, unsigned threads,
                    unsigned block_y, unsigned block_z, unsigned, void*, void** parameters,
                    void**) {
  EXPECT_EQ(z * block_y * block_z, 1u);
  const auto kernel = static_cast<Kernel>(reinterpret_cast<uintptr_t>(function) - 1);
  const auto* const args = static_cast<const char*>(parameters[0]);
  const Launched launched = {
      .kernel = kernel,
      .grid = {.blocks_x = x, .blocks_y = y, .threads = static_cast<int>(threads)},
      .args = {args, args + emulation::KernelOf(kernel).args_bytes}};
  if (machine.capturing) {
    captured.push_back(launched);
    return kDriverSuccess;
  }
  ++machine.plain_launches;
  return Run(launched);
}

// Graphs, as the driver makes them of what is launched while it captures.
void AddGraphs(DriverApi& d) {
  d.StreamBeginCapture = [](void*, int) {
    machine.capturing = true;
    captured.clear();
    return kDriverSuccess;
  };
  d.StreamEndCapture = [](void*, void** graph) {
    machine.capturing = false;
    ++machine.graphs;
    *graph = new Graph(std::move(captured));
    return kDriverSuccess;
  };
  d.GraphInstantiate = [](void** executable, void* graph, unsigned long long) {
    if (machine.instantiate != kDriverSuccess) return machine.instantiate;
    ++machine.made_graphs;
    ++machine.executables;
    *executable = new Graph(*static_cast<Graph*>(graph));
    return kDriverSuccess;
  };
  d.GraphLaunch = [](void* executable, void*) {
    ++machine.graph_launches;
    for (const Launched& launched : *static_cast<Graph*>(executable)) {
      if (Run(launched) != kDriverSuccess) return 700;
    }
    return kDriverSuccess;
  };
  d.GraphDestroy = [](void* graph) {
    --machine.graphs;
    delete static_cast<Graph*>(graph);
    return kDriverSuccess;
  };
  d.GraphExecDestroy = [](void* executable) {
    --machine.executables;
    delete static_cast<Graph*>(executable);
    return kDriverSuccess;
  };
}

DriverResult AllocateMemory(DriverAddress* address, size_t bytes) {
  if (static_cast<int64_t>(bytes) > machine.free_bytes) return kDriverOutOfMemory;
  void* memory = nullptr;
  if (posix_memalign(&memory, 256, bytes) != 0) return kDriverOutOfMemory;
  *address = reinterpret_cast<uintptr_t>(memory);
  machine.memory[*address] = static_cast<int64_t>(bytes);
  machine.free_bytes -= static_cast<int64_t>(bytes);
  return kDriverSuccess;
}

DriverResult FreeMemory(DriverAddress address) {
  const auto found = machine.memory.find(address);
  if (found == machine.memory.end()) return 1;
  machine.free_bytes += found->second;
  machine.memory.erase(found);
  std::free(reinterpret_cast<void*>(static_cast<uintptr_t>(address)));
  return kDriverSuccess;
}

template <class T>
DriverResult Give(T* to, T value) {
  *to = value;
  return kDriverSuccess;
}

DriverApi MadeUpDriver() {
  DriverApi d;
  d.Init = [](unsigned) { return machine.init; };
  d.DriverGetVersion = [](int* version) { return Give(version, machine.version); };
  d.DeviceGetCount = [](int* count) { return Give(count, machine.cards); };
  d.DeviceGet = [](int* device, int ordinal) { return Give(device, ordinal); };
  d.DeviceGetName = [](char* name, int bytes, int) {
    std::strncpy(name, "GTX Made Up", static_cast<size_t>(bytes));
    return kDriverSuccess;
  };
  d.DeviceGetAttribute = [](int* value, int attribute, int) {
    return Give(value, attribute == kAttributeMajor ? machine.major : machine.minor);
  };
  d.PrimaryContextRetain = [](void** context, int) {
    *context = &machine;
    machine.contexts += machine.context == kDriverSuccess ? 1 : 0;
    return machine.context;
  };
  d.PrimaryContextRelease = [](int) {
    --machine.contexts;
    return kDriverSuccess;
  };
  d.ContextSetCurrent = [](void*) { return kDriverSuccess; };
  d.MemoryGetInfo = [](size_t* free_bytes, size_t* total_bytes) {
    *total_bytes = static_cast<size_t>(kTotalBytes);
    return Give(free_bytes, static_cast<size_t>(machine.free_bytes));
  };
  d.MemoryAllocate = &AllocateMemory;
  d.MemoryFree = &FreeMemory;
  d.HostAllocate = [](void** memory, size_t bytes, unsigned) {
    ++machine.host_allocations;
    return Give(memory, std::malloc(bytes));
  };
  d.HostFree = [](void* memory) {
    --machine.host_allocations;
    std::free(memory);
    return kDriverSuccess;
  };
  d.CopyToDevice = [](DriverAddress to, const void* from, size_t bytes, void*) {
    std::memcpy(reinterpret_cast<void*>(static_cast<uintptr_t>(to)), from, bytes);
    return kDriverSuccess;
  };
  d.CopyToHost = [](void* to, DriverAddress from, size_t bytes, void*) {
    std::memcpy(to, reinterpret_cast<const void*>(static_cast<uintptr_t>(from)), bytes);
    return kDriverSuccess;
  };
  d.CopyOnDevice = [](DriverAddress to, DriverAddress from, size_t bytes, void*) {
    std::memcpy(reinterpret_cast<void*>(static_cast<uintptr_t>(to)),
                reinterpret_cast<const void*>(static_cast<uintptr_t>(from)), bytes);
    return kDriverSuccess;
  };
  const auto make = [](void** thing, unsigned) {
    ++machine.streams_and_events;
    return Give<void*>(thing, &machine);
  };
  const auto unmake = [](void*) {
    --machine.streams_and_events;
    return kDriverSuccess;
  };
  d.StreamCreate = make;
  d.StreamDestroy = unmake;
  d.EventCreate = make;
  d.EventDestroy = unmake;
  d.StreamSynchronize = [](void*) { return machine.synchronize; };
  d.EventRecord = [](void*, void*) { return kDriverSuccess; };
  d.EventSynchronize = [](void*) { return kDriverSuccess; };
  d.ModuleLoad = [](void** module, const void*) {
    ++machine.modules;
    return Give<void*>(module, &machine);
  };
  d.ModuleUnload = [](void*) {
    --machine.modules;
    return kDriverSuccess;
  };
  d.ModuleGetFunction = &FindKernel;
  d.LaunchKernel = &Launch;
  AddGraphs(d);
  d.GetErrorName = [](DriverResult, const char** name) { return Give(name, "CUDA_ERROR_X"); };
  d.GetErrorString = [](DriverResult, const char** text) { return Give(text, "it went wrong"); };
  return d;
}

// Code for sm_61 and for sm_75 and newer, as the build makes them.
constexpr std::byte kCode[1] = {};
const DeviceImage kImages[] = {
    {.first = 75, .last = 999, .driver_version = 13000, .code = kCode, .first_tensor = 80},
    {.first = 61, .last = 62, .driver_version = 12000, .code = kCode}};

class DriverDeviceTest : public ::testing::Test {
 protected:
  void SetUp() override { machine = {}; }
  void TearDown() override {
    EXPECT_EQ(machine.contexts, 0);
    EXPECT_EQ(machine.host_allocations, 0);
    EXPECT_EQ(machine.streams_and_events, 0);
    EXPECT_EQ(machine.modules, 0);
    EXPECT_EQ(machine.graphs, 0);
    EXPECT_EQ(machine.executables, 0);
    EXPECT_FALSE(machine.capturing);
    EXPECT_TRUE(machine.memory.empty());
  }
  static absl::Status OpenStatus(int ordinal = 0) {
    return OpenCard(MadeUpDriver(), ordinal, kImages).status();
  }
};

constexpr auto kNotHere = absl::StatusCode::kFailedPrecondition;

TEST_F(DriverDeviceTest, NoDriver) {
  EXPECT_THAT(LoadDriver("libcuda-that-is-not-there.so.1"),
              StatusIs(kNotHere, HasSubstr("no NVIDIA driver")));
  // A library without the driver's functions is as good as one that is too old.
  EXPECT_THAT(LoadDriver("libc.so.6"), StatusIs(kNotHere, HasSubstr("too old")));
}

TEST_F(DriverDeviceTest, EachThingThatIsMissingHasItsSentence) {
  machine.init = kDriverNoDevice;
  EXPECT_THAT(OpenStatus(), StatusIs(kNotHere, HasSubstr("finds no card")));
  machine.init = kDriverMismatch;
  EXPECT_THAT(OpenStatus(), StatusIs(kNotHere, HasSubstr("restart the machine")));
  machine.init = 999;
  EXPECT_THAT(OpenStatus(), StatusIs(absl::StatusCode::kInternal, HasSubstr("it went wrong")));
  machine.init = kDriverSuccess;
  EXPECT_THAT(OpenStatus(2), StatusIs(kNotHere, HasSubstr("cuda:0 to cuda:1")));
  EXPECT_THAT(OpenStatus(-1), StatusIs(kNotHere));
  machine.cards = 0;
  EXPECT_THAT(OpenStatus(), StatusIs(kNotHere, HasSubstr("finds no card")));
}

TEST_F(DriverDeviceTest, CardsAndDriversThatAreTooOld) {
  EXPECT_OK(OpenStatus());
  machine.version = 11040;
  EXPECT_THAT(OpenStatus(), StatusIs(kNotHere, HasSubstr("knows CUDA 11.4")));
  machine.version = 12020;
  EXPECT_OK(OpenStatus());
  machine.major = 8;
  EXPECT_THAT(OpenStatus(), StatusIs(kNotHere, HasSubstr("needs 13.0")));
  machine.version = 13000;
  EXPECT_OK(OpenStatus());
  machine.major = 5;
  machine.minor = 2;
  EXPECT_THAT(OpenStatus(), StatusIs(kNotHere, HasSubstr("GTX Made Up is too old")));
  machine.major = 7;
  machine.minor = 0;
  EXPECT_THAT(OpenStatus(), StatusIs(kNotHere, HasSubstr("no code for the GTX Made Up")));
  // The Tensor kernels are for those cards whose code has them.
  machine.minor = 5;
  ASSERT_OK_AND_ASSIGN(const auto turing, OpenCard(MadeUpDriver(), 0, kImages));
  EXPECT_FALSE(turing->has_tensor_cores());
  machine.major = 8;
  machine.minor = 0;
  ASSERT_OK_AND_ASSIGN(const auto ampere, OpenCard(MadeUpDriver(), 0, kImages));
  EXPECT_TRUE(ampere->has_tensor_cores());
  EXPECT_THAT(OpenCard(MadeUpDriver(), 0, {}),
              StatusIs(kNotHere, HasSubstr("without a CUDA compiler")));
}

TEST_F(DriverDeviceTest, MemoryThatOthersTook) {
  ASSERT_OK_AND_ASSIGN(const CardMemory memory, MemoryOfCard(MadeUpDriver(), 1));
  EXPECT_EQ(memory.free_bytes, int64_t{100} << 20);
  EXPECT_EQ(memory.total_bytes, kTotalBytes);
  ASSERT_OK_AND_ASSIGN(const auto card, OpenCard(MadeUpDriver(), 0, kImages));
  ASSERT_OK_AND_ASSIGN(std::byte* const first, card->Allocate(int64_t{99} << 20));
  EXPECT_THAT(card->Allocate(int64_t{2} << 20),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("1.0 MiB of its 4.0 GiB")));
  ASSERT_OK_AND_ASSIGN(std::byte* const second, card->Allocate(int64_t{1} << 20));
  card->Free(first);
  card->Free(second);
  machine.context = kDriverOutOfMemory;
  EXPECT_THAT(OpenStatus(), StatusIs(absl::StatusCode::kResourceExhausted));
  machine.context = kDriverSuccess;
}

TEST_F(DriverDeviceTest, LargeCopiesComeInPiecesAndArriveWhole) {
  ASSERT_OK_AND_ASSIGN(const auto card, OpenCard(MadeUpDriver(), 0, kImages));
  // More than all of the pinned memory, and no multiple of its pieces.
  std::vector<std::byte> bytes((size_t{9} << 20) + 12345);
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i * 7 >> 3);
  ASSERT_OK_AND_ASSIGN(std::byte* const memory, card->Allocate(static_cast<int64_t>(bytes.size())));
  ASSERT_OK(card->Upload(bytes, memory));
  std::vector<std::byte> back(bytes.size());
  ASSERT_OK(card->Download(memory, back));
  EXPECT_TRUE(back == bytes);
  ASSERT_OK(card->Copy(memory, memory + 4096, 1000));
  ASSERT_OK(card->Download(memory, back));
  EXPECT_TRUE(std::equal(bytes.begin(), bytes.begin() + 1000, back.begin() + 4096));
  EXPECT_TRUE(std::equal(bytes.begin() + 5096, bytes.end(), back.begin() + 5096));
  EXPECT_OK(card->Upload({}, memory));
  EXPECT_OK(card->Download(memory, {}));
  card->Free(memory);
}

TEST_F(DriverDeviceTest, WhatAKernelDidWrongIsSaidWhenItIsWaitedFor) {
  ASSERT_OK_AND_ASSIGN(const auto card, OpenCard(MadeUpDriver(), 0, kImages));
  machine.synchronize = 700;
  EXPECT_THAT(card->Synchronize(), StatusIs(absl::StatusCode::kInternal));
}

// Through the whole backend: the struct of each kernel arrives as it is.
TEST_F(DriverDeviceTest, ABackendOverTheDriverMultiplies) {
  ASSERT_OK_AND_ASSIGN(std::shared_ptr<Device> card, OpenCard(MadeUpDriver(), 0, kImages));
  const auto run = [](Backend& backend) {
    const std::vector<float> weights = {1, 2, 3, 4, 5, 6};
    const std::vector<float> in = {1, 10, 100};
    std::vector<float> result(2);
    const auto matrix = backend.CreateMatrix(base::DataType::kF32, 2, 3);
    EXPECT_OK(matrix);
    EXPECT_OK(backend.LoadRows(**matrix, 0, std::as_bytes(std::span(weights))));
    const auto from = backend.Allocate(12);
    const auto to = backend.Allocate(8);
    EXPECT_OK(backend.Upload(std::as_bytes(std::span(in)), **from, 0));
    const LinearOutput output{.matrix = matrix->get(),
                              .bias = nullptr,
                              .out = {reinterpret_cast<float*>((*to)->data()), 1, 2, 2}};
    EXPECT_OK(
        backend.Linear({reinterpret_cast<const float*>((*from)->data()), 1, 3, 3}, {&output, 1}));
    EXPECT_OK(backend.Download(**to, 0, std::as_writable_bytes(std::span(result))));
    return result;
  };
  EXPECT_EQ(run(*CreateCudaBackend(std::move(card))), std::vector<float>({321, 654}));
}

// Runs of launches: each adds the 32 numbers behind `memory` to those before.
class LaunchQueueTest : public DriverDeviceTest {
 protected:
  void Open(bool graphs) {
    auto card = OpenCard(MadeUpDriver(), 0, kImages, {.graphs = graphs});
    ASSERT_OK(card);
    card_ = std::move(card).value();
    const auto memory = card_->Allocate(4096);
    ASSERT_OK(memory);
    memory_ = *memory;
    Set(0, 0);
    Set(1024, 1);
  }
  void TearDown() override {
    if (card_ != nullptr) card_->Free(memory_);
    card_.reset();
    DriverDeviceTest::TearDown();
  }
  void Set(int64_t at, float value) {
    const std::vector<float> numbers(32, value);
    ASSERT_OK(card_->Upload(std::as_bytes(std::span(numbers)), memory_ + at));
  }
  // `count` launches that add what lies at 1024 to what lies at `at`.
  void Add(size_t count, int64_t at = 0) {
    const RowsArgs args = {.a = reinterpret_cast<const float*>(memory_ + 1024),
                           .a_stride = 32,
                           .b = nullptr,
                           .b_stride = 0,
                           .out = reinterpret_cast<float*>(memory_ + at),
                           .out_stride = 32,
                           .rows = 1,
                           .columns = 32};
    for (size_t i = 0; i < count; ++i) {
      ASSERT_OK(card_->Launch(Kernel::kAdd, {1, 1, 32}, std::as_bytes(std::span(&args, 1))));
    }
  }
  float Get(int64_t at = 0) {
    float value = 0;
    EXPECT_OK(card_->Download(memory_ + at, std::as_writable_bytes(std::span(&value, 1))));
    return value;
  }

  std::unique_ptr<Device> card_;
  std::byte* memory_ = nullptr;
};

TEST_F(LaunchQueueTest, ARunThatComesAgainBecomesAGraph) {
  Open(true);
  Add(40);
  EXPECT_EQ(Get(), 40);
  EXPECT_EQ(machine.plain_launches, 40);
  for (int i = 1; i <= 3; ++i) {
    Add(40);
    EXPECT_EQ(Get(), 40 + 40 * i);
    EXPECT_EQ(machine.plain_launches, 40);
    EXPECT_EQ(machine.graph_launches, i);
  }
  EXPECT_EQ(machine.made_graphs, 1);
  Add(41);  // another run
  EXPECT_EQ(Get(), 201);
  EXPECT_EQ(machine.plain_launches, 81);
  Add(40, 128);  // of equal length
  EXPECT_EQ(Get(128), Get(128));
  EXPECT_EQ(machine.plain_launches, 121);
}

TEST_F(LaunchQueueTest, ShortRunsAndCardsWithoutGraphsLaunchOneByOne) {
  Open(true);
  for (int i = 0; i < 4; ++i) {
    Add(LaunchQueue::kFewest - 1);
    ASSERT_OK(card_->Synchronize());
  }
  EXPECT_EQ(machine.made_graphs, 0);
  card_->Free(memory_);
  Open(false);
  machine.plain_launches = 0;
  for (int i = 0; i < 4; ++i) {
    Add(100);
    EXPECT_EQ(machine.plain_launches, 100 * (i + 1));  // at once
    ASSERT_OK(card_->Synchronize());
  }
  EXPECT_EQ(machine.made_graphs, 0);
}

TEST_F(LaunchQueueTest, LaunchesKeepTheirPlaceAmongCopies) {
  Open(true);
  for (int i = 0; i < 3; ++i) {
    Set(0, 0);
    Set(1024, 1);
    Add(50);
    Set(1024, 100);  // behind the launches
    Add(50);
    ASSERT_OK(card_->Copy(memory_, memory_ + 2048, 128));
    Add(1);
    EXPECT_EQ(Get(2048), 5050);
    EXPECT_EQ(Get(), 5150);
  }
  EXPECT_GT(machine.graph_launches, 0);
}

TEST_F(LaunchQueueTest, OnlySoManyGraphsAreKept) {
  Open(true);
  for (size_t extra = 0; extra < LaunchQueue::kMostGraphs + 3; ++extra) {
    for (int i = 0; i < 2; ++i) {
      Add(LaunchQueue::kFewest + extra);
      ASSERT_OK(card_->Synchronize());
    }
  }
  EXPECT_EQ(machine.made_graphs, static_cast<int>(LaunchQueue::kMostGraphs) + 3);
  EXPECT_EQ(machine.executables, static_cast<int>(LaunchQueue::kMostGraphs));
  // More launches than may wait go in two runs.
  Set(0, 0);
  Add(LaunchQueue::kMost + 10);
  EXPECT_EQ(Get(), static_cast<float>(LaunchQueue::kMost + 10));
}

TEST_F(LaunchQueueTest, WorkGoesOnWithoutGraphsWhereTheDriverMakesNone) {
  Open(true);
  machine.instantiate = 801;  // CUDA_ERROR_NOT_SUPPORTED
  for (int i = 1; i <= 4; ++i) {
    Add(40);
    EXPECT_EQ(Get(), 40 * i);
  }
  EXPECT_EQ(machine.graph_launches, 0);
  EXPECT_EQ(machine.plain_launches, 160);
}

TEST(DeviceImagesTest, WhatTheBuildMadeHasEveryKernel) {
  if (EmbeddedImages().empty()) GTEST_SKIP() << "built without a compiler for cards";
  for (const DeviceImage& image : EmbeddedImages()) {
    ASSERT_GT(image.code.size(), 1000u);
    // Fat binaries are compressed, a cubin shows its names.
    if (image.first != 61) continue;
    const std::string code(reinterpret_cast<const char*>(image.code.data()), image.code.size());
    for (const char* name : kKernelNames) EXPECT_THAT(code, HasSubstr(name));
  }
}

TEST(DeviceImagesTest, Pascal) {
  for (const DeviceImage& image : EmbeddedImages()) {
    if (image.first == 61) return;
  }
  GTEST_SKIP() << "no clang 19 with CUDA 12's headers here: deploy/install-deps --cuda";
}

}  // namespace
}  // namespace renga::kernels::cuda
