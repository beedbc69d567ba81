#include "coordinator/serving/grammar/testing/schema_case.h"

#include "base/testing/status_matchers.h"
#include "coordinator/serving/grammar/automaton.h"
#include "coordinator/serving/grammar/grammar.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace renga::grammar::testing {

using ::renga::testing::StatusIs;

using ::testing::HasSubstr;

bool IsTextOf(const std::shared_ptr<const Network>& network, const std::string& text) {
  Automaton automaton(network);
  StateId state = *automaton.Start();
  for (const char c : text) state = automaton.Next(state, static_cast<uint8_t>(c));
  EXPECT_OK(automaton.status());
  return automaton.Accepts(state);
}

void CheckSchemaCases(absl::Span<const SchemaCase> cases) {
  for (const SchemaCase& c : cases) {
    const auto network = FromJsonSchema(c.schema);
    ASSERT_OK(network.status()) << c.schema;
    for (const char* text : c.right)
      EXPECT_TRUE(IsTextOf(*network, text)) << c.schema << " " << text;
    for (const char* text : c.wrong)
      EXPECT_FALSE(IsTextOf(*network, text)) << c.schema << " " << text;
  }
}

void CheckRefusals(absl::Span<const RefusedSchema> cases) {
  for (const auto& [schema, sentence] : cases) {
    EXPECT_THAT(FromJsonSchema(schema).status(),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(sentence)))
        << schema.substr(0, 100);
  }
}

}  // namespace renga::grammar::testing
