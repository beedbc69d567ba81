// Messages to plain structs and back: every check of what a peer sent that needs no plan is here.
// Errors are kInvalidArgument and name the field.
#ifndef RENGA_TRANSPORT_WIRE_H_
#define RENGA_TRANSPORT_WIRE_H_

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/data_type.h"
#include "model/approximation.h"
#include "model/model_config.h"
#include "model/step.h"
#include "model/tokenizer.h"
#include "proto/step.pb.h"
#include "proto/worker.pb.h"

namespace renga::transport {

proto::Step ToProto(const model::Step& step);
// Counts, kinds and ranges are checked (bounded numbers of slots, commands and blocks); what
// depends on the receiver's own state is checked by the engine.
absl::StatusOr<model::Step> FromProto(const proto::Step& message);

// No more steps than may be on their way at once, and all of them numbered from 1 on.
absl::StatusOr<std::vector<uint64_t>> StepNumbers(const proto::StepWithdrawal& message);

proto::ModelConfig ToProto(const model::ModelConfig& config);
absl::StatusOr<model::ModelConfig> FromProto(const proto::ModelConfig& message);

// One bit for each row of the vocabulary. Back: kInvalidArgument, naming the field, for bits that
// are not one for each row, or none at all set.
std::string RowSetToWire(const model::RowSet& rows, int64_t vocab_size);
absl::StatusOr<std::shared_ptr<const model::RowSet>> RowSetFromWire(
    absl::string_view bits, const model::ModelConfig& config, absl::string_view field);

// `config` is the model's.
proto::Approximation ToProto(const model::Approximation& approximation,
                             const model::ModelConfig& config);
absl::StatusOr<model::Approximation> FromProto(const proto::Approximation& message,
                                               const model::ModelConfig& config);

proto::HeadRow ToProto(const model::HeadRow& row);
// `max_rows` bounds ids and logits: the vocabulary.
absl::StatusOr<model::HeadRow> FromProto(const proto::HeadRow& message, int64_t max_rows);

// `type` is a wire type (base/wire_type.h), in both directions; anything else is
// ACTIVATION_TYPE_UNSPECIFIED.
proto::ActivationType ToProto(base::DataType type);
absl::StatusOr<base::DataType> FromProto(proto::ActivationType type);

// A frame's activations, if they are exactly rows x d_model numbers of the plan's wire type. What
// the frame says of its type is only compared.
absl::StatusOr<std::vector<float>> UnpackActivations(const proto::StepFrame& frame, int64_t rows,
                                                     int64_t d_model,
                                                     base::DataType type = base::DataType::kF32);
// `rows` is a whole number of the type's blocks.
void PackActivations(std::span<const float> rows, proto::StepFrame& frame,
                     base::DataType type = base::DataType::kF32);
// The tokens of a frame for the embedding, if there are exactly `count` and all of them in a
// vocabulary of `vocab_size`.
absl::StatusOr<std::vector<model::TokenId>> UnpackTokens(const proto::StepFrame& frame,
                                                         int64_t count, int64_t vocab_size);

// What arrives of `rows` after Pack and Unpack.
std::vector<float> AsReceived(std::span<const float> rows, base::DataType type);

}  // namespace renga::transport

#endif  // RENGA_TRANSPORT_WIRE_H_
