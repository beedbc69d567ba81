// A small model and steps over it, for tests of the worker.
#ifndef RENGA_WORKER_SERVICE_TESTING_TEST_SETUP_H_
#define RENGA_WORKER_SERVICE_TESTING_TEST_SETUP_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "model/shard_spec.h"
#include "model/step.h"
#include "proto/step.pb.h"
#include "worker/service/testing/test_coordinator.h"

namespace renga::worker::testing {

// One for the whole test binary, written at its first use: 4 layers; some of its tensors have
// several pieces.
const TestModel& SmallModel();

// The same of 2 layers with 6 experts, of which a token uses 2: 27 MiB of experts, whose matrices
// begin and end anywhere in pieces.
const TestModel& SmallMixture();

model::RuntimeLimits SmallLimits();
model::ShardSpec WholeSpec(const TestModel& model);

// Step `number` of `epoch`: `tokens` more positions of sequence 1 (which has `position`), all of
// them outputs, every logit asked for. The first one appends the blocks of all.
model::Step MakeStep(uint64_t epoch, uint64_t number, int64_t position, int64_t tokens);
// Embedding rows of some plausible size, the same for the same seed.
std::vector<float> MakeRows(int64_t rows, int64_t d_model, uint32_t seed);

// The answers of the whole model in this process, as one shard: what any cut must give, bit for
// bit. One element per step, the steps' rows being MakeRows(tokens, d_model, number).
std::vector<std::vector<model::HeadRow>> ReferenceAnswers(const TestModel& model,
                                                          const std::vector<model::Step>& steps);

// What the worker reports: OK, or why the step was not done.
absl::Status ErrorOf(const proto::StepResult& result);
// The logits of a result's rows, one vector per row.
std::vector<std::vector<float>> LogitsOf(const proto::StepResult& result, int64_t vocab_size);
std::vector<std::vector<float>> LogitsOf(const std::vector<model::HeadRow>& rows);

}  // namespace renga::worker::testing

#endif  // RENGA_WORKER_SERVICE_TESTING_TEST_SETUP_H_
