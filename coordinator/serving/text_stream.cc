#include "coordinator/serving/text_stream.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"

namespace renga::serving {

StopFilter::StopFilter(std::vector<std::string> stops) : stops_(std::move(stops)) {
  std::erase_if(stops_, [](const std::string& stop) { return stop.empty(); });
}

std::string StopFilter::Add(absl::string_view text) {
  if (stopped_) return "";
  held_.append(text.data(), text.size());
  size_t first = std::string::npos;
  for (const std::string& stop : stops_) first = std::min(first, held_.find(stop));
  if (first != std::string::npos) {
    stopped_ = true;
    std::string before = held_.substr(0, first);
    held_.clear();
    return before;
  }
  const size_t certain = held_.size() - HeldLength();
  std::string out = held_.substr(0, certain);
  held_.erase(0, certain);
  return out;
}

size_t StopFilter::HeldLength() const {
  size_t longest = 0;
  for (const std::string& stop : stops_) {
    for (size_t n = std::min(stop.size() - 1, held_.size()); n > longest; --n) {
      if (absl::EndsWith(held_, absl::string_view(stop).substr(0, n))) longest = n;
    }
  }
  return longest;
}

std::string StopFilter::Finish() { return std::exchange(held_, ""); }

}  // namespace renga::serving
