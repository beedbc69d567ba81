// RENGA_RETURN_IF_ERROR and RENGA_ASSIGN_OR_RETURN, with the call shapes of newer Abseil releases,
// so that those can replace them (Debian 12's Abseil has neither).
#ifndef RENGA_BASE_STATUS_MACROS_H_
#define RENGA_BASE_STATUS_MACROS_H_

#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"

namespace renga::base {

// The same code with `context` put in front of the message: adds what only the caller knows.
inline absl::Status Annotate(const absl::Status& status, std::string_view context) {
  if (status.ok()) return status;
  return absl::Status(status.code(),
                      absl::StrCat(absl::string_view(context.data(), context.size()), ": ",
                                   status.message()));
}

}  // namespace renga::base

#define RENGA_MACRO_CONCAT_INNER(a, b) a##b
#define RENGA_MACRO_CONCAT(a, b) RENGA_MACRO_CONCAT_INNER(a, b)

// Returns from the enclosing function when `expr` (an absl::Status) is an error.
#define RENGA_RETURN_IF_ERROR(expr)                         \
  do {                                                      \
    if (absl::Status renga_status = (expr); !renga_status.ok()) return renga_status; \
  } while (false)

// RENGA_ASSIGN_OR_RETURN(auto x, F()): declares or assigns from a StatusOr, or returns its error.
#define RENGA_ASSIGN_OR_RETURN(lhs, expr) \
  RENGA_ASSIGN_OR_RETURN_INNER(RENGA_MACRO_CONCAT(renga_statusor_, __LINE__), lhs, expr)
#define RENGA_ASSIGN_OR_RETURN_INNER(statusor, lhs, expr) \
  auto statusor = (expr);                                 \
  if (!statusor.ok()) return std::move(statusor).status(); \
  lhs = std::move(statusor).value()

#endif  // RENGA_BASE_STATUS_MACROS_H_
