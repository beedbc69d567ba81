#include "coordinator/cluster/join_checks.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"
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
constexpr uint32_t kMaxThreads = 1 << 16;
// Epochs are milliseconds since 1970: this one is thousands of years away.
constexpr uint64_t kMaxEpoch = uint64_t{1} << 48;

absl::Status CheckText(absl::string_view what, absl::string_view text) {
  if (text.size() > kMaxNameBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("the ", what, " is longer than ", kMaxNameBytes, " bytes"));
  }
  if (std::any_of(text.begin(), text.end(), [](char c) { return absl::ascii_iscntrl(c); })) {
    return absl::InvalidArgumentError(absl::StrCat("the ", what, " holds control characters"));
  }
  return absl::OkStatus();
}

absl::StatusOr<WorkerOffer> CheckOffer(const proto::DeviceOffer& offer) {
  RENGA_RETURN_IF_ERROR(CheckText("device path", offer.device_path()));
  RENGA_RETURN_IF_ERROR(CheckText("device name", offer.device_name()));
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
  return WorkerOffer{.device_path = offer.device_path(),
                     .device_name = offer.device_name(),
                     .memory_bytes = offer.memory_bytes(),
                     .memory_available_bytes = offer.memory_available_bytes(),
                     .weight_bytes_per_second = speed,
                     .threads = offer.threads()};
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
  if (hello.listen_port() == 0 || hello.listen_port() > 65535) {
    return absl::InvalidArgumentError(
        absl::StrCat("the worker's port is no port: ", hello.listen_port()));
  }
  const bool bare_ipv6 = absl::StrContains(host, ':') && !absl::StartsWith(host, "[");
  const std::string address = bare_ipv6 ? absl::StrCat("[", host, "]:", hello.listen_port())
                                        : absl::StrCat(host, ":", hello.listen_port());
  RENGA_RETURN_IF_ERROR(transport::ParseHostPort(address).status());
  return address;
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
  request.id = source.id;
  request.name = hello.worker_name().empty() ? request.address : hello.worker_name();
  request.resident_epoch = hello.resident_epoch();
  return request;
}

absl::StatusOr<Heartbeat> CheckHeartbeat(const proto::Heartbeat& heartbeat) {
  if (heartbeat.memory_used_bytes() < 0 || heartbeat.memory_used_bytes() > kMaxMemoryBytes ||
      heartbeat.resident_bytes() < 0 || heartbeat.resident_bytes() > kMaxMemoryBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("a heartbeat with absurd memory: ", heartbeat.memory_used_bytes(), " and ",
                     heartbeat.resident_bytes(), " bytes"));
  }
  // The next epoch is greater than any that a worker knows of.
  if (heartbeat.epoch() > kMaxEpoch) {
    return absl::InvalidArgumentError(
        absl::StrCat("a heartbeat of an absurd epoch: ", heartbeat.epoch()));
  }
  return Heartbeat{.epoch = heartbeat.epoch(),
                   .steps_done = heartbeat.steps_done(),
                   .memory_used_bytes = heartbeat.memory_used_bytes(),
                   .resident_bytes = heartbeat.resident_bytes()};
}

}  // namespace renga::cluster
