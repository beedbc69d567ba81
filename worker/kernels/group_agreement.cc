#include "worker/kernels/group_agreement.h"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <span>
#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "base/status_macros.h"

namespace renga::kernels {
namespace {

// What each member sends: whether it can, then its sentence, cut, with zeros behind it.
constexpr size_t kAnswerBytes = 256;
constexpr char kCan = 1;
constexpr char kCannot = 2;

}  // namespace

absl::Status AgreeInGroup(base::Communicator& others, const absl::Status& mine) {
  std::string answer(kAnswerBytes, '\0');
  answer[0] = mine.ok() ? kCan : kCannot;
  const absl::string_view sentence = mine.message();
  std::copy_n(sentence.begin(), std::min(sentence.size(), kAnswerBytes - 1), answer.begin() + 1);
  std::string all(kAnswerBytes * static_cast<size_t>(others.size()), '\0');
  RENGA_RETURN_IF_ERROR(
      others.AllGather(std::as_bytes(std::span(answer)), std::as_writable_bytes(std::span(all))));
  for (int rank = 0; rank < others.size(); ++rank) {
    const char* const of_rank = all.data() + kAnswerBytes * static_cast<size_t>(rank);
    if (of_rank[0] == kCan) continue;
    // A peer's text.
    const absl::string_view why(of_rank + 1, ::strnlen(of_rank + 1, kAnswerBytes - 1));
    return absl::FailedPreconditionError(absl::StrCat("member ", rank + 1, " of ", others.size(),
                                                      ": ", absl::Utf8SafeCHexEscape(why)));
  }
  return absl::OkStatus();
}

}  // namespace renga::kernels
