#include "worker/service/quiet_probe.h"

#include <utility>

#include "base/byte_size.h"
#include "base/log.h"

namespace renga::worker {

QuietProbe::QuietProbe(Options options)
    : options_(std::move(options)),
      orders_(options_.orders()),
      busy_at_(options_.clock()),
      due_at_(busy_at_ + options_.good_for),
      history_(options_.first),
      measured_at_(busy_at_),
      thread_([this] { Run(); }) {}

void QuietProbe::Cancel() {
  absl::MutexLock lock(&mutex_);
  stopping_ = true;
}

void QuietProbe::Stop() {
  Cancel();
  if (thread_.joinable()) thread_.join();
}

QuietProbe::Report QuietProbe::Read() const {
  absl::MutexLock lock(&mutex_);
  return {.speed = history_.settled(),
          .age = options_.clock() - measured_at_,
          .confirmed = history_.confirmed()};
}

bool QuietProbe::Wait() {
  absl::MutexLock lock(&mutex_);
  const auto stopping = [this] { return stopping_.load(); };
  mutex_.AwaitWithTimeout(absl::Condition(&stopping), options_.tick);
  return !stopping_;
}

void QuietProbe::Run() {
  while (Wait()) {
    const absl::Duration now = options_.clock();
    if (const uint64_t orders = options_.orders(); std::exchange(orders_, orders) != orders) {
      busy_at_ = now;
    }
    if (now >= due_at_ && now - busy_at_ >= options_.idle_after) Measure();
  }
}

void QuietProbe::Measure() {
  const absl::StatusOr<DeviceSpeed> speed =
      options_.measure([this] { return stopping_.load() || options_.orders() != orders_; });
  const absl::Duration now = options_.clock();
  if (absl::IsCancelled(speed.status())) {
    busy_at_ = now;
    return;
  }
  due_at_ = now + options_.good_for;
  if (!speed.ok()) {
    RENGA_LOG(INFO) << "the device is not measured again: " << speed.status().message();
    return;
  }
  absl::MutexLock lock(&mutex_);
  history_.Add(*speed);
  measured_at_ = now;
  if (history_.InDoubt()) due_at_ = now + options_.doubt;
  RENGA_LOG(INFO) << "measured again: "
                  << base::FormatByteSize(
                         static_cast<int64_t>(speed->kernels[0].decode_bytes_per_second))
                  << " of weights per second; counted on are "
                  << base::FormatByteSize(static_cast<int64_t>(
                         history_.settled().kernels[0].decode_bytes_per_second));
}

}  // namespace renga::worker
