// How the members of a tensor-parallel group put their parts together. Every member calls the same
// operations in the same order; a call returns when this member has its result.
#ifndef RENGA_BASE_COMMUNICATOR_H_
#define RENGA_BASE_COMMUNICATOR_H_

#include <cstddef>
#include <span>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace renga::base {

// Used by one thread at a time, Cancel by any. After an error the group is broken for good: its
// members no longer agree on what comes next.
class Communicator {
 public:
  virtual ~Communicator() = default;

  virtual int rank() const = 0;  // [0, size())
  virtual int size() const = 0;

  // `values` becomes the sum over all members, added up in rank order, so that every member gets
  // the same bits. All members give the same number of values.
  virtual absl::Status AllReduce(std::span<float> values) = 0;
  // AllReduce in two calls, for work that is done while the parts travel. `values` are the group's
  // until FinishSum, which ends the sums in the order in which they began. Two may have begun at a
  // time; with one begun the group does nothing else. A group that can't do this sums up at once.
  virtual absl::Status BeginSum(std::span<float> values) { return AllReduce(values); }
  virtual absl::Status FinishSum() { return absl::OkStatus(); }
  // Sends and takes of what has begun as much as goes without waiting.
  virtual absl::Status Advance() { return absl::OkStatus(); }
  // `all` becomes the members' `mine` in rank order: size() * mine.size() bytes.
  virtual absl::Status AllGather(std::span<const std::byte> mine, std::span<std::byte> all) = 0;
  // `bytes` become those of `root`.
  virtual absl::Status Broadcast(int root, std::span<std::byte> bytes) = 0;

  // Whether numbers may stay in the memory of the members' devices: then SumOnDevices takes them
  // there, and AllReduce copies.
  virtual bool sums_on_devices() const { return false; }
  // AllReduce of `count` numbers in the memory of the device that the group was made for. Takes its
  // place among the device's work and does not wait for it; WaitForDevices tells what went wrong.
  virtual absl::Status SumOnDevices(float* /*values*/, size_t /*count*/) {
    return absl::UnimplementedError("this group adds up in the hosts' memory");
  }
  // Until the device has done all that it was given, sums among it. Other waits of a device go on
  // for ever when a member is gone; this one ends with kUnavailable.
  virtual absl::Status WaitForDevices() { return absl::OkStatus(); }
  // kUnavailable names a member whose connection has ended; costs little, exchanges nothing.
  virtual absl::Status CheckMembers() { return absl::OkStatus(); }

  // Time spent in operations since the last call; of sums on devices, what the host waited.
  virtual absl::Duration TakeExchangeTime() = 0;

  // Ends what is under way, and all that comes later, with kCancelled.
  virtual void Cancel() = 0;
};

}  // namespace renga::base

#endif  // RENGA_BASE_COMMUNICATOR_H_
