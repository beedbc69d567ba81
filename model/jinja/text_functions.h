// Python's string operations over UTF-8. Positions and lengths count characters; a byte that is
// not UTF-8 counts as one.
#ifndef RENGA_MODEL_JINJA_TEXT_FUNCTIONS_H_
#define RENGA_MODEL_JINJA_TEXT_FUNCTIONS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace renga::model::jinja {

int64_t CountChars(absl::string_view text);
// Views of the single characters.
std::vector<absl::string_view> SplitChars(absl::string_view text);

enum class StripSide { kBoth, kLeft, kRight };
// Without `chars`, white space. Every character compares with every one of `chars`.
absl::string_view StripText(absl::string_view text, std::optional<absl::string_view> chars,
                            StripSide side);

// Python's split: by runs of white space without a separator. At most `most` cuts unless negative.
// A separator must not be empty.
std::vector<absl::string_view> SplitText(absl::string_view text,
                                         std::optional<absl::string_view> separator, int64_t most);
// From the right; the parts are in the text's order.
std::vector<absl::string_view> SplitTextFromRight(absl::string_view text,
                                                  std::optional<absl::string_view> separator,
                                                  int64_t most);
std::vector<absl::string_view> SplitLines(absl::string_view text);

std::string ReplaceText(absl::string_view text, absl::string_view from, absl::string_view to,
                        int64_t most);

std::string UpperText(absl::string_view text);
std::string LowerText(absl::string_view text);
// The first letter of the text in upper case, all others in lower case.
std::string CapitalizeText(absl::string_view text);
// The same for every word.
std::string TitleText(absl::string_view text);

// The position of `needle`, in characters, or -1.
int64_t FindText(absl::string_view text, absl::string_view needle, bool last);

// Whether the text is not empty and all its characters are of a class.
bool IsAllSpace(absl::string_view text);
bool IsAllDigits(absl::string_view text);
bool IsAllLetters(absl::string_view text);

// A Python slice; the bounds are absent where it leaves them out. `step` is not 0.
struct SliceBounds {
  std::optional<int64_t> start;
  std::optional<int64_t> stop;
  int64_t step = 1;
};
// Which elements of a sequence of `size` it takes, as indices in order.
std::vector<size_t> SliceIndices(const SliceBounds& bounds, size_t size);
std::string SliceText(absl::string_view text, const SliceBounds& bounds);

}  // namespace renga::model::jinja

#endif  // RENGA_MODEL_JINJA_TEXT_FUNCTIONS_H_
