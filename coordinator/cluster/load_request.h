// A placement as LoadRequest messages.
#ifndef RENGA_COORDINATOR_CLUSTER_LOAD_REQUEST_H_
#define RENGA_COORDINATOR_CLUSTER_LOAD_REQUEST_H_

#include <cstdint>

#include "coordinator/cluster/model_store.h"
#include "coordinator/cluster/placement.h"
#include "proto/worker.pb.h"

namespace renga::cluster {

// What the worker of index `worker` is asked to load.
proto::LoadRequest MakeLoadRequest(const ModelStore& store, const Placement& placement,
                                   uint32_t worker, uint64_t epoch);

}  // namespace renga::cluster

#endif  // RENGA_COORDINATOR_CLUSTER_LOAD_REQUEST_H_
