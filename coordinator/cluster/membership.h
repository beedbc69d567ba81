// Who belongs to the cluster: a table of workers with what they offer and when they were last
// heard of. It knows no sockets; cluster_service feeds it.
//
// A member is alive while its Join stream stands and its heartbeats come. Otherwise it is lost (or
// has left, if it said so), and stays in the table as lost until it joins again, so that users see
// who is missing and why.
// A worker that joins again is a new incarnation: whatever it held for a running plan is gone.
#ifndef RENGA_COORDINATOR_CLUSTER_MEMBERSHIP_H_
#define RENGA_COORDINATOR_CLUSTER_MEMBERSHIP_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "base/data_type.h"

namespace renga::cluster {

// Of products with matrices of one format, on one worker.
struct KernelSpeed {
  base::DataType type = base::DataType::kInvalid;
  double decode_bytes_per_second = 0;   // weight bytes, one token
  double prefill_bytes_per_second = 0;  // weight bytes times tokens, many tokens at once
};

// What a worker offers, as it measured itself.
struct WorkerOffer {
  std::string device_path;  // the backend path's name: "cpu-avx2-1"
  std::string device_name;  // for people
  int64_t memory_bytes = 0;
  int64_t memory_available_bytes = 0;
  double weight_bytes_per_second = 0;
  uint32_t threads = 0;
  std::vector<KernelSpeed> kernels;  // each format at most once
  double copy_bytes_per_second = 0;  // from memory to memory; 0: not measured
  double disk_bytes_per_second = 0;  // of the disk that keeps shards; 0: not measured
  double layer_us = 0;       // of each layer of a step, whatever its weights; 0: not measured
  bool spare = false;        // memory of a host beside its card: for what fits nowhere else
  std::string machine = "";  // equal for workers of one machine; "": not known
  std::string card = "";     // which card of the machine; "": no card
};

// What of a WorkerOffer is measured, again while the worker runs.
struct MeasuredSpeed {
  std::vector<KernelSpeed> kernels;  // at least one: the first is weight_bytes_per_second, too
  double copy_bytes_per_second = 0;
  double disk_bytes_per_second = 0;
  double layer_us = 0;
  absl::Duration age = absl::ZeroDuration();  // of the last measurement, when it was told
  bool confirmed = false;                     // by two measurements of the idle worker
};

// What a worker says of itself when it joins.
struct JoinRequest {
  std::string id;       // from its certificate; empty where links carry none: one is given
  std::string name;     // for people
  std::string address;  // where it serves: "host:port" or "inproc:NAME"
  std::string data_address = "";  // where steps and results travel; "inproc:NAME" in this process
  WorkerOffer offer;
  uint64_t resident_epoch = 0;
};

struct Heartbeat {
  uint64_t epoch = 0;
  uint64_t steps_done = 0;
  int64_t memory_used_bytes = 0;
  int64_t resident_bytes = 0;
  // Weights of layers, of a shard that is loaded lazily: those that stay in memory, how many of
  // them are there, and those that are read from disk for every step.
  int64_t pinned_weight_bytes = 0;
  int64_t pinned_now_bytes = 0;
  int64_t streamed_weight_bytes = 0;
  int64_t memory_offered_bytes = 0;      // now; 0: as before
  double streamed_bytes_per_second = 0;  // of weights from disk, of late; 0: none came
  int64_t left_out = 0;      // feed-forwards that came after their deadline, each for every token
  std::string trouble = "";  // with its device, for people
  int64_t weight_bytes_to_come = 0;  // not on the worker's machine yet
  uint64_t step = 0;                 // that it is at; 0: none
  int64_t weight_bytes_brought = 0;  // pieces that have come for its shard, as it needed them
  std::string weight_places = "";    // as in proto::Heartbeat
  std::optional<MeasuredSpeed> speed = std::nullopt;  // nullopt: the worker is not measured
};

struct Member {
  std::string id;
  std::string name;
  std::string address;
  std::string data_address;
  WorkerOffer offer;
  uint64_t incarnation = 0;  // grows with every join, over all members
  bool alive = false;
  bool left = false;        // not alive because it said that it leaves: no fault
  std::string lost_reason;  // when not alive
  absl::Duration since;     // when it became alive or lost, on the table's clock
  absl::Duration last_heard;
  Heartbeat last_heartbeat;
  uint64_t resident_epoch = 0;  // at joining
};

// Thread-safe.
class Membership {
 public:
  // Without a heartbeat for this long a member is lost.
  static constexpr absl::Duration kSilenceLimit = absl::Seconds(4);
  static constexpr size_t kMaxAlive = 1024;
  static constexpr size_t kMaxLost = 64;  // the longest lost are forgotten beyond

  // Time since some start, never backwards.
  using Clock = std::function<absl::Duration()>;
  static Clock SteadyClock();

  explicit Membership(Clock clock = SteadyClock());

  // Called after every join, loss, leave and change of an offer (not for other heartbeats), without
  // locks held, on the thread that brought the news. `listener` must not block. Listeners are
  // removed by the returned id.
  int AddListener(std::function<void()> listener);
  // After it returns the listener runs no more. Not to be called from a listener.
  void RemoveListener(int id);

  // The member as it is now. A standing member of the same id and address is replaced: its old
  // stream is obsolete. kUnavailable when it stands at another address, so that two processes with
  // one certificate do not replace each other for ever; one that was restarted is let in once its
  // former self is lost. kResourceExhausted when the table is full.
  absl::StatusOr<Member> Join(const JoinRequest& request);
  // A worker may change how much memory it offers, and be faster or slower than it was: the offer
  // follows. False when that incarnation is no longer the
  // member: its stream should end.
  bool Heard(absl::string_view id, uint64_t incarnation, const Heartbeat& heartbeat);
  // Whether that incarnation is the member and alive.
  bool IsAlive(absl::string_view id, uint64_t incarnation) const;
  // Loses the member, if this incarnation still is it.
  void Lose(absl::string_view id, uint64_t incarnation, absl::string_view reason);
  // The same for a member that says that it leaves.
  void Leave(absl::string_view id, uint64_t incarnation);
  // Loses every member that was silent too long.
  void LoseSilent();

  // Alive ones first, each group in the order of joining.
  std::vector<Member> Members() const;
  absl::Duration Now() const { return clock_(); }

 private:
  struct Listener {
    int id;
    std::function<void()> run;
  };

  Member* FindById(absl::string_view id) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::string GiveId(const JoinRequest& request) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // The member if that incarnation still is it and alive, else null.
  Member* FindAlive(absl::string_view id, uint64_t incarnation)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void MarkLost(Member& member, absl::string_view reason) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ForgetLongLost() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Notify();

  const Clock clock_;
  mutable absl::Mutex mutex_;
  std::vector<Member> members_ ABSL_GUARDED_BY(mutex_);
  uint64_t incarnations_ ABSL_GUARDED_BY(mutex_) = 0;
  // Held while listeners run, so that a removed one runs no more.
  absl::Mutex listeners_mutex_;
  std::vector<Listener> listeners_ ABSL_GUARDED_BY(listeners_mutex_);
  int listener_ids_ ABSL_GUARDED_BY(listeners_mutex_) = 0;
};

// A worker id nobody else has: "w-" and 12 hexadecimal digits.
std::string NewWorkerId();

}  // namespace renga::cluster

#endif  // RENGA_COORDINATOR_CLUSTER_MEMBERSHIP_H_
