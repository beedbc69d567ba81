#include "model/late_program.h"

#include <algorithm>
#include <memory>
#include <string>
#include <utility>

#include "base/testing/status_matchers.h"
#include "model/approximation.h"

namespace renga::model {
namespace {

using ::renga::testing::StatusIs;

TEST(LateColumnsTest, AreWholeBlocksAndAtLeastOne) {
  ModelConfig config;
  config.d_ff = 1536;  // six blocks of 256
  EXPECT_EQ(LateColumns(config, 25), (Range{.begin = 1024, .end = 1536}));
  EXPECT_EQ(LateColumns(config, 1), (Range{.begin = 1280, .end = 1536}));
  EXPECT_EQ(LateColumns(config, 100), (Range{.begin = 0, .end = 1536}));
  config.d_ff = 160;  // no row of it can be of blocks of 256
  EXPECT_EQ(LateColumns(config, 20), (Range{.begin = 128, .end = 160}));
}

TEST(LateProgramTest, IsWrittenForEveryFamily) {
  for (const Architecture* architecture : AllArchitectures()) {
    SCOPED_TRACE(std::string(architecture->name()));
    Model model{.architecture = architecture, .config = {}};
    model.config.n_layers = 1;
    model.config.d_model = 64;
    model.config.n_heads = model.config.n_kv_heads = 2;
    model.config.head_dim = 32;
    // As wide as the queries: their buffers are shared.
    model.config.d_ff = 64;
    const LayerProgram exact = architecture->Program(model.config);
    ASSERT_OK_AND_ASSIGN(const LateProgram late, MakeLateProgram(model, 50));
    const auto count = [](const LayerProgram& program, OpKind kind) {
      return std::count_if(program.ops.begin(), program.ops.end(),
                           [&](const Op& op) { return op.kind == kind; });
    };
    EXPECT_EQ(count(late.program, OpKind::kLinear), count(exact, OpKind::kLinear) + 3);
    EXPECT_EQ(count(late.program, OpKind::kAttention), 1);
    EXPECT_EQ(count(late.program, OpKind::kAddLate), 1);
    for (const Op& op : late.program.ops) {
      if (op.kind != OpKind::kAttention) continue;
      EXPECT_EQ(late.program.buffer_widths[static_cast<size_t>(op.in)], 64);
    }
    EXPECT_EQ(late.program.buffer_widths[static_cast<size_t>(late.pending)], 64);
  }
}

TEST(ApproximationTest, TheCapIsSpreadEvenly) {
  for (const int64_t percent : {0, 1, 20, 33, 50, 99, 100}) {
    const Approximation approximation{.late_percent = 10, .at_most_percent = percent};
    int64_t applied = 0;
    for (int64_t position = 0; position < 1000; ++position) {
      applied += approximation.Applies(position) ? 1 : 0;
      EXPECT_LE(applied * 100, (position + 1) * percent) << position;
    }
    EXPECT_EQ(applied, percent * 10);
  }
}

TEST(ApproximationTest, ChecksWhatItIsTold) {
  ModelConfig config;
  config.vocab_size = 10;
  const auto rows = [](RowSet set) { return std::make_shared<const RowSet>(std::move(set)); };
  EXPECT_OK(CheckApproximation({}, config));
  EXPECT_OK(CheckApproximation({.late_percent = 100, .hot_rows = rows({0, 3, 9})}, config));
  const auto invalid = absl::StatusCode::kInvalidArgument;
  EXPECT_THAT(CheckApproximation({.late_percent = 101}, config), StatusIs(invalid));
  EXPECT_THAT(CheckApproximation({.at_most_percent = -1}, config), StatusIs(invalid));
  EXPECT_THAT(CheckApproximation({.hot_rows = rows({})}, config), StatusIs(invalid));
  EXPECT_THAT(CheckApproximation({.hot_rows = rows({3, 3})}, config), StatusIs(invalid));
  EXPECT_THAT(CheckApproximation({.hot_rows = rows({3, 10})}, config), StatusIs(invalid));
  EXPECT_THAT(CheckApproximation({.hot_rows = rows({-1})}, config), StatusIs(invalid));
}

}  // namespace
}  // namespace renga::model
