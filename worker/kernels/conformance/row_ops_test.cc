// The ops on rows: norms, rope, the gate, the sum.
#include <algorithm>
#include <cmath>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/testing/status_matchers.h"
#include "worker/kernels/conformance/device_under_test.h"
#include "worker/kernels/conformance/emulated_paths.h"

namespace renga::kernels::conformance {
namespace {

constexpr float kEpsilon = 1e-5F;
constexpr Layout kLayouts[] = {Layout::kTight, Layout::kLoose};

class RowOpsTest : public ConformanceTest {};

std::vector<float> RunRmsNorm(Backend& backend, const std::vector<float>& input, int64_t columns,
                              Layout layout) {
  const int64_t rows = static_cast<int64_t>(input.size()) / columns;
  const auto weight = ToDevice(backend, Normal(columns, 2));
  DeviceRows in(backend, rows, columns, input, layout);
  DeviceRows out(backend, rows, columns, layout);
  EXPECT_OK(backend.RmsNorm(in.view(), Floats(weight), kEpsilon, out.view()));
  return out.Get();
}

TEST_P(RowOpsTest, RmsNorm) {
  for (const int64_t columns : {1, 3, 7, 16, 33, 100, 576, 2049}) {
    SCOPED_TRACE(columns);
    const std::vector<float> input = Normal(17 * columns, 1);
    const auto with = [&](Layout layout) {
      return [&, layout](Backend& backend) { return RunRmsNorm(backend, input, columns, layout); };
    };
    const std::vector<float> all = ExpectConforms(with(Layout::kTight));
    ExpectSameBits(with(Layout::kLoose)(three()), all);
    for (const int64_t row : {0, 7, 16}) {
      ExpectSameBits(RunRmsNorm(three(), Slice(input, columns, row, 1), columns, Layout::kTight),
                     Slice(all, columns, row, 1));
    }
  }
}

TEST_P(RowOpsTest, RmsNormInPlace) {
  constexpr int64_t kColumns = 100;
  const std::vector<float> input = Normal(5 * kColumns, 3);
  const auto weight = ToDevice(three(), Normal(kColumns, 2));
  DeviceRows rows(three(), 5, kColumns, input, Layout::kLoose);
  ASSERT_OK(three().RmsNorm(rows.view(), Floats(weight), kEpsilon, rows.view()));
  ExpectSameBits(rows.Get(), RunRmsNorm(three(), input, kColumns, Layout::kTight));
}

TEST_P(RowOpsTest, RmsNormOfSmallLargeAndZeroRows) {
  constexpr int64_t kColumns = 77;
  for (const float factor : {0.0F, 1e-20F, 1e-3F, 1e6F}) {
    SCOPED_TRACE(factor);
    std::vector<float> input = Normal(3 * kColumns, 4);
    for (float& x : input) x *= factor;
    ExpectConforms([&](Backend& b) { return RunRmsNorm(b, input, kColumns, Layout::kTight); });
  }
}

TEST_P(RowOpsTest, HeadRmsNorm) {
  for (const int64_t head_dim : {1, 5, 33, 64, 128}) {
    for (const int64_t heads : {1, 3}) {
      for (const Layout layout : kLayouts) {
        SCOPED_TRACE(absl::StrCat(heads, " heads of ", head_dim));
        const auto run = [&](Backend& backend, int64_t first, int64_t count) {
          const int64_t columns = heads * head_dim;
          const auto weight = ToDevice(backend, Normal(head_dim, 6));
          DeviceRows rows(backend, count, columns,
                          Slice(Normal(17 * columns, 5), columns, first, count), layout);
          EXPECT_OK(backend.HeadRmsNorm(rows.view(), head_dim, Floats(weight), kEpsilon));
          return rows.Get();
        };
        const auto all = ExpectConforms([&](Backend& backend) { return run(backend, 0, 17); });
        ExpectSameBits(run(three(), 4, 1), Slice(all, heads * head_dim, 4, 1));
      }
    }
  }
}

struct RopeCase {
  const char* name;
  int64_t head_dim;
  int64_t dims;
  double base = 10000.0;
  double position_scale = 1.0;
  bool factors = false;
};

constexpr RopeCase kRopeCases[] = {
    {.name = "whole heads", .head_dim = 64, .dims = 64},
    {.name = "no power of two", .head_dim = 20, .dims = 20},
    {.name = "a part", .head_dim = 32, .dims = 8},
    {.name = "a part that leaves an odd rest", .head_dim = 33, .dims = 22},
    {.name = "one pair", .head_dim = 5, .dims = 2},
    {.name = "nothing", .head_dim = 8, .dims = 0},
    {.name = "large base", .head_dim = 128, .dims = 128, .base = 5e5},
    {.name = "scaled positions", .head_dim = 16, .dims = 16, .position_scale = 4.0},
    {.name = "factors", .head_dim = 64, .dims = 64, .base = 5e5, .factors = true},
    {.name = "all",
     .head_dim = 24,
     .dims = 12,
     .base = 1e6,
     .position_scale = 2.5,
     .factors = true},
};

constexpr int64_t kRopeHeads = 3;

std::vector<float> RunRope(Backend& backend, const RopeCase& rope, bool neighbours,
                           const std::vector<float>& input, const std::vector<int64_t>& positions,
                           Layout layout) {
  std::vector<float> factors;
  for (int64_t i = 0; i < rope.dims / 2; ++i)
    factors.push_back(1.0F + 0.37F * static_cast<float>(i));
  const auto on_device = ToDevice(backend, factors);
  DeviceRows rows(backend, static_cast<int64_t>(positions.size()), kRopeHeads * rope.head_dim,
                  input, layout);
  EXPECT_OK(backend.Rope(rows.view(), positions,
                         {.neighbours = neighbours,
                          .head_dim = rope.head_dim,
                          .dims = rope.dims,
                          .base = rope.base,
                          .position_scale = rope.position_scale,
                          .factors = rope.factors ? Floats(on_device) : nullptr}));
  return rows.Get();
}

// Far positions and slow frequencies: an angle computed in float would be off in the third digit.
TEST_P(RowOpsTest, Rope) {
  const std::vector<int64_t> positions = {0, 1, 5, 131071, 2, 4095, 4095, 17, 1000000};
  for (const RopeCase& rope : kRopeCases) {
    for (const bool neighbours : {true, false}) {
      SCOPED_TRACE(absl::StrCat(rope.name, neighbours ? ", neighbours" : ", halves"));
      const int64_t columns = kRopeHeads * rope.head_dim;
      const auto input = Normal(static_cast<int64_t>(positions.size()) * columns, 7);
      const auto all = ExpectConforms([&](Backend& backend) {
        return RunRope(backend, rope, neighbours, input, positions, Layout::kTight);
      });
      ExpectSameBits(RunRope(three(), rope, neighbours, input, positions, Layout::kLoose), all);
      for (size_t r = 0; r < positions.size(); ++r) {
        const int64_t row = static_cast<int64_t>(r);
        ExpectSameBits(RunRope(three(), rope, neighbours, Slice(input, columns, row, 1),
                               {positions[r]}, Layout::kTight),
                       Slice(all, columns, row, 1));
      }
    }
  }
}

TEST_P(RowOpsTest, RopeLeavesPositionZeroAndUnrotatedNumbersAlone) {
  const RopeCase rope = {.name = "", .head_dim = 32, .dims = 8};
  const std::vector<float> input = Normal(2 * kRopeHeads * 32, 8);
  const auto out = RunRope(three(), rope, true, input, {0, 9}, Layout::kTight);
  for (size_t i = 0; i < input.size(); ++i) {
    if (i < input.size() / 2 || i % 32 >= 8) {
      EXPECT_EQ(out[i], input[i]);
    }
  }
}

// SiluGate or GeluGate.
using GateOp = absl::Status (Backend::*)(ConstRowsView gate, ConstRowsView up, RowsView out);

std::vector<float> RunGate(GateOp op, Backend& backend, const std::vector<float>& gate,
                           const std::vector<float>& up, int64_t columns, Layout layout) {
  const int64_t rows = static_cast<int64_t>(gate.size()) / columns;
  DeviceRows g(backend, rows, columns, gate, layout);
  DeviceRows u(backend, rows, columns, up, Layout::kTight);
  DeviceRows out(backend, rows, columns, layout);
  EXPECT_OK((backend.*op)(g.view(), u.view(), out.view()));
  return out.Get();
}

class GateTest : public ConformanceTest {
 protected:
  void ExpectGateConforms(GateOp op);
};

void GateTest::ExpectGateConforms(GateOp op) {
  for (const int64_t columns : {1, 7, 33, 256, 1001}) {
    SCOPED_TRACE(columns);
    const std::vector<float> gate = Normal(9 * columns, 9);
    const std::vector<float> up = Normal(9 * columns, 10);
    const auto all = ExpectConforms(
        [&](Backend& b) { return RunGate(op, b, gate, up, columns, Layout::kLoose); });
    ExpectSameBits(RunGate(op, three(), Slice(gate, columns, 4, 1), Slice(up, columns, 4, 1),
                           columns, Layout::kTight),
                   Slice(all, columns, 4, 1));
    for (const bool into_gate : {true, false}) {
      DeviceRows g(three(), 9, columns, gate, Layout::kTight);
      DeviceRows u(three(), 9, columns, up, Layout::kLoose);
      ASSERT_OK((three().*op)(g.view(), u.view(), into_gate ? g.view() : u.view()));
      ExpectSameBits((into_gate ? g : u).Get(), all);
    }
  }
}

TEST_P(GateTest, SiluGate) { ExpectGateConforms(&Backend::SiluGate); }

TEST_P(GateTest, GeluGate) { ExpectGateConforms(&Backend::GeluGate); }

// Each value alone, so that large ones hide no small one.
TEST_P(GateTest, GatesOverTheirWholeRange) {
  for (const GateOp op : {&Backend::SiluGate, &Backend::GeluGate}) {
    for (const float gate :
         {-1e30F, -200.0F, -104.0F, -88.5F, -87.0F, -20.0F, -12.0F, -9.0F, -4.0F, -1.0F, -1e-6F,
          0.0F, 1e-6F, 1.0F, 9.0F, 20.0F, 104.0F, 200.0F, 1e30F}) {
      SCOPED_TRACE(gate);
      const auto run = [&](Backend& b) {
        return RunGate(op, b, std::vector<float>(9, gate), std::vector<float>(9, 0.5F), 9,
                       Layout::kTight);
      };
      const std::vector<float> got = run(three());
      const float want = run(reference())[0];
      // An exponential that stops at the ends of float's range leaves |gate| * e^-87 at most.
      const float tolerance = std::max(2e-5F * std::abs(want), 1e-37F * std::abs(gate));
      for (const float x : got) EXPECT_NEAR(x, want, tolerance);
    }
  }
}

TEST_P(RowOpsTest, AddIsExact) {
  for (const int64_t columns : {1, 7, 33, 1001}) {
    for (const Layout layout : kLayouts) {
      const std::vector<float> a = Normal(5 * columns, 11);
      const std::vector<float> b = Normal(5 * columns, 12);
      DeviceRows in(three(), 5, columns, a, Layout::kTight);
      DeviceRows out(three(), 5, columns, b, layout);
      ASSERT_OK(three().Add(in.view(), out.view()));
      std::vector<float> want = b;
      for (size_t i = 0; i < want.size(); ++i) want[i] += a[i];
      ExpectSameBits(out.Get(), want);
    }
  }
}

TEST_P(RowOpsTest, NoRowsIsNothingToDo) {
  const auto weight = ToDevice(three(), Normal(8, 1));
  DeviceRows none(three(), 0, 8, Layout::kTight);
  EXPECT_OK(three().RmsNorm(none.view(), Floats(weight), kEpsilon, none.view()));
  EXPECT_OK(three().HeadRmsNorm(none.view(), 4, Floats(weight), kEpsilon));
  EXPECT_OK(three().Rope(none.view(), {}, {.head_dim = 4, .dims = 4}));
  EXPECT_OK(three().SiluGate(none.view(), none.view(), none.view()));
  EXPECT_OK(three().GeluGate(none.view(), none.view(), none.view()));
  EXPECT_OK(three().Add(none.view(), none.view()));
  EXPECT_OK(three().TopK(none.view(), 1, {}));
}

INSTANTIATE_TEST_SUITE_P(Conformance, GateTest, ::testing::ValuesIn(TestedDevices()),
                         DeviceTestName);
INSTANTIATE_TEST_SUITE_P(Conformance, RowOpsTest, ::testing::ValuesIn(TestedDevices()),
                         DeviceTestName);

}  // namespace
}  // namespace renga::kernels::conformance
