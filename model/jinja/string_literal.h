// Escapes in the string literals of templates, which are Python's.
#ifndef RENGA_MODEL_JINJA_STRING_LITERAL_H_
#define RENGA_MODEL_JINJA_STRING_LITERAL_H_

#include <string>

#include "absl/strings/string_view.h"

namespace renga::model::jinja {

// What the text between the quotes means: \n, \t, \x41, \u00e9, \101 and so on. Unknown escapes
// stay as they are.
std::string UnescapeLiteral(absl::string_view literal);

}  // namespace renga::model::jinja

#endif  // RENGA_MODEL_JINJA_STRING_LITERAL_H_
