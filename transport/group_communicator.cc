#include "transport/group_communicator.h"

#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/status_macros.h"
#include "base/wire_type.h"
#include "base/yield_core.h"

namespace renga::transport {
namespace {

using Clock = std::chrono::steady_clock;

// From here on two rounds are faster than one on a LAN (a hop of 100 us at 100 MB/s) with three
// members or more; with two members one round always is.
constexpr size_t kTwoRoundBytes = size_t{16} << 10;
// Waiting asleep costs the time to wake up; spinning takes the core from others who may have the
// work that is waited for, so it gives way at every turn, and ends when somebody took it.
constexpr Clock::duration kSpin = std::chrono::microseconds(200);
constexpr int kPollMs = 100;

}  // namespace

// Every message has one, and a receiver knows it beforehand: a member that is elsewhere in its work
// is noticed, and no size is ever taken from a peer.
struct GroupCommunicator::Header {
  uint32_t magic = 0x46474e52;  // "RNGF"
  uint32_t bytes = 0;
  uint64_t number = 0;
};

absl::StatusOr<std::unique_ptr<GroupCommunicator>> GroupCommunicator::Create(Options options) {
  const auto size = static_cast<int>(options.members.size());
  if (size < 2 || options.members.size() > kMaxGroupSize || options.rank < 0 ||
      options.rank >= size) {
    return absl::InvalidArgumentError(absl::StrCat("rank ", options.rank, " in a group of ", size));
  }
  if (!base::IsWireType(options.wire_type)) {
    return absl::InvalidArgumentError("sums travel as F32, F16 or Q8_0 only");
  }
  std::unique_ptr<GroupCommunicator> group(new GroupCommunicator(std::move(options)));
  RENGA_RETURN_IF_ERROR(group->ConnectLower());
  return group;
}

GroupCommunicator::GroupCommunicator(Options options)
    : options_(std::move(options)),
      links_(options_.members.size()),
      block_(static_cast<size_t>(base::GetDataTypeInfo(options_.wire_type).block_elements)) {}

absl::Status GroupCommunicator::ConnectLower() {
  const absl::Time deadline = absl::Now() + options_.connect_timeout;
  for (int to = 0; to < rank(); ++to) {
    const PeerAddress& peer = options_.members[to];
    auto socket = SecureSocket::Connect(peer, options_.credentials, deadline);
    if (!socket.ok()) {
      return base::Annotate(socket.status(), absl::StrCat("the data port of ", peer.name));
    }
    const PeerHello hello = {.epoch = options_.epoch,
                             .from_rank = static_cast<uint32_t>(rank()),
                             .to_rank = static_cast<uint32_t>(to)};
    RENGA_RETURN_IF_ERROR((*socket)->WriteAll(std::as_bytes(std::span(&hello, 1)), deadline));
    links_[to].socket = *std::move(socket);
  }
  return absl::OkStatus();
}

absl::Status GroupCommunicator::ClaimHigher() {
  const absl::Time deadline = absl::Now() + options_.connect_timeout;
  for (int from = rank() + 1; from < size(); ++from) {
    const PeerHello hello = {.epoch = options_.epoch,
                             .from_rank = static_cast<uint32_t>(from),
                             .to_rank = static_cast<uint32_t>(rank())};
    RENGA_ASSIGN_OR_RETURN(auto socket, options_.listener->Claim(hello, options_.members[from].name,
                                                                 cancelled_, deadline));
    absl::MutexLock lock(&mutex_);
    links_[from].socket = std::move(socket);
  }
  complete_ = true;
  return absl::OkStatus();
}

// Sends out[r] to each other member r and fills in[r] from it; those of this member are ignored.
absl::Status GroupCommunicator::Run(const std::vector<std::span<const std::byte>>& out,
                                    const std::vector<std::span<std::byte>>& in) {
  RENGA_RETURN_IF_ERROR(failure_);
  const Clock::time_point began = Clock::now();
  if (!complete_) RENGA_RETURN_IF_ERROR(failure_ = ClaimHigher());
  const uint64_t number = ++exchanges_;
  for (int peer = 0; peer < size(); ++peer) {
    Link& link = links_[peer];
    if (link.socket == nullptr) continue;
    const Header header = {.bytes = static_cast<uint32_t>(out[peer].size()), .number = number};
    link.out.resize(sizeof(header) + out[peer].size());
    std::memcpy(link.out.data(), &header, sizeof(header));
    std::copy(out[peer].begin(), out[peer].end(), link.out.begin() + sizeof(header));
    link.in.resize(sizeof(header) + in[peer].size());
    link.sent = 0;
    link.received = 0;
  }
  RENGA_RETURN_IF_ERROR(failure_ = Exchange());
  for (int peer = 0; peer < size(); ++peer) {
    Link& link = links_[peer];
    if (link.socket == nullptr) continue;
    const Header header = {.bytes = static_cast<uint32_t>(in[peer].size()), .number = number};
    if (std::memcmp(link.in.data(), &header, sizeof(header)) != 0) {
      return failure_ = Failure(peer, absl::DataLossError("it is at another step"));
    }
    std::copy(link.in.begin() + sizeof(header), link.in.end(), in[peer].begin());
  }
  exchange_time_ += absl::FromChrono(Clock::now() - began);
  return absl::OkStatus();
}

absl::Status GroupCommunicator::Exchange() {
  Clock::time_point last_progress = Clock::now();
  bool core_is_shared = false;
  while (true) {
    const bool all_done = std::all_of(links_.begin(), links_.end(), [](const Link& link) {
      return link.socket == nullptr ||
             (link.sent == link.out.size() && link.received == link.in.size());
    });
    if (all_done) return absl::OkStatus();
    if (cancelled_) return absl::CancelledError("the group was given up");
    RENGA_ASSIGN_OR_RETURN(const bool moved, Progress());
    const Clock::time_point now = Clock::now();
    if (moved) {
      last_progress = now;
      core_is_shared = false;
    } else if (now - last_progress < kSpin && !core_is_shared) {
      core_is_shared = !base::YieldCore();
    } else if (absl::FromChrono(now - last_progress) > options_.silence_limit) {
      return absl::UnavailableError(absl::StrCat("the other members of the group said nothing for ",
                                                 absl::FormatDuration(options_.silence_limit)));
    } else {
      RENGA_RETURN_IF_ERROR(Wait());
    }
  }
}

// Whether any byte moved.
absl::StatusOr<bool> GroupCommunicator::Progress() {
  bool moved = false;
  for (int peer = 0; peer < size(); ++peer) {
    Link& link = links_[peer];
    if (link.socket == nullptr) continue;
    const auto sent = link.socket->TryWrite(std::span(link.out).subspan(link.sent));
    if (!sent.ok()) return Failure(peer, sent.status());
    const auto received = link.socket->TryRead(std::span(link.in).subspan(link.received));
    if (!received.ok()) return Failure(peer, received.status());
    link.sent += *sent;
    link.received += *received;
    moved = moved || *sent > 0 || *received > 0;
  }
  return moved;
}

absl::Status GroupCommunicator::Wait() {
  std::vector<pollfd> entries;
  for (const Link& link : links_) {
    if (link.socket == nullptr) continue;
    short events = 0;
    if (link.sent < link.out.size()) events |= link.socket->write_wants();
    if (link.received < link.in.size()) events |= link.socket->read_wants();
    entries.push_back({.fd = link.socket->fd(), .events = events, .revents = 0});
  }
  if (::poll(entries.data(), entries.size(), kPollMs) < 0 && errno != EINTR) {
    return absl::InternalError(absl::StrCat("cannot wait for the group: ", std::strerror(errno)));
  }
  return absl::OkStatus();
}

absl::Status GroupCommunicator::Failure(int rank, const absl::Status& status) {
  if (cancelled_) return absl::CancelledError("the group was given up");
  return base::Annotate(status, absl::StrCat("group member ", options_.members[rank].name));
}

absl::Status GroupCommunicator::AllReduce(std::span<float> values) {
  if (values.size() % block_ != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("a sum of ", values.size(), " numbers, which travel in blocks of ", block_));
  }
  const size_t most = kGroupBufferBytes / (8 * sizeof(float)) / links_.size() / block_ * block_;
  while (!values.empty()) {
    const std::span<float> now = values.first(std::min(values.size(), most));
    const bool two_rounds = size() > 2 && BytesOf(now.size()) >= kTwoRoundBytes;
    RENGA_RETURN_IF_ERROR(two_rounds ? SumInParts(now) : SumWhole(now));
    values = values.subspan(now.size());
  }
  return absl::OkStatus();
}

size_t GroupCommunicator::BytesOf(size_t numbers) const {
  const base::DataTypeInfo& type = base::GetDataTypeInfo(options_.wire_type);
  return numbers / type.block_elements * type.block_bytes;
}

std::span<const std::byte> GroupCommunicator::Encode(std::span<const float> values) {
  encoded_.resize(BytesOf(values.size()));
  base::EncodeForWire(options_.wire_type, values, encoded_);
  return encoded_;
}

void GroupCommunicator::Decode(std::span<const std::byte> part, std::span<float> values) const {
  base::GetDataTypeInfo(options_.wire_type)
      .to_float(part.data(), values.data(), static_cast<int64_t>(values.size()));
}

void GroupCommunicator::SumUp(std::span<float> sum) {
  const size_t bytes = BytesOf(sum.size());
  const std::span<const std::byte> parts(parts_);
  Decode(parts.first(bytes), sum);
  decoded_.resize(sum.size());
  for (size_t from = 1; from < links_.size(); ++from) {
    Decode(parts.subspan(from * bytes, bytes), decoded_);
    for (size_t i = 0; i < sum.size(); ++i) sum[i] += decoded_[i];
  }
}

absl::Status GroupCommunicator::SumWhole(std::span<float> values) {
  parts_.resize(BytesOf(values.size()) * links_.size());
  RENGA_RETURN_IF_ERROR(AllGather(Encode(values), parts_));
  SumUp(values);
  return absl::OkStatus();
}

// First every member gets all parts of the values it sums up, then every member the sums.
absl::Status GroupCommunicator::SumInParts(std::span<float> values) {
  const auto begin_of = [&](int owner) {
    return values.size() / block_ * static_cast<size_t>(owner) / links_.size() * block_;
  };
  const auto part_of = [&](int owner) {
    return values.subspan(begin_of(owner), begin_of(owner + 1) - begin_of(owner));
  };
  const std::span<float> own = part_of(rank());
  const size_t own_bytes = BytesOf(own.size());
  std::vector<std::span<const std::byte>> out(links_.size());
  std::vector<std::span<std::byte>> in(links_.size());
  const std::span<const std::byte> all = Encode(values);
  parts_.resize(own_bytes * links_.size());
  for (int peer = 0; peer < size(); ++peer) {
    out[peer] = all.subspan(BytesOf(begin_of(peer)), BytesOf(part_of(peer).size()));
    in[peer] = std::span(parts_).subspan(peer * own_bytes, own_bytes);
  }
  std::copy(out[rank()].begin(), out[rank()].end(), in[rank()].begin());
  RENGA_RETURN_IF_ERROR(Run(out, in));
  SumUp(own);
  const std::span<const std::byte> sums = Encode(own);
  parts_.resize(BytesOf(values.size()));
  for (int peer = 0; peer < size(); ++peer) {
    out[peer] = sums;
    in[peer] = std::span(parts_).subspan(BytesOf(begin_of(peer)), BytesOf(part_of(peer).size()));
  }
  std::copy(sums.begin(), sums.end(), in[rank()].begin());
  RENGA_RETURN_IF_ERROR(Run(out, in));
  Decode(parts_, values);
  return absl::OkStatus();
}

absl::Status GroupCommunicator::AllGather(std::span<const std::byte> mine,
                                          std::span<std::byte> all) {
  if (all.size() != mine.size() * links_.size()) {
    return absl::InvalidArgumentError("AllGather gives one part to each member");
  }
  const std::vector<std::span<const std::byte>> out(links_.size(), mine);
  std::vector<std::span<std::byte>> in(links_.size());
  for (size_t from = 0; from < in.size(); ++from) {
    in[from] = all.subspan(from * mine.size(), mine.size());
  }
  RENGA_RETURN_IF_ERROR(Run(out, in));
  std::memmove(in[rank()].data(), mine.data(), mine.size());
  return absl::OkStatus();
}

absl::Status GroupCommunicator::Broadcast(int root, std::span<std::byte> bytes) {
  if (root < 0 || root >= size()) {
    return absl::InvalidArgumentError(absl::StrCat("no member of the group has rank ", root));
  }
  std::vector<std::span<const std::byte>> out(links_.size());
  std::vector<std::span<std::byte>> in(links_.size());
  if (root == rank()) {
    std::fill(out.begin(), out.end(), bytes);
  } else {
    in[root] = bytes;
  }
  return Run(out, in);
}

absl::Status GroupCommunicator::CheckMembers() {
  RENGA_RETURN_IF_ERROR(failure_);
  for (int peer = 0; peer < size(); ++peer) {
    if (links_[peer].socket == nullptr) continue;
    // What a member may have sent meanwhile stays where it is.
    pollfd entry = {.fd = links_[peer].socket->fd(), .events = POLLRDHUP, .revents = 0};
    if (::poll(&entry, 1, 0) > 0) {
      return failure_ = Failure(peer, absl::UnavailableError("it has ended its connection"));
    }
  }
  return absl::OkStatus();
}

void GroupCommunicator::Cancel() {
  cancelled_ = true;
  absl::MutexLock lock(&mutex_);
  for (Link& link : links_) {
    if (link.socket != nullptr) link.socket->Cancel();
  }
}

absl::Duration GroupCommunicator::TakeExchangeTime() {
  return std::exchange(exchange_time_, absl::ZeroDuration());
}

}  // namespace renga::transport
