#include "worker/service/speed_history.h"

#include <algorithm>
#include <utility>
#include <vector>

namespace renga::worker {
namespace {

constexpr size_t kKept = 3;
// Measurements of an idle machine agree within some hundredths.
constexpr double kOther = 1.15;

// Of an even number the lesser one of the two in the middle; 0 when none was measured.
double MiddleOf(std::vector<double> values) {
  std::erase_if(values, [](double value) { return value <= 0; });
  if (values.empty()) return 0;
  const auto middle = values.begin() + (std::ssize(values) - 1) / 2;
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

const KernelSpeed* Find(const DeviceSpeed& speed, base::DataType type) {
  const auto found =
      std::find_if(speed.kernels.begin(), speed.kernels.end(),
                   [type](const KernelSpeed& kernel) { return kernel.type == type; });
  return found == speed.kernels.end() ? nullptr : &*found;
}

bool Differ(double a, double b) { return a > 0 && b > 0 && (a > b * kOther || b > a * kOther); }

}  // namespace

SpeedHistory::SpeedHistory(const DeviceSpeed& first) : last_(kKept - 1, first), settled_(first) {}

void SpeedHistory::Add(const DeviceSpeed& measured) {
  last_.push_back(measured);
  if (last_.size() > kKept) last_.pop_front();
  ++added_;
  const auto middle = [this](const auto& figure) {
    std::vector<double> values;
    for (const DeviceSpeed& speed : last_) values.push_back(figure(speed));
    return MiddleOf(std::move(values));
  };
  settled_.layer_us = middle([](const DeviceSpeed& speed) { return speed.layer_us; });
  settled_.copy_bytes_per_second =
      middle([](const DeviceSpeed& speed) { return speed.copy_bytes_per_second; });
  settled_.disk_bytes_per_second =
      middle([](const DeviceSpeed& speed) { return speed.disk_bytes_per_second; });
  for (const KernelSpeed& kernel : measured.kernels) {
    if (Find(settled_, kernel.type) == nullptr) settled_.kernels.push_back(kernel);
  }
  for (KernelSpeed& kernel : settled_.kernels) {
    const auto of = [&](double KernelSpeed::*figure) {
      const double found = middle([&](const DeviceSpeed& speed) {
        const KernelSpeed* one = Find(speed, kernel.type);
        return one == nullptr ? 0 : one->*figure;
      });
      return found > 0 ? found : kernel.*figure;
    };
    kernel.decode_bytes_per_second = of(&KernelSpeed::decode_bytes_per_second);
    kernel.prefill_bytes_per_second = of(&KernelSpeed::prefill_bytes_per_second);
  }
}

bool SpeedHistory::InDoubt() const {
  const DeviceSpeed& newest = last_.back();
  return Differ(newest.layer_us, settled_.layer_us) ||
         std::any_of(newest.kernels.begin(), newest.kernels.end(), [&](const KernelSpeed& kernel) {
           const KernelSpeed* settled = Find(settled_, kernel.type);
           return settled != nullptr &&
                  (Differ(kernel.decode_bytes_per_second, settled->decode_bytes_per_second) ||
                   Differ(kernel.prefill_bytes_per_second, settled->prefill_bytes_per_second));
         });
}

}  // namespace renga::worker
