// How fast the disk is on which a worker keeps its shards.
#ifndef RENGA_WORKER_SERVICE_DISK_PROBE_H_
#define RENGA_WORKER_SERVICE_DISK_PROBE_H_

#include <functional>
#include <optional>
#include <string>

#include "absl/time/time.h"
#include "base/scoped_fd.h"

namespace renga::worker {

// Long enough for a disk whose rate is limited in tenths of a second, as in a cloud.
inline constexpr absl::Duration kDiskProbe = absl::Milliseconds(300);

// Bytes per second of reads of some megabytes past the page cache, as weights are streamed, for
// about `duration`: of the largest packed matrices below `folder` where there are some, since what
// was just written may come from a cache of the disk; else from a file that is written there for
// it, without a name. Workers with the same folder take turns. 0 when it cannot be measured: no
// such folder ("" is none), a full disk, a file system without such files; and when `give_way` (may
// be empty; asked between reads) says that there is something better to do.
double MeasureDisk(const std::string& folder, absl::Duration duration,
                   const std::function<bool()>& give_way = {});

// The same turn, for what else workers of one machine should not measure at one time; it lasts as
// long as what is returned. nullopt while it is another's; a folder that is not there has no turns.
std::optional<base::ScopedFd> TryToTakeTurn(const std::string& folder);

}  // namespace renga::worker

#endif  // RENGA_WORKER_SERVICE_DISK_PROBE_H_
