// Ordinary memory as a Buffer, for backends that compute on the host.
#ifndef RENGA_WORKER_KERNELS_HOST_BUFFER_H_
#define RENGA_WORKER_KERNELS_HOST_BUFFER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/kernels/backend.h"
#include "worker/kernels/page_memory.h"

namespace renga::kernels {

class HostBuffer : public Buffer {
 public:
  // Zero-filled. kResourceExhausted when the system has not that much; kInvalidArgument when
  // `bytes` is negative.
  static absl::StatusOr<std::unique_ptr<HostBuffer>> Create(int64_t bytes);

  std::byte* data() override { return memory_.data(); }
  const std::byte* data() const { return memory_.data(); }
  int64_t size_bytes() const override { return size_bytes_; }

 private:
  HostBuffer(PageMemory memory, int64_t size_bytes)
      : memory_(std::move(memory)), size_bytes_(size_bytes) {}

  PageMemory memory_;
  int64_t size_bytes_;
};

// Backend::Upload and Download for buffers in host memory. kOutOfRange beyond the buffer's end.
absl::Status UploadToHost(std::span<const std::byte> host, Buffer& to, int64_t offset);
absl::Status DownloadFromHost(Buffer& from, int64_t offset, std::span<std::byte> host);

}  // namespace renga::kernels

#endif  // RENGA_WORKER_KERNELS_HOST_BUFFER_H_
