#include "bench/card_measurements.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <span>
#include <tuple>
#include <utility>

#include "base/kv_type.h"
#include "base/status_macros.h"
#include "bench/plain_weights.h"
#include "worker/kernels/cuda/kernel_list.h"
#include "worker/kernels/cuda/launch_shapes.h"

namespace renga::bench {
namespace {

using base::DataType;
using kernels::Buffer;
using kernels::RowsView;
using kernels::WeightMatrix;
using Clock = std::chrono::steady_clock;

constexpr DataType kQuantized[] = {DataType::kQ8_0, DataType::kQ4_0,   DataType::kQ4_1,
                                   DataType::kQ5_0, DataType::kQ5_1,   DataType::kQ2_K,
                                   DataType::kQ3_K, DataType::kQ4_K,   DataType::kQ5_K,
                                   DataType::kQ6_K, DataType::kIQ4_NL, DataType::kIQ4_XS};
// As published with TinyLlama 1.1B and Llama 2 7B.
constexpr ModelShape kModels[] = {
    {"1.1B", 2048, 5632, 32, 4, 64, 22},
    {"7B", 4096, 11008, 32, 32, 128, 32},
};
constexpr int64_t kVocabulary = 32000;
constexpr int64_t kBlockTokens = 32;
constexpr int kMostBatch = 1 << 12;
constexpr float kEpsilon = 1e-5F;

double Since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

const char* NameOf(DataType type) { return base::GetDataTypeInfo(type).name.data(); }

float* FloatsOf(Buffer& buffer) { return reinterpret_cast<float*>(buffer.data()); }

RowsView Rows(Buffer& buffer, int64_t rows, int64_t columns) {
  return {.data = FloatsOf(buffer), .rows = rows, .columns = columns, .stride = columns};
}
kernels::ConstRowsView ConstRows(Buffer& buffer, int64_t rows, int64_t columns) {
  return {FloatsOf(buffer), rows, columns, columns};
}

std::span<const ModelShape> Models(const CardBenchOptions& options) {
  static constexpr ModelShape kSmall[] = {{"small", 256, 512, 4, 1, 64, 2}};
  return options.small ? std::span<const ModelShape>(kSmall) : kModels;
}

}  // namespace

absl::StatusOr<double> CardMeasurements::SecondsOf(absl::FunctionRef<absl::Status(int64_t)> call) {
  int64_t index = 0;
  const auto batch = [&](int64_t count) -> absl::StatusOr<double> {
    const auto start = Clock::now();
    for (int64_t i = 0; i < count; ++i) RENGA_RETURN_IF_ERROR(call(index++));
    RENGA_RETURN_IF_ERROR(device_.Synchronize());
    return Since(start) / static_cast<double>(count);
  };
  RENGA_ASSIGN_OR_RETURN(double each, batch(1));  // scratch memory is taken
  if (each > options_.seconds) return each;
  int64_t count = 1;
  while (true) {
    RENGA_ASSIGN_OR_RETURN(each, batch(count));
    if (each * static_cast<double>(count) * 4 > options_.seconds || count >= kMostBatch) break;
    count *= 2;
  }
  std::vector<double> times;
  for (int i = 0; i < 5; ++i) {
    RENGA_ASSIGN_OR_RETURN(each, batch(count));
    times.push_back(each);
  }
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

absl::StatusOr<std::unique_ptr<Buffer>> CardMeasurements::Floats(int64_t count) {
  std::vector<float> numbers(static_cast<size_t>(count));
  for (size_t i = 0; i < numbers.size(); ++i) numbers[i] = static_cast<float>(i % 17) - 8.0F;
  RENGA_ASSIGN_OR_RETURN(auto buffer, backend_.Allocate(count * 4));
  RENGA_RETURN_IF_ERROR(backend_.Upload(std::as_bytes(std::span(numbers)), *buffer, 0));
  return buffer;
}

absl::StatusOr<std::vector<std::unique_ptr<WeightMatrix>>> CardMeasurements::MakeMatrices(
    DataType type, int64_t rows, int64_t columns, int64_t most_bytes) {
  RENGA_ASSIGN_OR_RETURN(const int64_t row_bytes, base::RowBytes(type, columns));
  const std::vector<std::byte> bytes = PlainWeights(row_bytes * rows);
  const int64_t each = std::max<int64_t>(1, backend_.MatrixBytes(type, rows, columns));
  std::vector<std::unique_ptr<WeightMatrix>> matrices;
  do {
    RENGA_ASSIGN_OR_RETURN(auto matrix, backend_.CreateMatrix(type, rows, columns));
    RENGA_RETURN_IF_ERROR(backend_.LoadRows(*matrix, 0, bytes));
    matrices.push_back(std::move(matrix));
  } while (static_cast<int64_t>(matrices.size() + 1) * each <= most_bytes);
  return matrices;
}

absl::Status CardMeasurements::Copies() {
  const int64_t bytes = options_.small ? 1 << 20 : int64_t{256} << 20;
  RENGA_ASSIGN_OR_RETURN(const auto from, backend_.Allocate(bytes));
  RENGA_ASSIGN_OR_RETURN(const auto to, backend_.Allocate(bytes));
  RENGA_ASSIGN_OR_RETURN(const double seconds, SecondsOf([&](int64_t) {
                           return device_.Copy(from->data(), to->data(), bytes);
                         }));
  std::printf("{\"kind\":\"copy\",\"bytes\":%lld,\"seconds\":%.9f,\"gb_per_s\":%.3f}\n",
              static_cast<long long>(bytes), seconds,
              2.0 * static_cast<double>(bytes) / seconds * 1e-9);
  return absl::OkStatus();
}

absl::Status CardMeasurements::Peak(const std::string& path) {
  namespace cuda = kernels::cuda;
  const bool mma = path == "mma";
  const int64_t blocks = options_.small ? 1 : 1024;
  const int64_t threads = blocks * cuda::kPeakThreads;
  RENGA_ASSIGN_OR_RETURN(const auto out, backend_.Allocate(threads * 4));
  const cuda::PeakArgs args = {.rounds = options_.small ? 2
                                         : mma          ? 64
                                                        : 256,
                               .out = reinterpret_cast<int32_t*>(out->data())};
  RENGA_ASSIGN_OR_RETURN(const double seconds, SecondsOf([&](int64_t) {
                           return device_.Launch(
                               mma ? cuda::Kernel::kPeakMma : cuda::Kernel::kPeakDp4a,
                               {blocks, 1, cuda::kPeakThreads}, std::as_bytes(std::span(&args, 1)));
                         }));
  const double operations = static_cast<double>(threads) * args.rounds *
                            (mma ? cuda::kPeakMmaOperations : cuda::kPeakDp4aOperations);
  std::printf("{\"kind\":\"peak\",\"path\":\"%s\",\"seconds\":%.9f,\"top_per_s\":%.4f}\n",
              path.c_str(), seconds, operations / seconds * 1e-12);
  return absl::OkStatus();
}

absl::Status CardMeasurements::Vector(const ModelShape& model, DataType type, int64_t rows,
                                      int64_t columns) {
  RENGA_ASSIGN_OR_RETURN(
      const auto matrices,
      MakeMatrices(type, rows, columns, options_.small ? 0 : options_.working_set_bytes));
  for (const int64_t tokens : {1, 8}) {
    RENGA_ASSIGN_OR_RETURN(const auto in, Floats(tokens * columns));
    RENGA_ASSIGN_OR_RETURN(const auto out, backend_.Allocate(tokens * rows * 4));
    RENGA_ASSIGN_OR_RETURN(const double seconds, SecondsOf([&](int64_t i) {
                             const kernels::LinearOutput output{
                                 .matrix = matrices[static_cast<size_t>(i) % matrices.size()].get(),
                                 .bias = nullptr,
                                 .out = Rows(*out, tokens, rows)};
                             return backend_.Linear(ConstRows(*in, tokens, columns), {&output, 1});
                           }));
    const auto bytes = static_cast<double>(backend_.MatrixBytes(type, rows, columns));
    std::printf(
        "{\"kind\":\"vector\",\"model\":\"%s\",\"type\":\"%s\",\"rows\":%lld,\"columns\":%lld,"
        "\"tokens\":%lld,\"seconds\":%.9f,\"gb_per_s\":%.3f}\n",
        model.name, NameOf(type), static_cast<long long>(rows), static_cast<long long>(columns),
        static_cast<long long>(tokens), seconds, bytes / seconds * 1e-9);
  }
  return absl::OkStatus();
}

absl::Status CardMeasurements::Vectors() {
  for (const ModelShape& model : Models(options_)) {
    for (const DataType type : kQuantized) {
      RENGA_RETURN_IF_ERROR(Vector(model, type, model.feed_forward, model.hidden));
      if (type != DataType::kQ4_K && type != DataType::kQ8_0) continue;
      if (options_.small) continue;
      RENGA_RETURN_IF_ERROR(Vector(model, type, model.hidden, model.hidden));
      RENGA_RETURN_IF_ERROR(Vector(model, type, model.hidden, model.feed_forward));
      RENGA_RETURN_IF_ERROR(Vector(model, type, kVocabulary, model.hidden));
    }
  }
  return absl::OkStatus();
}

absl::Status CardMeasurements::Matrix(const std::string& path, const ModelShape& model,
                                      DataType type) {
  const int64_t rows = model.feed_forward;
  const int64_t tokens = options_.small ? 33 : 512;
  RENGA_ASSIGN_OR_RETURN(const auto matrices, MakeMatrices(type, rows, model.hidden, 0));
  RENGA_ASSIGN_OR_RETURN(const auto in, Floats(tokens * model.hidden));
  RENGA_ASSIGN_OR_RETURN(const auto out, backend_.Allocate(tokens * rows * 4));
  const kernels::LinearOutput output{
      .matrix = matrices[0].get(), .bias = nullptr, .out = Rows(*out, tokens, rows)};
  RENGA_ASSIGN_OR_RETURN(
      const double seconds, SecondsOf([&](int64_t) {
        return backend_.Linear(ConstRows(*in, tokens, model.hidden), {&output, 1});
      }));
  const double operations = 2.0 * static_cast<double>(tokens) * static_cast<double>(rows) *
                            static_cast<double>(model.hidden);
  std::printf(
      "{\"kind\":\"matrix\",\"path\":\"%s\",\"model\":\"%s\",\"type\":\"%s\",\"rows\":%lld,"
      "\"columns\":%lld,\"tokens\":%lld,\"seconds\":%.9f,\"top_per_s\":%.4f}\n",
      path.c_str(), model.name, NameOf(type), static_cast<long long>(rows),
      static_cast<long long>(model.hidden), static_cast<long long>(tokens), seconds,
      operations / seconds * 1e-12);
  return absl::OkStatus();
}

absl::Status CardMeasurements::Matrices(const std::string& path) {
  for (const ModelShape& model : Models(options_)) {
    for (const DataType type : kQuantized) RENGA_RETURN_IF_ERROR(Matrix(path, model, type));
  }
  return absl::OkStatus();
}

absl::Status CardMeasurements::Attention(int64_t kv_heads, DataType type) {
  const int64_t heads = 32;
  const int64_t head_dim = 128;
  const int64_t context = options_.small ? 256 : 8192;
  const int64_t sequence_blocks = context / kBlockTokens;
  const int64_t bytes = context * kv_heads * base::KvHeadBytes(type, head_dim);  // of the keys
  const int64_t sequences =
      options_.small ? 1 : std::max<int64_t>(1, options_.working_set_bytes / (2 * bytes));
  RENGA_ASSIGN_OR_RETURN(const auto keys, backend_.Allocate(bytes * sequences));
  RENGA_ASSIGN_OR_RETURN(const auto values, backend_.Allocate(bytes * sequences));
  const std::vector<std::byte> zeros(static_cast<size_t>(bytes));
  for (int64_t i = 0; i < sequences; ++i) {
    RENGA_RETURN_IF_ERROR(backend_.Upload(zeros, *keys, i * bytes));
    RENGA_RETURN_IF_ERROR(backend_.Upload(zeros, *values, i * bytes));
  }
  RENGA_ASSIGN_OR_RETURN(const auto in, Floats(heads * head_dim));
  RENGA_ASSIGN_OR_RETURN(const auto out, backend_.Allocate(heads * head_dim * 4));
  std::vector<int32_t> blocks(static_cast<size_t>(sequence_blocks * sequences));
  for (size_t i = 0; i < blocks.size(); ++i) blocks[i] = static_cast<int32_t>(i);
  kernels::AttentionArgs args;
  args.queries = ConstRows(*in, 1, heads * head_dim);
  args.out = Rows(*out, 1, heads * head_dim);
  args.cache = {.keys = keys->data(),
                .values = values->data(),
                .type = type,
                .n_blocks = sequence_blocks * sequences,
                .block_tokens = kBlockTokens,
                .n_kv_heads = kv_heads,
                .head_dim = head_dim};
  args.n_heads = heads;
  args.scale = 0.088F;
  RENGA_ASSIGN_OR_RETURN(
      const double seconds, SecondsOf([&](int64_t i) {
        const auto first = static_cast<size_t>(i % sequences * sequence_blocks);
        const kernels::SequenceSlot slot{
            .first_row = 0,
            .row_count = 1,
            .first_position = context - 1,
            .blocks = std::span(blocks).subspan(first, static_cast<size_t>(sequence_blocks))};
        args.slots = {&slot, 1};
        return backend_.Attention(args);
      }));
  std::printf(
      "{\"kind\":\"attention\",\"type\":\"%s\",\"heads\":%lld,\"kv_heads\":%lld,\"context\":%lld,"
      "\"seconds\":%.9f,\"gb_per_s\":%.3f}\n",
      NameOf(type), static_cast<long long>(heads), static_cast<long long>(kv_heads),
      static_cast<long long>(context), seconds, 2.0 * static_cast<double>(bytes) / seconds * 1e-9);
  return absl::OkStatus();
}

absl::Status CardMeasurements::Attentions() {
  for (const DataType type : {DataType::kF16, DataType::kQ8_0}) {
    for (const int64_t kv_heads : {8, 32}) {
      if (options_.small && kv_heads != 8) continue;
      RENGA_RETURN_IF_ERROR(Attention(kv_heads, type));
    }
  }
  return absl::OkStatus();
}

// One layer's weights, its part of the cache, and a row of each kind of activations.
struct CardMeasurements::Layer {
  std::unique_ptr<WeightMatrix> q, k, v, o, gate, up, down;
  std::unique_ptr<Buffer> x, normed, queries, keys, values, attended, gated, wide, wider, norm;
  std::unique_ptr<Buffer> cached_keys, cached_values;
};

absl::StatusOr<std::unique_ptr<CardMeasurements::Layer>> CardMeasurements::MakeLayer(
    const ModelShape& model) {
  const int64_t query_columns = model.heads * model.head_dim;
  const int64_t kv_columns = model.kv_heads * model.head_dim;
  auto layer = std::make_unique<Layer>();
  const std::tuple<std::unique_ptr<WeightMatrix>*, int64_t, int64_t> matrices[] = {
      {&layer->q, query_columns, model.hidden},
      {&layer->k, kv_columns, model.hidden},
      {&layer->v, kv_columns, model.hidden},
      {&layer->o, model.hidden, query_columns},
      {&layer->gate, model.feed_forward, model.hidden},
      {&layer->up, model.feed_forward, model.hidden},
      {&layer->down, model.hidden, model.feed_forward}};
  for (const auto& [matrix, rows, columns] : matrices) {
    RENGA_ASSIGN_OR_RETURN(auto made, MakeMatrices(DataType::kQ4_K, rows, columns, 0));
    *matrix = std::move(made[0]);
  }
  const std::pair<std::unique_ptr<Buffer>*, int64_t> rows[] = {
      {&layer->x, model.hidden},
      {&layer->normed, model.hidden},
      {&layer->queries, query_columns},
      {&layer->keys, kv_columns},
      {&layer->values, kv_columns},
      {&layer->attended, query_columns},
      {&layer->gated, model.feed_forward},
      {&layer->wide, model.feed_forward},
      {&layer->wider, model.feed_forward},
      {&layer->norm, model.hidden},
      {&layer->cached_keys, kBlockTokens * kv_columns},
      {&layer->cached_values, kBlockTokens * kv_columns}};
  for (const auto& [buffer, count] : rows) {
    RENGA_ASSIGN_OR_RETURN(*buffer, Floats(count));
  }
  return layer;
}

// The calls of one layer of a decode step, at position 0.
absl::Status CardMeasurements::RunLayer(const ModelShape& model, Layer& layer) {
  const int64_t query_columns = model.heads * model.head_dim;
  const int64_t kv_columns = model.kv_heads * model.head_dim;
  const RowsView queries = Rows(*layer.queries, 1, query_columns);
  const RowsView keys = Rows(*layer.keys, 1, kv_columns);
  const RowsView values = Rows(*layer.values, 1, kv_columns);
  const RowsView gate = Rows(*layer.wide, 1, model.feed_forward);
  const RowsView up = Rows(*layer.wider, 1, model.feed_forward);
  const RowsView normed = Rows(*layer.normed, 1, model.hidden);
  const auto output = [](const auto& matrix, RowsView out) {
    return kernels::LinearOutput{.matrix = matrix.get(), .bias = nullptr, .out = out};
  };
  const kernels::LinearOutput qkv[] = {output(layer.q, queries), output(layer.k, keys),
                                       output(layer.v, values)};
  const auto x = ConstRows(*layer.x, 1, model.hidden);
  RENGA_RETURN_IF_ERROR(backend_.RmsNormLinear(x, FloatsOf(*layer.norm), kEpsilon, normed, qkv));
  const int64_t position = 0;
  const kernels::RopeArgs rope = {.head_dim = model.head_dim, .dims = model.head_dim};
  RENGA_RETURN_IF_ERROR(backend_.Rope(queries, {&position, 1}, rope));
  RENGA_RETURN_IF_ERROR(backend_.Rope(keys, {&position, 1}, rope));
  const int32_t block = 0;
  const kernels::SequenceSlot slot{
      .first_row = 0, .row_count = 1, .first_position = position, .blocks = {&block, 1}};
  const kernels::KvCacheView cache = {.keys = layer.cached_keys->data(),
                                      .values = layer.cached_values->data(),
                                      .type = DataType::kF16,
                                      .n_blocks = 1,
                                      .block_tokens = kBlockTokens,
                                      .n_kv_heads = model.kv_heads,
                                      .head_dim = model.head_dim};
  RENGA_RETURN_IF_ERROR(backend_.StoreKv(ConstRows(*layer.keys, 1, kv_columns),
                                         ConstRows(*layer.values, 1, kv_columns), cache,
                                         {&slot, 1}));
  kernels::AttentionArgs attention;
  attention.queries = ConstRows(*layer.queries, 1, query_columns);
  attention.out = Rows(*layer.attended, 1, query_columns);
  attention.cache = cache;
  attention.n_heads = model.heads;
  attention.scale = 0.125F;
  attention.slots = {&slot, 1};
  RENGA_RETURN_IF_ERROR(backend_.Attention(attention));
  const kernels::LinearOutput attended = output(layer.o, normed);
  RENGA_RETURN_IF_ERROR(
      backend_.Linear(ConstRows(*layer.attended, 1, query_columns), {&attended, 1}));
  RENGA_RETURN_IF_ERROR(
      backend_.Add(ConstRows(*layer.normed, 1, model.hidden), Rows(*layer.x, 1, model.hidden)));
  const kernels::LinearOutput wide[] = {output(layer.gate, gate), output(layer.up, up)};
  RENGA_RETURN_IF_ERROR(backend_.RmsNormLinear(x, FloatsOf(*layer.norm), kEpsilon, normed, wide));
  const kernels::LinearOutput down = output(layer.down, normed);
  RENGA_RETURN_IF_ERROR(backend_.SiluGateLinear(
      ConstRows(*layer.wide, 1, model.feed_forward), ConstRows(*layer.wider, 1, model.feed_forward),
      Rows(*layer.gated, 1, model.feed_forward), {&down, 1}));
  return backend_.Add(ConstRows(*layer.normed, 1, model.hidden), Rows(*layer.x, 1, model.hidden));
}

absl::Status CardMeasurements::Step(const char* kind, const ModelShape& model) {
  std::vector<std::unique_ptr<Layer>> layers;
  int64_t bytes = 0;
  do {
    RENGA_ASSIGN_OR_RETURN(layers.emplace_back(), MakeLayer(model));
    bytes += backend_.MatrixBytes(DataType::kQ4_K, model.feed_forward, model.hidden) * 4;
  } while (!options_.small && bytes < options_.working_set_bytes &&
           static_cast<int64_t>(layers.size()) < model.layers);
  double submitting = 0;
  int64_t steps = 0;
  RENGA_ASSIGN_OR_RETURN(
      const double seconds, SecondsOf([&](int64_t) -> absl::Status {
        const auto start = Clock::now();
        for (int64_t i = 0; i < model.layers; ++i) {
          RENGA_RETURN_IF_ERROR(RunLayer(model, *layers[static_cast<size_t>(i) % layers.size()]));
        }
        submitting += Since(start);
        ++steps;
        return device_.Synchronize();  // the next step needs this one's token
      }));
  std::printf(
      "{\"kind\":\"%s\",\"model\":\"%s\",\"graphs\":%s,\"type\":\"Q4_K\",\"layers\":%lld,"
      "\"seconds\":%.9f,\"submit_seconds\":%.9f}\n",
      kind, model.name, options_.graphs ? "true" : "false", static_cast<long long>(model.layers),
      seconds, submitting / static_cast<double>(steps));
  return absl::OkStatus();
}

absl::Status CardMeasurements::Steps() {
  for (const ModelShape& model : Models(options_)) {
    RENGA_RETURN_IF_ERROR(Step("step", model));
    // As many launches, with next to no work.
    RENGA_RETURN_IF_ERROR(Step("launches", {model.name, 256, 256, 4, 1, 64, model.layers}));
  }
  return absl::OkStatus();
}

}  // namespace renga::bench
