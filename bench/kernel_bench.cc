// renga-kernel-bench: how fast a backend multiplies matrices, per weight format, and with --depths
// how fast it attends to so many positions of a cache.
//
// Each line is one (format, tokens): gigabytes of weights and billions of operations (two per
// weight and token) per second, each as a share of what the same threads read, and multiply, at
// best, measured just before and after, since neighbours make it drift. The matrix is copied until
// the copies are larger than the caches, and the copies are used in turn, as the layers of a model
// are.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "base/data_type.h"
#include "base/status_macros.h"
#include "base/thread_pool.h"
#include "bench/attention_measurement.h"
#include "bench/memory_bandwidth.h"
#include "bench/peak_operations.h"
#include "bench/plain_weights.h"
#include "worker/kernels/backend.h"
#include "worker/kernels/backend_factory.h"

namespace renga::bench {
namespace {

constexpr char kUsage[] =
    "usage: renga-kernel-bench [--device=cpu] [--threads=1] [--types=Q4_K,Q8_0] [--tokens=1,512]\n"
    "       [--rows=5632] [--columns=2048] [--working-set-mib=256] [--seconds=1] [--json]\n"
    "       renga-kernel-bench --depths=512,8192 [--cache=F16] [--heads=32] [--kv-heads=4]\n"
    "       [--head-dim=64] [--tokens=1] [--threads=1] [--seconds=1] [--json]\n"
    "       renga-kernel-bench --bandwidth [--threads=1] [--working-set-mib=256]\n"
    "The last measures the bandwidth once for each line of standard input.\n"
    "Bandwidth and peak are this machine's processor's, also when the device is a card.\n";

struct Options {
  kernels::BackendOptions backend{.device = "cpu", .threads = 1};
  std::vector<base::DataType> types;  // empty: all
  std::vector<int64_t> tokens = {1, 512};
  std::vector<int64_t> depths;  // not empty: attention is measured, and no matrices
  AttentionShape attention;
  int64_t rows = 5632;
  int64_t columns = 2048;
  int64_t working_set_mib = 256;
  int64_t seconds = 1;
  bool json = false;
  bool bandwidth = false;  // is all that is measured
};

struct Measurement {
  base::DataType type;
  int64_t tokens;
  double median_seconds;  // of a call
  double best_seconds;
  // At the median.
  double gigabytes_per_second;
  double giga_operations_per_second;
  // What could be read, and multiplied, in the same units.
  double bandwidth;
  double peak;
};

absl::Status ParseNumber(absl::string_view text, int64_t* out) {
  if (!absl::SimpleAtoi(text, out) || *out < 1) {
    return absl::InvalidArgumentError(absl::StrCat("no positive number: '", text, "'"));
  }
  return absl::OkStatus();
}

absl::Status ParseTypes(absl::string_view names, std::vector<base::DataType>* out) {
  for (const absl::string_view name : absl::StrSplit(names, ',')) {
    const auto type = base::DataTypeFromName(name);
    if (!type.has_value()) {
      return absl::InvalidArgumentError(absl::StrCat("no such format: '", name, "'"));
    }
    out->push_back(*type);
  }
  return absl::OkStatus();
}

absl::Status ParseNumbers(absl::string_view texts, std::vector<int64_t>* out) {
  out->clear();
  for (const absl::string_view text : absl::StrSplit(texts, ',')) {
    RENGA_RETURN_IF_ERROR(ParseNumber(text, &out->emplace_back()));
  }
  return absl::OkStatus();
}

absl::Status ParseCache(absl::string_view name, base::DataType* out) {
  const auto type = base::DataTypeFromName(name);
  if (!type.has_value()) {
    return absl::InvalidArgumentError(absl::StrCat("no such format: '", name, "'"));
  }
  *out = *type;
  return absl::OkStatus();
}

absl::Status ParseOption(absl::string_view name, absl::string_view value, Options* options) {
  if (name == "--device") {
    options->backend.device = std::string(value);
    return absl::OkStatus();
  }
  if (name == "--types") return ParseTypes(value, &options->types);
  if (name == "--tokens") return ParseNumbers(value, &options->tokens);
  if (name == "--depths") return ParseNumbers(value, &options->depths);
  if (name == "--cache") return ParseCache(value, &options->attention.cache);
  if (name == "--heads") return ParseNumber(value, &options->attention.heads);
  if (name == "--kv-heads") return ParseNumber(value, &options->attention.kv_heads);
  if (name == "--head-dim") return ParseNumber(value, &options->attention.head_dim);
  if (name == "--rows") return ParseNumber(value, &options->rows);
  if (name == "--columns") return ParseNumber(value, &options->columns);
  if (name == "--working-set-mib") return ParseNumber(value, &options->working_set_mib);
  if (name == "--seconds") return ParseNumber(value, &options->seconds);
  if (name == "--threads") {
    int64_t threads = 0;
    RENGA_RETURN_IF_ERROR(ParseNumber(value, &threads));
    options->backend.threads = static_cast<int>(std::min<int64_t>(threads, 1024));
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat("no such option: ", name, "\n", kUsage));
}

absl::StatusOr<Options> ParseOptions(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::pair<std::string, std::string> option =
        absl::StrSplit(argv[i], absl::MaxSplits('=', 1));
    if (option.first == "--json") {
      options.json = true;
    } else if (option.first == "--bandwidth") {
      options.bandwidth = true;
    } else {
      RENGA_RETURN_IF_ERROR(ParseOption(option.first, option.second, &options));
    }
  }
  if (options.types.empty()) {
    for (const base::DataTypeInfo& info : base::AllDataTypes()) options.types.push_back(info.type);
  }
  return options;
}

// Copies of one matrix that together are no cache's size.
absl::StatusOr<std::vector<std::unique_ptr<kernels::WeightMatrix>>> MakeMatrices(
    const Options& options, base::DataType type, kernels::Backend& backend) {
  RENGA_ASSIGN_OR_RETURN(const int64_t row_bytes, base::RowBytes(type, options.columns));
  const std::vector<std::byte> rows = PlainWeights(row_bytes * options.rows);
  const int64_t each = backend.MatrixBytes(type, options.rows, options.columns);
  const int64_t copies = options.working_set_mib * (int64_t{1} << 20) / std::max<int64_t>(1, each);
  std::vector<std::unique_ptr<kernels::WeightMatrix>> matrices;
  for (int64_t i = 0; i < std::max<int64_t>(1, copies); ++i) {
    RENGA_ASSIGN_OR_RETURN(auto matrix, backend.CreateMatrix(type, options.rows, options.columns));
    RENGA_RETURN_IF_ERROR(backend.LoadRows(*matrix, 0, rows));
    matrices.push_back(std::move(matrix));
  }
  return matrices;
}

absl::StatusOr<Measurement> Measure(const Options& options, base::DataType type, int64_t tokens,
                                    kernels::Backend& backend, BandwidthProbe& probe,
                                    base::ThreadPool& pool) {
  using Clock = std::chrono::steady_clock;
  RENGA_ASSIGN_OR_RETURN(const auto matrices, MakeMatrices(options, type, backend));
  std::vector<float> in(static_cast<size_t>(tokens * options.columns));
  for (size_t i = 0; i < in.size(); ++i) in[i] = static_cast<float>(i % 17) - 8.0F;
  // In the device's memory, which a card's is not this program's.
  RENGA_ASSIGN_OR_RETURN(const auto from, backend.Allocate(tokens * options.columns * 4));
  RENGA_ASSIGN_OR_RETURN(const auto to, backend.Allocate(tokens * options.rows * 4));
  RENGA_RETURN_IF_ERROR(backend.Upload(std::as_bytes(std::span(in)), *from, 0));
  const kernels::ConstRowsView input(reinterpret_cast<const float*>(from->data()), tokens,
                                     options.columns, options.columns);
  std::vector<double> times;
  double bandwidth = probe.Measure().bytes_per_second;
  double peak = MeasurePeakOperations(pool).operations_per_second;
  const auto end = Clock::now() + std::chrono::seconds(options.seconds);
  for (size_t i = 0; times.size() < 3 || Clock::now() < end; ++i) {
    const kernels::LinearOutput output{.matrix = matrices[i % matrices.size()].get(),
                                       .bias = nullptr,
                                       .out = {.data = reinterpret_cast<float*>(to->data()),
                                               .rows = tokens,
                                               .columns = options.rows,
                                               .stride = options.rows}};
    const auto start = Clock::now();
    RENGA_RETURN_IF_ERROR(backend.Linear(input, {&output, 1}));
    RENGA_RETURN_IF_ERROR(backend.Synchronize());
    times.push_back(std::chrono::duration<double>(Clock::now() - start).count());
  }
  bandwidth = std::max(bandwidth, probe.Measure().bytes_per_second);
  peak = std::max(peak, MeasurePeakOperations(pool).operations_per_second);
  std::sort(times.begin(), times.end());
  const double seconds = times[times.size() / 2];
  const auto bytes = static_cast<double>(backend.MatrixBytes(type, options.rows, options.columns));
  const double operations = 2.0 * static_cast<double>(tokens) * static_cast<double>(options.rows) *
                            static_cast<double>(options.columns);
  return Measurement{.type = type,
                     .tokens = tokens,
                     .median_seconds = seconds,
                     .best_seconds = times.front(),
                     .gigabytes_per_second = bytes / seconds * 1e-9,
                     .giga_operations_per_second = operations / seconds * 1e-9,
                     .bandwidth = bandwidth * 1e-9,
                     .peak = peak * 1e-9};
}

void Print(const Options& options, absl::string_view path, const Measurement& m) {
  const std::string name(base::GetDataTypeInfo(m.type).name);
  if (options.json) {
    std::printf(
        "{\"path\":\"%s\",\"threads\":%d,\"type\":\"%s\",\"rows\":%lld,\"columns\":%lld,"
        "\"tokens\":%lld,\"median_s\":%.9f,\"best_s\":%.9f,\"gb_per_s\":%.3f,\"gop_per_s\":%.3f,"
        "\"bandwidth_gb_per_s\":%.3f,\"peak_gop_per_s\":%.3f}\n",
        std::string(path).c_str(), options.backend.threads, name.c_str(),
        static_cast<long long>(options.rows), static_cast<long long>(options.columns),
        static_cast<long long>(m.tokens), m.median_seconds, m.best_seconds, m.gigabytes_per_second,
        m.giga_operations_per_second, m.bandwidth, m.peak);
  } else {
    std::printf(
        "%-8s %5lld tokens  %9.1f us (best %9.1f)  %7.2f GB/s (%3.0f %% of %.1f)  %8.1f GOP/s "
        "(%3.0f %% of %.0f)\n",
        name.c_str(), static_cast<long long>(m.tokens), m.median_seconds * 1e6,
        m.best_seconds * 1e6, m.gigabytes_per_second, 100 * m.gigabytes_per_second / m.bandwidth,
        m.bandwidth, m.giga_operations_per_second,
        m.peak > 0 ? 100 * m.giga_operations_per_second / m.peak : 0.0, m.peak);
  }
  std::fflush(stdout);
}

void PrintAttention(const Options& options, absl::string_view path, int64_t tokens, int64_t depth,
                    const AttentionMeasurement& m, double bandwidth) {
  const double gigabytes = m.cache_bytes / m.median_seconds * 1e-9;
  const double operations = m.operations / m.median_seconds * 1e-9;
  const char* const format =
      options.json
          ? "{\"path\":\"%s\",\"threads\":%d,\"tokens\":%lld,\"depth\":%lld,\"median_s\":%.9f,"
            "\"gb_per_s\":%.3f,\"gop_per_s\":%.3f,\"bandwidth_gb_per_s\":%.3f}\n"
          : "attention, %s, %d threads, %lld tokens at %lld: %.9f s, %.2f GB/s of cache, %.1f "
            "GOP/s (%.1f GB/s of bandwidth)\n";
  std::printf(format, std::string(path).c_str(), options.backend.threads,
              static_cast<long long>(tokens), static_cast<long long>(depth), m.median_seconds,
              gigabytes, operations, bandwidth * 1e-9);
  std::fflush(stdout);
}

absl::Status RunAttention(const Options& options, kernels::Backend& backend,
                          BandwidthProbe& probe) {
  for (const int64_t tokens : options.tokens) {
    for (const int64_t depth : options.depths) {
      RENGA_ASSIGN_OR_RETURN(
          const AttentionMeasurement m,
          MeasureAttention(options.attention, tokens, depth, options.working_set_mib << 20,
                           std::chrono::seconds(options.seconds), backend));
      PrintAttention(options, backend.path_name(), tokens, depth, m,
                     probe.Measure().bytes_per_second);
    }
  }
  return absl::OkStatus();
}

// So that whoever asks can do something else between two measurements, in the same memory.
void AnswerWithBandwidth(BandwidthProbe& probe) {
  for (std::string line; std::getline(std::cin, line);) {
    const ReadBandwidth found = probe.Measure();
    std::printf("{\"best_gb_per_s\":%.3f,\"sustained_gb_per_s\":%.3f}\n",
                found.bytes_per_second * 1e-9, found.sustained_bytes_per_second * 1e-9);
    std::fflush(stdout);
  }
}

absl::Status Run(const Options& options) {
  RENGA_ASSIGN_OR_RETURN(const auto probe, BandwidthProbe::Create(options.backend.threads,
                                                                  options.working_set_mib << 20));
  if (options.bandwidth) {
    AnswerWithBandwidth(*probe);
    return absl::OkStatus();
  }
  RENGA_ASSIGN_OR_RETURN(const auto backend, kernels::CreateBackend(options.backend));
  if (!options.depths.empty()) return RunAttention(options, *backend, *probe);
  base::ThreadPool pool(options.backend.threads);
  if (!options.json) {
    std::printf("%s, %d threads, %lld x %lld\n", std::string(backend->path_name()).c_str(),
                options.backend.threads, static_cast<long long>(options.rows),
                static_cast<long long>(options.columns));
  }
  for (const base::DataType type : options.types) {
    for (const int64_t tokens : options.tokens) {
      RENGA_ASSIGN_OR_RETURN(const Measurement m,
                             Measure(options, type, tokens, *backend, *probe, pool));
      Print(options, backend->path_name(), m);
    }
  }
  return absl::OkStatus();
}

}  // namespace
}  // namespace renga::bench

int main(int argc, char** argv) {
  const auto options = renga::bench::ParseOptions(argc, argv);
  const absl::Status status = options.ok() ? renga::bench::Run(*options) : options.status();
  if (status.ok()) return 0;
  std::cerr << status.message() << "\n";
  return 1;
}
