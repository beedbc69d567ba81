// How the members of a group find out whether all of them can do something, before any does.
#ifndef RENGA_WORKER_KERNELS_GROUP_AGREEMENT_H_
#define RENGA_WORKER_KERNELS_GROUP_AGREEMENT_H_

#include "absl/status/status.h"
#include "base/communicator.h"

namespace renga::kernels {

// One AllGather of a few hundred bytes that every member must be in, with whether it can. OK when
// all can. kFailedPrecondition, on every member alike, says which member cannot and why, by the
// first one's `mine`; errors of the exchange are the group's own.
absl::Status AgreeInGroup(base::Communicator& others, const absl::Status& mine);

}  // namespace renga::kernels

#endif  // RENGA_WORKER_KERNELS_GROUP_AGREEMENT_H_
