// Rows of the output matrix that stay on disk behind a screen in memory. For a hidden state the
// screen says which rows can matter; only these are read, and computed by the backend as it would
// compute the whole matrix, so what is found are the full head's bits.
//
// A backend may round activations before it multiplies. What it makes of them is found by
// multiplying the identity, stored in the matrix's own format; bounds are about that.
#ifndef RENGA_WORKER_ENGINE_SCREENED_HEAD_H_
#define RENGA_WORKER_ENGINE_SCREENED_HEAD_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/thread_pool.h"
#include "model/shard_spec.h"
#include "model/step.h"
#include "worker/engine/resident_screen.h"
#include "worker/engine/screen_file.h"
#include "worker/kernels/backend.h"

namespace renga::engine {

// Whether matrices of this type can be screened: formats of six bits and more, for which it pays
// and whose rounding the bounds count.
bool CanScreen(base::DataType type);

// What the rows cost since the head was made.
struct ScreenCounts {
  int64_t outputs = 0;       // answered with a proof
  int64_t full_outputs = 0;  // for which all rows were read
  int64_t fine_rows = 0;     // second levels read
  int64_t exact_rows = 0;    // rows read, of outputs with a proof
  int64_t bytes_read = 0;    // of outputs with a proof
  int64_t full_bytes_read = 0;
};

// Not thread-safe.
class ScreenedHead {
 public:
  // What is looked for. Rows are compared by their logits, or with the noise of a draw by the sum
  // of both.
  struct Wanted {
    int64_t top_k = 0;                 // at least that many best rows; 0: `within` alone counts
    std::optional<float> within = {};  // and all that are no further than this from the best
    std::optional<DrawNoise> noise = {};
    const model::TokenMask* allowed = nullptr;  // only these rows count; null: all
  };

  // Rows [rows.begin, rows.end), inside the file's. `backend` outlives the head; where it has no
  // threads of this machine, `threads` of the head's own scan the screen. kDataLoss for a damaged
  // file, kUnimplemented for a format that can't be screened.
  static absl::StatusOr<std::unique_ptr<ScreenedHead>> Create(
      std::shared_ptr<const ScreenFile> file, const model::Range& rows, kernels::Backend* backend,
      int threads);

  // The wanted rows with their logits, best first (by what they are compared by; ties: lower id
  // first), none where none is allowed; sum_exp stays 0, since rows that were never read have their
  // part in it. nullopt when too many rows could matter, or a number is not finite: then the full
  // head decides. `hidden` is one normed row in the backend's memory.
  absl::StatusOr<std::optional<model::HeadRow>> Find(kernels::ConstRowsView hidden,
                                                     const Wanted& wanted);

  // All logits of some normed rows, `logits` being hidden.rows x rows.size(). Reads every row.
  absl::Status AllLogits(kernels::ConstRowsView hidden, kernels::RowsView logits);

  // Of the screen and what computes rows. The basis is one of them.
  int64_t resident_bytes() const;
  const ScreenCounts& counts() const { return counts_; }

  // What Create will hold.
  static int64_t ResidentBytes(const ScreenFile& file, const model::Range& rows);

 private:
  struct Search;

  ScreenedHead(std::shared_ptr<const ScreenFile> file, const model::Range& rows,
               kernels::Backend* backend, int threads);
  absl::Status Prepare();
  absl::Status LoadIdentity();
  absl::StatusOr<std::vector<float>> Probe(kernels::ConstRowsView hidden);
  absl::Status ReadSecondLevels(const ScreenQuery& query, const Wanted& wanted, Search& search);
  absl::Status Refine(const ScreenQuery& query, const Wanted& wanted, Search& search);
  // Looks for wanted rows among all, or all that are allowed. False: too many could be.
  absl::StatusOr<bool> SearchRows(kernels::ConstRowsView hidden, const Wanted& wanted,
                                  Search& search);
  // What was found; nullopt where a logit is no finite number.
  std::optional<model::HeadRow> Found(const Wanted& wanted, Search& search);
  // Logits of these rows, at most kGatherRows of them and at least one.
  absl::Status ComputeRows(kernels::ConstRowsView hidden, std::vector<int32_t> ids,
                           const Wanted& wanted, Search& search);
  // Ascending rows as stored, by all threads. How many bytes were read.
  absl::StatusOr<int64_t> ReadRows(std::span<const int32_t> ids, std::span<std::byte> out);

  const std::shared_ptr<const ScreenFile> file_;
  const model::Range rows_;
  kernels::Backend* const backend_;
  const std::unique_ptr<base::ThreadPool> own_pool_;  // where the backend has none
  base::ThreadPool& pool_;
  std::unique_ptr<ResidentScreen> screen_;
  std::unique_ptr<kernels::WeightMatrix> identity_;
  // For few rows, more, and as many as are computed at once.
  std::vector<std::unique_ptr<kernels::WeightMatrix>> gather_;
  std::unique_ptr<kernels::Buffer> out_;  // what these matrices give for one row
  std::vector<std::byte> gathered_;
  ScreenCounts counts_;
};

}  // namespace renga::engine

#endif  // RENGA_WORKER_ENGINE_SCREENED_HEAD_H_
