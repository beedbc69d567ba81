// Matrices on this machine's disk as the processor wants them, so that the next start maps them
// instead of packing them again.
//
// Layout: DIRECTORY/packed/<model id, 32 hex digits>/<layout>/<tensor index>-<first row>-<end row>,
// one file per matrix: a page of header with the hash of what follows, then the matrix's bytes.
// Files are written beside and renamed, never changed in place. A file is hashed when it is first
// used after the machine started, later only if its size, time or inode is another ("checked" in
// the same folder remembers them): reading every byte at each start is what the mapping saves.
#ifndef RENGA_WORKER_SERVICE_PACKED_CACHE_H_
#define RENGA_WORKER_SERVICE_PACKED_CACHE_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "base/data_type.h"
#include "model/shard_spec.h"
#include "worker/kernels/backend.h"

namespace renga::worker {

// What a packed file is for: a part of a tensor of the model.
struct PackedId {
  uint32_t tensor = 0;  // index in the whole model
  base::DataType type = base::DataType::kInvalid;
  model::Range rows;
  model::Range columns;
};

// Thread-safe. Several processes may use the same directory.
class PackedCache {
 public:
  // For one model and one layout of a backend. With an empty `directory` it is always empty and
  // keeps nothing.
  PackedCache(const std::string& directory, absl::string_view model_id, absl::string_view layout);
  ~PackedCache();
  PackedCache(const PackedCache&) = delete;
  PackedCache& operator=(const PackedCache&) = delete;

  // A mapping of the matrix, checked, if it is there with that many bytes. A damaged file is
  // removed, with a warning.
  std::optional<kernels::PackedBytes> Find(const PackedId& id, int64_t bytes);

  // The same for a matrix that does not stay in memory. Whether it is there, by name, size and what
  // the file says of itself (which is not read again when it was found right before); its bytes are
  // checked by ReadInto.
  bool Has(const PackedId& id, int64_t bytes) const;
  // Reads it past the page cache into the first bytes of `room`, as base::DirectFile::ReadAt has
  // it; checked as Find does. kNotFound when it is gone, kDataLoss (and it is removed) when it is
  // damaged, other errors of the disk.
  absl::Status ReadInto(const PackedId& id, int64_t bytes, std::span<std::byte> room);
  // Reads it into the page cache, in pages as large as Find's, where Find looks for it soon. Any
  // thread; does nothing when there is no such file.
  void Prefetch(const PackedId& id) const;
  // Drops what the page cache holds of a matrix that was kept.
  void DropPages(const PackedId& id) const;

  // Whether so many bytes of matrices may still be kept. kResourceExhausted as Keep has it, errors
  // of the disk.
  absl::Status CheckRoom(int64_t bytes) const;
  // Keeps a matrix. kCancelled when `cancelled` says so, kResourceExhausted when less than 2 GiB
  // (or a tenth, if that is less) of the disk would be left; errors of the disk.
  absl::Status Keep(const PackedId& id, std::span<const std::byte> bytes,
                    const std::function<bool()>& cancelled);

  // Removes what processes that were killed had begun to write, and what earlier versions of renga
  // packed of this model for the same processors.
  void RemoveLeftovers() const;

  // Writes down what was found right or kept, for the next process; also when destroyed.
  void RememberChecked();

  bool enabled() const { return !directory_.empty(); }

 private:
  void RemoveEarlierLayouts() const;
  std::string Name(const PackedId& id) const;
  std::string Path(const PackedId& id) const;
  bool WasChecked(const std::string& name, const std::string& stamp) const;
  void SetChecked(const std::string& name, const std::string& stamp);
  void LoadChecked();

  const std::string directory_;  // "": disabled
  mutable absl::Mutex mutex_;
  // Of files that were right, by name: size, time of change and inode.
  std::map<std::string, std::string> checked_ ABSL_GUARDED_BY(mutex_);
  bool checked_changed_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace renga::worker

#endif  // RENGA_WORKER_SERVICE_PACKED_CACHE_H_
