// renga-group-bench: how long a tensor-parallel group takes to add up vectors over loopback, each
// member on a thread of its own, with TLS and without. No compute beside it: a sum as it is when
// all members come at the same time, with warm caches.
//
//   renga-group-bench 2 2000      # a group of two, 2000 sums of each size
#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "transport/group_communicator.h"
#include "transport/identity.h"
#include "transport/peer_listener.h"
#include "transport/secure_socket.h"

namespace renga {
namespace {

using Clock = std::chrono::steady_clock;
using transport::GroupCommunicator;
using transport::PeerListener;
using transport::SocketCredentials;

constexpr size_t kNumbers[] = {512, 2048, 4096, 8192, 65536};

// What the members of one group need, by rank.
struct Group {
  std::vector<std::shared_ptr<const SocketCredentials>> credentials;
  std::vector<std::unique_ptr<PeerListener>> listeners;
  std::vector<transport::PeerAddress> addresses;
};

absl::StatusOr<Group> Listen(int size, bool secure) {
  Group group;
  RENGA_ASSIGN_OR_RETURN(const auto authority, transport::Authority::CreateEphemeral());
  for (int rank = 0; rank < size; ++rank) {
    const std::string name = absl::StrCat("member-", rank);
    if (secure) {
      RENGA_ASSIGN_OR_RETURN(const transport::Identity identity, authority->IssueIdentity(name));
      RENGA_ASSIGN_OR_RETURN(group.credentials.emplace_back(),
                             SocketCredentials::CreateTls(identity));
    } else {
      group.credentials.push_back(SocketCredentials::CreateInsecureLoopback());
    }
    RENGA_ASSIGN_OR_RETURN(group.listeners.emplace_back(),
                           PeerListener::Start("127.0.0.1", 0, group.credentials.back()));
    group.addresses.push_back(
        {.address = absl::StrCat("127.0.0.1:", group.listeners.back()->port()), .name = name});
  }
  return group;
}

// One member's sums; the medians in microseconds by size.
absl::StatusOr<std::vector<double>> Sum(const Group& group, int rank, int sums) {
  RENGA_ASSIGN_OR_RETURN(
      const auto member,
      GroupCommunicator::Create({.epoch = 1,
                                 .rank = rank,
                                 .members = group.addresses,
                                 .listener = group.listeners[static_cast<size_t>(rank)].get(),
                                 .credentials = group.credentials[static_cast<size_t>(rank)]}));
  std::vector<double> medians;
  for (const size_t count : kNumbers) {
    std::vector<float> values(count, 1.0f);
    std::vector<double> took;
    for (int i = 0; i < sums; ++i) {
      std::fill(values.begin(), values.end(), 1.0f);
      const Clock::time_point began = Clock::now();
      RENGA_RETURN_IF_ERROR(member->AllReduce(values));
      took.push_back(std::chrono::duration<double, std::micro>(Clock::now() - began).count());
    }
    std::nth_element(took.begin(), took.begin() + sums / 2, took.end());
    medians.push_back(took[static_cast<size_t>(sums / 2)]);
  }
  return medians;
}

absl::Status Measure(int size, int sums, bool secure) {
  RENGA_ASSIGN_OR_RETURN(const Group group, Listen(size, secure));
  std::vector<absl::StatusOr<std::vector<double>>> results(static_cast<size_t>(size),
                                                           absl::UnknownError("not run"));
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank) {
    threads.emplace_back(
        [&, rank] { results[static_cast<size_t>(rank)] = Sum(group, rank, sums); });
  }
  for (std::thread& thread : threads) thread.join();
  for (const auto& result : results) RENGA_RETURN_IF_ERROR(result.status());
  for (size_t i = 0; i < std::size(kNumbers); ++i) {
    std::printf("%d members, %-5s %8zu bytes %9.1f us\n", size, secure ? "TLS" : "plain",
                kNumbers[i] * sizeof(float), (*results[0])[i]);
  }
  return absl::OkStatus();
}

int NumberOf(const char* text) {
  int number = 0;
  std::from_chars(text, text + std::strlen(text), number);
  return number;
}

}  // namespace
}  // namespace renga

int main(int argc, char** argv) {
  const int size = argc > 1 ? renga::NumberOf(argv[1]) : 2;
  const int sums = argc > 2 ? renga::NumberOf(argv[2]) : 2000;
  if (size < 2 || size > 16 || sums < 1) {
    std::fputs("renga-group-bench [MEMBERS, 2 to 16] [SUMS of each size]\n", stderr);
    return 2;
  }
  for (const bool secure : {false, true}) {
    if (const absl::Status status = renga::Measure(size, sums, secure); !status.ok()) {
      std::fprintf(stderr, "%s\n", std::string(status.message()).c_str());
      return 1;
    }
  }
  return 0;
}
