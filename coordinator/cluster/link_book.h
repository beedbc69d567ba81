// What is known of the links between machines, kept over restarts of the coordinator.
#ifndef RENGA_COORDINATOR_CLUSTER_LINK_BOOK_H_
#define RENGA_COORDINATOR_CLUSTER_LINK_BOOK_H_

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace renga::cluster {

// Round trips of messages of one size, in microseconds, encryption and threads on both ends
// included.
struct LinkTime {
  int64_t payload_bytes = 0;
  double rtt_p50_us = 0;
  double rtt_p99_us = 0;
};

// The link between two machines, as one of them measured it: the coordinator
// (transport::kCoordinatorName) or the worker with the lesser id. It stands for both directions.
struct LinkProfile {
  std::string from;  // worker ids
  std::string to;
  std::vector<LinkTime> times;  // in ascending order of sizes, at least one
  // Of large messages: by how much longer they take. 0: not known.
  double bytes_per_second = 0;
  int64_t measured_at_s = 0;  // Unix time
};

// The profile of these times; bytes_per_second is worked out from the smallest and the largest.
// kInvalidArgument when they are no positive numbers in ascending order of sizes: they come from a
// peer.
absl::StatusOr<LinkProfile> MakeLinkProfile(std::string from, std::string to,
                                            std::vector<LinkTime> times, int64_t measured_at_s);

// One profile per pair, whatever the order of its ends. Not thread-safe.
class LinkBook {
 public:
  // Beyond this many the oldest are forgotten.
  static constexpr size_t kMaxLinks = 4096;

  // Ids in ascending order.
  using Ends = std::pair<std::string, std::string>;

  void Put(LinkProfile profile);
  const LinkProfile* Find(const std::string& one, const std::string& other) const;
  const std::map<Ends, LinkProfile>& links() const { return links_; }

 private:
  std::map<Ends, LinkProfile> links_;
};

// `path` keeps a book as JSON. Reading: kNotFound when there is none, kDataLoss when it is damaged.
absl::StatusOr<LinkBook> ReadLinkBook(const std::string& path);
absl::Status WriteLinkBook(const std::string& path, const LinkBook& book);

}  // namespace renga::cluster

#endif  // RENGA_COORDINATOR_CLUSTER_LINK_BOOK_H_
