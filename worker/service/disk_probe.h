// How fast the disk is on which a worker keeps its shards.
#ifndef RENGA_WORKER_SERVICE_DISK_PROBE_H_
#define RENGA_WORKER_SERVICE_DISK_PROBE_H_

#include <string>

#include "absl/time/time.h"

namespace renga::worker {

// Long enough for a disk whose rate is limited in tenths of a second, as in a cloud.
inline constexpr absl::Duration kDiskProbe = absl::Milliseconds(300);

// Bytes per second of reads of some megabytes past the page cache, as weights are streamed, for
// about `duration`: of the largest packed matrices below `folder` where there are some, since what
// was just written may come from a cache of the disk; else from a file that is written there for
// it, without a name. Workers with the same folder take turns. 0 when it cannot be measured: no
// such folder ("" is none), a full disk, a file system without such files.
double MeasureDisk(const std::string& folder, absl::Duration duration);

}  // namespace renga::worker

#endif  // RENGA_WORKER_SERVICE_DISK_PROBE_H_
