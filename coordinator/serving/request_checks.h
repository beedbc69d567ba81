// The beginning and the end of a request: whether it can be served, and what its asker is told.
// Internal to serving/.
#ifndef RENGA_COORDINATOR_SERVING_REQUEST_CHECKS_H_
#define RENGA_COORDINATOR_SERVING_REQUEST_CHECKS_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "coordinator/serving/request.h"
#include "coordinator/serving/sequence.h"
#include "model/shard_spec.h"

namespace renga::serving {

// Whether the request can be served at all, with at most `context` tokens; fills in max_tokens when
// it was left open. kInvalidArgument if not.
absl::Status CheckRequest(Sequence& sequence, int64_t vocab_size, int64_t context);

// Begins the request's grammar, if it has one and that was not done yet. kInvalidArgument where the
// vocabulary cannot write what it asks for.
absl::Status BeginGrammar(Sequence& sequence, int64_t vocab_size);

// Decides whether hot rows of the vocabulary do for it.
void GuardHotRows(Sequence& sequence, const model::Approximation& approximation);

// Calls the request's on_done.
void TellEnd(Sequence& sequence, absl::StatusOr<FinishReason> reason, absl::Time now);

}  // namespace renga::serving

#endif  // RENGA_COORDINATOR_SERVING_REQUEST_CHECKS_H_
