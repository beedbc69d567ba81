// The device code: compiled by nvcc for sm_75 and newer, by clang for sm_61.
#define RENGA_KERNEL(name, Args, threads, body)                                         \
  extern "C" __global__ void __launch_bounds__(threads) renga_##name(const Args args) { \
    RENGA_CALL(body)(args);                                                             \
  }
// Takes the brackets off a body that has commas in it.
#define RENGA_CALL(body) RENGA_CALL_2(RENGA_BARE body)
#define RENGA_CALL_2(...) __VA_ARGS__
#define RENGA_BARE(...) __VA_ARGS__

#include "worker/kernels/cuda/device/kernels.h"
