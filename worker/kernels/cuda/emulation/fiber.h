// A function that can be left in the middle and gone on with later, on a stack of its own.
//
// x86-64 only: where emulated kernels run, see conformance/emulated_paths.h.
#ifndef RENGA_WORKER_KERNELS_CUDA_EMULATION_FIBER_H_
#define RENGA_WORKER_KERNELS_CUDA_EMULATION_FIBER_H_

#include <cstddef>
#include <memory>

namespace renga::kernels::cuda::emulation {

// Used by one host thread. Not movable: its own frame points to it.
class Fiber {
 public:
  Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // Sets what the next Resume() begins with; what was left in the middle is forgotten.
  void Start(void (*body)(void*), void* argument);
  // Runs the body on from where it was left, until it leaves again or ends.
  void Resume();
  // Called by the body: goes back to who resumed it.
  void Leave();
  bool ended() const { return ended_; }

 private:
  static void Enter();

  static constexpr size_t kStackBytes = size_t{256} << 10;
  std::unique_ptr<std::byte[]> stack_;
  void (*body_)(void*) = nullptr;
  void* argument_ = nullptr;
  void* own_top_ = nullptr;     // of the stack, while it is left
  void* caller_top_ = nullptr;  // of the caller's, while the body runs
  bool ended_ = true;
  // For the address sanitizer, which must know of every change of stacks.
  void* own_shadow_ = nullptr;
  void* caller_shadow_ = nullptr;
  const void* caller_stack_ = nullptr;
  size_t caller_stack_bytes_ = 0;
};

}  // namespace renga::kernels::cuda::emulation

#endif  // RENGA_WORKER_KERNELS_CUDA_EMULATION_FIBER_H_
