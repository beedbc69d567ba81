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

// Adds how long it lived.
class Timer {
 public:
  explicit Timer(absl::Duration& sum) : sum_(sum) {}
  ~Timer() { sum_ += absl::FromChrono(Clock::now() - began_); }

 private:
  absl::Duration& sum_;
  const Clock::time_point began_ = Clock::now();
};

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
    auto socket = SecureSocket::Connect(peer, options_.credentials, deadline, options_.route);
    if (!socket.ok()) {
      return base::Annotate(socket.status(), absl::StrCat("the data port of ", peer.name));
    }
    const PeerHello hello = {.epoch = options_.epoch,
                             .from_rank = static_cast<uint32_t>(rank()),
                             .to_rank = static_cast<uint32_t>(to)};
    RENGA_RETURN_IF_ERROR((*socket)->WriteAll(std::as_bytes(std::span(&hello, 1)), deadline));
    links_[to] = *std::move(socket);
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
    links_[from] = std::move(socket);
  }
  complete_ = true;
  return absl::OkStatus();
}

absl::StatusOr<GroupCommunicator::ExchangeRef> GroupCommunicator::Post(
    const Parts& out, const std::vector<size_t>& in_bytes) {
  RENGA_RETURN_IF_ERROR(failure_);
  if (!complete_) RENGA_RETURN_IF_ERROR(failure_ = ClaimHigher());
  if (spare_.empty()) spare_.emplace_back().messages.resize(links_.size());
  under_way_.splice(under_way_.end(), spare_, spare_.begin());
  const ExchangeRef exchange = std::prev(under_way_.end());
  exchange->number = ++exchanges_;
  for (int peer = 0; peer < size(); ++peer) {
    if (peer == rank()) continue;
    Message& message = exchange->messages[peer];
    const Header header = {.bytes = static_cast<uint32_t>(out[peer].size()),
                           .number = exchange->number};
    message.out.resize(sizeof(header) + out[peer].size());
    std::memcpy(message.out.data(), &header, sizeof(header));
    std::copy(out[peer].begin(), out[peer].end(), message.out.begin() + sizeof(header));
    message.in.resize(sizeof(header) + in_bytes[peer]);
    message.sent = 0;
    message.received = 0;
  }
  return exchange;
}

absl::Status GroupCommunicator::Await(Exchange& exchange) {
  RENGA_RETURN_IF_ERROR(failure_);
  RENGA_RETURN_IF_ERROR(failure_ = AwaitMessages(exchange));
  for (int peer = 0; peer < size(); ++peer) {
    if (peer == rank()) continue;
    const Message& message = exchange.messages[peer];
    const Header header = {.bytes = static_cast<uint32_t>(message.in.size() - sizeof(Header)),
                           .number = exchange.number};
    if (std::memcmp(message.in.data(), &header, sizeof(header)) != 0) {
      return failure_ = Failure(peer, absl::DataLossError("it is at another step"));
    }
  }
  return absl::OkStatus();
}

absl::Status GroupCommunicator::AwaitMessages(const Exchange& exchange) {
  Clock::time_point last_progress = Clock::now();
  bool core_is_shared = false;
  while (true) {
    const bool all_done =
        std::all_of(exchange.messages.begin(), exchange.messages.end(), [](const Message& message) {
          return message.sent == message.out.size() && message.received == message.in.size();
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

absl::Status GroupCommunicator::Run(const Parts& out, const std::vector<std::span<std::byte>>& in) {
  std::vector<size_t> in_bytes;
  for (const std::span<std::byte> part : in) in_bytes.push_back(part.size());
  RENGA_ASSIGN_OR_RETURN(const ExchangeRef exchange, Post(out, in_bytes));
  RENGA_RETURN_IF_ERROR(Await(*exchange));
  for (int peer = 0; peer < size(); ++peer) {
    if (peer == rank()) continue;
    const std::vector<std::byte>& message = exchange->messages[peer].in;
    std::copy(message.begin() + sizeof(Header), message.end(), in[peer].begin());
  }
  Release(exchange);
  return absl::OkStatus();
}

// Whether any byte moved. On a connection one message is sent, and taken, after the other.
absl::StatusOr<bool> GroupCommunicator::Progress() {
  bool moved = false;
  for (int peer = 0; peer < size(); ++peer) {
    if (peer == rank()) continue;
    SecureSocket& socket = *links_[peer];
    for (Exchange& exchange : under_way_) {
      Message& message = exchange.messages[peer];
      const auto sent = socket.TryWrite(std::span(message.out).subspan(message.sent));
      if (!sent.ok()) return Failure(peer, sent.status());
      message.sent += *sent;
      moved = moved || *sent > 0;
      if (message.sent < message.out.size()) break;
    }
    for (Exchange& exchange : under_way_) {
      Message& message = exchange.messages[peer];
      const auto received = socket.TryRead(std::span(message.in).subspan(message.received));
      if (!received.ok()) return Failure(peer, received.status());
      message.received += *received;
      moved = moved || *received > 0;
      if (message.received < message.in.size()) break;
    }
  }
  return moved;
}

absl::Status GroupCommunicator::Wait() {
  std::vector<pollfd> entries;
  for (int peer = 0; peer < size(); ++peer) {
    if (peer == rank()) continue;
    short events = 0;
    for (const Exchange& exchange : under_way_) {
      const Message& message = exchange.messages[peer];
      if (message.sent < message.out.size()) events |= links_[peer]->write_wants();
      if (message.received < message.in.size()) events |= links_[peer]->read_wants();
    }
    entries.push_back({.fd = links_[peer]->fd(), .events = events, .revents = 0});
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
  RENGA_RETURN_IF_ERROR(failure_);
  if (!sums_.empty()) return absl::FailedPreconditionError("another sum has begun");
  RENGA_RETURN_IF_ERROR(BeginSum(values));
  return FinishSum();
}

absl::Status GroupCommunicator::BeginSum(std::span<float> values) {
  if (values.size() % block_ != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("a sum of ", values.size(), " numbers, which travel in blocks of ", block_));
  }
  const Timer timer(exchange_time_);
  const std::span<float> first = values.first(PieceSize(values.size()));
  RENGA_ASSIGN_OR_RETURN(const Piece piece, BeginPiece(first));
  sums_.push_back({.piece = piece, .rest = values.subspan(first.size())});
  RENGA_RETURN_IF_ERROR(failure_ = Progress().status());
  return absl::OkStatus();
}

absl::Status GroupCommunicator::FinishSum() {
  RENGA_RETURN_IF_ERROR(failure_);
  if (sums_.empty()) return absl::FailedPreconditionError("no sum has begun");
  const Timer timer(exchange_time_);
  Sum sum = sums_.front();
  sums_.pop_front();
  RENGA_RETURN_IF_ERROR(EndPiece(sum.piece));
  while (!sum.rest.empty()) {
    const size_t count = PieceSize(sum.rest.size());
    RENGA_ASSIGN_OR_RETURN(const Piece piece, BeginPiece(sum.rest.first(count)));
    RENGA_RETURN_IF_ERROR(EndPiece(piece));
    sum.rest = sum.rest.subspan(count);
  }
  return absl::OkStatus();
}

absl::Status GroupCommunicator::Advance() {
  RENGA_RETURN_IF_ERROR(failure_);
  if (under_way_.empty()) return absl::OkStatus();
  return failure_ = Progress().status();
}

size_t GroupCommunicator::PieceSize(size_t numbers) const {
  // Of two sums what each other member is sent and sends, and three buffers for all.
  const size_t most = kGroupBufferBytes / (4 * sizeof(float)) / links_.size() / block_ * block_;
  return std::min(numbers, most);
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

size_t GroupCommunicator::BeginOf(int owner, size_t numbers) const {
  return numbers / block_ * static_cast<size_t>(owner) / links_.size() * block_;
}

// In one round every member gets all parts; in two first those of the values that it sums up.
absl::StatusOr<GroupCommunicator::Piece> GroupCommunicator::BeginPiece(std::span<float> values) {
  Piece piece = {.values = values, .round = {}};
  piece.two_rounds = size() > 2 && BytesOf(values.size()) >= kTwoRoundBytes;
  const std::span<const std::byte> all = Encode(values);
  Parts out(links_.size(), all);
  std::vector<size_t> in_bytes(links_.size(), all.size());
  if (piece.two_rounds) {
    for (int peer = 0; peer < size(); ++peer) {
      const size_t begin = BytesOf(BeginOf(peer, values.size()));
      out[peer] = all.subspan(begin, BytesOf(BeginOf(peer + 1, values.size())) - begin);
    }
    in_bytes.assign(links_.size(), out[rank()].size());
  }
  RENGA_ASSIGN_OR_RETURN(piece.round, Post(out, in_bytes));
  return piece;
}

absl::Status GroupCommunicator::EndPiece(const Piece& piece) {
  RENGA_RETURN_IF_ERROR(Await(*piece.round));
  const size_t begin = piece.two_rounds ? BeginOf(rank(), piece.values.size()) : 0;
  const size_t end =
      piece.two_rounds ? BeginOf(rank() + 1, piece.values.size()) : piece.values.size();
  const std::span<float> own = piece.values.subspan(begin, end - begin);
  Parts parts(links_.size());
  for (int peer = 0; peer < size(); ++peer) {
    parts[peer] =
        peer == rank()
            ? Encode(own)
            : std::span<const std::byte>(piece.round->messages[peer].in).subspan(sizeof(Header));
  }
  SumUp(parts, own);
  Release(piece.round);
  return piece.two_rounds ? ShareSums(piece.values) : absl::OkStatus();
}

// The second round: every member hands round what it has summed up.
absl::Status GroupCommunicator::ShareSums(std::span<float> values) {
  const size_t begin = BeginOf(rank(), values.size());
  const std::span<const std::byte> own =
      Encode(values.subspan(begin, BeginOf(rank() + 1, values.size()) - begin));
  sums_of_all_.resize(BytesOf(values.size()));
  std::vector<std::span<std::byte>> in(links_.size());
  for (int peer = 0; peer < size(); ++peer) {
    const size_t from = BytesOf(BeginOf(peer, values.size()));
    in[peer] =
        std::span(sums_of_all_).subspan(from, BytesOf(BeginOf(peer + 1, values.size())) - from);
  }
  std::copy(own.begin(), own.end(), in[rank()].begin());
  RENGA_RETURN_IF_ERROR(Run(Parts(links_.size(), own), in));
  Decode(sums_of_all_, values);
  return absl::OkStatus();
}

void GroupCommunicator::SumUp(const Parts& parts, std::span<float> sum) {
  Decode(parts[0], sum);
  decoded_.resize(sum.size());
  for (size_t from = 1; from < parts.size(); ++from) {
    Decode(parts[from], decoded_);
    for (size_t i = 0; i < sum.size(); ++i) sum[i] += decoded_[i];
  }
}

absl::Status GroupCommunicator::AllGather(std::span<const std::byte> mine,
                                          std::span<std::byte> all) {
  if (all.size() != mine.size() * links_.size()) {
    return absl::InvalidArgumentError("AllGather gives one part to each member");
  }
  const Timer timer(exchange_time_);
  const Parts out(links_.size(), mine);
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
  const Timer timer(exchange_time_);
  Parts out(links_.size());
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
    if (links_[peer] == nullptr) continue;
    // What a member may have sent meanwhile stays where it is.
    pollfd entry = {.fd = links_[peer]->fd(), .events = POLLRDHUP, .revents = 0};
    if (::poll(&entry, 1, 0) > 0) {
      return failure_ = Failure(peer, absl::UnavailableError("it has ended its connection"));
    }
  }
  return absl::OkStatus();
}

void GroupCommunicator::Cancel() {
  cancelled_ = true;
  absl::MutexLock lock(&mutex_);
  for (const auto& link : links_) {
    if (link != nullptr) link->Cancel();
  }
}

absl::Duration GroupCommunicator::TakeExchangeTime() {
  return std::exchange(exchange_time_, absl::ZeroDuration());
}

}  // namespace renga::transport
