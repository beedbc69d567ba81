// Kernels on their way to a card. They are collected and go to the driver together: a long run of
// launches that comes a second time, as every decode step of a conversation brings it, becomes a
// CUDA graph, and from then on one call instead of hundreds.
//
// A graph holds the launches' arguments by value, so it stands for exactly equal ones. What changes
// from step to step lies in device memory (tables of positions and blocks) and is uploaded before.
#ifndef RENGA_WORKER_KERNELS_CUDA_LAUNCH_QUEUE_H_
#define RENGA_WORKER_KERNELS_CUDA_LAUNCH_QUEUE_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/kernels/cuda/device.h"
#include "worker/kernels/cuda/driver_api.h"
#include "worker/kernels/cuda/kernel_list.h"

namespace renga::kernels::cuda {

using KernelFunctions = std::array<void*, kKernelCount>;  // the driver's handles

// Used by the card's thread, with the card's context current.
class LaunchQueue {
 public:
  // Runs shorter than this are not worth a graph.
  static constexpr size_t kFewest = 32;
  static constexpr size_t kMost = 4096;      // launches that wait
  static constexpr size_t kMostGraphs = 16;  // kept; the one not used for longest goes first

  // Without graphs, launches go to the driver one by one, at once.
  LaunchQueue(const DriverApi& driver, bool graphs) : driver_(driver), graphs_(graphs) {}
  LaunchQueue(const LaunchQueue&) = delete;
  LaunchQueue& operator=(const LaunchQueue&) = delete;
  ~LaunchQueue();

  // Before the first launch; both outlive the queue.
  void Open(void* stream, const KernelFunctions* functions);

  // `args` is copied; a multiple of 8 bytes. The shape is one that cards have.
  absl::Status Add(Kernel kernel, const LaunchShape& shape, std::span<const std::byte> args);
  // Gives the driver all that waits. What a launch does wrong may come out here.
  absl::Status Flush();

 private:
  // What one launch is, in front of its arguments in the record.
  struct Header {
    int32_t kernel;
    int32_t threads;
    int64_t blocks_x;
    int64_t blocks_y;
    int64_t args_bytes;
  };
  struct Graph {
    std::string record;
    void* executable = nullptr;
    uint64_t last_use = 0;
  };

  absl::Status Launch(const Header& header, const char* args);
  absl::Status LaunchAll(const std::string& record);
  Graph* Find(const std::string& record);
  // Whether such a record came lately; remembers it.
  bool CameBefore(const std::string& record);
  // A graph of the record, kept; on failure there will be no graphs any more.
  absl::StatusOr<Graph*> Make(const std::string& record);
  absl::StatusOr<void*> Capture(const std::string& record);

  const DriverApi driver_;
  bool graphs_;
  void* stream_ = nullptr;
  const KernelFunctions* functions_ = nullptr;
  std::string record_;  // headers and arguments, one launch after the other
  size_t waiting_ = 0;
  std::deque<size_t> lately_;  // hashes of records that went without a graph
  std::deque<Graph> kept_;
  uint64_t uses_ = 0;
};

}  // namespace renga::kernels::cuda

#endif  // RENGA_WORKER_KERNELS_CUDA_LAUNCH_QUEUE_H_
