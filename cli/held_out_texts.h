// Texts for `renga perplexity` where the user has none at hand. `renga regions` never reads them:
// what it has found out is tried on these.
#ifndef RENGA_CLI_HELD_OUT_TEXTS_H_
#define RENGA_CLI_HELD_OUT_TEXTS_H_

#include <vector>

#include "cli/region_texts.h"

namespace renga::cli {

// "english" and "japanese", written for this and free of any other's rights.
std::vector<NamedText> HeldOutTexts();

}  // namespace renga::cli

#endif  // RENGA_CLI_HELD_OUT_TEXTS_H_
