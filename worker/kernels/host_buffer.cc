#include "worker/kernels/host_buffer.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/byte_size.h"
#include "base/machine_limits.h"
#include "base/status_macros.h"

namespace renga::kernels {
namespace {

// Below this, asking the kernel what is left costs more than the answer is worth.
constexpr int64_t kAskAboveBytes = int64_t{16} << 20;

absl::Status CheckRange(const Buffer& buffer, int64_t offset, size_t bytes) {
  const int64_t size = buffer.size_bytes();
  if (offset < 0 || offset > size || bytes > static_cast<uint64_t>(size - offset)) {
    return absl::OutOfRangeError(
        absl::StrCat("bytes ", offset, " + ", bytes, " lie outside a buffer of ", size));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<HostBuffer>> HostBuffer::Create(int64_t bytes) {
  if (bytes < 0) return absl::InvalidArgumentError(absl::StrCat("a buffer of ", bytes, " bytes"));
  // Linux promises memory it does not have and kills the process when it is touched; so ask first.
  const int64_t available = bytes > kAskAboveBytes ? base::AvailableMemoryBytes() : kAskAboveBytes;
  if (bytes > available) {
    return absl::ResourceExhaustedError(absl::StrCat("cannot allocate ",
                                                     base::FormatByteSize(bytes), ": ",
                                                     base::FormatByteSize(available), " are left"));
  }
  RENGA_ASSIGN_OR_RETURN(PageMemory memory, PageMemory::Allocate(std::max<int64_t>(bytes, 1)));
  return std::unique_ptr<HostBuffer>(new HostBuffer(std::move(memory), bytes));
}

absl::Status UploadToHost(std::span<const std::byte> host, Buffer& to, int64_t offset) {
  RENGA_RETURN_IF_ERROR(CheckRange(to, offset, host.size()));
  if (!host.empty()) std::memcpy(to.data() + offset, host.data(), host.size());
  return absl::OkStatus();
}

absl::Status DownloadFromHost(Buffer& from, int64_t offset, std::span<std::byte> host) {
  RENGA_RETURN_IF_ERROR(CheckRange(from, offset, host.size()));
  if (!host.empty()) std::memcpy(host.data(), from.data() + offset, host.size());
  return absl::OkStatus();
}

}  // namespace renga::kernels
