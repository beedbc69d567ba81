#include "partition/lower_bound.h"

#include <algorithm>
#include <cstdint>
#include <vector>

namespace renga::partition {
namespace {

struct Machine {
  double bytes_per_ms = 0;
  double room = 0;  // for weights and KV cache of layers
};

// The workers of all kinds, the fastest first.
std::vector<Machine> MachinesOf(const CostModel& costs) {
  // What every shard holds beside its layers is left out: with slices it is smaller still.
  std::vector<Machine> machines;
  for (int kind = 0; kind < costs.kinds().count(); ++kind) {
    const auto memory = static_cast<double>(costs.kinds().ProfileOf(kind).memory_bytes);
    machines.insert(machines.end(), costs.kinds().WorkersOf(kind).size(),
                    {.bytes_per_ms = 1 / costs.LayerMsPerByte(kind), .room = memory});
  }
  std::sort(machines.begin(), machines.end(),
            [](const Machine& a, const Machine& b) { return a.bytes_per_ms > b.bytes_per_ms; });
  return machines;
}

struct Links {
  double hop_ms = kNever;  // the cheapest between two workers
  double first_ms = kNever;
  double back_ms = kNever;
};

Links CheapestLinks(const CostModel& costs) {
  Links links;
  const MachineKinds& kinds = costs.kinds();
  for (int to = 0; to < kinds.count(); ++to) {
    links.first_ms = std::min(links.first_ms, costs.HopMs(kCoordinator, {&to, 1}));
    links.back_ms = std::min(links.back_ms, costs.ReturnMs(to));
    for (int from = 0; from < kinds.count(); ++from) {
      if (from == to && kinds.WorkersOf(to).size() < 2) continue;
      links.hop_ms = std::min(links.hop_ms, costs.HopMs(from, {&to, 1}));
    }
  }
  return links;
}

struct Work {
  double weights = 0;  // bytes of all layers that a token reads
  double memory = 0;   // of all that is held, with the KV cache
  double constant_ms = 0;
};

Work WorkOf(const CostModel& costs) {
  Work work;
  const ShardCosts& bytes = costs.bytes();
  for (const model::LayerWeightBytes& layer : bytes.footprint().layers) {
    const auto experts = static_cast<double>(layer.experts);
    work.memory += static_cast<double>(layer.total());
    work.weights +=
        static_cast<double>(layer.total()) - experts * (1 - bytes.config().ExpertShare());
  }
  const auto layers = static_cast<double>(bytes.layer_count());
  const int64_t kv = bytes.Bytes({.layers = {0, 1}, .head_rows = {}}).kv;
  work.memory += static_cast<double>(kv) * layers;
  double constant_us = kNever;
  for (int kind = 0; kind < costs.kinds().count(); ++kind) {
    constant_us = std::min(constant_us, costs.kinds().ProfileOf(kind).layer_us);
  }
  work.constant_ms = constant_us * layers / 1e3;
  return work;
}

// All weights read by machines of which the fastest are filled first.
double FilledByFastest(const std::vector<Machine>& machines, const Work& work) {
  double left = work.weights;
  double ms = 0;
  // Memory holds the KV cache beside the weights.
  const double weights_share = work.weights / work.memory;
  for (const Machine& machine : machines) {
    const double bytes = std::min(left, machine.room * weights_share);
    ms += bytes / machine.bytes_per_ms;
    left -= bytes;
  }
  return left > 0 ? ms + left / machines.back().bytes_per_ms : ms;
}

// The least all-reduces that a group of n can have, for all layers: over the cheapest link.
double LeastSums(const CostModel& costs, int64_t n) {
  double least = kNever;
  const MachineKinds& kinds = costs.kinds();
  for (int a = 0; a < kinds.count(); ++a) {
    for (int b = 0; b < kinds.count(); ++b) {
      if (a == b && kinds.WorkersOf(a).size() < 2) continue;
      least = std::min(least, costs.SumsOverLinkMs(kinds.Link(a, b), n));
    }
  }
  return least * static_cast<double>(costs.bytes().layer_count());
}

double OneStream(const CostModel& costs, const SearchRules& rules) {
  const std::vector<Machine> machines = MachinesOf(costs);
  const Links links = CheapestLinks(costs);
  const Work work = WorkOf(costs);
  const auto count = static_cast<int64_t>(machines.size());
  const int64_t smallest = rules.tensor_parallel > 0 ? rules.tensor_parallel : 1;
  const int64_t largest = std::min({rules.tensor_parallel > 0 ? rules.tensor_parallel : kMaxGroup,
                                    count, std::max<int64_t>(rules.max_workers, 1)});
  double layers_ms = kNever;
  double speed = 0;
  for (int64_t n = 1; n <= largest; ++n) {
    speed += machines[n - 1].bytes_per_ms;
    if (n < smallest) continue;
    layers_ms = std::min(layers_ms, n == 1 ? FilledByFastest(machines, work)
                                           : work.weights / speed + LeastSums(costs, n));
  }
  // As many stages as the memory of the largest workers asks for.
  std::vector<double> rooms;
  for (const Machine& machine : machines) rooms.push_back(machine.room);
  std::sort(rooms.rbegin(), rooms.rend());
  double room = 0;
  int64_t workers = 0;
  while (workers < count && room < work.memory) room += rooms[workers++];
  const int64_t hops = std::max<int64_t>(0, (workers + largest - 1) / largest - 1);
  const double hops_ms = hops > 0 ? links.hop_ms * static_cast<double>(hops) : 0;
  double head_ms = 0;
  if (rules.last_head_rows > 0) {
    double per_row = 0;
    for (int kind = 0; kind < costs.kinds().count(); ++kind) {
      per_row = std::max(per_row, 1 / costs.HeadMsPerRow(kind));
    }
    head_ms = static_cast<double>(rules.last_head_rows) / (per_row * static_cast<double>(largest)) +
              links.back_ms;
  }
  return links.first_ms + layers_ms + work.constant_ms + hops_ms + head_ms;
}

// The least T in which all machines together read all weights, each within its memory.
double ManyStreams(const CostModel& costs) {
  const std::vector<Machine> machines = MachinesOf(costs);
  const Work work = WorkOf(costs);
  const double weights_share = work.weights / work.memory;
  const auto read_within = [&](double ms) {
    double bytes = 0;
    for (const Machine& machine : machines) {
      bytes += std::min(machine.bytes_per_ms * ms, machine.room * weights_share);
    }
    return bytes;
  };
  double low = 0;
  double high = work.weights / machines.front().bytes_per_ms;
  while (read_within(high) < work.weights && high < 1e12) high *= 2;
  for (int i = 0; i < 60; ++i) {
    const double middle = low + (high - low) / 2;
    (read_within(middle) < work.weights ? low : high) = middle;
  }
  return low;
}

}  // namespace

double LowerBound(const CostModel& costs, const SearchRules& rules) {
  return rules.objective == Objective::kOneStream ? OneStream(costs, rules) : ManyStreams(costs);
}

}  // namespace renga::partition
