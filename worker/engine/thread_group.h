// Members of a tensor-parallel group as threads of one process, for tests.
#ifndef RENGA_WORKER_ENGINE_THREAD_GROUP_H_
#define RENGA_WORKER_ENGINE_THREAD_GROUP_H_

#include <atomic>
#include <barrier>
#include <cstring>
#include <deque>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "base/communicator.h"

namespace renga::engine {

// Makes the communicators of `size` threads and outlives them.
class ThreadGroup {
 public:
  explicit ThreadGroup(int size) : given_(size), barrier_(size) {
    for (int rank = 0; rank < size; ++rank) {
      members_.push_back(std::make_unique<Member>(this, rank));
    }
  }
  base::Communicator* member(int rank) { return members_[rank].get(); }
  // AllReduce calls of one member.
  int sums() const { return sums_; }

 private:
  class Member : public base::Communicator {
   public:
    Member(ThreadGroup* group, int rank) : group_(group), rank_(rank) {}
    int rank() const override { return rank_; }
    int size() const override { return static_cast<int>(group_->given_.size()); }
    absl::Status AllReduce(std::span<float> values) override {
      std::vector<std::byte> all(values.size_bytes() * group_->given_.size());
      if (auto status = AllGather(std::as_bytes(values), all); !status.ok()) return status;
      for (size_t i = 0; i < values.size(); ++i) {
        float sum = 0;
        for (int from = 0; from < size(); ++from) {
          float part;
          std::memcpy(&part, all.data() + from * values.size_bytes() + i * sizeof(float),
                      sizeof(float));
          sum = from == 0 ? part : sum + part;
        }
        values[i] = sum;
      }
      if (rank_ == 0) ++group_->sums_;
      return absl::OkStatus();
    }
    // Adds up as late as it may.
    absl::Status BeginSum(std::span<float> values) override {
      begun_.push_back(values);
      return absl::OkStatus();
    }
    absl::Status FinishSum() override {
      const std::span<float> values = begun_.front();
      begun_.pop_front();
      return AllReduce(values);
    }
    absl::Status AllGather(std::span<const std::byte> mine, std::span<std::byte> all) override {
      group_->given_[rank_] = mine;
      group_->barrier_.arrive_and_wait();
      for (size_t from = 0; from < group_->given_.size(); ++from) {
        std::memcpy(all.data() + from * mine.size(), group_->given_[from].data(), mine.size());
      }
      group_->barrier_.arrive_and_wait();
      return absl::OkStatus();
    }
    absl::Status Broadcast(int root, std::span<std::byte> bytes) override {
      std::vector<std::byte> all(bytes.size() * group_->given_.size());
      if (auto status = AllGather(bytes, all); !status.ok()) return status;
      std::memcpy(bytes.data(), all.data() + root * bytes.size(), bytes.size());
      return absl::OkStatus();
    }
    absl::Duration TakeExchangeTime() override { return absl::ZeroDuration(); }
    void Cancel() override {}

   private:
    ThreadGroup* const group_;
    const int rank_;
    std::deque<std::span<float>> begun_;
  };

  std::vector<std::span<const std::byte>> given_;
  std::barrier<> barrier_;
  std::vector<std::unique_ptr<Member>> members_;
  std::atomic<int> sums_ = 0;
};

}  // namespace renga::engine

#endif  // RENGA_WORKER_ENGINE_THREAD_GROUP_H_
