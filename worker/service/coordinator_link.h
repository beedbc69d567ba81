// A worker's membership: says hello to the coordinator, sends heartbeats, joins again when the
// connection or the coordinator went away, and says so when it leaves.
#ifndef RENGA_WORKER_SERVICE_COORDINATOR_LINK_H_
#define RENGA_WORKER_SERVICE_COORDINATOR_LINK_H_

#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "proto/cluster.pb.h"
#include "transport/dialer.h"

namespace renga::worker {

// Thread-safe. Has a thread of its own from construction to Stop.
class CoordinatorLink {
 public:
  struct Options {
    transport::PeerAddress coordinator;
    transport::Dialer* dialer = nullptr;  // outlives the link
    // Asked anew for every join and every heartbeat, on the link's thread.
    std::function<proto::Hello()> hello;
    std::function<proto::Heartbeat()> heartbeat;
    absl::Duration join_timeout;    // until the first welcome
    absl::Duration rejoin_timeout;  // until a later one
    // Lines for people: joined, lost the coordinator, left. On the link's thread; may be empty.
    std::function<void(const std::string& line)> on_event;
  };
  explicit CoordinatorLink(Options options);
  ~CoordinatorLink();

  // Until the first welcome (OK), or the end.
  absl::Status WaitForWelcome();
  // Until the end: OK after Stop, else why there is no membership any more.
  absl::Status Wait();
  // Takes leave of the coordinator, for which it waits a second at most.
  void Stop();

 private:
  class Session;
  class SessionRegistration;

  void Run();
  // One Join stream from hello to its end, which is the result (never OK).
  absl::Status RunSession();
  void Welcomed();
  // Whether to try again after that session; otherwise the link has ended.
  bool GoOn(const absl::Status& status, absl::Time session_begin);
  void Tell(const std::string& line) const;

  const Options options_;
  absl::Mutex mutex_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  Session* session_ ABSL_GUARDED_BY(mutex_) = nullptr;  // the one under way
  bool welcomed_ ABSL_GUARDED_BY(mutex_) = false;       // at least once
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status end_ ABSL_GUARDED_BY(mutex_);
  absl::Time last_contact_ ABSL_GUARDED_BY(mutex_);
  absl::Duration retry_delay_ ABSL_GUARDED_BY(mutex_);
  std::thread thread_;  // last: it uses the rest
};

}  // namespace renga::worker

#endif  // RENGA_WORKER_SERVICE_COORDINATOR_LINK_H_
