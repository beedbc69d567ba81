#include "coordinator/cluster/join_checks.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"
#include "base/data_type.h"
#include "base/status_macros.h"
#include "transport/dialer.h"
#include "transport/hello.h"

namespace renga::cluster {
namespace {

constexpr size_t kMaxNameBytes = 64;
constexpr size_t kMaxHostBytes = 253;
// More than any machine has, and small enough that sums over a cluster cannot overflow.
constexpr int64_t kMaxMemoryBytes = int64_t{1} << 50;
constexpr double kMaxBytesPerSecond = 1e15;
constexpr double kMaxLayerMicroseconds = 1e6;
constexpr uint32_t kMaxThreads = 1 << 16;
constexpr int kMaxKernels = 64;
// Epochs are milliseconds since 1970: this one is thousands of years away.
constexpr uint64_t kMaxEpoch = uint64_t{1} << 48;

constexpr size_t kMaxSentenceBytes = 400;
// Thousands of layers of one call each.
constexpr size_t kMaxPlaces = size_t{1} << 16;

absl::Status CheckText(absl::string_view what, absl::string_view text,
                       size_t max_bytes = kMaxNameBytes) {
  if (text.size() > max_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("the ", what, " is longer than ", max_bytes, " bytes"));
  }
  if (std::any_of(text.begin(), text.end(), [](char c) { return absl::ascii_iscntrl(c); })) {
    return absl::InvalidArgumentError(absl::StrCat("the ", what, " holds control characters"));
  }
  return absl::OkStatus();
}

absl::Status CheckSpeed(absl::string_view what, double bytes_per_second, double least) {
  if (std::isfinite(bytes_per_second) && bytes_per_second >= least &&
      bytes_per_second <= kMaxBytesPerSecond) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("the measured speed of ", what, " is no speed: ", bytes_per_second));
}

// Formats that this build does not know are left out: nothing is planned with them.
absl::StatusOr<std::vector<KernelSpeed>> CheckKernels(
    const google::protobuf::RepeatedPtrField<proto::KernelSpeed>& offered) {
  if (offered.size() > kMaxKernels) {
    return absl::InvalidArgumentError(
        absl::StrCat("the speeds of ", offered.size(), " formats are too many"));
  }
  std::vector<KernelSpeed> kernels;
  for (const proto::KernelSpeed& kernel : offered) {
    const auto type = base::DataTypeFromGgufId(kernel.gguf_type());
    if (!type.has_value()) continue;
    const absl::string_view name = base::GetDataTypeInfo(*type).name;
    RENGA_RETURN_IF_ERROR(CheckSpeed(name, kernel.decode_bytes_per_second(), 1));
    RENGA_RETURN_IF_ERROR(CheckSpeed(name, kernel.prefill_bytes_per_second(), 1));
    const bool known = std::any_of(kernels.begin(), kernels.end(),
                                   [&](const KernelSpeed& other) { return other.type == *type; });
    if (known) {
      return absl::InvalidArgumentError(absl::StrCat("the speed of ", name, " is there twice"));
    }
    kernels.push_back({.type = *type,
                       .decode_bytes_per_second = kernel.decode_bytes_per_second(),
                       .prefill_bytes_per_second = kernel.prefill_bytes_per_second()});
  }
  return kernels;
}

absl::Status CheckLayerTime(double layer_us) {
  if (layer_us >= 0 && layer_us <= kMaxLayerMicroseconds) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("the time of a layer is no time: ", layer_us, " us"));
}

absl::StatusOr<WorkerOffer> CheckOffer(const proto::DeviceOffer& offer) {
  RENGA_RETURN_IF_ERROR(CheckText("device path", offer.device_path()));
  RENGA_RETURN_IF_ERROR(CheckText("device name", offer.device_name()));
  RENGA_RETURN_IF_ERROR(CheckText("machine", offer.machine()));
  RENGA_RETURN_IF_ERROR(CheckText("card", offer.card()));
  if (offer.memory_bytes() <= 0 || offer.memory_bytes() > kMaxMemoryBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("the offered memory is no size: ", offer.memory_bytes(), " bytes"));
  }
  if (offer.memory_available_bytes() < 0 || offer.memory_available_bytes() > kMaxMemoryBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("the available memory is no size: ", offer.memory_available_bytes()));
  }
  const double speed = offer.weight_bytes_per_second();
  if (!std::isfinite(speed) || speed <= 0 || speed > kMaxBytesPerSecond) {
    return absl::InvalidArgumentError(absl::StrCat("the measured speed is no speed: ", speed));
  }
  if (offer.threads() > kMaxThreads) {
    return absl::InvalidArgumentError(
        absl::StrCat("the number of threads is absurd: ", offer.threads()));
  }
  RENGA_ASSIGN_OR_RETURN(std::vector<KernelSpeed> kernels, CheckKernels(offer.kernels()));
  RENGA_RETURN_IF_ERROR(CheckSpeed("copying", offer.copy_bytes_per_second(), 0));
  RENGA_RETURN_IF_ERROR(CheckSpeed("the disk", offer.disk_bytes_per_second(), 0));
  RENGA_RETURN_IF_ERROR(CheckLayerTime(offer.layer_us()));
  return WorkerOffer{.device_path = offer.device_path(),
                     .device_name = offer.device_name(),
                     .memory_bytes = offer.memory_bytes(),
                     .memory_available_bytes = offer.memory_available_bytes(),
                     .weight_bytes_per_second = speed,
                     .threads = offer.threads(),
                     .kernels = std::move(kernels),
                     .copy_bytes_per_second = offer.copy_bytes_per_second(),
                     .disk_bytes_per_second = offer.disk_bytes_per_second(),
                     .layer_us = offer.layer_us(),
                     .spare = offer.spare(),
                     .machine = offer.machine(),
                     .card = offer.card()};
}

// nullopt where there is none of a format that this build knows.
absl::StatusOr<std::optional<MeasuredSpeed>> CheckMeasured(const proto::Heartbeat& heartbeat) {
  if (!heartbeat.has_speed()) return std::nullopt;
  const proto::MeasuredSpeed& speed = heartbeat.speed();
  RENGA_ASSIGN_OR_RETURN(std::vector<KernelSpeed> kernels, CheckKernels(speed.kernels()));
  RENGA_RETURN_IF_ERROR(CheckSpeed("copying", speed.copy_bytes_per_second(), 0));
  RENGA_RETURN_IF_ERROR(CheckSpeed("the disk", speed.disk_bytes_per_second(), 0));
  RENGA_RETURN_IF_ERROR(CheckLayerTime(speed.layer_us()));
  if (kernels.empty()) return std::nullopt;
  return MeasuredSpeed{.kernels = std::move(kernels),
                       .copy_bytes_per_second = speed.copy_bytes_per_second(),
                       .disk_bytes_per_second = speed.disk_bytes_per_second(),
                       .layer_us = speed.layer_us(),
                       .age = absl::Seconds(speed.age_s()),
                       .confirmed = speed.confirmed()};
}

absl::StatusOr<std::string> AddressAt(const std::string& host, uint32_t port) {
  if (port == 0 || port > 65535) {
    return absl::InvalidArgumentError(absl::StrCat("the worker's port is no port: ", port));
  }
  const bool bare_ipv6 = absl::StrContains(host, ':') && !absl::StartsWith(host, "[");
  const std::string address =
      bare_ipv6 ? absl::StrCat("[", host, "]:", port) : absl::StrCat(host, ":", port);
  RENGA_RETURN_IF_ERROR(transport::ParseHostPort(address).status());
  return address;
}

absl::StatusOr<std::string> AddressOf(const proto::Hello& hello, const HelloSource& source) {
  const std::string& advertised = hello.advertise_host();
  if (absl::StartsWith(advertised, "inproc:")) {
    if (source.policy != transport::PeerPolicy::kTrustEveryone ||
        advertised.size() > kMaxNameBytes) {
      return absl::InvalidArgumentError("an address inside this process is not one for others");
    }
    return advertised;
  }
  const std::string host = advertised.empty() ? HostOfPeer(source.peer) : advertised;
  if (host.empty() || host.size() > kMaxHostBytes) {
    return absl::InvalidArgumentError("no usable host to reach the worker at: use --advertise");
  }
  return AddressAt(host, hello.listen_port());
}

// Where steps travel: beside `address`, where gRPC is.
absl::StatusOr<std::string> DataAddressOf(const proto::Hello& hello, const std::string& address) {
  if (absl::StartsWith(address, "inproc:")) return address;
  RENGA_ASSIGN_OR_RETURN(const transport::HostPort host_port, transport::ParseHostPort(address));
  return AddressAt(host_port.host, hello.data_port());
}

}  // namespace

absl::Status CheckWorkerName(absl::string_view name) { return CheckText("worker's name", name); }

std::string HostOfPeer(absl::string_view peer) {
  if (!absl::ConsumePrefix(&peer, "ipv4:") && !absl::ConsumePrefix(&peer, "ipv6:")) return "";
  const std::string decoded = absl::StrReplaceAll(
      peer, {{"%5B", "["}, {"%5b", "["}, {"%5D", "]"}, {"%5d", "]"}, {"%25", "%"}});
  const size_t colon = decoded.rfind(':');
  if (colon == std::string::npos) return "";
  absl::string_view host = absl::string_view(decoded).substr(0, colon);
  if (absl::ConsumePrefix(&host, "[")) absl::ConsumeSuffix(&host, "]");
  // An IPv4 caller as a dual-stack socket sees it.
  absl::ConsumePrefix(&host, "::ffff:");
  return std::string(host);
}

absl::StatusOr<JoinRequest> CheckHello(const proto::Hello& hello, const HelloSource& source) {
  RENGA_RETURN_IF_ERROR(transport::CheckBuild(hello.build(), "the worker"));
  RENGA_RETURN_IF_ERROR(CheckWorkerName(hello.worker_name()));
  if (hello.resident_epoch() > kMaxEpoch) {
    return absl::InvalidArgumentError(
        absl::StrCat("the epoch it holds is absurd: ", hello.resident_epoch()));
  }
  JoinRequest request;
  RENGA_ASSIGN_OR_RETURN(request.offer, CheckOffer(hello.offer()));
  RENGA_ASSIGN_OR_RETURN(request.address, AddressOf(hello, source));
  RENGA_ASSIGN_OR_RETURN(request.data_address, DataAddressOf(hello, request.address));
  request.id = source.id;
  request.name = hello.worker_name().empty() ? request.address : hello.worker_name();
  request.resident_epoch = hello.resident_epoch();
  return request;
}

absl::StatusOr<Heartbeat> CheckHeartbeat(const proto::Heartbeat& heartbeat) {
  for (const int64_t bytes : {heartbeat.memory_used_bytes(), heartbeat.resident_bytes(),
                              heartbeat.pinned_weight_bytes(), heartbeat.pinned_now_bytes(),
                              heartbeat.streamed_weight_bytes(), heartbeat.memory_offered_bytes(),
                              heartbeat.weight_bytes_to_come(), heartbeat.weight_bytes_brought()}) {
    if (bytes >= 0 && bytes <= kMaxMemoryBytes) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("a heartbeat with absurd memory: ", bytes, " bytes"));
  }
  RENGA_RETURN_IF_ERROR(CheckSpeed("reading weights", heartbeat.streamed_bytes_per_second(), 0));
  if (heartbeat.left_out() < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("a heartbeat with ", heartbeat.left_out(), " feed-forwards left out"));
  }
  // The next epoch is greater than any that a worker knows of.
  if (heartbeat.epoch() > kMaxEpoch) {
    return absl::InvalidArgumentError(
        absl::StrCat("a heartbeat of an absurd epoch: ", heartbeat.epoch()));
  }
  RENGA_RETURN_IF_ERROR(CheckText("device's trouble", heartbeat.trouble(), kMaxSentenceBytes));
  if (heartbeat.weight_places().size() > kMaxPlaces ||
      heartbeat.weight_places().find_first_not_of("mdpscan") != std::string::npos) {
    return absl::InvalidArgumentError("a heartbeat with places of weights that nobody knows");
  }
  RENGA_ASSIGN_OR_RETURN(std::optional<MeasuredSpeed> speed, CheckMeasured(heartbeat));
  return Heartbeat{.epoch = heartbeat.epoch(),
                   .steps_done = heartbeat.steps_done(),
                   .memory_used_bytes = heartbeat.memory_used_bytes(),
                   .resident_bytes = heartbeat.resident_bytes(),
                   .pinned_weight_bytes = heartbeat.pinned_weight_bytes(),
                   .pinned_now_bytes = heartbeat.pinned_now_bytes(),
                   .streamed_weight_bytes = heartbeat.streamed_weight_bytes(),
                   .memory_offered_bytes = heartbeat.memory_offered_bytes(),
                   .streamed_bytes_per_second = heartbeat.streamed_bytes_per_second(),
                   .left_out = heartbeat.left_out(),
                   .trouble = heartbeat.trouble(),
                   .weight_bytes_to_come = heartbeat.weight_bytes_to_come(),
                   .step = heartbeat.step(),
                   .weight_bytes_brought = heartbeat.weight_bytes_brought(),
                   .weight_places = heartbeat.weight_places(),
                   .speed = std::move(speed)};
}

}  // namespace renga::cluster
