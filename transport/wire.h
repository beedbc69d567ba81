// Messages to plain structs and back: every check of what a peer sent that needs no plan is here.
// Errors are kInvalidArgument and name the field.
#ifndef RENGA_TRANSPORT_WIRE_H_
#define RENGA_TRANSPORT_WIRE_H_

#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/model_config.h"
#include "model/step.h"
#include "proto/step.pb.h"
#include "proto/worker.pb.h"

namespace renga::transport {

proto::Step ToProto(const model::Step& step);
// Counts, kinds and ranges are checked (bounded numbers of slots, commands and blocks); what
// depends on the receiver's own state is checked by the engine.
absl::StatusOr<model::Step> FromProto(const proto::Step& message);

proto::ModelConfig ToProto(const model::ModelConfig& config);
absl::StatusOr<model::ModelConfig> FromProto(const proto::ModelConfig& message);

proto::HeadRow ToProto(const model::HeadRow& row);
// `max_rows` bounds ids and logits: the vocabulary.
absl::StatusOr<model::HeadRow> FromProto(const proto::HeadRow& message, int64_t max_rows);

// A frame's activations, if they are exactly rows x d_model float32.
absl::StatusOr<std::vector<float>> UnpackActivations(const proto::StepFrame& frame, int64_t rows,
                                                     int64_t d_model);
void PackActivations(std::span<const float> rows, proto::StepFrame& frame);

}  // namespace renga::transport

#endif  // RENGA_TRANSPORT_WIRE_H_
