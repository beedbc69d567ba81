// One shard in memory and how steps run through it: layers [a, b), a block of the output matrix,
// the embedding, or several of these.
#ifndef RENGA_WORKER_ENGINE_SHARD_H_
#define RENGA_WORKER_ENGINE_SHARD_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/communicator.h"
#include "base/data_type.h"
#include "model/architecture.h"
#include "model/shard_spec.h"
#include "model/step.h"
#include "model/tokenizer.h"
#include "worker/engine/expert_choice.h"
#include "worker/engine/memory_budget.h"
#include "worker/kernels/backend.h"

namespace renga::engine {

// A part of a tensor that is held as one matrix.
struct MatrixKey {
  std::string tensor;
  base::DataType type = base::DataType::kInvalid;
  model::Range rows;     // in the whole tensor
  model::Range columns;  // in the whole tensor
};

// A matrix as the backend packed it.
struct HeldMatrix {
  MatrixKey key;
  std::span<const std::byte> bytes;
};

class ScreenFile;

// A packed matrix on disk. It is checked by hash when nobody has since the file was written.
// Errors: kDataLoss when it is damaged, kNotFound or kOutOfRange when it is gone or was cut, others
// of the disk. One thread reads and holds, another one may prefetch meanwhile.
class PackedFile {
 public:
  virtual ~PackedFile() = default;
  // Hold comes soon: brings it from the disk to where Hold finds it, however long that takes. What
  // goes wrong is Hold's to say.
  virtual void Prefetch() {}
  // Reads it once more, and leaves nothing of it in memory but in the first bytes of `room`, which
  // is aligned to pages and of as many whole pages as the matrix needs.
  virtual absl::Status Read(std::span<std::byte> room) = 0;
  // Brings it into memory for good.
  virtual absl::StatusOr<kernels::PackedBytes> Hold() = 0;
};

// Where a shard's weights come from: the local model file, the on-disk cache, the coordinator.
// Asked from several threads, one after the other but where ReadsAtOnce.
class WeightSource {
 public:
  virtual ~WeightSource() = default;
  // The stored type of a tensor. kNotFound when the model has none of that name.
  virtual absl::StatusOr<base::DataType> TensorType(const std::string& name) = 0;
  // Fills `out` with bytes [offset, offset + out.size()) of the tensor, verified.
  virtual absl::Status Read(const std::string& name, int64_t offset, std::span<std::byte> out) = 0;
  // Whether several threads may Read at once, and gain by it.
  virtual bool ReadsAtOnce() const { return false; }
  // Whether whatever is asked for comes soon: the model lies on this machine.
  virtual bool IsAtHand() const { return false; }
  // Of these matrices all rows and columns are read next, in this order: what has to come from
  // another machine begins to come, and comes without a pause. Takes the place of what was said
  // before. Nothing that was not announced is refused for it.
  virtual void Expect(std::span<const MatrixKey> /*next*/) {}
  // So many bytes will be kept packed in time, so that room for them is left. kResourceExhausted
  // when the disk has not so much, kFailedPrecondition when nothing is kept.
  virtual absl::Status PlanToKeep(int64_t /*bytes*/) {
    return absl::FailedPreconditionError("nothing is kept on disk");
  }
  // The matrix as it was once packed into `bytes` bytes, in the layout of the backend that loads,
  // checked, or nothing.
  virtual std::optional<kernels::PackedBytes> FindPacked(const MatrixKey& /*key*/,
                                                         int64_t /*bytes*/) {
    return std::nullopt;
  }
  // The screen of the output matrix, which then stays on disk (screened_head.h); null: none.
  virtual std::shared_ptr<const ScreenFile> FindScreen() { return nullptr; }
  // The same as a file that can be read again and again; null: not there.
  virtual std::unique_ptr<PackedFile> OpenPacked(const MatrixKey& /*key*/, int64_t /*bytes*/) {
    return nullptr;
  }
  // Keeps a packed matrix, so that OpenPacked has it. kResourceExhausted when the disk is full,
  // kFailedPrecondition when nothing is kept.
  virtual absl::Status KeepPacked(const MatrixKey& /*key*/, std::span<const std::byte> /*bytes*/) {
    return absl::FailedPreconditionError("nothing is kept on disk");
  }
};

// What of a shard's layers is where, in bytes.
struct ResidencyReport {
  int64_t pinned = 0;      // stay in memory once they are there
  int64_t pinned_now = 0;  // of these, in memory already
  // Read from disk for every step; of experts what a token misses if all are used alike.
  int64_t streamed = 0;
  int64_t cached_now = 0;  // of experts that come and go
  // At which they came of late; 0: nothing was read yet.
  double streamed_per_second = 0;
  // Feed-forwards that came after their deadline, each once for every token that went without it.
  int64_t left_out = 0;
  // A letter for each bundle, in the order of use, as many for every layer.
  std::string places;
  // Of its matrices, as the source has them: not on this machine yet.
  int64_t to_come = 0;
};

// The letters of ResidencyReport::places.
inline constexpr char kInMemory = 'm';        // and stays there
inline constexpr char kComing = 'd';          // on disk; stays in memory once it has come
inline constexpr char kToBePacked = 'p';      // the same, but made of pieces of the model first
inline constexpr char kStreamed = 's';        // read from disk for every step
inline constexpr char kCached = 'c';          // an expert in memory, as long as it is used often
inline constexpr char kAbsentExpert = 'a';    // an expert on disk, read when a token chooses it
inline constexpr char kUnpackedExpert = 'n';  // the same, but made of pieces of the model first

// When the weights of layers come into memory.
enum class LoadMode {
  kEager,  // all before the shard is there
  // As steps need them, in the order of use; what does not fit is read from disk for every step.
  kLazy,
};

// Called as loading goes on, with bytes done and in total. Returning false cancels (kCancelled).
using LoadProgress = std::function<bool(int64_t done_bytes, int64_t total_bytes)>;

// What the feed-forward neurons of a layer of the model give (rows x neurons, before the matrix
// that brings them back to d_model), rows in the order of the step's.
using NeuronObserver = std::function<void(int64_t layer, std::span<const float> rows)>;

// Which experts of a layer of the model the step's rows have chosen, as ChooseExperts orders them.
using ExpertObserver = std::function<void(int64_t layer, std::span<const ExpertRow> chosen)>;

// Whether nobody wants the step's result any more. On the engine's thread; quick.
using StepWatch = std::function<bool()>;

// Not thread-safe: one thread (the engine's own) runs steps.
class Shard {
 public:
  // Reserves everything from `budget` before allocating, then loads the weights through two staging
  // buffers of 2 MiB. `backend` and `budget` outlive the shard. kResourceExhausted when the
  // budget says no, kInvalidArgument when spec or limits don't fit the model.
  //
  // With kLazy a shard that is larger than what the budget has left takes all of that, and `source`
  // outlives the shard. Where the backend's matrices cannot be kept on disk kLazy is kEager, and
  // kUnimplemented when it does not fit.
  static absl::StatusOr<std::unique_ptr<Shard>> Load(
      const model::Model& model, const model::ShardSpec& spec, const model::RuntimeLimits& limits,
      kernels::Backend* backend, MemoryBudget* budget, WeightSource* source,
      const LoadProgress& progress, LoadMode mode = LoadMode::kEager);
  virtual ~Shard() = default;

  // The rows that `tokens` begin with, tokens.size() x d_model, as model::EmbeddingTable has them.
  // kFailedPrecondition without the embedding, kInvalidArgument for tokens that do not exist.
  virtual absl::StatusOr<std::vector<float>> Embed(std::span<const model::TokenId> tokens) = 0;

  // Runs the shard's layers: carries out the step's KV commands, then computes its slots. `rows`
  // is step.token_count() x d_model, replaced in place by the output activations. Everything is
  // checked before anything changes: kInvalidArgument (unknown sequence, wrong position, block out
  // of range or in use, too many rows) leaves the state as it was.
  //
  // The members of a tensor-parallel group run the same steps in the same order, with the same rows
  // in and out; `group` joins their parts. null: this shard has whole layers.
  // `withdrawn`, which may be null, is asked before each layer where no layer is read from disk as
  // a whole, and between experts that have to come. Once it says true nothing more is computed;
  // `rows`, and what the step's positions hold, are then undefined, and the status is OK. Not in a
  // group, whose members must agree.
  virtual absl::Status RunLayers(const model::Step& step, std::span<float> rows,
                                 base::Communicator* group,
                                 const StepWatch& withdrawn = nullptr) = 0;

  // Carries out the step's KV commands and lets its sequences grow as RunLayers does, but computes
  // nothing: what the positions hold is undefined until a later command takes them back.
  virtual absl::Status SkipLayers(const model::Step& step) = 0;

  // How many feed-forwards the last step went without (Approximation::deadline_ms).
  virtual uint32_t left_out() const = 0;

  // Runs the head block: `rows` is step.output_count() x d_model (output activations of the last
  // layer, before the final norm). One HeadRow per output, ids absolute.
  virtual absl::StatusOr<std::vector<model::HeadRow>> RunHead(const model::Step& step,
                                                              std::span<const float> rows) = 0;

  // Tells `observer` of every step from now on; null: nobody. For studies: steps take longer with
  // it. kUnimplemented for a slice of layers, and where a part of them comes late.
  virtual absl::Status ObserveNeurons(NeuronObserver observer) = 0;

  // Tells `observer` of every step from now on; null: nobody. kFailedPrecondition without layers,
  // kUnimplemented where they have no experts.
  virtual absl::Status ObserveExperts(ExpertObserver observer) = 0;

  // Forgets every sequence (a new epoch begins).
  virtual void ResetSequences() = 0;

  virtual const model::ShardSpec& spec() const = 0;
  virtual int64_t memory_bytes() const = 0;  // what it holds of the budget

  // The matrices that FindPacked did not have. Their bytes, in layout_name() of the backend, do not
  // change and stay as long as the shard; any thread may read them.
  // Of a lazy shard they are complete when LoadMore says false.
  virtual const std::vector<HeldMatrix>& newly_packed() const = 0;

  // Brings some more of a lazy shard into memory, for when no step waits; false when nothing is
  // left to do here (what is on disk is read by another thread).
  virtual absl::StatusOr<bool> LoadMore() = 0;
  // Experts' matrices that are not on disk as the backend packs them, in the order of the layers:
  // those that come when a row chooses them.
  virtual std::vector<MatrixKey> Unpacked() const = 0;
  // On any thread. An eager shard has no numbers.
  virtual ResidencyReport residency() const = 0;
};

// Copies the activations of the outputs (the last output_count rows of each slot) together:
// step.token_count() x d_model in, step.output_count() x d_model out.
std::vector<float> GatherOutputs(const model::Step& step, std::span<const float> rows,
                                 int64_t d_model);

}  // namespace renga::engine

#endif  // RENGA_WORKER_ENGINE_SHARD_H_
