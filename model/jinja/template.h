// A template in the subset of Jinja that chat templates are written in: parsed once, rendered many
// times. White space is treated as Hugging Face does (trim_blocks, lstrip_blocks).
//
// Supported: text, {{ }}, {# #}, {% raw %}, if, for (with if and else, break, continue, loop.*),
// set (names, tuples, namespaces, blocks), macro, generation; all operators, slices, calls, the
// filters of filters.h, tests of tests.h and methods of methods.h; range, namespace, dict,
// raise_exception, strftime_now. Not supported: inheritance, includes, call and filter blocks,
// recursive loops, autoescape.
#ifndef RENGA_MODEL_JINJA_TEMPLATE_H_
#define RENGA_MODEL_JINJA_TEMPLATE_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "model/jinja/ast.h"
#include "model/jinja/value.h"

namespace renga::model::jinja {

// Immutable; safe from any thread.
class Template {
 public:
  // kInvalidArgument says what is wrong in which line; kUnimplemented names a statement that isn't
  // supported.
  static absl::StatusOr<std::unique_ptr<Template>> Parse(absl::string_view source);

  // kInvalidArgument carries what the template raised, an error of evaluation with its line, or
  // the bound that was exceeded; kUnimplemented names a filter, test or method it came across that
  // isn't supported. The bounds grow with the size of the globals' texts.
  absl::StatusOr<std::string> Render(const Dict& globals) const;

 private:
  explicit Template(Block block) : block_(std::move(block)) {}
  const Block block_;
};

}  // namespace renga::model::jinja

#endif  // RENGA_MODEL_JINJA_TEMPLATE_H_
