// What a machine offers to a cluster: one device, and beside a card perhaps memory of the host with
// the processor.
#ifndef RENGA_CLI_DEVICE_FLAGS_H_
#define RENGA_CLI_DEVICE_FLAGS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "CLI/App.hpp"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace renga::cli {

// As typed.
struct DeviceFlags {
  std::string device = "cpu";  // or "auto": a card if there is one
  std::string memory;          // of it; "": what is available
  std::string host_memory;     // beside a card: a size, "auto", or "" for none
};
// --device and --host-memory, with the defaults that `flags` has; --memory says different things of
// different commands.
void AddDeviceFlags(CLI::App& command, DeviceFlags& flags);

// One worker: a device as kernels::CreateBackend knows it, and the memory that it may fill.
struct DeviceOffer {
  std::string device;
  int64_t memory_bytes = 0;
  bool spare = false;  // memory of the host beside a card (worker::WorkerOptions::spare)
};

// What each of `workers` workers on the device offers: `memory` as the user wrote it, or an equal
// share of what is available, a tenth left for everybody else; of a card, all that is free but 128
// MiB.
absl::StatusOr<int64_t> OfferedMemory(const std::string& memory, const std::string& device,
                                      int workers);

// Everything that this machine offers, with `workers` workers on the device: the device's offer,
// then the host's, if any. kInvalidArgument for host memory without a card.
absl::StatusOr<std::vector<DeviceOffer>> OffersOf(const DeviceFlags& flags, int workers = 1);

// The name of the worker that offers the host's memory beside the one called `name`.
std::string SpareName(absl::string_view name);

}  // namespace renga::cli

#endif  // RENGA_CLI_DEVICE_FLAGS_H_
