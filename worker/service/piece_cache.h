// Pieces of models on this machine's disk, so that what was shipped once need not be shipped again.
//
// Layout: DIRECTORY/shards/<model id, 32 hex digits>/<tensor index>, one sparse file per tensor
// with piece i at i * kPieceBytes. Nothing in a file says that it is right: readers check every
// piece against the manifest's hash, so torn writes, damage and two processes writing the same
// piece are all the same case. Names are made of numbers only; no text of a peer reaches a path.
#ifndef RENGA_WORKER_SERVICE_PIECE_CACHE_H_
#define RENGA_WORKER_SERVICE_PIECE_CACHE_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "base/file.h"

namespace renga::worker {

// Not thread-safe. Several processes may use the same directory.
class PieceCache {
 public:
  // For one model. With an empty `directory` it is always empty and keeps nothing.
  PieceCache(const std::string& directory, absl::string_view model_id);

  // Whether bytes are stored where the piece would be; false once Forget was called for it.
  bool MayHave(uint32_t tensor, uint32_t piece);
  // Reads a piece that MayHave. Its content is not verified.
  absl::Status Read(uint32_t tensor, uint32_t piece, std::span<std::byte> out);
  // The same for whoever does not know its size: all that is stored of it.
  absl::Status ReadStored(uint32_t tensor, uint32_t piece, std::string& bytes);
  // The piece on disk is not what it should be.
  void Forget(uint32_t tensor, uint32_t piece);
  // Keeps a verified piece. When the disk is full (CheckDiskSpace, with LeaveRoom) or refuses, this
  // warns once and keeps no more from then on; what it has stays.
  void Write(uint32_t tensor, uint32_t piece, std::span<const std::byte> bytes);
  // Whether it keeps more.
  bool keeps() const { return keeps_; }
  // So many bytes of the disk are wanted for something that comes before pieces.
  void LeaveRoom(int64_t bytes) { left_bytes_ = bytes; }
  // Removes all pieces of the model and keeps none from then on: the disk is wanted for what cannot
  // be fetched again. False when there is nothing to gain by it.
  bool GiveWay();

 private:
  std::string Path(uint32_t tensor) const;
  std::vector<bool>& Stored(uint32_t tensor);
  // The tensor's file; only the one used last stays open.
  absl::StatusOr<base::RandomAccessFile*> Open(uint32_t tensor, base::RandomAccessFile::Mode mode);

  bool keeps_;
  std::string directory_;  // "": none
  int64_t left_bytes_ = 0;
  // Per tensor that was asked about: which pieces have data on disk.
  absl::flat_hash_map<uint32_t, std::vector<bool>> stored_;
  std::unique_ptr<base::RandomAccessFile> file_;
  uint32_t file_tensor_ = 0;
  base::RandomAccessFile::Mode file_mode_ = base::RandomAccessFile::Mode::kRead;
};

}  // namespace renga::worker

#endif  // RENGA_WORKER_SERVICE_PIECE_CACHE_H_
