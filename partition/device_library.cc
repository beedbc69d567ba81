#include "partition/device_library.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace renga::partition {
namespace {

// Figures of the sheet, and three that are assumed: which share of the bandwidth kernels for
// quantised weights reach (llama.cpp users report 55 to 68 % on such cards), how many tokens are
// computed in the time of one reading of the weights, and what a layer costs whatever its size.
struct Device {
  const char* name;
  double memory_gb;       // usable: a 4 GB card without a display gives 3.45
  double sheet_gb_per_s;  // memory bandwidth
  double efficiency;      // assumed
  double prefill_gain;    // assumed
  double layer_us;        // assumed
  const char* source;
};

constexpr Device kDevices[] = {
    {"gtx-1050-ti", 3.45, 112, 0.60, 14, 30, "NVIDIA: 4 GB GDDR5, 128 bit, 7 Gbit/s"},
    {"gtx-1650", 3.45, 128, 0.60, 16, 30, "NVIDIA: 4 GB GDDR5, 128 bit, 8 Gbit/s"},
    {"gtx-1650-g6", 3.45, 192, 0.60, 16, 30, "NVIDIA: 4 GB GDDR6, 128 bit, 12 Gbit/s"},
    {"rtx-3050-laptop", 3.45, 192, 0.65, 24, 25, "NVIDIA: 4 GB GDDR6, 128 bit, 12 Gbit/s"},
    {"rtx-3050-6gb", 5.4, 168, 0.65, 24, 25, "NVIDIA: 6 GB GDDR6, 96 bit, 14 Gbit/s"},
    {"rtx-3050-8gb", 7.4, 224, 0.65, 24, 25, "NVIDIA: 8 GB GDDR6, 128 bit, 14 Gbit/s"},
    {"ddr3-1600-dual", 6, 25.6, 0.70, 4, 10, "JEDEC DDR3-1600, two channels"},
    {"ddr4-2400-dual", 12, 38.4, 0.70, 5, 10, "JEDEC DDR4-2400, two channels"},
    {"ddr4-3200-dual", 12, 51.2, 0.70, 6, 10, "JEDEC DDR4-3200, two channels"},
    {"ddr5-5600-dual", 24, 89.6, 0.70, 8, 10, "JEDEC DDR5-5600, two channels"},
    {"raspberry-pi-5", 6, 17, 0.60, 3, 20, "Raspberry Pi 5: 8 GB LPDDR4X-4267, 32 bit"},
};

// One way, with both hosts' network stacks and copies to and from the device; latencies and what is
// left of the bandwidth are assumed, to be replaced by measurements.
struct Network {
  const char* name;
  double latency_us;
  double mb_per_s;
  const char* source;
};

constexpr Network kNetworks[] = {
    {"1gbe", 120, 118, "IEEE 802.3ab, 1 Gbit/s"},
    {"2.5gbe", 105, 295, "IEEE 802.3bz, 2.5 Gbit/s"},
    {"10gbe", 80, 1150, "IEEE 802.3an, 10 Gbit/s"},
    {"wifi", 2500, 40, "Wi-Fi 5 at home, 80 MHz, two streams"},
    {"same-machine", 60, 1500, "two workers of one machine: loopback, TLS, copies"},
};

template <typename Entry, size_t n>
const Entry* Find(const Entry (&table)[n], absl::string_view name) {
  for (const Entry& entry : table) {
    if (absl::EqualsIgnoreCase(entry.name, name)) return &entry;
  }
  return nullptr;
}

template <typename Entry, size_t n>
absl::Status Unknown(const Entry (&table)[n], absl::string_view what, absl::string_view name) {
  std::string known;
  for (const Entry& entry : table) absl::StrAppend(&known, known.empty() ? "" : ", ", entry.name);
  return absl::NotFoundError(absl::StrCat("no ", what, " is called '", name, "'; known: ", known));
}

}  // namespace

absl::StatusOr<WorkerProfile> FindDevice(absl::string_view name) {
  const Device* device = Find(kDevices, name);
  if (device == nullptr) return Unknown(kDevices, "device", name);
  const double speed = device->sheet_gb_per_s * 1e9 * device->efficiency;
  const bool card = absl::StrContains(device->name, "tx-");  // GTX and RTX
  return WorkerProfile{.id = device->name,
                       .memory_bytes = static_cast<int64_t>(device->memory_gb * 1e9),
                       .bytes_per_second = speed,
                       .layer_us = device->layer_us,
                       .prefill_bytes_per_second = speed * device->prefill_gain,
                       .streams = !card};
}

absl::StatusOr<LinkProfile> FindLink(absl::string_view name) {
  const Network* network = Find(kNetworks, name);
  if (network == nullptr) return Unknown(kNetworks, "link", name);
  return LinkProfile{.latency_us = network->latency_us,
                     .bytes_per_second = network->mb_per_s * 1e6};
}

std::string DescribeLibrary() {
  std::string text = absl::StrFormat("%-16s %10s %12s %11s %8s %9s  %s\n", "device", "usable GB",
                                     "sheet GB/s", "reached", "prefill", "us/layer", "sheet");
  for (const Device& device : kDevices) {
    absl::StrAppendFormat(&text, "%-16s %10.2f %12.1f %9.0f %% %7.0fx %9.0f  %s\n", device.name,
                          device.memory_gb, device.sheet_gb_per_s, 100 * device.efficiency,
                          device.prefill_gain, device.layer_us, device.source);
  }
  absl::StrAppendFormat(&text, "\n%-16s %10s %12s  %s\n", "link", "us one way", "MB/s", "sheet");
  for (const Network& network : kNetworks) {
    absl::StrAppendFormat(&text, "%-16s %10.0f %12.0f  %s\n", network.name, network.latency_us,
                          network.mb_per_s, network.source);
  }
  return text;
}

}  // namespace renga::partition
