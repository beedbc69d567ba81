#include "worker/service/packed_saver.h"

#include <sys/resource.h>
#include <unistd.h>

#include <system_error>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/status/status.h"
#include "base/log.h"

namespace renga::worker {

PackedSaver::PackedSaver(PackedCache* cache, std::vector<Item> items) : cache_(cache) {
  if (items.empty() || !cache->enabled()) return;
  try {
    thread_ = std::thread([this, items = std::move(items)] { Save(items); });
  } catch (const std::system_error&) {
    // The next start packs again.
  }
}

PackedSaver::~PackedSaver() {
  cancelled_ = true;
  if (thread_.joinable()) thread_.join();
}

void PackedSaver::Save(const std::vector<Item>& items) {
  // Answers come first. Linux counts priority by thread.
  ::setpriority(PRIO_PROCESS, static_cast<id_t>(::gettid()), 19);
  const absl::Cleanup remember = [this] { cache_->RememberChecked(); };
  cache_->RemoveLeftovers();
  for (const Item& item : items) {
    const absl::Status status =
        cache_->Keep(item.id, item.bytes, [this] { return cancelled_.load(); });
    if (absl::IsCancelled(status)) return;
    if (!status.ok()) {
      RENGA_LOG(WARNING) << "the shard is not kept on disk as it was packed, so the next start "
                            "packs again: "
                         << status.message();
      return;
    }
  }
}

}  // namespace renga::worker
