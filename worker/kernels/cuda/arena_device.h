// A card whose memory was taken in one piece when it was opened: what is offered is there from then
// on, and no desktop or other program can take it away in mid-sentence.
#ifndef RENGA_WORKER_KERNELS_CUDA_ARENA_DEVICE_H_
#define RENGA_WORKER_KERNELS_CUDA_ARENA_DEVICE_H_

#include <cstdint>
#include <map>
#include <memory>
#include <optional>

#include "absl/status/statusor.h"
#include "worker/kernels/cuda/device.h"

namespace renga::kernels::cuda {

// Which parts of [0, bytes) are taken: the smallest gap that is large enough is given, gaps side by
// side become one.
class ArenaPieces {
 public:
  static constexpr int64_t kAlignment = 256;

  explicit ArenaPieces(int64_t bytes);
  // Where a piece of `bytes` >= 1 begins, a multiple of kAlignment; nullopt when no gap has room.
  std::optional<int64_t> Take(int64_t bytes);
  // A piece by where it begins; false when none does.
  bool GiveBack(int64_t begin);
  int64_t free_bytes() const { return free_bytes_; }

 private:
  std::map<int64_t, int64_t> gaps_;    // begin to bytes
  std::map<int64_t, int64_t> pieces_;  // likewise
  int64_t free_bytes_;
};

// Takes `bytes` >= 1 of the device's memory. What finds no room there (gaps between pieces, what a
// budget does not count) is allocated on the device as without an arena. Errors of Allocate.
absl::StatusOr<std::unique_ptr<Device>> CreateArenaDevice(std::unique_ptr<Device> device,
                                                          int64_t bytes);

}  // namespace renga::kernels::cuda

#endif  // RENGA_WORKER_KERNELS_CUDA_ARENA_DEVICE_H_
