// A copy of the model on this machine, as one more place where pieces may be found.
#ifndef RENGA_WORKER_SERVICE_LOCAL_MODEL_H_
#define RENGA_WORKER_SERVICE_LOCAL_MODEL_H_

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/file.h"

namespace renga::worker {

// Keeps only where each tensor lies and the open files, not the parsed metadata: vocabularies take
// tens of megabytes. Read through the files, not through a mapping whose pages would count against
// the offered memory. Safe from several threads.
class LocalModel {
 public:
  // Errors are model::GgufFile::Open's.
  static absl::StatusOr<std::unique_ptr<LocalModel>> Open(const std::string& path);

  // Whether a tensor of that name and size is there; what it contains is the reader's to verify.
  bool Has(const std::string& tensor, int64_t byte_size) const;
  // Bytes from `offset` of a tensor; kNotFound, kOutOfRange, or the file's error.
  absl::Status Read(const std::string& tensor, int64_t offset, std::span<std::byte> out) const;

 private:
  struct Place {
    size_t part = 0;
    int64_t file_offset = 0;
    int64_t byte_size = 0;
  };
  LocalModel() = default;

  std::vector<std::unique_ptr<base::RandomAccessFile>> parts_;
  absl::flat_hash_map<std::string, Place> places_;
};

}  // namespace renga::worker

#endif  // RENGA_WORKER_SERVICE_LOCAL_MODEL_H_
