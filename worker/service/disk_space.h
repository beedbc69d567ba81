// What a worker leaves free on the disk that its caches are on.
#ifndef RENGA_WORKER_SERVICE_DISK_SPACE_H_
#define RENGA_WORKER_SERVICE_DISK_SPACE_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"

namespace renga::worker {

// Whether so many bytes may be written below the folder, which exists: kResourceExhausted, with a
// sentence, when less than 2 GiB (or a tenth, if that is less) of its disk would be left to others;
// base::FileError's codes.
absl::Status CheckDiskSpace(const std::string& directory, int64_t bytes);

}  // namespace renga::worker

#endif  // RENGA_WORKER_SERVICE_DISK_SPACE_H_
