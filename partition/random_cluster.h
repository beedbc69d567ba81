// Small random clusters and models, for tests against trying everything.
#ifndef RENGA_PARTITION_RANDOM_CLUSTER_H_
#define RENGA_PARTITION_RANDOM_CLUSTER_H_

#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "partition/cost_model.h"
#include "partition/machine_kinds.h"
#include "partition/planner.h"
#include "partition/shard_costs.h"
#include "partition/test_models.h"

namespace renga::partition {

// All that a search is made from. Stays where it is: its parts refer to each other.
struct Instance {
  Instance(TestModel made, std::vector<WorkerProfile> profiles, PlanRequest asked)
      : model(std::move(made)),
        workers(std::move(profiles)),
        request(std::move(asked)),
        bytes(model.model, model.footprint, LimitsOf(request)),
        kinds(workers, request.links),
        costs(bytes, kinds, request) {}
  Instance(const Instance&) = delete;
  Instance& operator=(const Instance&) = delete;

  TestModel model;
  std::vector<WorkerProfile> workers;
  PlanRequest request;
  ShardCosts bytes;
  MachineKinds kinds;
  CostModel costs;
};

class RandomCluster {
 public:
  struct Sizes {
    int max_workers = 4;
    int max_layers = 6;
    bool slices = false;     // layers that groups can divide
    double for_prompts = 0;  // as PlanRequest's
  };
  RandomCluster(uint32_t seed, const Sizes& sizes) {
    std::mt19937 random(seed);
    const auto pick = [&](int64_t n) { return static_cast<int64_t>(random() % n); };
    constexpr int64_t kMebibyte = int64_t{1} << 20;
    std::vector<int64_t> layers(1 + pick(sizes.max_layers));
    for (int64_t& bytes : layers) bytes = (1 + pick(8)) * kMebibyte;
    if (sizes.slices) layers.assign(layers.size(), layers[0]);
    std::vector<WorkerProfile> workers(1 + pick(sizes.max_workers));
    for (size_t i = 0; i < workers.size(); ++i) {
      workers[i].id = std::to_string(i);
      workers[i].memory_bytes = (6 + pick(30)) * kMebibyte;
      workers[i].bytes_per_second = 1e9 * static_cast<double>(1 + pick(10));
      workers[i].layer_us = static_cast<double>(pick(3)) * 50;
      if (i > 0 && pick(3) == 0) {  // machines of one kind
        workers[i] = workers[i - 1];
        workers[i].id = std::to_string(i);
      }
    }
    PlanRequest request;
    request.context_tokens = 256;
    request.max_step_tokens = 32;
    request.max_step_outputs = 4;
    request.decode_position = pick(200);
    request.worth_dropping = 1;
    request.for_prompts = sizes.for_prompts;
    request.objective = pick(2) == 0 ? Objective::kOneStream : Objective::kManyStreams;
    request.links = RandomLinks(random, static_cast<int>(workers.size()));
    instance_ = std::make_unique<Instance>(MakeTestModel(layers, 2000, sizes.slices),
                                           std::move(workers), std::move(request));
  }

  // Equal workers with memory for everything and a network that costs nothing.
  static RandomCluster OfEqualWorkers(int count, int layers) {
    constexpr int64_t kMebibyte = int64_t{1} << 20;
    std::vector<WorkerProfile> workers(
        count, {.id = "w", .memory_bytes = 10'000 * kMebibyte, .bytes_per_second = 1e9});
    RandomCluster cluster;
    cluster.instance_ =
        std::make_unique<Instance>(MakeTestModel(std::vector<int64_t>(layers, kMebibyte), 2000),
                                   std::move(workers), PlanRequest{});
    return cluster;
  }

  const Instance& instance() const { return *instance_; }

 private:
  RandomCluster() = default;

  // One network for all, or every pair with a link of its own.
  static LinkTable RandomLinks(std::mt19937& random, int workers) {
    const auto link = [&random] {
      return LinkProfile{.latency_us = static_cast<double>(random() % 8) * 100,
                         .bytes_per_second = random() % 4 == 0 ? 0.0 : 1e6 * (1 + random() % 20)};
    };
    LinkTable links{.default_link = link(), .pairs = {}};
    if (random() % 2 == 0) return links;
    for (int from = kCoordinator; from < workers; ++from) {
      for (int to = kCoordinator; to < workers; ++to) {
        if (from != to) links.pairs.push_back({from, to, link()});
      }
    }
    return links;
  }

  std::unique_ptr<Instance> instance_;
};

}  // namespace renga::partition

#endif  // RENGA_PARTITION_RANDOM_CLUSTER_H_
