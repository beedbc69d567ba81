// Cards, processors and links by name, from their data sheets: for plans of machines that nobody
// owns yet. What is assumed beyond the sheets stands beside each entry.
#ifndef RENGA_PARTITION_DEVICE_LIBRARY_H_
#define RENGA_PARTITION_DEVICE_LIBRARY_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "partition/link_profile.h"
#include "partition/plan.h"

namespace renga::partition {

// A worker with that device; its id is the device's name. kNotFound names the known ones.
absl::StatusOr<WorkerProfile> FindDevice(absl::string_view name);

// kNotFound names the known ones.
absl::StatusOr<LinkProfile> FindLink(absl::string_view name);

// Both tables with what the sheets say and what is assumed, for people.
std::string DescribeLibrary();

}  // namespace renga::partition

#endif  // RENGA_PARTITION_DEVICE_LIBRARY_H_
