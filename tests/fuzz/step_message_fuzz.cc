// What workers and the coordinator send each other for every step, on any bytes: frames through a
// real stage and its shard, results through the coordinator's checks up to the merged answer.
//
// An input is a choice of backend and wire type, and records: a kind (even: a frame; odd: a
// result), the size of the message in 16 bits, the message. What the stage answers to frames is a
// result, too.
#include <algorithm>
#include <iterator>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "coordinator/cluster/results_reader.h"
#include "coordinator/cluster/step_tracker.h"
#include "model/architecture.h"
#include "model/gguf_file.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/fuzz/input_reader.h"
#include "tests/fuzz/small_model.h"
#include "transport/wire.h"
#include "worker/engine/local_weights.h"
#include "worker/engine/sequence_table.h"
#include "worker/kernels/backend_factory.h"
#include "worker/service/stage.h"

namespace renga::fuzz {
namespace {

constexpr uint64_t kEpoch = 3;
constexpr int64_t kWidth = 32;  // one block of Q8_0
constexpr int64_t kVocabulary = model::kMinSyntheticVocabulary;
const model::RuntimeLimits kLimits{.kv_blocks = 6, .max_step_tokens = 40, .max_step_outputs = 4};

template <typename T>
T Take(absl::StatusOr<T> value) {
  Require(value.ok());
  return *std::move(value);
}

// A backend with a whole model on it, made once.
class LoadedShard {
 public:
  explicit LoadedShard(const std::string& device)
      : backend_(Take(kernels::CreateBackend({.device = device, .threads = 1}))),
        budget_(int64_t{64} << 20) {
    model::SyntheticModelOptions options = SmallModel("llama", kWidth);
    options.type = base::DataType::kQ8_0;
    const std::string image = ModelImage(options);
    const auto file = Take(model::GgufFile::Parse(std::as_bytes(std::span(image))));
    const auto weights = Take(engine::LocalWeights::Create(file.get()));
    model_ = Take(model::ReadModel(*file));
    const model::ShardSpec whole{
        .layers = {0, model_.config.n_layers}, .head_rows = {0, kVocabulary}, .embedding = true};
    shard_ = Take(engine::Shard::Load(model_, whole, kLimits, backend_.get(), &budget_,
                                      weights.get(), nullptr));
  }
  engine::Shard& shard() { return *shard_; }

 private:
  const std::unique_ptr<kernels::Backend> backend_;
  engine::MemoryBudget budget_;
  model::Model model_;
  std::unique_ptr<engine::Shard> shard_;
};

// The bookkeeping of KV blocks on its own: what a step does to it is all or nothing, and no block
// is lost or counted twice.
class WatchedTable {
 public:
  WatchedTable() : table_(kLimits) {}

  bool Apply(const model::Step& step) {
    for (const model::KvCommand& command : step.commands) known_.insert(command.sequence);
    for (const model::StepSlot& slot : step.slots) known_.insert(slot.sequence);
    const std::string before = Describe();
    const bool applied = table_.Apply(step).ok();
    const std::string after = Describe();
    Require(applied || before == after);
    return applied;
  }

 private:
  // All of its state as text; checks it on the way.
  std::string Describe() const {
    std::string text;
    std::vector<int32_t> uses(static_cast<size_t>(kLimits.kv_blocks), 0);
    for (const model::SequenceId id : known_) {
      const engine::SequenceTable::Sequence* sequence = table_.Find(id);
      if (sequence == nullptr) continue;
      absl::StrAppend(&text, id, " has ", sequence->length, " in");
      const auto blocks = static_cast<int64_t>(sequence->blocks.size());
      Require(sequence->length >= 0 && sequence->length <= blocks * model::kKvBlockTokens);
      for (const int32_t block : sequence->blocks) {
        Require(block >= 0 && block < kLimits.kv_blocks);
        ++uses[static_cast<size_t>(block)];
        absl::StrAppend(&text, " ", block);
      }
      absl::StrAppend(&text, "\n");
    }
    for (int32_t block = 0; block < kLimits.kv_blocks; ++block) {
      Require(table_.reference_count(block) == uses[static_cast<size_t>(block)]);
    }
    return text;
  }

  engine::SequenceTable table_;
  std::set<model::SequenceId> known_;
};

// Reads results as the coordinator of a plan whose workers hold these rows of the output matrix.
class Coordinator {
 public:
  explicit Coordinator(std::vector<model::BlockRows> head_rows)
      : worker_count_(head_rows.size()), tracker_(std::move(head_rows)) {}

  void Begin(model::Step step) {
    tracker_.Begin(
        step, [](const absl::StatusOr<cluster::StepOutcome>&) {}, now_);
  }

  void Withdraw(uint64_t number) { tracker_.Withdraw({&number, 1}); }

  // False when the answer is one that no honest worker sends.
  bool Answer(uint32_t worker, const proto::StepResult& message) {
    cluster::ResultsReader::Options options;
    options.epoch = kEpoch;
    options.worker_index = worker;
    options.worker_count = worker_count_;
    options.vocabulary = kVocabulary;
    options.max_outputs = kLimits.max_step_outputs;
    auto answer = cluster::ReadAnswer(message, options);
    if (!answer.ok()) return false;
    if (!answer->has_value()) return true;
    now_ += absl::Microseconds(1);
    auto finished = tracker_.Answer(worker, **std::move(answer), now_);
    // Activations that a sender made up may well lead to logits that are not numbers.
    if (!finished.ok()) return finished.status().code() == absl::StatusCode::kDataLoss;
    if (!finished->has_value() || !(*finished)->status.ok()) return true;
    if (!(*finished)->skipped) Merge(**std::move(finished));
    return true;
  }

 private:
  static void Merge(cluster::FinishedStep finished) {
    const auto rows = cluster::MergeHeadBlocks(finished.step, std::move(finished.blocks));
    Require(rows.size() == static_cast<size_t>(finished.step.output_count()));
    size_t index = 0;
    for (const model::StepSlot& slot : finished.step.slots) {
      for (int64_t i = 0; i < slot.output_count; ++i) {
        const model::HeadRow& row = rows[index++];
        const int64_t wanted = slot.top_k > 0 ? std::min(slot.top_k, kVocabulary) : kVocabulary;
        Require(row.logits.size() == static_cast<size_t>(wanted));
        Require(row.ids.size() == (slot.top_k > 0 ? row.logits.size() : 0));
        Require(std::set(row.ids.begin(), row.ids.end()).size() == row.ids.size());
      }
    }
  }

  const size_t worker_count_;
  cluster::StepTracker tracker_;
  absl::Duration now_ = absl::ZeroDuration();
};

// One epoch of a worker that holds everything, and of the coordinator that it answers to.
class Epoch {
 public:
  Epoch(engine::Shard& shard, base::DataType wire_type)
      : coordinator_({{0, kVocabulary}}), stage_(StageOptions(shard, wire_type)) {
    shard.ResetSequences();
  }

  void Receive(const proto::StepFrame& frame) {
    const auto step = transport::FromProto(frame.step());
    const bool layers = frame.target() == proto::FRAME_TARGET_LAYERS ||
                        frame.target() == proto::FRAME_TARGET_EMBEDDING;
    // Whether the coordinator could have sent this frame, as far as it counts its steps.
    const bool sent = step.ok() && layers && step->epoch == kEpoch && step->number == sent_ + 1;
    if (sent) {
      coordinator_.Begin(*step);
      ++sent_;
      if (withdrawn_->Contains(sent_)) coordinator_.Withdraw(sent_);
    }
    results_.clear();
    const bool done = stage_.Run(frame, /*queue_us=*/1);
    Require(results_.size() <= 1);
    if (step.ok()) CheckTable(*step, done && layers);
    if (done) {
      Require(step.ok() && results_.size() == 1);
      Require(results_[0].error_code() == 0);
      const bool skipped = frame.skipped() || withdrawn_->Contains(step->number);
      Require(results_[0].skipped() == skipped);
      Require(static_cast<int64_t>(results_[0].rows_size()) ==
              (skipped ? 0 : step->output_count()));
    }
    if (results_.empty()) return;
    proto::StepResult arrived;
    Require(arrived.ParseFromString(results_[0].SerializeAsString()));
    const bool understood = coordinator_.Answer(0, arrived);
    // Timings are passed on as they came, and a step is skipped when somebody says so.
    const bool honest =
        frame.timings_size() == 0 && (!frame.skipped() || withdrawn_->Contains(sent_));
    if (sent && honest) Require(understood);
  }
  // As the coordinator would, but of any step.
  void Withdraw(const proto::StepWithdrawal& message) {
    const absl::StatusOr<std::vector<uint64_t>> numbers = transport::StepNumbers(message);
    if (numbers.ok()) withdrawn_->Add(*numbers);
  }

 private:
  worker::Stage::Options StageOptions(engine::Shard& shard, base::DataType wire_type) {
    worker::Stage::Options options;
    options.epoch = kEpoch;
    options.d_model = kWidth;
    options.wire_type = wire_type;
    options.vocab_size = kVocabulary;
    options.routes.heads.push_back({.worker_index = 0, .address = {}});
    options.routes.first_stage.push_back({.worker_index = 0, .address = {}});
    options.shard = &shard;
    options.withdrawn = withdrawn_;
    options.emit = [this](proto::StepResult result) { results_.push_back(std::move(result)); };
    return options;
  }

  // The shard's table must have taken what it carried out.
  void CheckTable(const model::Step& step, bool carried_out) {
    auto after = std::make_unique<WatchedTable>(*table_);
    const bool applied = after->Apply(step);
    if (!carried_out) return;
    Require(applied);
    table_ = std::move(after);
  }

  uint64_t sent_ = 0;
  std::vector<proto::StepResult> results_;
  std::unique_ptr<WatchedTable> table_ = std::make_unique<WatchedTable>();
  const std::shared_ptr<worker::WithdrawnSteps> withdrawn_ =
      std::make_shared<worker::WithdrawnSteps>(kEpoch);
  Coordinator coordinator_;
  worker::Stage stage_;
};

model::StepSlot Slot(model::SequenceId sequence, int64_t first, int64_t count, int64_t outputs,
                     int64_t top_k) {
  return {.sequence = sequence,
          .first_position = first,
          .token_count = count,
          .output_count = outputs,
          .top_k = top_k};
}

model::KvCommand Append(model::SequenceId sequence, std::vector<int32_t> blocks) {
  return {.kind = model::KvCommand::Kind::kAppendBlocks,
          .sequence = sequence,
          .source = 0,
          .tokens = 0,
          .blocks = std::move(blocks)};
}

// Any other command.
model::KvCommand Command(model::KvCommand::Kind kind, model::SequenceId sequence,
                         model::SequenceId source, int64_t tokens) {
  return {.kind = kind, .sequence = sequence, .source = source, .tokens = tokens, .blocks = {}};
}

// Steps of two sequences, one of which begins as the other's prefix.
std::vector<model::Step> Conversation() {
  using Kind = model::KvCommand::Kind;
  std::vector<model::Step> steps(5);
  steps[0].commands = {Append(1, {0, 1})};
  steps[0].slots = {Slot(1, 0, 33, 1, 4)};
  steps[1].commands = {Command(Kind::kShare, 2, 1, model::kKvBlockTokens), Append(2, {5})};
  steps[1].slots = {Slot(1, 33, 1, 1, 0), Slot(2, 32, 3, 2, 300)};
  steps[2].commands = {Command(Kind::kTruncate, 1, 0, 33)};
  steps[2].slots = {Slot(1, 33, 1, 1, 1)};
  steps[3].commands = {Command(Kind::kFree, 1, 0, 0), Command(Kind::kFree, 2, 0, 0)};
  steps[4].commands = {Append(3, {1, 0})};
  steps[4].slots = {Slot(3, 0, 2, 0, 0)};
  for (size_t i = 0; i < steps.size(); ++i) {
    steps[i].epoch = kEpoch;
    steps[i].number = i + 1;
  }
  return steps;
}

// The coordinator of two workers, waiting for their answers to the conversation.
class TwoHeads {
 public:
  TwoHeads() : coordinator_({{0, kHalf}, {kHalf, kVocabulary}}) {
    for (const model::Step& step : Conversation()) coordinator_.Begin(step);
    coordinator_.Withdraw(2);
    coordinator_.Withdraw(3);
  }
  void Receive(uint32_t worker, const proto::StepResult& message) {
    coordinator_.Answer(worker, message);
  }
  static constexpr int64_t kHalf = kVocabulary / 2;

 private:
  Coordinator coordinator_;
};

LoadedShard& ShardOn(uint8_t choice) {
  static LoadedShard reference("reference");
  static LoadedShard cpu("cpu");
  return choice % 2 == 0 ? reference : cpu;
}

constexpr base::DataType kWireTypes[] = {base::DataType::kF32, base::DataType::kF16,
                                         base::DataType::kQ8_0};

void Examine(InputReader input) {
  const uint8_t choice = input.Byte();
  Epoch epoch(ShardOn(choice).shard(), kWireTypes[choice / 2 % std::size(kWireTypes)]);
  TwoHeads heads;
  while (!input.empty()) {
    const uint8_t kind = input.Byte();
    const std::string bytes(input.Text(input.Number()));
    if (kind % 8 == 6) {
      proto::StepWithdrawal withdrawal;
      if (withdrawal.ParseFromString(bytes)) epoch.Withdraw(withdrawal);
    } else if (kind % 2 == 0) {
      proto::StepFrame frame;
      if (frame.ParseFromString(bytes)) epoch.Receive(frame);
    } else {
      proto::StepResult result;
      if (result.ParseFromString(bytes)) heads.Receive(kind / 2 % 2, result);
    }
  }
}

std::string Record(uint8_t kind, const std::string& message) {
  return absl::StrCat(std::string({static_cast<char>(kind), static_cast<char>(message.size()),
                                   static_cast<char>(message.size() >> 8)}),
                      message);
}

std::string FrameRecord(const model::Step& step, proto::FrameTarget target,
                        base::DataType wire_type = base::DataType::kF32) {
  const bool layers = target == proto::FRAME_TARGET_LAYERS;
  const int64_t rows = layers ? step.token_count() : step.output_count();
  std::vector<float> activations;
  for (int64_t i = 0; i < rows * kWidth; ++i) {
    activations.push_back(static_cast<float>(i % 17) * 0.25f - 2);
  }
  proto::StepFrame frame;
  *frame.mutable_step() = transport::ToProto(step);
  frame.set_target(target);
  transport::PackActivations(activations, frame, wire_type);
  return Record(0, frame.SerializeAsString());
}

std::string TokensRecord(const model::Step& step) {
  proto::StepFrame frame;
  *frame.mutable_step() = transport::ToProto(step);
  frame.set_target(proto::FRAME_TARGET_EMBEDDING);
  for (int32_t i = 0; i < step.token_count(); ++i) frame.add_tokens(i % 17);
  return Record(0, frame.SerializeAsString());
}

// An answer of the head block that holds `rows`, with logits that fall by one from row to row.
std::string ResultRecord(const model::Step& step, uint32_t worker, const model::Range& rows) {
  proto::StepResult result;
  result.set_epoch(kEpoch);
  result.set_number(step.number);
  result.set_worker_index(worker);
  for (const model::StepSlot& slot : step.slots) {
    for (int64_t i = 0; i < slot.output_count; ++i) {
      model::HeadRow row;
      const int64_t count = slot.top_k > 0 ? std::min(slot.top_k, rows.size()) : rows.size();
      for (int64_t r = 0; r < count; ++r) {
        if (slot.top_k > 0) row.ids.push_back(static_cast<int32_t>(rows.begin + r));
        row.logits.push_back(static_cast<float>(-r));
      }
      row.sum_exp = 1.5;
      *result.add_rows() = transport::ToProto(row);
    }
  }
  result.add_timings()->set_compute_us(100);
  return Record(static_cast<uint8_t>(1 + 2 * worker), result.SerializeAsString());
}

std::string SkippedRecord(uint64_t number, uint32_t worker) {
  proto::StepResult result;
  result.set_epoch(kEpoch);
  result.set_number(number);
  result.set_worker_index(worker);
  result.set_skipped(true);
  return Record(static_cast<uint8_t>(1 + 2 * worker), result.SerializeAsString());
}

// Steps 2 and 4 of the conversation are withdrawn, and 4 comes as a stage before would send it.
std::string SkippedConversation() {
  proto::StepWithdrawal withdrawal;
  withdrawal.add_numbers(2);
  withdrawal.add_numbers(4);
  std::string records = Record(6, withdrawal.SerializeAsString());
  for (const model::Step& step : Conversation()) {
    if (step.number != 4) {
      records += FrameRecord(step, proto::FRAME_TARGET_LAYERS);
      continue;
    }
    proto::StepFrame frame;
    *frame.mutable_step() = transport::ToProto(step);
    frame.set_target(proto::FRAME_TARGET_LAYERS);
    frame.set_skipped(true);
    records += Record(0, frame.SerializeAsString());
  }
  return records;
}

std::string ErrorRecord(uint64_t number) {
  proto::StepResult result;
  result.set_epoch(kEpoch);
  result.set_number(number);
  result.set_error_code(14);
  result.set_error_message("the connection broke");
  return Record(1, result.SerializeAsString());
}

}  // namespace

std::vector<std::string> Seeds() {
  std::vector<std::string> seeds;
  for (const char device : {0, 1}) {
    std::string frames(1, device);
    for (const model::Step& step : Conversation()) {
      frames += FrameRecord(step, proto::FRAME_TARGET_LAYERS);
    }
    seeds.push_back(frames);
    std::string tokens(1, device);
    for (const model::Step& step : Conversation()) tokens += TokensRecord(step);
    seeds.push_back(tokens);
    const model::Step second = Conversation()[1];
    seeds.push_back(std::string(1, device) + FrameRecord(second, proto::FRAME_TARGET_HEAD));
    // Small enough that much of it is not activations.
    seeds.push_back(std::string(1, device) +
                    FrameRecord(Conversation()[4], proto::FRAME_TARGET_LAYERS));
  }
  for (const int wire : {1, 2}) {
    std::string frames(1, static_cast<char>(2 * wire));
    for (const model::Step& step : Conversation()) {
      frames += FrameRecord(step, proto::FRAME_TARGET_LAYERS, kWireTypes[wire]);
    }
    seeds.push_back(frames);
    seeds.push_back(std::string(1, static_cast<char>(2 * wire)) +
                    FrameRecord(Conversation()[4], proto::FRAME_TARGET_LAYERS, kWireTypes[wire]));
  }
  std::string results(1, '\0');
  for (const model::Step& step : Conversation()) {
    results += ResultRecord(step, 0, {0, TwoHeads::kHalf});
    results += ResultRecord(step, 1, {TwoHeads::kHalf, kVocabulary});
  }
  seeds.push_back(results);
  seeds.push_back(std::string(1, '\0') + ErrorRecord(1) + ErrorRecord(2));
  seeds.push_back(std::string(1, '\0') + SkippedConversation());
  seeds.push_back(std::string(1, '\0') + SkippedRecord(1, 0) + SkippedRecord(2, 0) +
                  ResultRecord(Conversation()[1], 1, {TwoHeads::kHalf, kVocabulary}) +
                  SkippedRecord(3, 1) + SkippedRecord(3, 0));
  return seeds;
}

}  // namespace renga::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  renga::fuzz::Examine(
      renga::fuzz::InputReader(absl::string_view(reinterpret_cast<const char*>(data), size)));
  return 0;
}
