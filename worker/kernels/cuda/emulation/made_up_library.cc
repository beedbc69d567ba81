// The made-up driver as a library that the real program finds instead of NVIDIA's: cards as the
// environment describes them, one if it says nothing.
#include <cstdint>
#include <cstdlib>
#include <string>

#include "worker/kernels/cuda/emulation/made_up_driver.h"

namespace renga::kernels::cuda::emulation {
namespace {

std::string Variable(const char* name) {
  const char* const value = std::getenv(name);
  return value == nullptr ? "" : value;
}

__attribute__((constructor)) void DescribeMachine() {
  MadeUpMachine& machine = ThisMachine();
  const std::string cards = Variable("RENGA_MADE_UP_CARDS");
  machine.cards = cards.empty() ? 1 : std::atoi(cards.c_str());
  machine.free_bytes = machine.total_bytes;
  if (const std::string bytes = Variable("RENGA_MADE_UP_CARD_BYTES"); !bytes.empty()) {
    machine.total_bytes = machine.free_bytes = std::strtoll(bytes.c_str(), nullptr, 10);
  }
  machine.taken_file = Variable("RENGA_MADE_UP_CARD_TAKEN");
  if (!Variable("RENGA_MADE_UP_CARD_OLD").empty()) machine.major = 5;
}

}  // namespace
}  // namespace renga::kernels::cuda::emulation
