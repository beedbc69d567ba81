// renga-card-bench: what an NVIDIA card does per second, one line of JSON for each figure.
//
// The first line says which card it is. deploy/gpu-check runs it and makes a report of the lines.
#include <cstdio>
#include <iostream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "base/status_macros.h"
#include "bench/card_measurements.h"
#include "worker/kernels/cuda/cuda_backend.h"
#include "worker/kernels/cuda/device_images.h"
#include "worker/kernels/cuda/driver_api.h"
#include "worker/kernels/cuda/driver_device.h"

#if RENGA_EMULATED_CUDA
#include "worker/kernels/cuda/emulation/emulated_device.h"
#endif

namespace renga::bench {
namespace {

constexpr char kUsage[] =
    "usage: renga-card-bench [--device=cuda:0] [--parts=copy,peak,vector,matrix,attention,step]\n"
    "       [--seconds=0.15] [--no-graphs] [--small]\n"
    "Measures an NVIDIA card: one line of JSON for each figure. --parts= with nothing only says\n"
    "which card it is. --device=emulated-cuda --small tries the program without a card.\n"
    "Example: renga-card-bench --device=cuda:1 --parts=vector\n";

struct Options {
  std::string device = "cuda:0";
  std::vector<std::string> parts = {"copy", "peak", "vector", "matrix", "attention", "step"};
  CardBenchOptions bench;
};

absl::StatusOr<Options> ParseOptions(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    absl::string_view argument = argv[i];
    if (absl::ConsumePrefix(&argument, "--device=")) {
      options.device = std::string(argument);
    } else if (absl::ConsumePrefix(&argument, "--parts=")) {
      options.parts = absl::StrSplit(argument, ',', absl::SkipEmpty());
    } else if (absl::ConsumePrefix(&argument, "--seconds=")) {
      if (!absl::SimpleAtod(argument, &options.bench.seconds) || options.bench.seconds < 0) {
        return absl::InvalidArgumentError(absl::StrCat("no number of seconds: '", argument, "'"));
      }
    } else if (argument == "--no-graphs") {
      options.bench.graphs = false;
    } else if (argument == "--small") {
      options.bench.small = true;
    } else {
      return absl::InvalidArgumentError(absl::StrCat("no such option: ", argument, "\n", kUsage));
    }
  }
  return options;
}

// The card, after a line that says which it is.
absl::StatusOr<std::shared_ptr<kernels::cuda::Device>> OpenDevice(const std::string& device,
                                                                  bool graphs) {
  namespace cuda = kernels::cuda;
#if RENGA_EMULATED_CUDA
  if (device == "emulated-cuda") {
    std::printf(
        "{\"kind\":\"card\",\"name\":\"emulated\",\"capability\":\"none\","
        "\"paths\":[\"dp4a\",\"mma\"]}\n");
    return cuda::emulation::CreateEmulatedDevice(cuda::emulation::Turns::kForwards,
                                                 cuda::emulation::TensorCores::kOf16Rows);
  }
#endif
  absl::string_view number = device;
  int ordinal = 0;
  if (!absl::ConsumePrefix(&number, "cuda") ||
      (!number.empty() &&
       (!absl::ConsumePrefix(&number, ":") || !absl::SimpleAtoi(number, &ordinal)))) {
    return absl::InvalidArgumentError(
        absl::StrCat("no such card: '", device, "'; name it as cuda or cuda:1"));
  }
  RENGA_ASSIGN_OR_RETURN(const cuda::DriverApi driver, cuda::LoadDriver());
  RENGA_ASSIGN_OR_RETURN(const cuda::Card card, cuda::FindCard(driver, ordinal));
  RENGA_ASSIGN_OR_RETURN(
      std::shared_ptr<cuda::Device> opened,
      cuda::OpenCard(driver, ordinal, cuda::EmbeddedImages(), {.graphs = graphs}));
  RENGA_ASSIGN_OR_RETURN(const cuda::CardMemory memory, cuda::MemoryOfCard(driver, ordinal));
  std::printf(
      "{\"kind\":\"card\",\"name\":\"%s\",\"capability\":\"%d.%d\",\"driver_cuda\":\"%d.%d\","
      "\"memory_bytes\":%lld,\"free_bytes\":%lld,\"paths\":[\"dp4a\"%s]}\n",
      card.name.c_str(), card.capability / 10, card.capability % 10, card.driver_version / 1000,
      card.driver_version % 1000 / 10, static_cast<long long>(memory.total_bytes),
      static_cast<long long>(memory.free_bytes), opened->has_tensor_kernels() ? ",\"mma\"" : "");
  return opened;
}

// The parts that each path of matrix products has its own figures of.
absl::Status RunPaths(const std::string& part, const CardBenchOptions& options,
                      const std::shared_ptr<kernels::cuda::Device>& device) {
  const std::pair<const char*, kernels::CudaPath> paths[] = {{"dp4a", kernels::CudaPath::kDp4a},
                                                             {"mma", kernels::CudaPath::kMma}};
  for (const auto& [name, path] : paths) {
    if (path == kernels::CudaPath::kMma && !device->has_tensor_kernels()) continue;
    const auto backend = kernels::CreateCudaBackend(device, path);
    CardMeasurements measurements(*device, *backend, options);
    RENGA_RETURN_IF_ERROR(part == "peak" ? measurements.Peak(name) : measurements.Matrices(name));
  }
  return absl::OkStatus();
}

absl::Status RunPart(const std::string& part, CardMeasurements& measurements) {
  if (part == "copy") return measurements.Copies();
  if (part == "vector") return measurements.Vectors();
  if (part == "attention") return measurements.Attentions();
  if (part == "step") return measurements.Steps();
  return absl::InvalidArgumentError(absl::StrCat("no such part: '", part, "'\n", kUsage));
}

absl::Status Run(const Options& options) {
  std::setvbuf(stdout, nullptr, _IOLBF, 0);  // what was measured before a time limit counts
  RENGA_ASSIGN_OR_RETURN(const auto device, OpenDevice(options.device, options.bench.graphs));
  const auto backend = kernels::CreateCudaBackend(device);
  CardMeasurements measurements(*device, *backend, options.bench);
  for (const std::string& part : options.parts) {
    if (part == "peak" || part == "matrix") {
      RENGA_RETURN_IF_ERROR(RunPaths(part, options.bench, device));
    } else {
      RENGA_RETURN_IF_ERROR(RunPart(part, measurements));
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
