// How much memory a worker offers, followed while it runs: people change their minds, and
// containers are given less.
#ifndef RENGA_WORKER_SERVICE_MEMORY_OFFER_H_
#define RENGA_WORKER_SERVICE_MEMORY_OFFER_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "absl/status/statusor.h"

namespace renga::worker {

// The size that a file says on its first line, as base::ParseByteSize has it. kInvalidArgument when
// it is none or not above 0; errors of the file.
absl::StatusOr<int64_t> ReadOffer(const std::string& path);

// One thread at a time.
class MemoryOffer {
 public:
  struct Options {
    int64_t bytes = 0;  // what was offered first
    std::string file;   // says how much is offered, at any time; "": always `bytes`
    // Of the system, what this process and those of its group may use at most; nullopt: no limit.
    std::function<std::optional<int64_t>()> limit;
  };
  explicit MemoryOffer(Options options);

  // What the file says, but no more than nine tenths of a limit that was lowered since the start.
  // A file that cannot be read, or says no size, changes nothing and is told of once, in the log.
  int64_t Now();

 private:
  const Options options_;
  const std::optional<int64_t> first_limit_;
  int64_t said_;
  std::string complaint_;  // about the file, as it is
};

}  // namespace renga::worker

#endif  // RENGA_WORKER_SERVICE_MEMORY_OFFER_H_
