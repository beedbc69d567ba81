// Which compiler reads this: one for a device, or the host's.
#ifndef RENGA_WORKER_KERNELS_CUDA_DEVICE_TARGET_H_
#define RENGA_WORKER_KERNELS_CUDA_DEVICE_TARGET_H_

#if defined(__CUDACC__) || defined(__CUDA__)
#define RENGA_ON_DEVICE 1
#define RENGA_DEVICE __device__ __forceinline__
#else
#define RENGA_ON_DEVICE 0
#define RENGA_DEVICE inline
#endif

// Whether there are int8 mma instructions: from compute capability 7.5 on, and in the emulation.
// (The GTX 16 series is 7.5 and has no tensor cores to run them: driver_device.cc tells it apart.)
#if !RENGA_ON_DEVICE
#define RENGA_TENSOR_CORES 1
#elif defined(__CUDA_ARCH__)
#define RENGA_TENSOR_CORES (__CUDA_ARCH__ >= 750)
#else
#define RENGA_TENSOR_CORES 0
#endif

#endif  // RENGA_WORKER_KERNELS_CUDA_DEVICE_TARGET_H_
