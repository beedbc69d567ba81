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

// Whether there are int8 mma instructions of 16 rows: from compute capability 8.0 on, and in the
// emulation. (7.5 has smaller ones, where it has any: the GTX 16 series has none.)
#if !RENGA_ON_DEVICE
#define RENGA_TENSOR_CORES 1
#elif defined(__CUDA_ARCH__)
#define RENGA_TENSOR_CORES (__CUDA_ARCH__ >= 800)
#else
#define RENGA_TENSOR_CORES 0
#endif

#endif  // RENGA_WORKER_KERNELS_CUDA_DEVICE_TARGET_H_
