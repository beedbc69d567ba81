// Texts for `renga regions` where the user has none at hand: a dozen topics, each in English and
// Japanese, written for it and free of any other's rights.
#ifndef RENGA_CLI_REGION_TEXTS_H_
#define RENGA_CLI_REGION_TEXTS_H_

#include <string>
#include <vector>

namespace renga::cli {

struct NamedText {
  std::string name;  // "cooking.en"
  std::string text;
};

std::vector<NamedText> ShippedTexts();

}  // namespace renga::cli

#endif  // RENGA_CLI_REGION_TEXTS_H_
