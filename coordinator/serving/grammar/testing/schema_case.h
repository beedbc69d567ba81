// Schemas with texts that are allowed and texts that are not, for tests.
#ifndef RENGA_COORDINATOR_SERVING_GRAMMAR_TESTING_SCHEMA_CASE_H_
#define RENGA_COORDINATOR_SERVING_GRAMMAR_TESTING_SCHEMA_CASE_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "coordinator/serving/grammar/network.h"

namespace renga::grammar::testing {

struct SchemaCase {
  const char* schema;
  std::vector<const char*> right;
  std::vector<const char*> wrong;
};

void CheckSchemaCases(absl::Span<const SchemaCase> cases);

struct RefusedSchema {
  std::string schema;
  const char* sentence;  // a part of it
};

void CheckRefusals(absl::Span<const RefusedSchema> cases);

bool IsTextOf(const std::shared_ptr<const Network>& network, const std::string& text);

}  // namespace renga::grammar::testing

#endif  // RENGA_COORDINATOR_SERVING_GRAMMAR_TESTING_SCHEMA_CASE_H_
