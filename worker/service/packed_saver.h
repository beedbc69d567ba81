// Writes freshly packed matrices to the disk while the worker computes.
#ifndef RENGA_WORKER_SERVICE_PACKED_SAVER_H_
#define RENGA_WORKER_SERVICE_PACKED_SAVER_H_

#include <atomic>
#include <cstddef>
#include <span>
#include <thread>
#include <vector>

#include "worker/service/packed_cache.h"

namespace renga::worker {

// Works on a thread of the lowest priority from its making on; ends with the object, done or not.
class PackedSaver {
 public:
  struct Item {
    PackedId id;
    std::span<const std::byte> bytes;  // stay as long as the saver
  };
  // `cache` outlives the saver. When the disk refuses, this warns and keeps the rest no more.
  PackedSaver(PackedCache* cache, std::vector<Item> items);
  ~PackedSaver();
  PackedSaver(const PackedSaver&) = delete;
  PackedSaver& operator=(const PackedSaver&) = delete;

 private:
  void Save(const std::vector<Item>& items);

  PackedCache* const cache_;
  std::atomic<bool> cancelled_ = false;
  std::thread thread_;  // last: it uses the rest
};

}  // namespace renga::worker

#endif  // RENGA_WORKER_SERVICE_PACKED_SAVER_H_
