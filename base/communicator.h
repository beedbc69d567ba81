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
  // `all` becomes the members' `mine` in rank order: size() * mine.size() bytes.
  virtual absl::Status AllGather(std::span<const std::byte> mine, std::span<std::byte> all) = 0;
  // `bytes` become those of `root`.
  virtual absl::Status Broadcast(int root, std::span<std::byte> bytes) = 0;

  // Time spent in operations since the last call.
  virtual absl::Duration TakeExchangeTime() = 0;

  // Ends what is under way, and all that comes later, with kCancelled.
  virtual void Cancel() = 0;
};

}  // namespace renga::base

#endif  // RENGA_BASE_COMMUNICATOR_H_
