#include "worker/service/memory_watch.h"

#include "absl/strings/str_cat.h"
#include "base/byte_size.h"

namespace renga::worker {

const std::string& MemoryWatch::Look(absl::Time now) {
  if (now < next_) return trouble_;
  next_ = now + kInterval;
  const absl::StatusOr<int64_t> free_bytes = free_bytes_();
  if (!free_bytes.ok()) return trouble_;
  const bool was_short = !trouble_.empty();
  const bool is_short = *free_bytes < (was_short ? kEnoughBytes : kShortBytes);
  if (!is_short) {
    trouble_.clear();
    if (was_short) tell_("the card has room for other programs again");
    return trouble_;
  }
  trouble_ = absl::StrCat(
      "other programs have taken the card's memory: ", base::FormatByteSize(*free_bytes),
      " are left beside what this worker offers; end some, or start it again "
      "with less --memory");
  if (!was_short) tell_(trouble_);
  return trouble_;
}

}  // namespace renga::worker
