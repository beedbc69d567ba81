// What one rendering may cost. Templates come out of model files, so nothing they say is trusted:
// every loop, string and list they make is paid for from here.
#ifndef RENGA_MODEL_JINJA_BUDGET_H_
#define RENGA_MODEL_JINJA_BUDGET_H_

#include <cstdint>

#include "absl/status/status.h"

namespace renga::model::jinja {

class Budget {
 public:
  Budget(int64_t steps, int64_t bytes) : steps_left_(steps), bytes_left_(bytes) {}

  // One node evaluated, one element visited. kInvalidArgument when there are no more.
  absl::Status Step(int64_t count = 1) {
    if (count > steps_left_) return Exhausted("it runs for too many steps");
    steps_left_ -= count;
    return absl::OkStatus();
  }
  // Bytes of text or list made. They are not given back, so this bounds time as well as memory.
  absl::Status Charge(uint64_t bytes) {
    if (bytes > static_cast<uint64_t>(bytes_left_)) return Exhausted("it makes too much text");
    bytes_left_ -= static_cast<int64_t>(bytes);
    return absl::OkStatus();
  }

 private:
  static absl::Status Exhausted(const char* why);

  int64_t steps_left_;
  int64_t bytes_left_;
};

}  // namespace renga::model::jinja

#endif  // RENGA_MODEL_JINJA_BUDGET_H_
