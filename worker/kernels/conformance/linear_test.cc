// Linear: every type, awkward shapes, and the promise that a result row depends on nothing but
// its own input row.
#include <algorithm>
#include <cmath>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/testing/status_matchers.h"
#include "worker/kernels/conformance/device_under_test.h"
#include "worker/kernels/conformance/emulated_paths.h"
#include "worker/kernels/conformance/random_weights.h"

namespace renga::kernels::conformance {
namespace {

using ::renga::testing::StatusIs;

using base::DataType;

constexpr int64_t kMatrixRows[] = {1, 2, 3, 5, 7, 33};
constexpr int64_t kTokens[] = {1, 2, 3, 4, 5, 8, 9, 17};
constexpr int64_t kMostTokens = 64;

// Input widths: one block, and several that are no power of two.
std::vector<int64_t> Columns(DataType type) {
  const int64_t block = base::GetDataTypeInfo(type).block_elements;
  if (block == 1) return {1, 7, 33, 100, 259};
  if (block == 32) return {32, 96, 160, 352};
  return {block, 3 * block, 5 * block};
}

// A matrix's bytes, to be loaded whole or in part.
struct Weights {
  DataType type;
  int64_t rows;
  int64_t columns;
  std::vector<std::byte> bytes;

  Weights(DataType t, int64_t r, int64_t c, uint32_t seed, Scales scales = Scales::kUsual)
      : type(t), rows(r), columns(c), bytes(RandomWeights(t, r, c, seed, scales)) {}

  std::span<const std::byte> Rows(int64_t first, int64_t count) const {
    const size_t row_bytes = bytes.size() / static_cast<size_t>(rows);
    return std::span(bytes).subspan(static_cast<size_t>(first) * row_bytes,
                                    static_cast<size_t>(count) * row_bytes);
  }
  // Rows [first, first + count) as a matrix of their own.
  std::unique_ptr<WeightMatrix> Load(Backend& backend, int64_t first, int64_t count) const {
    auto matrix = backend.CreateMatrix(type, count, columns);
    EXPECT_OK(matrix);
    EXPECT_OK(backend.LoadRows(**matrix, 0, Rows(first, count)));
    return std::move(matrix).value();
  }
  std::unique_ptr<WeightMatrix> Load(Backend& backend) const { return Load(backend, 0, rows); }
};

// The product of one matrix with the rows of `input`.
std::vector<float> Multiply(Backend& backend, const WeightMatrix& matrix,
                            const std::vector<float>& input, Layout layout = Layout::kTight,
                            const float* bias = nullptr) {
  const int64_t tokens = static_cast<int64_t>(input.size()) / matrix.columns();
  DeviceRows in(backend, tokens, matrix.columns(), input, layout);
  DeviceRows out(backend, tokens, matrix.rows(), layout);
  const LinearOutput output{.matrix = &matrix, .bias = bias, .out = out.view()};
  EXPECT_OK(backend.Linear(in.view(), {&output, 1}));
  return out.Get();
}

class LinearTest : public ::testing::TestWithParam<std::tuple<std::string, DataType>> {
 protected:
  void SetUp() override {
    ASSERT_TRUE(devices_.three && devices_.one && devices_.reference);
    const std::string twin = LinearTwinOf(std::get<0>(GetParam()), type());
    if (!twin.empty()) twin_ = CreateTestedBackend(twin, 1);
  }

  Backend& three() { return *devices_.three; }
  Backend& one() { return *devices_.one; }
  Backend& reference() { return *devices_.reference; }
  // Null where there is none with the same bits for this type.
  Backend* twin() { return twin_.get(); }
  DataType type() const { return std::get<1>(GetParam()); }
  double tolerance() const {
    return base::GetDataTypeInfo(type()).block_elements == 1 ? kFloatTolerance
                                                             : kQuantizedTolerance;
  }
  int64_t middle_columns() const { return Columns(type())[1]; }

 private:
  Devices devices_{std::get<0>(GetParam())};
  std::unique_ptr<Backend> twin_;
};

TEST_P(LinearTest, AgreesWithTheReferenceAndBatchesDoNotMatter) {
  for (const int64_t columns : Columns(type())) {
    const std::vector<float> input = Normal(kMostTokens * columns, 1);
    for (const int64_t rows : kMatrixRows) {
      SCOPED_TRACE(absl::StrCat(rows, " x ", columns));
      const Weights weights(type(), rows, columns, static_cast<uint32_t>(rows * 1000 + columns));
      const auto matrix = weights.Load(three());
      const std::vector<float> all = Multiply(three(), *matrix, input);
      ExpectClose(all, Multiply(reference(), *weights.Load(reference()), input), tolerance());
      ExpectSameBits(Multiply(three(), *matrix, input, Layout::kLoose), all);
      if (twin() != nullptr) ExpectSameBits(Multiply(*twin(), *weights.Load(*twin()), input), all);
      int64_t first = 0;  // not always the same tokens
      for (const int64_t tokens : kTokens) {
        SCOPED_TRACE(absl::StrCat(tokens, " tokens from ", first));
        ExpectSameBits(Multiply(three(), *matrix, Slice(input, columns, first, tokens)),
                       Slice(all, rows, first, tokens));
        first += tokens;
      }
    }
  }
}

TEST_P(LinearTest, EachTokenOfABatchEqualsTheTokenAlone) {
  const int64_t columns = middle_columns();
  const std::vector<float> input = Normal(kMostTokens * columns, 2);
  const auto matrix = Weights(type(), 33, columns, 3).Load(three());
  const std::vector<float> all = Multiply(three(), *matrix, input);
  for (int64_t token = 0; token < kMostTokens; ++token) {
    SCOPED_TRACE(token);
    ExpectSameBits(Multiply(three(), *matrix, Slice(input, columns, token, 1)),
                   Slice(all, 33, token, 1));
  }
}

// Enough rows for several tiles and for threads to share them unevenly.
TEST_P(LinearTest, ManyRowsOnOneThreadOrThree) {
  const int64_t columns = 2 * std::max<int64_t>(base::GetDataTypeInfo(type()).block_elements, 129);
  constexpr int64_t kRows = 517;
  const Weights weights(type(), kRows, columns - columns % 32, 4);
  const auto with_three = weights.Load(three());
  const auto with_one = weights.Load(one());
  for (const int64_t tokens : {1, 2, 9, 70}) {
    SCOPED_TRACE(tokens);
    const std::vector<float> input = Normal(tokens * weights.columns, 5);
    const std::vector<float> got = Multiply(three(), *with_three, input);
    ExpectSameBits(Multiply(one(), *with_one, input), got);
    ExpectClose(got, Multiply(reference(), *weights.Load(reference()), input), tolerance());
  }
}

TEST_P(LinearTest, AMatrixCutInTwoGivesTheSameRows) {
  const int64_t columns = middle_columns();
  const Weights weights(type(), 33, columns, 6);
  const auto whole = weights.Load(three());
  for (const int64_t tokens : {1, 5, 17}) {
    const std::vector<float> input = Normal(tokens * columns, 7);
    const std::vector<float> all = Multiply(three(), *whole, input);
    for (const int64_t cut : {1, 4, 15, 32}) {
      SCOPED_TRACE(absl::StrCat("cut at ", cut, ", ", tokens, " tokens"));
      const auto upper = Multiply(three(), *weights.Load(three(), 0, cut), input);
      const auto lower = Multiply(three(), *weights.Load(three(), cut, 33 - cut), input);
      std::vector<float> joined;
      for (int64_t t = 0; t < tokens; ++t) {
        for (const float x : Slice(upper, cut, t, 1)) joined.push_back(x);
        for (const float x : Slice(lower, 33 - cut, t, 1)) joined.push_back(x);
      }
      ExpectSameBits(joined, all);
    }
  }
}

TEST_P(LinearTest, RowsMayComeInPiecesInAnyOrder) {
  const int64_t columns = middle_columns();
  const Weights weights(type(), 33, columns, 8);
  ASSERT_OK_AND_ASSIGN(const auto matrix, three().CreateMatrix(type(), 33, columns));
  EXPECT_EQ(matrix->type(), type());
  EXPECT_EQ(matrix->rows(), 33);
  EXPECT_EQ(matrix->columns(), columns);
  EXPECT_GT(three().MatrixBytes(type(), 33, columns), 0);
  ASSERT_OK(three().LoadRows(*matrix, 20, weights.Rows(20, 13)));
  ASSERT_OK(three().LoadRows(*matrix, 0, weights.Rows(3, 7)));  // overwritten below
  ASSERT_OK(three().LoadRows(*matrix, 5, weights.Rows(5, 15)));
  ASSERT_OK(three().LoadRows(*matrix, 33, {}));
  ASSERT_OK(three().LoadRows(*matrix, 0, weights.Rows(0, 1)));
  ASSERT_OK(three().LoadRows(*matrix, 1, weights.Rows(1, 4)));
  const std::vector<float> input = Normal(3 * columns, 9);
  ExpectSameBits(Multiply(three(), *matrix, input),
                 Multiply(three(), *weights.Load(three()), input));
}

TEST_P(LinearTest, ThreadsMayLoadRowsAtOnce) {
  const int64_t columns = middle_columns();
  const Weights weights(type(), 33, columns, 8);
  ASSERT_OK_AND_ASSIGN(const auto matrix, three().CreateMatrix(type(), 33, columns));
  if (three().loading_threads() == 1) {
    EXPECT_THAT(three().LoadRowsAlone(*matrix, 0, weights.Rows(0, 1)),
                StatusIs(absl::StatusCode::kUnimplemented));
    return;
  }
  std::vector<std::thread> threads;
  for (const int64_t first : {0, 11, 22}) {
    threads.emplace_back(
        [&, first] { EXPECT_OK(three().LoadRowsAlone(*matrix, first, weights.Rows(first, 11))); });
  }
  for (std::thread& thread : threads) thread.join();
  const std::vector<float> input = Normal(3 * columns, 9);
  ExpectSameBits(Multiply(three(), *matrix, input),
                 Multiply(three(), *weights.Load(three()), input));
}

// Rows that come together are moved by squares of several rows and chunks, a row by itself chunk by
// chunk; the packed cache of one holds for the other.
TEST_P(LinearTest, RowsPackedTogetherOrOneByOneGiveTheSameBytes) {
  if (three().layout_name().empty()) return;
  std::vector<int64_t> widths = Columns(type());
  widths.push_back(widths.back() * 3);
  for (const int64_t columns : widths) {
    for (const int64_t rows : {3, 13, 43}) {
      const Weights weights(type(), rows, columns, 8);
      const auto packed_by = [&](int64_t first, int64_t at_once) {
        auto matrix = three().CreateMatrix(type(), rows, columns).value();
        for (int64_t row = 0, next = first; row < rows; row = next, next = row + at_once) {
          next = std::min(next, rows);
          EXPECT_OK(three().LoadRows(*matrix, row, weights.Rows(row, next - row)));
        }
        const std::span<const std::byte> bytes = three().BytesOf(*matrix);
        return std::vector<std::byte>(bytes.begin(), bytes.end());
      };
      const std::vector<std::byte> one_by_one = packed_by(1, 1);
      EXPECT_EQ(packed_by(rows, rows), one_by_one) << rows << " x " << columns;
      EXPECT_EQ(packed_by(2, 9), one_by_one) << rows << " x " << columns;
    }
  }
}

// What the packed cache does: bytes are taken elsewhere and back.
TEST_P(LinearTest, AnAdoptedMatrixEqualsTheOneThatWasPacked) {
  const Weights weights(type(), 33, middle_columns(), 12);
  const auto packed = weights.Load(three());
  const std::span<const std::byte> bytes = three().BytesOf(*packed);
  if (three().layout_name().empty()) {
    EXPECT_TRUE(bytes.empty());
    return;
  }
  ASSERT_EQ(static_cast<int64_t>(bytes.size()), three().MatrixBytes(type(), 33, middle_columns()));
  auto copy = std::make_shared<std::vector<std::byte>>(bytes.begin(), bytes.end());
  const std::weak_ptr<std::vector<std::byte>> alive = copy;
  ASSERT_OK_AND_ASSIGN(auto adopted, three().AdoptMatrix(type(), 33, middle_columns(),
                                                         {.bytes = *copy, .owner = copy}));
  copy.reset();
  EXPECT_FALSE(alive.expired());
  for (const int64_t tokens : {1, 5}) {
    const std::vector<float> input = Normal(tokens * middle_columns(), 13);
    ExpectSameBits(Multiply(three(), *adopted, input), Multiply(three(), *packed, input));
  }
  EXPECT_THAT(three().LoadRows(*adopted, 0, weights.Rows(0, 1)),
              StatusIs(absl::StatusCode::kFailedPrecondition));
  adopted.reset();
  EXPECT_TRUE(alive.expired());
  EXPECT_THAT(three().AdoptMatrix(type(), 33, middle_columns(),
                                  {.bytes = bytes.subspan(1), .owner = nullptr}),
              StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST_P(LinearTest, AddsTheBias) {
  const int64_t columns = middle_columns();
  const Weights weights(type(), 7, columns, 10);
  const std::vector<float> input = Normal(9 * columns, 11);
  // Large beside the products: were it added before they are scaled, it would show.
  std::vector<float> bias = Normal(7, 12);
  for (float& b : bias) b *= 100;
  const auto run = [&](Backend& backend) {
    const auto on_device = ToDevice(backend, bias);
    return Multiply(backend, *weights.Load(backend), input, Layout::kLoose, Floats(on_device));
  };
  ExpectClose(run(three()), run(reference()), tolerance());
  ExpectSameBits(run(one()), run(three()));
}

TEST_P(LinearTest, SubnormalScales) {
  const int64_t columns = middle_columns();
  const Weights weights(type(), 33, columns, 13, Scales::kSubnormal);
  const std::vector<float> input = Normal(5 * columns, 14);
  ExpectClose(Multiply(three(), *weights.Load(three()), input),
              Multiply(reference(), *weights.Load(reference()), input), tolerance());
}

// Codes and activations as far from zero as they go, which is where sums of integers are largest.
TEST_P(LinearTest, CodesAndActivationsAtTheirLimits) {
  if (base::GetDataTypeInfo(type()).block_elements == 1) return;
  const int64_t columns = middle_columns();
  std::vector<float> input(static_cast<size_t>(12 * columns), 1.0F);
  for (size_t i = 0; i < input.size(); ++i) {
    const size_t token = i / static_cast<size_t>(columns);
    if (token % 3 == 1 || (token % 3 == 2 && i / 2 % 2 == 1)) input[i] = -1.0F;
  }
  for (const int byte : {0x00, 0x7f, 0x80, 0xff}) {
    SCOPED_TRACE(byte);
    Weights weights(type(), 33, columns, 17);
    FillCodes(type(), static_cast<std::byte>(byte), weights.bytes);
    const auto matrix = weights.Load(three());
    const std::vector<float> all = Multiply(three(), *matrix, input);
    ExpectClose(all, Multiply(reference(), *weights.Load(reference()), input), tolerance());
    const std::vector<float> three_tokens = Slice(input, columns, 0, 3);
    ExpectSameBits(Multiply(three(), *matrix, three_tokens), Slice(all, 33, 0, 3));
  }
}

// Rows of activations that a quantiser may stumble over, compared token by token.
TEST_P(LinearTest, AwkwardActivations) {
  const int64_t columns = middle_columns();
  const Weights weights(type(), 33, columns, 15);
  const std::vector<float> normal = Normal(columns, 16);
  std::vector<std::vector<float>> tokens(5, normal);
  for (float& x : tokens[0]) x *= 1e-20F;
  for (float& x : tokens[1]) x *= 1e20F;
  tokens[2][static_cast<size_t>(columns) / 2] = 1e5F;                   // an outlier
  for (float& x : tokens[3]) x = -127.5F;                               // every value rounds alike
  std::fill(tokens[4].begin(), tokens[4].begin() + columns / 2, 0.0F);  // blocks of zeros
  const auto matrix = weights.Load(three());
  const auto judge = weights.Load(reference());
  for (size_t t = 0; t < tokens.size(); ++t) {
    SCOPED_TRACE(t);
    ExpectClose(Multiply(three(), *matrix, tokens[t]), Multiply(reference(), *judge, tokens[t]),
                tolerance());
  }
  for (const float x : Multiply(three(), *matrix, std::vector<float>(tokens[0].size(), 0.0F))) {
    EXPECT_EQ(x, 0.0F);
  }
  // Too small for a scale to have an inverse: anything tiny is right, NaN and infinity are not.
  for (const float tiny : {1e-38F, 1e-40F, 1.5e-45F}) {
    std::vector<float> token = normal;
    for (float& x : token) x = std::copysign(tiny, x);
    for (const float x : Multiply(three(), *matrix, token)) EXPECT_LT(std::abs(x), 1e-30F);
  }
}

TEST_P(LinearTest, NoTokensIsNothingToDo) {
  const auto matrix = Weights(type(), 3, middle_columns(), 17).Load(three());
  EXPECT_TRUE(Multiply(three(), *matrix, {}).empty());
}

std::vector<DataType> AllTypes() {
  std::vector<DataType> types;
  for (const base::DataTypeInfo& info : base::AllDataTypes()) types.push_back(info.type);
  return types;
}

std::string DeviceAndType(const ::testing::TestParamInfo<LinearTest::ParamType>& info) {
  const auto& [device, type] = info.param;
  return absl::StrCat(TestName(device), "_", base::GetDataTypeInfo(type).name);
}

INSTANTIATE_TEST_SUITE_P(Conformance, LinearTest,
                         ::testing::Combine(::testing::ValuesIn(TestedDevices()),
                                            ::testing::ValuesIn(AllTypes())),
                         DeviceAndType);

// What cards do not know.
std::vector<std::string> DevicesWithoutCards() {
  std::vector<std::string> devices = TestedDevices();
  std::erase_if(devices, [](const std::string& name) { return name.find("cuda") != name.npos; });
  return devices;
}

INSTANTIATE_TEST_SUITE_P(ThreeBits, LinearTest,
                         ::testing::Combine(::testing::ValuesIn(DevicesWithoutCards()),
                                            ::testing::Values(DataType::kR3)),
                         DeviceAndType);

// Those whose products may go by tensor cores; under the address sanitizer, where each takes 10
// seconds, one of either kind.
std::vector<DataType> TensorTypes() {
#if defined(__SANITIZE_ADDRESS__)
  return {DataType::kQ8_0, DataType::kQ4_K};
#else
  std::vector<DataType> types = AllTypes();
  std::erase_if(types, [](DataType t) { return base::GetDataTypeInfo(t).block_elements == 1; });
  return types;
#endif
}

INSTANTIATE_TEST_SUITE_P(Tensor, LinearTest,
                         ::testing::Combine(::testing::ValuesIn(TensorDevices()),
                                            ::testing::ValuesIn(TensorTypes())),
                         DeviceAndType);

INSTANTIATE_TEST_SUITE_P(Half, LinearTest,
                         ::testing::Combine(::testing::ValuesIn(HalfDevices()),
                                            ::testing::Values(DataType::kF16)),
                         DeviceAndType);

class LinearGroupTest : public ConformanceTest {};

// Several matrices of different types and heights share one input, as q, k and v do.
TEST_P(LinearGroupTest, AGroupEqualsItsMatricesAlone) {
  constexpr int64_t kColumns = 512;
  const Weights weights[] = {{DataType::kQ4_K, 33, kColumns, 1}, {DataType::kQ6_K, 5, kColumns, 2},
                             {DataType::kF16, 7, kColumns, 3},   {DataType::kQ8_0, 1, kColumns, 4},
                             {DataType::kQ4_K, 64, kColumns, 5}, {DataType::kQ4_1, 3, kColumns, 6},
                             {DataType::kF32, 2, kColumns, 7}};
  for (const int64_t tokens : {1, 3, 64}) {
    SCOPED_TRACE(tokens);
    const std::vector<float> input = Normal(tokens * kColumns, 8);
    DeviceRows in(three(), tokens, kColumns, input, Layout::kTight);
    std::vector<std::unique_ptr<WeightMatrix>> matrices;
    std::vector<DeviceRows> rows;
    std::vector<LinearOutput> outputs;
    rows.reserve(std::size(weights));
    for (const Weights& w : weights) {
      matrices.push_back(w.Load(three()));
      rows.emplace_back(three(), tokens, w.rows, Layout::kLoose);
      outputs.push_back(
          {.matrix = matrices.back().get(), .bias = nullptr, .out = rows.back().view()});
    }
    ASSERT_OK(three().Linear(in.view(), outputs));
    for (size_t i = 0; i < outputs.size(); ++i) {
      SCOPED_TRACE(i);
      ExpectSameBits(rows[i].Get(), Multiply(three(), *matrices[i], input));
    }
  }
}

// In one call or two: the same bits, in the rows between too.
TEST_P(LinearGroupTest, WhatPreparesTheInputMayRunInTheSameCall) {
  constexpr int64_t kColumns = 512, kRows = 20;
  const Weights quantised(DataType::kQ4_K, kRows, kColumns, 1);
  const Weights floats(DataType::kF32, kRows, kColumns, 2);
  for (const int64_t tokens : {1, 3, 300}) {
    SCOPED_TRACE(tokens);
    const std::vector<float> a = Normal(tokens * kColumns, 3), b = Normal(tokens * kColumns, 4);
    const auto weight = ToDevice(three(), Normal(kColumns, 5));
    const auto q = quantised.Load(three());
    const auto f = floats.Load(three());
    const auto run = [&](const auto& op) {
      DeviceRows first(three(), tokens, kColumns, a, Layout::kLoose);
      DeviceRows second(three(), tokens, kColumns, b, Layout::kTight);
      DeviceRows between(three(), tokens, kColumns, Layout::kLoose);
      DeviceRows out_q(three(), tokens, kRows, Layout::kLoose);
      DeviceRows out_f(three(), tokens, kRows, Layout::kTight);
      const LinearOutput outputs[] = {{.matrix = q.get(), .bias = nullptr, .out = out_q.view()},
                                      {.matrix = f.get(), .bias = nullptr, .out = out_f.view()}};
      EXPECT_OK(op(first.view(), second.view(), between.view(), outputs));
      std::vector<float> all = between.Get();
      for (const float x : out_q.Get()) all.push_back(x);
      for (const float x : out_f.Get()) all.push_back(x);
      return all;
    };
    using Outputs = std::span<const LinearOutput>;
    ExpectSameBits(run([&](RowsView in, RowsView, RowsView between, Outputs outputs) {
                     return three().RmsNormLinear(in, Floats(weight), 1e-5f, between, outputs);
                   }),
                   run([&](RowsView in, RowsView, RowsView between, Outputs outputs) {
                     EXPECT_OK(three().RmsNorm(in, Floats(weight), 1e-5f, between));
                     return three().Linear(between, outputs);
                   }));
    ExpectSameBits(run([&](RowsView gate, RowsView up, RowsView between, Outputs outputs) {
                     return three().SiluGateLinear(gate, up, between, outputs);
                   }),
                   run([&](RowsView gate, RowsView up, RowsView between, Outputs outputs) {
                     EXPECT_OK(three().SiluGate(gate, up, between));
                     return three().Linear(between, outputs);
                   }));
  }
}

TEST_P(LinearGroupTest, AnEmptyGroupIsNothingToDo) {
  DeviceRows in(three(), 2, 4, Normal(8, 1), Layout::kTight);
  EXPECT_OK(three().Linear(in.view(), {}));
}

INSTANTIATE_TEST_SUITE_P(Conformance, LinearGroupTest, ::testing::ValuesIn(TestedDevices()),
                         DeviceTestName);
INSTANTIATE_TEST_SUITE_P(Tensor, LinearGroupTest, ::testing::ValuesIn(TensorDevices()),
                         DeviceTestName);

}  // namespace
}  // namespace renga::kernels::conformance
