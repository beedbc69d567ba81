// Measures the links between the coordinator and all workers, and among these: each pair once
// before plans are made, and again now and then while nothing else happens.
#ifndef RENGA_COORDINATOR_CLUSTER_LINK_SURVEY_H_
#define RENGA_COORDINATOR_CLUSTER_LINK_SURVEY_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "coordinator/cluster/link_book.h"
#include "coordinator/cluster/membership.h"
#include "transport/dialer.h"

namespace renga::cluster {

// Thread-safe. Owns a thread; destroying it cancels what is being measured.
class LinkSurvey {
 public:
  struct Options {
    // These outlive the survey.
    Membership* membership = nullptr;
    transport::Dialer* dialer = nullptr;
    // Keeps the results over restarts; empty: nowhere.
    std::string file;
    // Sizes of the messages, ascending: a row of activations, and something large.
    std::vector<int64_t> payload_bytes = {int64_t{16} << 10, int64_t{256} << 10};
    int rounds = 30;  // of each size, at most
    absl::Duration time_per_link = absl::Milliseconds(300);
    // A profile that is older is measured again once no step has run for `idle_after`.
    absl::Duration good_for = absl::Minutes(30);
    absl::Duration idle_after = absl::Seconds(20);
    // One link at a time then, with this much rest between.
    absl::Duration rest = absl::Seconds(5);
  };
  explicit LinkSurvey(Options options);
  ~LinkSurvey();
  LinkSurvey(const LinkSurvey&) = delete;
  LinkSurvey& operator=(const LinkSurvey&) = delete;

  // Whether every link among the members that are alive, and from the coordinator to each, has
  // been measured, or at least tried since they joined. Of a large cluster the first 64 count.
  bool Complete() const;
  // Of the members that are alive.
  std::vector<LinkProfile> Links() const;

 private:
  class Impl;
  const std::unique_ptr<Impl> impl_;
};

}  // namespace renga::cluster

#endif  // RENGA_COORDINATOR_CLUSTER_LINK_SURVEY_H_
