// What a backend must refuse: memory that is not there, shapes that disagree.
#include <limits>
#include <vector>

#include "base/testing/status_matchers.h"
#include "worker/kernels/conformance/device_under_test.h"
#include "worker/kernels/conformance/emulated_paths.h"

namespace renga::kernels::conformance {
namespace {

using base::DataType;
using ::renga::testing::StatusIs;

constexpr absl::StatusCode kInvalid = absl::StatusCode::kInvalidArgument;

class RefusalsTest : public ConformanceTest {
 protected:
  // Room for every view below; the ops must refuse before they touch it.
  RowsView Rows(int64_t rows, int64_t columns) {
    return {.data = reinterpret_cast<float*>(memory_->data()),
            .rows = rows,
            .columns = columns,
            .stride = columns};
  }
  const float* weight() { return reinterpret_cast<const float*>(memory_->data()); }
  void SetUp() override {
    ConformanceTest::SetUp();
    memory_ = ToDevice(one(), std::vector<float>(4096, 1.0F));
  }
  std::unique_ptr<Buffer> memory_;
};

TEST_P(RefusalsTest, BuffersAreAlignedAndTheirRangesChecked) {
  for (const int64_t bytes : {0, 1, 63, 64, 1000}) {
    ASSERT_OK_AND_ASSIGN(const auto buffer, one().Allocate(bytes));
    EXPECT_EQ(buffer->size_bytes(), bytes);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer->data()) % 64, 0u);
  }
  ASSERT_OK_AND_ASSIGN(const auto buffer, one().Allocate(100));
  std::vector<std::byte> host(60, std::byte{42});
  EXPECT_OK(one().Upload(host, *buffer, 40));
  std::vector<std::byte> back(60);
  EXPECT_OK(one().Download(*buffer, 40, back));
  EXPECT_EQ(back, host);
  EXPECT_OK(one().Upload({}, *buffer, 100));
  for (const int64_t offset : {int64_t{41}, int64_t{-1}, std::numeric_limits<int64_t>::max()}) {
    EXPECT_FALSE(one().Upload(host, *buffer, offset).ok());
    EXPECT_FALSE(one().Download(*buffer, offset, host).ok());
  }
}

TEST_P(RefusalsTest, MemoryThatIsNotThereLeavesTheDeviceUsable) {
  EXPECT_THAT(one().Allocate(-1), StatusIs(kInvalid));
  for (const int64_t bytes : {int64_t{1} << 50, std::numeric_limits<int64_t>::max()}) {
    EXPECT_THAT(one().Allocate(bytes), StatusIs(absl::StatusCode::kResourceExhausted));
  }
  EXPECT_THAT(one().CreateMatrix(DataType::kF32, int64_t{1} << 30, int64_t{1} << 20),
              StatusIs(absl::StatusCode::kResourceExhausted));
  EXPECT_OK(one().Allocate(1000));
}

TEST_P(RefusalsTest, MatrixShapes) {
  EXPECT_THAT(one().CreateMatrix(DataType::kQ4_0, 4, 33), StatusIs(kInvalid));
  EXPECT_THAT(one().CreateMatrix(DataType::kQ4_K, 4, 128), StatusIs(kInvalid));
  EXPECT_THAT(one().CreateMatrix(DataType::kF32, 0, 4), StatusIs(kInvalid));
  EXPECT_THAT(one().CreateMatrix(DataType::kF32, 4, 0), StatusIs(kInvalid));
  EXPECT_THAT(one().CreateMatrix(DataType::kF32, -4, 4), StatusIs(kInvalid));
  EXPECT_THAT(one().CreateMatrix(DataType::kInvalid, 4, 4), StatusIs(kInvalid));
  EXPECT_THAT(one().CreateMatrix(DataType::kF32, int64_t{1} << 40, int64_t{1} << 40),
              StatusIs(kInvalid));
}

TEST_P(RefusalsTest, LoadedRows) {
  ASSERT_OK_AND_ASSIGN(const auto matrix, one().CreateMatrix(DataType::kQ8_0, 3, 64));
  const std::vector<std::byte> bytes(68 * 4);
  const std::span<const std::byte> rows(bytes);
  EXPECT_OK(one().LoadRows(*matrix, 0, rows.first(68 * 3)));
  EXPECT_THAT(one().LoadRows(*matrix, 0, rows), StatusIs(kInvalid));
  EXPECT_THAT(one().LoadRows(*matrix, 3, rows.first(68)), StatusIs(kInvalid));
  EXPECT_THAT(one().LoadRows(*matrix, -1, rows.first(68)), StatusIs(kInvalid));
  EXPECT_THAT(one().LoadRows(*matrix, 0, rows.first(67)), StatusIs(kInvalid));
}

TEST_P(RefusalsTest, RowOps) {
  EXPECT_THAT(one().RmsNorm(Rows(2, 8), weight(), 0, Rows(2, 9)), StatusIs(kInvalid));
  EXPECT_THAT(one().RmsNorm(Rows(2, 8), weight(), 0, Rows(3, 8)), StatusIs(kInvalid));
  EXPECT_THAT(one().RmsNorm(Rows(2, 8), nullptr, 0, Rows(2, 8)), StatusIs(kInvalid));
  EXPECT_THAT(one().HeadRmsNorm(Rows(2, 8), 3, weight(), 0), StatusIs(kInvalid));
  EXPECT_THAT(one().HeadRmsNorm(Rows(2, 8), 0, weight(), 0), StatusIs(kInvalid));
  EXPECT_THAT(one().SiluGate(Rows(2, 8), Rows(2, 7), Rows(2, 8)), StatusIs(kInvalid));
  EXPECT_THAT(one().SiluGate(Rows(2, 8), Rows(2, 8), Rows(1, 8)), StatusIs(kInvalid));
  EXPECT_THAT(one().GeluGate(Rows(2, 8), Rows(2, 7), Rows(2, 8)), StatusIs(kInvalid));
  EXPECT_THAT(one().Add(Rows(2, 8), Rows(2, 7)), StatusIs(kInvalid));
  RowsView overlapping = Rows(2, 8);
  overlapping.stride = 7;
  EXPECT_THAT(one().Add(Rows(2, 8), overlapping), StatusIs(kInvalid));
  RowsView nowhere = Rows(2, 8);
  nowhere.data = nullptr;
  EXPECT_THAT(one().Add(nowhere, Rows(2, 8)), StatusIs(kInvalid));
  EXPECT_THAT(one().Add(Rows(-2, 8), Rows(-2, 8)), StatusIs(kInvalid));
}

TEST_P(RefusalsTest, Rope) {
  const std::vector<int64_t> positions = {3, 4};
  const RopeArgs good = {.head_dim = 4, .dims = 4};
  EXPECT_OK(one().Rope(Rows(2, 8), positions, good));
  EXPECT_THAT(one().Rope(Rows(3, 8), positions, good), StatusIs(kInvalid));
  EXPECT_THAT(one().Rope(Rows(2, 7), positions, good), StatusIs(kInvalid));
  EXPECT_THAT(one().Rope(Rows(2, 8), positions, {.head_dim = 4, .dims = 3}), StatusIs(kInvalid));
  EXPECT_THAT(one().Rope(Rows(2, 8), positions, {.head_dim = 4, .dims = 6}), StatusIs(kInvalid));
  EXPECT_THAT(one().Rope(Rows(2, 8), positions, {.head_dim = 0, .dims = 0}), StatusIs(kInvalid));
  EXPECT_THAT(one().Rope(Rows(2, 8), positions, {.head_dim = 4, .dims = 4, .base = 0}),
              StatusIs(kInvalid));
  EXPECT_THAT(one().Rope(Rows(2, 8), positions, {.head_dim = 4, .dims = 4, .position_scale = 0}),
              StatusIs(kInvalid));
  EXPECT_THAT(one().Rope(Rows(2, 8), std::vector<int64_t>{3, -1}, good), StatusIs(kInvalid));
}

TEST_P(RefusalsTest, Linear) {
  ASSERT_OK_AND_ASSIGN(const auto matrix, one().CreateMatrix(DataType::kF32, 5, 8));
  const auto run = [&](RowsView in, const WeightMatrix* m, RowsView out) {
    const LinearOutput output{.matrix = m, .bias = nullptr, .out = out};
    return one().Linear(in, {&output, 1});
  };
  EXPECT_OK(run(Rows(2, 8), matrix.get(), Rows(2, 5)));
  EXPECT_THAT(run(Rows(2, 7), matrix.get(), Rows(2, 5)), StatusIs(kInvalid));
  EXPECT_THAT(run(Rows(2, 8), matrix.get(), Rows(2, 8)), StatusIs(kInvalid));
  EXPECT_THAT(run(Rows(2, 8), matrix.get(), Rows(3, 5)), StatusIs(kInvalid));
  EXPECT_THAT(run(Rows(2, 8), nullptr, Rows(2, 5)), StatusIs(kInvalid));
}

class CacheRefusalsTest : public RefusalsTest {
 protected:
  static constexpr int64_t kBlocks = 4;
  static constexpr int64_t kBlockTokens = 8;

  KvCacheView Cache() {
    return {.keys = memory_->data(),
            .values = memory_->data() + memory_->size_bytes() / 2,
            .type = DataType::kF16,
            .n_blocks = kBlocks,
            .block_tokens = kBlockTokens,
            .n_kv_heads = 2,
            .head_dim = 8};
  }
  // Both ops look at slots and cache alike.
  void ExpectRefused(const KvCacheView& cache, const SequenceSlot& slot) {
    EXPECT_THAT(one().StoreKv(Rows(3, 16), Rows(3, 16), cache, {&slot, 1}), StatusIs(kInvalid));
    EXPECT_THAT(one().Attention({.queries = Rows(3, 32),
                                 .out = Rows(3, 32),
                                 .cache = cache,
                                 .n_heads = 4,
                                 .scale = 1,
                                 .slots = {&slot, 1}}),
                StatusIs(kInvalid));
  }
};

TEST_P(CacheRefusalsTest, Slots) {
  const std::vector<int32_t> blocks = {3, 0};
  const SequenceSlot good = {.row_count = 3, .first_position = 13, .blocks = blocks};
  EXPECT_OK(one().StoreKv(Rows(3, 16), Rows(3, 16), Cache(), {&good, 1}));
  SequenceSlot slot = good;
  slot.first_row = 1;
  ExpectRefused(Cache(), slot);
  slot.first_row = std::numeric_limits<int64_t>::max();
  ExpectRefused(Cache(), slot);
  slot.first_row = -1;
  ExpectRefused(Cache(), slot);
  slot = good;
  slot.first_position = 14;
  ExpectRefused(Cache(), slot);
  slot.first_position = std::numeric_limits<int64_t>::max();
  ExpectRefused(Cache(), slot);
  slot.first_position = -1;
  ExpectRefused(Cache(), slot);
  slot = good;
  slot.row_count = -1;
  ExpectRefused(Cache(), slot);
  for (const int32_t bad : {-1, 4}) {
    const std::vector<int32_t> bad_blocks = {3, bad};
    slot = good;
    slot.blocks = bad_blocks;
    ExpectRefused(Cache(), slot);
  }
}

TEST_P(CacheRefusalsTest, Caches) {
  const std::vector<int32_t> blocks = {3, 0};
  const SequenceSlot slot = {.row_count = 3, .first_position = 0, .blocks = blocks};
  KvCacheView cache = Cache();
  cache.type = DataType::kQ4_0;
  ExpectRefused(cache, slot);
  cache = Cache();
  cache.block_tokens = 0;
  ExpectRefused(cache, slot);
  cache = Cache();
  cache.head_dim = 7;
  ExpectRefused(cache, slot);
  cache = Cache();
  cache.values = nullptr;
  ExpectRefused(cache, slot);
}

TEST_P(CacheRefusalsTest, AttentionHeadsAndTopKResults) {
  AttentionArgs args;
  args.queries = Rows(1, 32);
  args.out = Rows(1, 32);
  args.cache = Cache();
  args.n_heads = 4;
  args.scale = 1;
  EXPECT_OK(one().Attention(args));
  args.n_heads = 3;
  EXPECT_THAT(one().Attention(args), StatusIs(kInvalid));
  args.n_heads = 0;
  EXPECT_THAT(one().Attention(args), StatusIs(kInvalid));
  args.n_heads = 4;
  args.out = Rows(1, 16);
  EXPECT_THAT(one().Attention(args), StatusIs(kInvalid));
  args.out = Rows(1, 32);
  args.scale = std::numeric_limits<float>::infinity();
  EXPECT_THAT(one().Attention(args), StatusIs(kInvalid));

  std::vector<TopRow> result(2);
  EXPECT_THAT(one().TopK(Rows(3, 8), 1, result), StatusIs(kInvalid));
  EXPECT_THAT(one().TopK(Rows(2, 0), 1, result), StatusIs(kInvalid));
}

INSTANTIATE_TEST_SUITE_P(Conformance, RefusalsTest, ::testing::ValuesIn(TestedDevices()),
                         DeviceTestName);
INSTANTIATE_TEST_SUITE_P(Conformance, CacheRefusalsTest, ::testing::ValuesIn(TestedDevices()),
                         DeviceTestName);

}  // namespace
}  // namespace renga::kernels::conformance
