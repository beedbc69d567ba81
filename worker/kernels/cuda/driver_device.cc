#include "worker/kernels/cuda/driver_device.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/byte_size.h"
#include "base/status_macros.h"
#include "worker/kernels/cuda/launch_queue.h"

namespace renga::kernels::cuda {
namespace {

// Pinned host memory that copies to the card go through: pieces of it, used in turn.
constexpr int64_t kStageBytes = int64_t{256} << 10;
constexpr size_t kStages = 32;

DriverAddress AddressOf(const std::byte* memory) {
  return static_cast<DriverAddress>(reinterpret_cast<uintptr_t>(memory));
}

}  // namespace

absl::StatusOr<Card> FindCard(const DriverApi& driver, int ordinal) {
  RENGA_RETURN_IF_ERROR(DriverStatus(driver, driver.Init(0), "starting the NVIDIA driver"));
  Card card;
  int count = 0;
  RENGA_RETURN_IF_ERROR(
      DriverStatus(driver, driver.DriverGetVersion(&card.driver_version), "asking its version"));
  RENGA_RETURN_IF_ERROR(
      DriverStatus(driver, driver.DeviceGetCount(&count), "counting the NVIDIA cards"));
  if (count == 0) return DriverStatus(driver, kDriverNoDevice, "");
  if (ordinal < 0 || ordinal >= count) {
    return absl::FailedPreconditionError(
        absl::StrCat("this machine has no card cuda:", ordinal, "; it has cuda:0",
                     count > 1 ? absl::StrCat(" to cuda:", count - 1) : std::string()));
  }
  RENGA_RETURN_IF_ERROR(
      DriverStatus(driver, driver.DeviceGet(&card.device, ordinal), "finding the card"));
  std::array<char, 256> name = {};
  RENGA_RETURN_IF_ERROR(DriverStatus(
      driver, driver.DeviceGetName(name.data(), static_cast<int>(name.size()) - 1, card.device),
      "asking the card's name"));
  card.name = name.data();
  std::array<char, 32> bus = {};
  RENGA_RETURN_IF_ERROR(DriverStatus(
      driver, driver.DeviceGetBusId(bus.data(), static_cast<int>(bus.size()) - 1, card.device),
      "asking where the card is"));
  card.bus_id = bus.data();
  int major = 0;
  int minor = 0;
  RENGA_RETURN_IF_ERROR(DriverStatus(
      driver, driver.DeviceGetAttribute(&major, kAttributeMajor, card.device), "asking the card"));
  RENGA_RETURN_IF_ERROR(DriverStatus(
      driver, driver.DeviceGetAttribute(&minor, kAttributeMinor, card.device), "asking the card"));
  card.capability = 10 * major + minor;
  return card;
}

namespace {

// Of cards of 7.5 the driver tells only by their names which have tensor cores: "GeForce RTX 2060",
// "Quadro RTX 4000", "Tesla T4", but not "GeForce GTX 1650", "Quadro T1000" or "GeForce MX450".
bool HasTensorCores(const Card& card) {
  return card.capability > 75 || absl::StrContains(card.name, "RTX") ||
         absl::EndsWith(card.name, "T4");
}

// The primary context of a card, current in the calling thread while the object is used there.
class Context {
 public:
  static absl::StatusOr<std::unique_ptr<Context>> Open(const DriverApi& driver, int device) {
    void* context = nullptr;
    const DriverResult result = driver.PrimaryContextRetain(&context, device);
    if (result == kDriverOutOfMemory) {
      return absl::ResourceExhaustedError(
          "the card has no memory left for a context: other programs use all of it");
    }
    RENGA_RETURN_IF_ERROR(DriverStatus(driver, result, "opening the card"));
    return std::unique_ptr<Context>(new Context(driver, device, context));
  }
  ~Context() { driver_.PrimaryContextRelease(device_); }

  absl::Status MakeCurrent() const {
    return DriverStatus(driver_, driver_.ContextSetCurrent(context_), "using the card");
  }
  absl::StatusOr<CardMemory> Memory() const {
    size_t free_bytes = 0;
    size_t total_bytes = 0;
    RENGA_RETURN_IF_ERROR(DriverStatus(driver_, driver_.MemoryGetInfo(&free_bytes, &total_bytes),
                                       "asking for the card's memory"));
    return CardMemory{static_cast<int64_t>(free_bytes), static_cast<int64_t>(total_bytes)};
  }

 private:
  Context(const DriverApi& driver, int device, void* context)
      : driver_(driver), device_(device), context_(context) {}

  const DriverApi driver_;
  const int device_;
  void* const context_;
};

class DriverDevice : public Device {
 public:
  DriverDevice(const DriverApi& driver, std::unique_ptr<Context> context, bool has_tensor_kernels,
               bool has_tensor_cores, const CardOptions& options)
      : driver_(driver),
        context_(std::move(context)),
        has_tensor_kernels_(has_tensor_kernels),
        has_tensor_cores_(has_tensor_cores),
        queue_(std::make_unique<LaunchQueue>(driver, options.graphs)) {}
  ~DriverDevice() override;

  // Once, before anything else.
  absl::Status Prepare(const DeviceImage& image);

  bool has_tensor_kernels() const override { return has_tensor_kernels_; }
  bool has_tensor_cores() const override { return has_tensor_cores_; }
  absl::StatusOr<std::byte*> Allocate(int64_t bytes) override;
  void Free(std::byte* memory) override;
  absl::Status Upload(std::span<const std::byte> host, std::byte* to) override;
  absl::Status Copy(const std::byte* from, std::byte* to, int64_t bytes) override;
  absl::Status Download(const std::byte* from, std::span<std::byte> host) override;
  absl::Status Launch(Kernel kernel, const LaunchShape& shape,
                      std::span<const std::byte> args) override;
  absl::Status Synchronize() override;
  absl::StatusOr<bool> IsIdle() override;
  absl::StatusOr<void*> Stream() override;

 private:
  // A piece of the pinned memory; its event says when the card has taken what lies there.
  struct Stage {
    std::byte* memory = nullptr;
    void* event = nullptr;
    bool in_use = false;
  };
  absl::Status Check(DriverResult result, absl::string_view what) const {
    return DriverStatus(driver_, result, what);
  }
  // Makes the card the thread's, and gives it the launches that wait.
  absl::Status StartCall();
  absl::Status UploadPiece(std::span<const std::byte> host, DriverAddress to);

  const DriverApi driver_;
  const std::unique_ptr<Context> context_;
  const bool has_tensor_kernels_;
  const bool has_tensor_cores_;
  void* stream_ = nullptr;
  void* module_ = nullptr;
  KernelFunctions functions_ = {};
  std::unique_ptr<LaunchQueue> queue_;
  absl::Status launched_;  // what Free could not tell
  void* pinned_ = nullptr;
  std::array<Stage, kStages> stages_;
  size_t next_stage_ = 0;
};

absl::Status DriverDevice::Prepare(const DeviceImage& image) {
  RENGA_RETURN_IF_ERROR(context_->MakeCurrent());
  RENGA_RETURN_IF_ERROR(
      Check(driver_.ModuleLoad(&module_, image.code.data()), "loading the kernels"));
  for (int i = 0; i < kKernelCount; ++i) {
    RENGA_RETURN_IF_ERROR(Check(
        driver_.ModuleGetFunction(&functions_[static_cast<size_t>(i)], module_, kKernelNames[i]),
        absl::StrCat("finding the kernel ", kKernelNames[i])));
  }
  RENGA_RETURN_IF_ERROR(
      Check(driver_.StreamCreate(&stream_, kNonBlockingStream), "making a stream"));
  queue_->Open(stream_, &functions_);
  RENGA_RETURN_IF_ERROR(
      Check(driver_.HostAllocate(&pinned_, kStages * kStageBytes, 0), "pinning host memory"));
  for (size_t i = 0; i < kStages; ++i) {
    stages_[i].memory = static_cast<std::byte*>(pinned_) + i * kStageBytes;
    RENGA_RETURN_IF_ERROR(
        Check(driver_.EventCreate(&stages_[i].event, kEventWithoutTiming), "making an event"));
  }
  return absl::OkStatus();
}

// What the driver says on the way out helps nobody.
DriverDevice::~DriverDevice() {
  if (!context_->MakeCurrent().ok()) return;
  if (stream_ != nullptr) driver_.StreamSynchronize(stream_);
  queue_.reset();
  for (const Stage& stage : stages_) {
    if (stage.event != nullptr) driver_.EventDestroy(stage.event);
  }
  if (pinned_ != nullptr) driver_.HostFree(pinned_);
  if (stream_ != nullptr) driver_.StreamDestroy(stream_);
  if (module_ != nullptr) driver_.ModuleUnload(module_);
}

absl::StatusOr<std::byte*> DriverDevice::Allocate(int64_t bytes) {
  RENGA_RETURN_IF_ERROR(context_->MakeCurrent());
  DriverAddress address = 0;
  const DriverResult result = driver_.MemoryAllocate(&address, static_cast<size_t>(bytes));
  if (result == kDriverOutOfMemory) {
    RENGA_ASSIGN_OR_RETURN(const CardMemory memory, context_->Memory());
    return absl::ResourceExhaustedError(absl::StrCat(
        "cannot allocate ", base::FormatByteSize(bytes),
        " on the card: ", base::FormatByteSize(memory.free_bytes), " of its ",
        base::FormatByteSize(memory.total_bytes),
        " are free now; offer less with --memory, or end what else uses it (nvidia-smi)"));
  }
  RENGA_RETURN_IF_ERROR(Check(result, "allocating on the card"));
  return reinterpret_cast<std::byte*>(static_cast<uintptr_t>(address));
}

void DriverDevice::Free(std::byte* memory) {
  if (!context_->MakeCurrent().ok()) return;
  launched_.Update(queue_->Flush());
  driver_.StreamSynchronize(stream_);
  driver_.MemoryFree(AddressOf(memory));
}

absl::Status DriverDevice::StartCall() {
  RENGA_RETURN_IF_ERROR(context_->MakeCurrent());
  RENGA_RETURN_IF_ERROR(std::exchange(launched_, absl::OkStatus()));
  return queue_->Flush();
}

absl::Status DriverDevice::UploadPiece(std::span<const std::byte> host, DriverAddress to) {
  Stage& stage = stages_[next_stage_];
  next_stage_ = (next_stage_ + 1) % kStages;
  if (stage.in_use) {
    RENGA_RETURN_IF_ERROR(Check(driver_.EventSynchronize(stage.event), "a copy to the card"));
  }
  std::memcpy(stage.memory, host.data(), host.size());
  RENGA_RETURN_IF_ERROR(
      Check(driver_.CopyToDevice(to, stage.memory, host.size(), stream_), "a copy to the card"));
  stage.in_use = true;
  return Check(driver_.EventRecord(stage.event, stream_), "a copy to the card");
}

absl::Status DriverDevice::Upload(std::span<const std::byte> host, std::byte* to) {
  RENGA_RETURN_IF_ERROR(StartCall());
  for (size_t at = 0; at < host.size(); at += kStageBytes) {
    const size_t count = std::min<size_t>(kStageBytes, host.size() - at);
    RENGA_RETURN_IF_ERROR(UploadPiece(host.subspan(at, count), AddressOf(to + at)));
  }
  return absl::OkStatus();
}

absl::Status DriverDevice::Copy(const std::byte* from, std::byte* to, int64_t bytes) {
  RENGA_RETURN_IF_ERROR(StartCall());
  return Check(
      driver_.CopyOnDevice(AddressOf(to), AddressOf(from), static_cast<size_t>(bytes), stream_),
      "a copy on the card");
}

absl::Status DriverDevice::Download(const std::byte* from, std::span<std::byte> host) {
  RENGA_RETURN_IF_ERROR(StartCall());
  if (!host.empty()) {
    RENGA_RETURN_IF_ERROR(
        Check(driver_.CopyToHost(host.data(), AddressOf(from), host.size(), stream_),
              "a copy from the card"));
  }
  return Check(driver_.StreamSynchronize(stream_), "the card's work");
}

absl::Status DriverDevice::Launch(Kernel kernel, const LaunchShape& shape,
                                  std::span<const std::byte> args) {
  constexpr int64_t kMostBlocksX = std::numeric_limits<int32_t>::max();
  constexpr int64_t kMostBlocksY = 65535;
  if (shape.blocks_x > kMostBlocksX || shape.blocks_y > kMostBlocksY) {
    return absl::UnimplementedError(
        absl::StrCat("a grid of ", shape.blocks_x, " x ", shape.blocks_y, " blocks"));
  }
  RENGA_RETURN_IF_ERROR(context_->MakeCurrent());
  return queue_->Add(kernel, shape, args);
}

absl::Status DriverDevice::Synchronize() {
  RENGA_RETURN_IF_ERROR(StartCall());
  return Check(driver_.StreamSynchronize(stream_), "the card's work");
}

absl::StatusOr<bool> DriverDevice::IsIdle() {
  RENGA_RETURN_IF_ERROR(StartCall());
  const DriverResult result = driver_.StreamQuery(stream_);
  if (result == kDriverNotReady) return false;
  RENGA_RETURN_IF_ERROR(Check(result, "the card's work"));
  return true;
}

absl::StatusOr<void*> DriverDevice::Stream() {
  RENGA_RETURN_IF_ERROR(StartCall());
  return stream_;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Device>> OpenCard(const DriverApi& driver, int ordinal,
                                                 std::span<const DeviceImage> images,
                                                 const CardOptions& options) {
  RENGA_ASSIGN_OR_RETURN(const Card card, FindCard(driver, ordinal));
  RENGA_ASSIGN_OR_RETURN(const DeviceImage image,
                         ChooseImage(images, card.capability, card.driver_version, card.name));
  RENGA_ASSIGN_OR_RETURN(auto context, Context::Open(driver, card.device));
  const bool tensor_kernels = card.capability >= image.first_tensor;
  auto device = std::make_unique<DriverDevice>(driver, std::move(context), tensor_kernels,
                                               tensor_kernels && HasTensorCores(card), options);
  RENGA_RETURN_IF_ERROR(device->Prepare(image));
  return device;
}

absl::StatusOr<CardMemory> MemoryOfCard(const DriverApi& driver, int ordinal) {
  RENGA_ASSIGN_OR_RETURN(const Card card, FindCard(driver, ordinal));
  RENGA_ASSIGN_OR_RETURN(const auto context, Context::Open(driver, card.device));
  RENGA_RETURN_IF_ERROR(context->MakeCurrent());
  return context->Memory();
}

}  // namespace renga::kernels::cuda
