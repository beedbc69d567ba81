// The version check of every hello: who speaks another protocol is refused, with both versions.
#ifndef RENGA_TRANSPORT_HELLO_H_
#define RENGA_TRANSPORT_HELLO_H_

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "proto/cluster.pb.h"

namespace renga::transport {

proto::Build ThisBuild();

// kFailedPrecondition names both versions; `peer` is what to call the other side: "worker w1".
absl::Status CheckBuild(const proto::Build& build, absl::string_view peer);

}  // namespace renga::transport

#endif  // RENGA_TRANSPORT_HELLO_H_
