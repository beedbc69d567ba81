#include "worker/kernels/cuda/launch_queue.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "base/status_macros.h"

namespace renga::kernels::cuda {
namespace {

// Runs that came lately: several kinds of steps may take turns.
constexpr size_t kMostLately = 64;

}  // namespace

LaunchQueue::~LaunchQueue() {
  for (const Graph& graph : kept_) driver_.GraphExecDestroy(graph.executable);
}

void LaunchQueue::Open(void* stream, const KernelFunctions* functions) {
  stream_ = stream;
  functions_ = functions;
}

absl::Status LaunchQueue::Add(Kernel kernel, const LaunchShape& shape,
                              std::span<const std::byte> args) {
  const Header header = {.kernel = static_cast<int32_t>(kernel),
                         .threads = shape.threads,
                         .blocks_x = shape.blocks_x,
                         .blocks_y = shape.blocks_y,
                         .args_bytes = static_cast<int64_t>(args.size())};
  const auto* const bytes = reinterpret_cast<const char*>(args.data());
  if (!graphs_) return Launch(header, bytes);
  record_.append(reinterpret_cast<const char*>(&header), sizeof(header));
  record_.append(bytes, args.size());
  if (++waiting_ == kMost) return Flush();
  return absl::OkStatus();
}

absl::Status LaunchQueue::Launch(const Header& header, const char* args) {
  // The driver copies the struct before it returns, and does not write to it.
  void* parameters[] = {const_cast<char*>(args)};
  return DriverStatus(driver_,
                      driver_.LaunchKernel((*functions_)[static_cast<size_t>(header.kernel)],
                                           static_cast<unsigned>(header.blocks_x),
                                           static_cast<unsigned>(header.blocks_y), 1,
                                           static_cast<unsigned>(header.threads), 1, 1, 0, stream_,
                                           parameters, nullptr),
                      absl::StrCat("launching ", kKernelNames[header.kernel]));
}

absl::Status LaunchQueue::LaunchAll(const std::string& record) {
  for (size_t at = 0; at < record.size();) {
    Header header;
    std::memcpy(&header, record.data() + at, sizeof(header));
    at += sizeof(header);
    RENGA_RETURN_IF_ERROR(Launch(header, record.data() + at));
    at += static_cast<size_t>(header.args_bytes);
  }
  return absl::OkStatus();
}

LaunchQueue::Graph* LaunchQueue::Find(const std::string& record) {
  for (Graph& graph : kept_) {
    if (graph.record == record) return &graph;
  }
  return nullptr;
}

bool LaunchQueue::CameBefore(const std::string& record) {
  const size_t hash = std::hash<std::string>()(record);
  if (std::find(lately_.begin(), lately_.end(), hash) != lately_.end()) return true;
  lately_.push_back(hash);
  if (lately_.size() > kMostLately) lately_.pop_front();
  return false;
}

absl::StatusOr<void*> LaunchQueue::Capture(const std::string& record) {
  RENGA_RETURN_IF_ERROR(DriverStatus(driver_, driver_.StreamBeginCapture(stream_, kCaptureOfThread),
                                     "recording a graph"));
  absl::Status status = LaunchAll(record);
  // Ended whatever happened, or the stream could not be used any more.
  void* graph = nullptr;
  status.Update(
      DriverStatus(driver_, driver_.StreamEndCapture(stream_, &graph), "recording a graph"));
  void* executable = nullptr;
  if (status.ok()) {
    status = DriverStatus(driver_, driver_.GraphInstantiate(&executable, graph, 0),
                          "making a graph ready");
  }
  if (graph != nullptr) driver_.GraphDestroy(graph);
  if (!status.ok()) return status;
  return executable;
}

absl::StatusOr<LaunchQueue::Graph*> LaunchQueue::Make(const std::string& record) {
  absl::StatusOr<void*> executable = Capture(record);
  if (!executable.ok()) {
    graphs_ = false;
    return executable.status();
  }
  if (kept_.size() == kMostGraphs) {
    const auto oldest =
        std::min_element(kept_.begin(), kept_.end(),
                         [](const Graph& a, const Graph& b) { return a.last_use < b.last_use; });
    driver_.GraphExecDestroy(oldest->executable);
    kept_.erase(oldest);
  }
  kept_.push_back({.record = record, .executable = *executable, .last_use = 0});
  return &kept_.back();
}

absl::Status LaunchQueue::Flush() {
  if (waiting_ == 0) return absl::OkStatus();
  const std::string record = std::exchange(record_, {});
  const size_t count = std::exchange(waiting_, 0);
  record_.reserve(record.size());
  if (count < kFewest) return LaunchAll(record);
  Graph* graph = Find(record);
  if (graph == nullptr && CameBefore(record)) {
    const absl::StatusOr<Graph*> made = Make(record);
    if (made.ok()) {
      graph = *made;
    } else {
      RENGA_LOG(WARNING) << "the card's work goes on without CUDA graphs: "
                         << made.status().message();
    }
  }
  if (graph == nullptr) return LaunchAll(record);
  graph->last_use = ++uses_;
  return DriverStatus(driver_, driver_.GraphLaunch(graph->executable, stream_),
                      "launching a graph");
}

}  // namespace renga::kernels::cuda
