// A tensor-parallel group over sockets: every member is connected with every other one.
#ifndef RENGA_TRANSPORT_GROUP_COMMUNICATOR_H_
#define RENGA_TRANSPORT_GROUP_COMMUNICATOR_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <list>
#include <memory>
#include <span>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "base/communicator.h"
#include "base/data_type.h"
#include "transport/dialer.h"
#include "transport/peer_listener.h"
#include "transport/secure_socket.h"

namespace renga::transport {

// What a group may have on its way at one time; model::MeasureScratch counts it.
inline constexpr int64_t kGroupBufferBytes = int64_t{4} << 20;
inline constexpr size_t kMaxGroupSize = 64;

// Sums of small vectors are exchanged whole, each member with each other; larger ones in two
// rounds, where every member sums up a part and hands it round. The second round costs a hop and
// saves (1 - 2/n) of the bytes.
//
// On the wire numbers may be narrow. Every member then adds up what travelled, its own part too, so
// that all of them still get the same bits.
class GroupCommunicator : public base::Communicator {
 public:
  struct Options {
    uint64_t epoch = 0;
    int rank = 0;
    std::vector<PeerAddress> members;  // in rank order, this one among them; data ports
    PeerListener* listener = nullptr;  // outlives the communicator
    base::DataType wire_type = base::DataType::kF32;  // of the parts of sums; see base/wire_type.h
    std::shared_ptr<const SocketCredentials> credentials;
    Route route = Route::kPastTcp;  // all members send and read at the same time
    absl::Duration connect_timeout = absl::Seconds(10);
    absl::Duration silence_limit = absl::Seconds(60);  // no byte from a member for this long
  };
  // Connects with the members of lower rank; those of higher rank are waited for at the first
  // operation. kUnavailable names the member that can't be reached.
  static absl::StatusOr<std::unique_ptr<GroupCommunicator>> Create(Options options);

  int rank() const override { return options_.rank; }
  int size() const override { return static_cast<int>(options_.members.size()); }
  // kInvalidArgument unless the values are whole blocks of the wire type.
  absl::Status AllReduce(std::span<float> values) override;
  absl::Status BeginSum(std::span<float> values) override;
  absl::Status FinishSum() override;
  absl::Status Advance() override;
  absl::Status AllGather(std::span<const std::byte> mine, std::span<std::byte> all) override;
  absl::Status Broadcast(int root, std::span<std::byte> bytes) override;
  absl::Status CheckMembers() override;
  absl::Duration TakeExchangeTime() override;
  void Cancel() override;

 private:
  // What travels between this member and another one; header and payload.
  struct Message {
    std::vector<std::byte> out;
    std::vector<std::byte> in;
    size_t sent = 0;
    size_t received = 0;
  };
  // A message from each member to each other one. On a connection they follow each other.
  struct Exchange {
    uint64_t number = 0;
    std::vector<Message> messages;  // by rank; this member's is empty
  };
  using ExchangeRef = std::list<Exchange>::iterator;
  using Parts = std::vector<std::span<const std::byte>>;  // by rank
  // Numbers of a sum that travel at one time, and their first, or only, round.
  struct Piece {
    std::span<float> values;
    bool two_rounds = false;
    ExchangeRef round;
  };
  struct Sum {
    Piece piece;
    std::span<float> rest;  // behind it
  };
  struct Header;

  explicit GroupCommunicator(Options options);
  absl::Status ConnectLower();
  absl::Status ClaimHigher();
  // Begins to send out[r] to each other member r and to take in_bytes[r] from it; those of this
  // member are ignored.
  absl::StatusOr<ExchangeRef> Post(const Parts& out, const std::vector<size_t>& in_bytes);
  // Until its messages have come, and are those that were due.
  absl::Status Await(Exchange& exchange);
  absl::Status AwaitMessages(const Exchange& exchange);
  // Post and Await: fills in[r] from each other member.
  absl::Status Run(const Parts& out, const std::vector<std::span<std::byte>>& in);
  // Its buffers serve the next one.
  void Release(ExchangeRef exchange) { spare_.splice(spare_.begin(), under_way_, exchange); }
  absl::StatusOr<bool> Progress();
  absl::Status Wait();
  // Numbers as they travel.
  size_t BytesOf(size_t numbers) const;
  std::span<const std::byte> Encode(std::span<const float> values);
  void Decode(std::span<const std::byte> part, std::span<float> values) const;
  // Where the part of a piece begins that a member sums up, of two rounds.
  size_t BeginOf(int owner, size_t numbers) const;
  absl::StatusOr<Piece> BeginPiece(std::span<float> values);
  absl::Status EndPiece(const Piece& piece);
  absl::Status ShareSums(std::span<float> values);
  // Adds up one part for each member, in rank order.
  void SumUp(const Parts& parts, std::span<float> sum);
  // The values that go with the first piece.
  size_t PieceSize(size_t numbers) const;
  absl::Status Failure(int rank, const absl::Status& status);

  const Options options_;
  std::vector<std::unique_ptr<SecureSocket>> links_;  // by rank; null: this member itself
  bool complete_ = false;                             // every member is connected
  uint64_t exchanges_ = 0;         // done or begun: the number of the next one's messages
  std::list<Exchange> under_way_;  // in the order in which they began
  std::list<Exchange> spare_;
  std::deque<Sum> sums_;                // begun
  const size_t block_;                  // numbers that are encoded together
  std::vector<std::byte> encoded_;      // what this member sends
  std::vector<std::byte> sums_of_all_;  // that members have summed up for each other
  std::vector<float> decoded_;
  absl::Status failure_;
  absl::Duration exchange_time_;
  std::atomic<bool> cancelled_ = false;
  absl::Mutex mutex_;  // of Cancel against the sockets' coming and going
};

}  // namespace renga::transport

#endif  // RENGA_TRANSPORT_GROUP_COMMUNICATOR_H_
