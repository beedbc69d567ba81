#include "worker/engine/read_ahead.h"

#include <system_error>
#include <utility>

namespace renga::engine {

ReadAhead::ReadAhead(WeightSource* source) : source_(source) {
  try {
    thread_ = std::thread([this] { ReadUntilEnd(); });
  } catch (const std::system_error&) {
    // Slower, but it works.
  }
}

ReadAhead::~ReadAhead() {
  if (!thread_.joinable()) return;
  {
    absl::MutexLock lock(&mutex_);
    mutex_.Await(absl::Condition(
        +[](State* state) { return *state != State::kWanted; }, &state_));
    state_ = State::kEnding;
  }
  thread_.join();
}

void ReadAhead::Start(const std::string& tensor, int64_t offset, std::span<std::byte> out) {
  absl::MutexLock lock(&mutex_);
  tensor_ = tensor;
  offset_ = offset;
  out_ = out;
  state_ = State::kWanted;
}

absl::Status ReadAhead::Finish() {
  absl::MutexLock lock(&mutex_);
  if (!thread_.joinable()) {
    state_ = State::kIdle;
    return source_->Read(tensor_, offset_, out_);
  }
  mutex_.Await(absl::Condition(
      +[](State* state) { return *state == State::kDone; }, &state_));
  state_ = State::kIdle;
  return std::move(status_);
}

void ReadAhead::ReadUntilEnd() {
  absl::MutexLock lock(&mutex_);
  while (true) {
    mutex_.Await(absl::Condition(
        +[](State* state) { return *state == State::kWanted || *state == State::kEnding; },
        &state_));
    if (state_ == State::kEnding) return;
    const std::string tensor = tensor_;
    const int64_t offset = offset_;
    const std::span<std::byte> out = out_;
    mutex_.Unlock();
    absl::Status status = source_->Read(tensor, offset, out);
    mutex_.Lock();
    status_ = std::move(status);
    state_ = State::kDone;
  }
}

}  // namespace renga::engine
