// A backend around another, for tests: adds up what is allocated through it and fails on demand.
#ifndef RENGA_WORKER_ENGINE_WATCHED_BACKEND_H_
#define RENGA_WORKER_ENGINE_WATCHED_BACKEND_H_

#include <cstdint>
#include <memory>
#include <span>
#include <utility>

#include "worker/kernels/backend.h"

namespace renga::engine {

class WatchedBackend : public kernels::Backend {
 public:
  explicit WatchedBackend(std::unique_ptr<kernels::Backend> inner) : inner_(std::move(inner)) {}

  int64_t allocated_bytes() const { return allocated_bytes_; }
  // The n-th Linear from now on fails (0: the next one).
  void FailLinearAfter(int n) { linears_until_failure_ = n; }

  absl::string_view path_name() const override { return inner_->path_name(); }
  absl::StatusOr<std::unique_ptr<kernels::Buffer>> Allocate(int64_t bytes) override {
    allocated_bytes_ += bytes;
    return inner_->Allocate(bytes);
  }
  absl::Status Upload(std::span<const std::byte> host, kernels::Buffer& to,
                      int64_t offset) override {
    return inner_->Upload(host, to, offset);
  }
  absl::Status Download(kernels::Buffer& from, int64_t offset, std::span<std::byte> host) override {
    return inner_->Download(from, offset, host);
  }
  int64_t MatrixBytes(base::DataType type, int64_t rows, int64_t columns) const override {
    return inner_->MatrixBytes(type, rows, columns);
  }
  absl::StatusOr<std::unique_ptr<kernels::WeightMatrix>> CreateMatrix(base::DataType type,
                                                                      int64_t rows,
                                                                      int64_t columns) override {
    allocated_bytes_ += MatrixBytes(type, rows, columns);
    return inner_->CreateMatrix(type, rows, columns);
  }
  absl::Status LoadRows(kernels::WeightMatrix& matrix, int64_t first_row,
                        std::span<const std::byte> rows) override {
    return inner_->LoadRows(matrix, first_row, rows);
  }
  absl::Status RmsNorm(kernels::ConstRowsView in, const float* weight, float epsilon,
                       kernels::RowsView out) override {
    return inner_->RmsNorm(in, weight, epsilon, out);
  }
  absl::Status HeadRmsNorm(kernels::RowsView rows, int64_t head_dim, const float* weight,
                           float epsilon) override {
    return inner_->HeadRmsNorm(rows, head_dim, weight, epsilon);
  }
  absl::Status Linear(kernels::ConstRowsView in,
                      std::span<const kernels::LinearOutput> outputs) override {
    if (linears_until_failure_-- == 0) return absl::InternalError("the device broke");
    return inner_->Linear(in, outputs);
  }
  absl::Status Rope(kernels::RowsView rows, std::span<const int64_t> positions,
                    const kernels::RopeArgs& args) override {
    return inner_->Rope(rows, positions, args);
  }
  absl::Status StoreKv(kernels::ConstRowsView keys, kernels::ConstRowsView values,
                       const kernels::KvCacheView& cache,
                       std::span<const kernels::SequenceSlot> slots) override {
    return inner_->StoreKv(keys, values, cache, slots);
  }
  absl::Status Attention(const kernels::AttentionArgs& args) override {
    return inner_->Attention(args);
  }
  absl::Status SiluGate(kernels::ConstRowsView gate, kernels::ConstRowsView up,
                        kernels::RowsView out) override {
    return inner_->SiluGate(gate, up, out);
  }
  absl::Status GeluGate(kernels::ConstRowsView gate, kernels::ConstRowsView up,
                        kernels::RowsView out) override {
    return inner_->GeluGate(gate, up, out);
  }
  absl::Status Add(kernels::ConstRowsView in, kernels::RowsView out) override {
    return inner_->Add(in, out);
  }
  absl::Status TopK(kernels::ConstRowsView logits, int64_t k,
                    std::span<kernels::TopRow> result) override {
    return inner_->TopK(logits, k, result);
  }
  absl::Status Synchronize() override { return inner_->Synchronize(); }

 private:
  const std::unique_ptr<kernels::Backend> inner_;
  int64_t allocated_bytes_ = 0;
  int linears_until_failure_ = -1;  // negative: never
};

}  // namespace renga::engine

#endif  // RENGA_WORKER_ENGINE_WATCHED_BACKEND_H_
