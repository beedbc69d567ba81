// StoreKv and Attention over the paged cache: agreement with the reference, and the promise that a
// row depends only on its sequence, not on chunks, neighbours, block numbers or threads.
#include <algorithm>
#include <numeric>
#include <random>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/testing/status_matchers.h"
#include "worker/kernels/conformance/device_under_test.h"
#include "worker/kernels/conformance/emulated_paths.h"

namespace renga::kernels::conformance {
namespace {

using base::DataType;

struct Shape {
  int64_t heads;
  int64_t kv_heads;
  int64_t head_dim;
  int64_t block_tokens;
  DataType type;
  int64_t window = 0;

  int64_t query_width() const { return heads * head_dim; }
  int64_t kv_width() const { return kv_heads * head_dim; }
  std::string Name() const {
    return absl::StrCat(heads, " heads over ", kv_heads, " of ", head_dim, ", blocks of ",
                        block_tokens, ", ", base::GetDataTypeInfo(type).name,
                        window > 0 ? absl::StrCat(", window of ", window) : "");
  }
};

constexpr Shape kShapes[] = {
    {1, 1, 8, 32, DataType::kF16},   {4, 2, 16, 32, DataType::kF32},
    {6, 2, 20, 7, DataType::kF16},   {3, 3, 33, 16, DataType::kF32},
    {8, 2, 64, 32, DataType::kF16},  {9, 3, 64, 32, DataType::kF16},
    {5, 1, 80, 32, DataType::kF32},  {4, 1, 128, 32, DataType::kF16},
    {2, 1, 1, 1, DataType::kF16},    {6, 2, 64, 32, DataType::kQ8_0},
    {4, 4, 80, 32, DataType::kQ8_0}, {3, 1, 33, 7, DataType::kQ8_0},
};
constexpr Shape kWindows[] = {
    {4, 1, 32, 32, DataType::kF16, 1},  {6, 2, 20, 7, DataType::kF32, 12},
    {4, 1, 64, 32, DataType::kF16, 32}, {3, 1, 33, 16, DataType::kQ8_0, 70},
    {2, 1, 8, 32, DataType::kF16, 600},
};
constexpr Shape kUsual = {6, 2, 40, 32, DataType::kF16};

// One sequence's numbers: `length` rows of queries, keys and values.
struct Sequence {
  int64_t length;
  std::vector<float> queries;
  std::vector<float> keys;
  std::vector<float> values;

  Sequence(const Shape& shape, int64_t n, uint32_t seed)
      : length(n),
        queries(Normal(n * shape.query_width(), seed)),
        keys(Normal(n * shape.kv_width(), seed + 1)),
        values(Normal(n * shape.kv_width(), seed + 2)) {}
};

// One slot of a call: `count` rows of a sequence from `first` on, and the blocks it lives in.
struct Part {
  const Sequence* sequence;
  int64_t first;
  int64_t count;
  std::vector<int32_t> blocks;
};

// A cache on a device, filled with NaN: a position that was never stored must not be read.
class Cache {
 public:
  Cache(Backend& backend, const Shape& shape, int64_t n_blocks)
      : backend_(backend), shape_(shape), n_blocks_(n_blocks) {
    const int64_t numbers = n_blocks * shape.block_tokens * shape.kv_width();
    const std::vector<std::byte> nan(
        static_cast<size_t>(numbers * base::GetDataTypeInfo(shape.type).block_bytes),
        std::byte{0xff});
    keys_ = ToDevice(backend, nan);
    values_ = ToDevice(backend, nan);
  }

  KvCacheView view() {
    return {.keys = keys_->data(),
            .values = values_->data(),
            .type = shape_.type,
            .n_blocks = n_blocks_,
            .block_tokens = shape_.block_tokens,
            .n_kv_heads = shape_.kv_heads,
            .head_dim = shape_.head_dim};
  }
  std::vector<std::byte> Keys() { return FromDevice(backend_, *keys_); }
  std::vector<std::byte> Values() { return FromDevice(backend_, *values_); }

  // Stores the parts' keys and values, then attends; all in one call each. Returns the parts' rows
  // one after the other.
  std::vector<float> Step(const std::vector<Part>& parts, Layout layout = Layout::kTight);

 private:
  Backend& backend_;
  const Shape shape_;
  const int64_t n_blocks_;
  std::unique_ptr<Buffer> keys_;
  std::unique_ptr<Buffer> values_;
};

std::vector<float> Cache::Step(const std::vector<Part>& parts, Layout layout) {
  std::vector<float> queries;
  std::vector<float> keys;
  std::vector<float> values;
  std::vector<SequenceSlot> slots;
  int64_t rows = 0;
  const auto append = [](std::vector<float>& to, const std::vector<float>& from) {
    to.insert(to.end(), from.begin(), from.end());
  };
  for (const Part& part : parts) {
    const Sequence& s = *part.sequence;
    append(queries, Slice(s.queries, shape_.query_width(), part.first, part.count));
    append(keys, Slice(s.keys, shape_.kv_width(), part.first, part.count));
    append(values, Slice(s.values, shape_.kv_width(), part.first, part.count));
    slots.push_back({.first_row = rows,
                     .row_count = part.count,
                     .first_position = part.first,
                     .blocks = part.blocks});
    rows += part.count;
  }
  DeviceRows k(backend_, rows, shape_.kv_width(), keys, layout);
  DeviceRows v(backend_, rows, shape_.kv_width(), values, layout);
  EXPECT_OK(backend_.StoreKv(k.view(), v.view(), view(), slots));
  DeviceRows q(backend_, rows, shape_.query_width(), queries, layout);
  DeviceRows out(backend_, rows, shape_.query_width(), layout);
  EXPECT_OK(backend_.Attention({.queries = q.view(),
                                .out = out.view(),
                                .cache = view(),
                                .n_heads = shape_.heads,
                                .scale = 0.3F,
                                .window = shape_.window,
                                .slots = slots}));
  return out.Get();
}

// Blocks first, first + 1, ... enough for `tokens` positions.
std::vector<int32_t> BlocksFrom(const Shape& shape, int32_t first, int64_t tokens) {
  std::vector<int32_t> blocks(
      static_cast<size_t>((tokens + shape.block_tokens - 1) / shape.block_tokens));
  std::iota(blocks.begin(), blocks.end(), first);
  return blocks;
}

// The sequence alone, in one call, in a cache of its own.
std::vector<float> RunWhole(Backend& backend, const Shape& shape, const Sequence& sequence,
                            Layout layout = Layout::kTight) {
  const auto blocks = BlocksFrom(shape, 0, sequence.length);
  Cache cache(backend, shape, static_cast<int64_t>(blocks.size()));
  return cache.Step({{&sequence, 0, sequence.length, blocks}}, layout);
}

class AttentionTest : public ConformanceTest {};

TEST_P(AttentionTest, AgreesWithTheReference) {
  for (const Shape& shape : kShapes) {
    for (const int64_t length : {1, 2, 31, 33, 75}) {
      SCOPED_TRACE(absl::StrCat(shape.Name(), ", ", length, " tokens"));
      const Sequence sequence(shape, length, 10);
      const auto got = ExpectConforms([&](Backend& b) { return RunWhole(b, shape, sequence); });
      ExpectSameBits(RunWhole(three(), shape, sequence, Layout::kLoose), got);
    }
  }
}

TEST_P(AttentionTest, ALongSequenceInChunksOfAnySizeEqualsOneCall) {
  for (const Shape& shape : {kUsual, kShapes[1], kShapes[2], kShapes[3]}) {
    SCOPED_TRACE(shape.Name());
    constexpr int64_t kLength = 333;
    const Sequence sequence(shape, kLength, 20);
    const auto whole = ExpectConforms([&](Backend& b) { return RunWhole(b, shape, sequence); });
    for (const std::vector<int64_t>& ends :
         {std::vector<int64_t>{20, 53, 54, 96, 97, 98, 99, 256, kLength},
          std::vector<int64_t>{1, 2, 3, 4, 300, 331, 332, kLength}}) {
      Cache cache(three(), shape, 400);
      int64_t first = 0;
      for (const int64_t end : ends) {
        SCOPED_TRACE(absl::StrCat("positions ", first, " to ", end));
        const auto part = cache.Step({{&sequence, first, end - first, BlocksFrom(shape, 0, end)}});
        ExpectSameBits(part, Slice(whole, shape.query_width(), first, end - first));
        first = end;
      }
    }
  }
}

// Long enough that a backend may share out the context of a single row.
TEST_P(AttentionTest, TheEndOfALongContextTokenByTokenEqualsOneCall) {
  for (const Shape& shape : {Shape{2, 1, 16, 32, DataType::kF16}, Shape{1, 1, 9, 7, DataType::kF32},
                             Shape{2, 1, 33, 32, DataType::kQ8_0}}) {
    SCOPED_TRACE(shape.Name());
    constexpr int64_t kLength = 1060;
    const Sequence sequence(shape, kLength, 25);
    const auto whole = ExpectConforms([&](Backend& b) { return RunWhole(b, shape, sequence); });
    Cache cache(three(), shape, 160);
    int64_t first = 0;
    for (const int64_t end : {511, 512, 513, 514, 1023, 1024, 1025, 1058, 1059, 1060}) {
      SCOPED_TRACE(absl::StrCat("positions ", first, " to ", end));
      const auto part = cache.Step({{&sequence, first, end - first, BlocksFrom(shape, 0, end)}});
      ExpectSameBits(part, Slice(whole, shape.query_width(), first, end - first));
      first = end;
    }
  }
}

TEST_P(AttentionTest, AWindowHidesWhatLiesBeforeIt) {
  for (const Shape& shape : kWindows) {
    SCOPED_TRACE(shape.Name());
    constexpr int64_t kLength = 630;
    Sequence sequence(shape, kLength, 35);
    const auto whole = ExpectConforms([&](Backend& b) { return RunWhole(b, shape, sequence); });
    for (const std::vector<int64_t>& ends :
         {std::vector<int64_t>{1, 12, 13, 45, 300, 513, 514, kLength},
          std::vector<int64_t>{620, 621, 622, 629, kLength}}) {
      Cache cache(three(), shape, kLength);
      int64_t first = 0;
      for (const int64_t end : ends) {
        SCOPED_TRACE(absl::StrCat("positions ", first, " to ", end));
        const auto part = cache.Step({{&sequence, first, end - first, BlocksFrom(shape, 0, end)}});
        ExpectSameBits(part, Slice(whole, shape.query_width(), first, end - first));
        first = end;
      }
    }
    // What the last row does not see is of no account to it; one position later it is.
    const int64_t hidden = kLength - shape.window;
    for (const int64_t changed : {hidden - 1, hidden}) {
      Sequence other = sequence;
      for (int64_t i = 0; i < shape.kv_width(); ++i) {
        other.values[static_cast<size_t>(changed * shape.kv_width() + i)] += 100.0F;
      }
      const auto last = Slice(RunWhole(three(), shape, other), shape.query_width(), kLength - 1, 1);
      const auto want = Slice(whole, shape.query_width(), kLength - 1, 1);
      EXPECT_EQ(last == want, changed < hidden);
    }
  }
}

TEST_P(AttentionTest, OneTokenAtATimeEqualsOneCall) {
  const Sequence sequence(kUsual, 70, 30);
  const auto whole = RunWhole(three(), kUsual, sequence);
  Cache cache(three(), kUsual, 3);
  for (int64_t p = 0; p < sequence.length; ++p) {
    SCOPED_TRACE(p);
    ExpectSameBits(cache.Step({{&sequence, p, 1, BlocksFrom(kUsual, 0, p + 1)}}),
                   Slice(whole, kUsual.query_width(), p, 1));
  }
}

TEST_P(AttentionTest, SequencesInOneCallDoNotMeet) {
  // The last is in blocks that lie between the others' and in no order.
  const Sequence a(kUsual, 50, 40);
  const Sequence b(kUsual, 1, 50);
  const Sequence c(kUsual, 100, 60);
  const std::vector<int32_t> blocks_a = {7, 2};
  const std::vector<int32_t> blocks_b = {5};
  const std::vector<int32_t> blocks_c = {9, 0, 6, 1};
  const int64_t width = kUsual.query_width();
  for (Backend* backend : {&three(), &one()}) {
    const auto alone_a = RunWhole(*backend, kUsual, a);
    const auto alone_b = RunWhole(*backend, kUsual, b);
    const auto alone_c = RunWhole(*backend, kUsual, c);
    Cache cache(*backend, kUsual, 10);
    auto out = cache.Step({{&c, 0, 30, blocks_c}, {&a, 0, 50, blocks_a}});
    ExpectSameBits(Slice(out, width, 0, 30), Slice(alone_c, width, 0, 30));
    ExpectSameBits(Slice(out, width, 30, 50), alone_a);
    // A prefill chunk next to a first token.
    out = cache.Step({{&b, 0, 1, blocks_b}, {&c, 30, 69, blocks_c}});
    ExpectSameBits(Slice(out, width, 0, 1), alone_b);
    ExpectSameBits(Slice(out, width, 1, 69), Slice(alone_c, width, 30, 69));
    out = cache.Step({{&c, 99, 1, blocks_c}});
    ExpectSameBits(out, Slice(alone_c, width, 99, 1));
  }
}

TEST_P(AttentionTest, ManySequencesDecodeTogether) {
  constexpr int64_t kSequences = 17;
  std::vector<Sequence> sequences;
  for (uint32_t i = 0; i < kSequences; ++i) sequences.emplace_back(kUsual, 3 + 5 * i, 100 + 10 * i);
  std::vector<int32_t> order(kSequences * 3);
  std::iota(order.begin(), order.end(), 0);
  std::shuffle(order.begin(), order.end(), std::mt19937(1));
  Cache cache(three(), kUsual, kSequences * 3);
  std::vector<Part> prefill;
  std::vector<Part> decode;
  for (size_t i = 0; i < kSequences; ++i) {
    const std::vector<int32_t> blocks(order.begin() + static_cast<int64_t>(i) * 3,
                                      order.begin() + static_cast<int64_t>(i) * 3 + 3);
    prefill.push_back({&sequences[i], 0, sequences[i].length - 1, blocks});
    decode.push_back({&sequences[i], sequences[i].length - 1, 1, blocks});
  }
  cache.Step(prefill);
  const auto out = cache.Step(decode);
  for (int64_t i = 0; i < kSequences; ++i) {
    SCOPED_TRACE(i);
    const Sequence& s = sequences[static_cast<size_t>(i)];
    const int64_t width = kUsual.query_width();
    ExpectSameBits(Slice(out, width, i, 1),
                   Slice(RunWhole(three(), kUsual, s), width, s.length - 1, 1));
  }
}

TEST_P(AttentionTest, SharpAndFlatScores) {
  Sequence sharp(kUsual, 40, 70);
  for (float& x : sharp.queries) x *= 100;  // scores of some hundreds: one position takes all
  ExpectConforms([&](Backend& b) { return RunWhole(b, kUsual, sharp); });
  Sequence flat(kUsual, 40, 80);
  std::fill(flat.queries.begin(), flat.queries.end(), 0.0F);  // all alike: the mean of the values
  ExpectConforms([&](Backend& b) { return RunWhole(b, kUsual, flat); });
  Sequence sinking(kUsual, 40, 90);  // the first position's score is far above all later ones
  for (size_t i = 0; i < static_cast<size_t>(kUsual.kv_width()); ++i) sinking.keys[i] = 1000;
  std::fill(sinking.queries.begin(), sinking.queries.end(), 1.0F);
  ExpectConforms([&](Backend& b) { return RunWhole(b, kUsual, sinking); });
}

TEST_P(AttentionTest, StoreKvWritesExactlyItsCells) {
  for (const DataType type : {DataType::kF16, DataType::kF32, DataType::kQ8_0}) {
    Shape shape = kShapes[2];
    shape.type = type;
    Sequence a(shape, 20, 1);
    const Sequence b(shape, 9, 2);
    a.keys[3] = 1e6F;  // infinity as a half
    a.keys[4] = 3e-6F;
    const auto store = [&](Backend& backend, Layout layout) {
      Cache cache(backend, shape, 8);
      cache.Step({{&a, 0, 4, {6, 1, 3}}, {&b, 0, 9, {7, 2}}}, layout);
      cache.Step({{&a, 4, 16, {6, 1, 3}}}, layout);
      std::vector<std::byte> bytes = cache.Keys();
      for (const std::byte byte : cache.Values()) bytes.push_back(byte);
      return bytes;
    };
    const auto want = store(reference(), Layout::kTight);
    EXPECT_EQ(store(three(), Layout::kLoose), want);
    EXPECT_EQ(store(one(), Layout::kTight), want);
  }
}

TEST_P(AttentionTest, RowsOutsideOfEverySlotStayAsTheyAre) {
  const Sequence s(kUsual, 5, 3);
  Cache cache(three(), kUsual, 1);
  const std::vector<int32_t> blocks = {0};
  cache.Step({{&s, 0, 5, blocks}});
  const std::vector<float> before(static_cast<size_t>(5 * kUsual.query_width()), 7.0F);
  DeviceRows q(three(), 5, kUsual.query_width(), s.queries, Layout::kTight);
  DeviceRows out(three(), 5, kUsual.query_width(), before, Layout::kTight);
  const SequenceSlot slots[] = {
      {.first_row = 2, .row_count = 1, .first_position = 2, .blocks = blocks},
      {.first_row = 5, .row_count = 0, .first_position = 5, .blocks = blocks}};
  ASSERT_OK(three().Attention({.queries = q.view(),
                               .out = out.view(),
                               .cache = cache.view(),
                               .n_heads = kUsual.heads,
                               .scale = 0.3F,
                               .slots = slots}));
  const auto got = out.Get();
  const auto whole = RunWhole(three(), kUsual, s);
  for (const int64_t row : {0, 1, 3, 4}) {
    ExpectSameBits(Slice(got, kUsual.query_width(), row, 1),
                   Slice(before, kUsual.query_width(), row, 1));
  }
  ExpectSameBits(Slice(got, kUsual.query_width(), 2, 1), Slice(whole, kUsual.query_width(), 2, 1));
}

INSTANTIATE_TEST_SUITE_P(Conformance, AttentionTest, ::testing::ValuesIn(TestedDevices()),
                         DeviceTestName);

}  // namespace
}  // namespace renga::kernels::conformance
