#include "worker/engine/parallel_reader.h"

#include <algorithm>
#include <atomic>
#include <thread>
#include <utility>

#include "base/status_macros.h"

namespace renga::engine {

struct ParallelReader::Job {
  const std::string& tensor;
  int64_t begin;
  int64_t end;
  int64_t unit;
  const Take& take;

  int64_t pieces() const { return (end - 1) / kReadAlignment - begin / kReadAlignment + 1; }
  // Where a piece begins; behind the last one, where that ends.
  int64_t At(int64_t piece) const {
    return std::clamp((begin / kReadAlignment + piece) * kReadAlignment, begin, end);
  }
  // The unit's first byte that is not before `at`, and the last one's that is not behind it.
  int64_t UnitFrom(int64_t at) const { return begin + (at - begin + unit - 1) / unit * unit; }
  int64_t UnitBefore(int64_t at) const { return begin + (at - begin) / unit * unit; }
};

absl::Status ParallelReader::Read(const std::string& tensor, int64_t begin, int64_t end,
                                  int64_t unit, const Take& take, const Advance& advance) {
  if (begin >= end) return absl::OkStatus();
  const Job job = {.tensor = tensor, .begin = begin, .end = end, .unit = unit, .take = take};
  {
    absl::MutexLock lock(&mutex_);
    cut_units_.clear();  // of a Read that an error has ended
  }
  const auto caller = std::this_thread::get_id();
  int64_t told = 0;  // the caller's
  std::atomic<int64_t> done = 0;
  std::atomic<bool> failed = false;
  absl::Mutex first_mutex;
  absl::Status first;
  const auto work = [&](int64_t piece) -> absl::Status {
    RENGA_RETURN_IF_ERROR(ReadPiece(job, piece));
    const int64_t bytes = job.At(piece + 1) - job.At(piece);
    const int64_t now = done.fetch_add(bytes) + bytes;
    if (std::this_thread::get_id() != caller) return absl::OkStatus();
    return advance(now - std::exchange(told, now));
  };
  pool_.ParallelFor(job.pieces(), 1, [&](int64_t piece, int64_t pieces_end) {
    for (; piece < pieces_end && !failed; ++piece) {
      absl::Status status = work(piece);
      if (status.ok()) continue;
      failed = true;
      absl::MutexLock lock(&first_mutex);
      first.Update(std::move(status));
    }
  });
  RENGA_RETURN_IF_ERROR(first);
  return advance(done - told);
}

absl::Status ParallelReader::ReadPiece(const Job& job, int64_t piece) {
  const int64_t from = job.At(piece), to = job.At(piece + 1);
  std::vector<std::byte> buffer = TakeBuffer();
  const std::span<std::byte> bytes = std::span(buffer).first(static_cast<size_t>(to - from));
  absl::Status status = source_->Read(job.tensor, from, bytes);
  if (status.ok()) {
    const int64_t first = std::min(job.UnitFrom(from), to);
    const int64_t last = std::max(job.UnitBefore(to), first);
    const auto part = [&](int64_t begin, int64_t end) {
      return bytes.subspan(static_cast<size_t>(begin - from), static_cast<size_t>(end - begin));
    };
    if (first < last) status = job.take(first - job.begin, part(first, last));
    if (status.ok()) status = AddPart(job, from, part(from, first));
    if (status.ok()) status = AddPart(job, last, part(last, to));
  }
  ReturnBuffer(std::move(buffer));
  return status;
}

absl::Status ParallelReader::AddPart(const Job& job, int64_t at, std::span<const std::byte> part) {
  if (part.empty()) return absl::OkStatus();
  const int64_t unit = job.UnitBefore(at);
  std::vector<std::byte> whole;
  {
    absl::MutexLock lock(&mutex_);
    CutUnit& cut = cut_units_[unit];
    if (cut.bytes.empty()) {
      cut.bytes.resize(static_cast<size_t>(job.unit));
      cut.missing = job.unit;
    }
    std::copy(part.begin(), part.end(), cut.bytes.begin() + (at - unit));
    cut.missing -= static_cast<int64_t>(part.size());
    if (cut.missing > 0) return absl::OkStatus();
    whole = std::move(cut.bytes);
    cut_units_.erase(unit);
  }
  return job.take(unit - job.begin, whole);
}

std::vector<std::byte> ParallelReader::TakeBuffer() {
  absl::MutexLock lock(&mutex_);
  if (buffers_.empty()) return std::vector<std::byte>(static_cast<size_t>(kReadAlignment));
  std::vector<std::byte> buffer = std::move(buffers_.back());
  buffers_.pop_back();
  return buffer;
}

void ParallelReader::ReturnBuffer(std::vector<std::byte> buffer) {
  absl::MutexLock lock(&mutex_);
  buffers_.push_back(std::move(buffer));
}

}  // namespace renga::engine
