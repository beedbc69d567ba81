#include "worker/kernels/cuda/emulation/fiber.h"

#include <cstdint>
#include <cstring>

#if RENGA_SANITIZED_FIBERS
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

// Saves the registers that a call must keep, changes stacks, takes the registers kept there.
extern "C" void renga_change_stacks(void** save_top, void* new_top);
asm(R"(
.text
.globl renga_change_stacks
.hidden renga_change_stacks
.type renga_change_stacks, @function
renga_change_stacks:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size renga_change_stacks, .-renga_change_stacks
)");

namespace renga::kernels::cuda::emulation {
namespace {

constexpr int kKeptRegisters = 6;

thread_local Fiber* entering = nullptr;

#if RENGA_SANITIZED_FIBERS
void BeforeChange(void** shadow, const void* stack, size_t bytes) {
  __sanitizer_start_switch_fiber(shadow, stack, bytes);
}
void AfterChange(void* shadow, const void** stack, size_t* bytes) {
  __sanitizer_finish_switch_fiber(shadow, stack, bytes);
}
void Forget(void* stack, size_t bytes) { __asan_unpoison_memory_region(stack, bytes); }
#else
void BeforeChange(void**, const void*, size_t) {}
void AfterChange(void*, const void**, size_t*) {}
void Forget(void*, size_t) {}
#endif

}  // namespace

Fiber::Fiber() : stack_(new std::byte[kStackBytes]) {}

void Fiber::Start(void (*body)(void*), void* argument) {
  if (!ended_) Forget(stack_.get(), kStackBytes);
  body_ = body;
  argument_ = argument;
  ended_ = false;
  auto top = reinterpret_cast<uintptr_t>(stack_.get() + kStackBytes) / 16 * 16;
  // As a call leaves it: the address to return to, and 8 bytes short of a multiple of 16.
  auto* frame = reinterpret_cast<void**>(top - 8 - (kKeptRegisters + 1) * sizeof(void*));
  std::memset(frame, 0, kKeptRegisters * sizeof(void*));
  frame[kKeptRegisters] = reinterpret_cast<void*>(&Fiber::Enter);
  own_top_ = frame;
  own_shadow_ = nullptr;
}

void Fiber::Resume() {
  entering = this;
  BeforeChange(&caller_shadow_, stack_.get(), kStackBytes);
  renga_change_stacks(&caller_top_, own_top_);
  AfterChange(caller_shadow_, nullptr, nullptr);
}

void Fiber::Leave() {
  BeforeChange(ended_ ? nullptr : &own_shadow_, caller_stack_, caller_stack_bytes_);
  renga_change_stacks(&own_top_, caller_top_);
  AfterChange(own_shadow_, &caller_stack_, &caller_stack_bytes_);
}

void Fiber::Enter() {
  Fiber* const self = entering;
  AfterChange(nullptr, &self->caller_stack_, &self->caller_stack_bytes_);
  self->body_(self->argument_);
  self->ended_ = true;
  self->Leave();
}

}  // namespace renga::kernels::cuda::emulation
