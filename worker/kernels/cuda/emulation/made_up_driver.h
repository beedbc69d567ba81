// A driver of a machine that is not there: its card's memory is the host's, its kernels are the
// emulated ones, and it fails when it is told to. For tests of what stands on the driver, in this
// process or, as a library of the driver's name (made_up_library.cc), under the real program.
#ifndef RENGA_WORKER_KERNELS_CUDA_EMULATION_MADE_UP_DRIVER_H_
#define RENGA_WORKER_KERNELS_CUDA_EMULATION_MADE_UP_DRIVER_H_

#include <cstdint>
#include <map>
#include <span>
#include <string>

#include "worker/kernels/cuda/device_images.h"
#include "worker/kernels/cuda/driver_api.h"

namespace renga::kernels::cuda::emulation {

// What the machine has, what goes wrong, and what was done with it.
struct MadeUpMachine {
  DriverResult init = kDriverSuccess;
  DriverResult context = kDriverSuccess;
  DriverResult synchronize = kDriverSuccess;
  DriverResult instantiate = kDriverSuccess;
  int version = 13000;
  int cards = 2;
  std::string name = "GTX Made Up";
  int major = 6;
  int minor = 1;
  int64_t total_bytes = int64_t{4} << 30;
  int64_t free_bytes = int64_t{100} << 20;
  // A file with the number of bytes that other programs have taken since; "": they take none.
  std::string taken_file;
  int contexts = 0;
  int host_allocations = 0;
  int streams_and_events = 0;
  int modules = 0;
  int plain_launches = 0;
  int graph_launches = 0;
  int made_graphs = 0;
  int graphs = 0;       // not destroyed
  int executables = 0;  // likewise
  bool capturing = false;
  std::map<DriverAddress, int64_t> memory;
};

// The one of this process. Threads may call the driver side by side, as the real one, as long as
// one of them makes graphs; whoever changes the machine sees to it that nobody calls meanwhile.
MadeUpMachine& ThisMachine();

DriverApi MadeUpDriver();

// Code for sm_61 and for sm_75 and newer, as the build makes them; the driver never looks into it.
std::span<const DeviceImage> MadeUpImages();

}  // namespace renga::kernels::cuda::emulation

#endif  // RENGA_WORKER_KERNELS_CUDA_EMULATION_MADE_UP_DRIVER_H_
