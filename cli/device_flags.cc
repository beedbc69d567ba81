#include "cli/device_flags.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/byte_size.h"
#include "base/status_macros.h"
#include "worker/kernels/backend_factory.h"

namespace renga::cli {
namespace {

// What stays free of a card's memory: room for the kernels' code and for a desktop's next window.
constexpr int64_t kCardReserveBytes = int64_t{128} << 20;
constexpr char kHostDevice[] = "cpu";
constexpr char kAuto[] = "auto";

}  // namespace

void AddDeviceFlags(CLI::App& command, DeviceFlags& flags) {
  command
      .add_option("--device", flags.device,
                  "cpu, one of its instruction sets (cpu-avx2), cuda or cuda:1 (an NVIDIA card), "
                  "auto (a card if there is one, else cpu), or reference")
      ->capture_default_str();
  command.add_option("--host-memory", flags.host_memory,
                     "Beside a card: memory of this machine for what fits on no card, computed by "
                     "the processor; a size, or auto for nine tenths of what is available");
}

absl::StatusOr<int64_t> OfferedMemory(const std::string& memory, const std::string& device,
                                      int workers) {
  if (!memory.empty()) return base::ParseByteSize(memory);
  RENGA_ASSIGN_OR_RETURN(const int64_t available, kernels::AvailableBytesOf(device));
  const int64_t left = kernels::IsCard(device) ? kCardReserveBytes : available / 10;
  return std::max<int64_t>(0, available - left) / std::max(1, workers);
}

absl::StatusOr<std::vector<DeviceOffer>> OffersOf(const DeviceFlags& flags, int workers) {
  DeviceOffer device = {.device = kernels::ChooseDevice(flags.device)};
  RENGA_ASSIGN_OR_RETURN(device.memory_bytes, OfferedMemory(flags.memory, device.device, workers));
  std::vector<DeviceOffer> offers = {device};
  if (flags.host_memory.empty()) return offers;
  DeviceOffer host = {.device = kHostDevice, .spare = true};
  const bool automatic = flags.host_memory == kAuto;
  RENGA_ASSIGN_OR_RETURN(host.memory_bytes,
                         OfferedMemory(automatic ? "" : flags.host_memory, host.device, 1));
  if (kernels::IsCard(device.device)) {
    if (host.memory_bytes > 0) offers.push_back(host);
  } else if (!automatic) {
    return absl::InvalidArgumentError(
        absl::StrCat("--host-memory is memory beside a card, and the device is ", device.device,
                     ": say --memory ", flags.host_memory, ", or --device cuda"));
  }
  return offers;
}

std::string SpareName(absl::string_view name) { return absl::StrCat(name, "-host"); }

}  // namespace renga::cli
