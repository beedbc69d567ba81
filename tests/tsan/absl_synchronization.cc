// Tells ThreadSanitizer what Abseil's locks order.
//
// Debian's Abseil is a shared library and not instrumented: what its mutexes order would look
// unordered, in our code and in gRPC, which locks with them too. Every binary of a thread-sanitized
// build carries these functions instead. They take the place of Abseil's, announce what happens,
// and call Abseil's own. It is what Abseil does by itself where it is built with the sanitizer.
#include <dlfcn.h>
#include <sanitizer/tsan_interface.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <typeinfo>

#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"

// Of the sanitizer's run-time library, which has no header for them.
extern "C" void AnnotateIgnoreReadsBegin(const char* file, int line);
extern "C" void AnnotateIgnoreReadsEnd(const char* file, int line);

namespace {

// Abseil's own function. `type` is the class; `name` the function's and its parameters' part of the
// mangled name, after the class.
template <class Function>
Function Original(const std::type_info& type, const char* qualifiers, const char* name) {
  std::string scope = type.name();  // N4absl...5MutexE
  scope.pop_back();
  const std::string symbol = std::string("_ZN") + qualifiers + scope.substr(1) + name;
  void* function = dlsym(RTLD_NEXT, symbol.c_str());
  if (function == nullptr) {
    std::fprintf(stderr, "no %s in the shared libraries: is Abseil linked statically?\n",
                 symbol.c_str());
    std::abort();
  }
  return reinterpret_cast<Function>(function);
}

// The mutexes that gRPC makes are announced by their first lock only.
constexpr unsigned kFlags = __tsan_mutex_not_static;

// Abseil's functions call each other, through these here too: the outermost call says it all.
thread_local int depth = 0;

class Nesting {
 public:
  Nesting() { ++depth; }
  ~Nesting() { --depth; }

 protected:
  bool outermost() const { return depth == 1; }
};

// A function of Abseil's that locks inside. What it reads meanwhile with the header's functions,
// which are instrumented, is ordered by locks that the sanitizer does not see.
class Hidden : Nesting {
 public:
  Hidden() { AnnotateIgnoreReadsBegin(__FILE__, __LINE__); }
  ~Hidden() { AnnotateIgnoreReadsEnd(__FILE__, __LINE__); }
};

// Locking as the sanitizer sees it; what runs inside is not looked at.
class Locking : Nesting {
 public:
  explicit Locking(void* mutex, unsigned flags = 0) : mutex_(mutex), flags_(kFlags | flags) {
    if (outermost()) __tsan_mutex_pre_lock(mutex_, flags_);
  }
  ~Locking() {
    if (outermost()) __tsan_mutex_post_lock(mutex_, flags_, 0);
  }
  void Fail() { flags_ |= __tsan_mutex_try_lock_failed; }

 private:
  void* const mutex_;
  unsigned flags_;
};

class Unlocking : Nesting {
 public:
  explicit Unlocking(void* mutex, unsigned flags = 0) : mutex_(mutex), flags_(kFlags | flags) {
    if (outermost()) __tsan_mutex_pre_unlock(mutex_, flags_);
  }
  ~Unlocking() {
    if (outermost()) __tsan_mutex_post_unlock(mutex_, flags_);
  }

 private:
  void* const mutex_;
  const unsigned flags_;
};

// A wait gives the mutex up and takes it again, both inside Abseil's function.
class Waiting {
 public:
  explicit Waiting(void* mutex) : locking_(GivenUp(mutex)) {}

 private:
  static void* GivenUp(void* mutex) {
    const Unlocking unlocking(mutex);
    return mutex;
  }

  const Locking locking_;
};

}  // namespace

namespace absl {
ABSL_NAMESPACE_BEGIN

void Mutex::Lock() {
  static const auto original = Original<void (*)(Mutex*)>(typeid(Mutex), "", "4LockEv");
  const Locking locking(this);
  original(this);
}

void Mutex::Unlock() {
  static const auto original = Original<void (*)(Mutex*)>(typeid(Mutex), "", "6UnlockEv");
  const Unlocking unlocking(this);
  original(this);
}

bool Mutex::TryLock() {
  static const auto original = Original<bool (*)(Mutex*)>(typeid(Mutex), "", "7TryLockEv");
  Locking locking(this, __tsan_mutex_try_lock);
  const bool locked = original(this);
  if (!locked) locking.Fail();
  return locked;
}

void Mutex::ReaderLock() {
  static const auto original = Original<void (*)(Mutex*)>(typeid(Mutex), "", "10ReaderLockEv");
  const Locking locking(this, __tsan_mutex_read_lock);
  original(this);
}

void Mutex::ReaderUnlock() {
  static const auto original = Original<void (*)(Mutex*)>(typeid(Mutex), "", "12ReaderUnlockEv");
  const Unlocking unlocking(this, __tsan_mutex_read_lock);
  original(this);
}

void Mutex::Await(const Condition& condition) {
  static const auto original =
      Original<void (*)(Mutex*, const Condition&)>(typeid(Mutex), "", "5AwaitERKNS0_9ConditionE");
  const Waiting waiting(this);
  original(this, condition);
}

bool Mutex::AwaitWithTimeout(const Condition& condition, Duration timeout) {
  static const auto original = Original<bool (*)(Mutex*, const Condition&, Duration)>(
      typeid(Mutex), "", "16AwaitWithTimeoutERKNS0_9ConditionENS0_8DurationE");
  const Waiting waiting(this);
  return original(this, condition, timeout);
}

bool Mutex::AwaitWithDeadline(const Condition& condition, Time deadline) {
  static const auto original = Original<bool (*)(Mutex*, const Condition&, Time)>(
      typeid(Mutex), "", "17AwaitWithDeadlineERKNS0_9ConditionENS0_4TimeE");
  const Waiting waiting(this);
  return original(this, condition, deadline);
}

void CondVar::Wait(Mutex* mutex) {
  static const auto original =
      Original<void (*)(CondVar*, Mutex*)>(typeid(CondVar), "", "4WaitEPNS0_5MutexE");
  const Waiting waiting(mutex);
  original(this, mutex);
}

bool CondVar::WaitWithTimeout(Mutex* mutex, Duration timeout) {
  static const auto original = Original<bool (*)(CondVar*, Mutex*, Duration)>(
      typeid(CondVar), "", "15WaitWithTimeoutEPNS0_5MutexENS0_8DurationE");
  const Waiting waiting(mutex);
  return original(this, mutex, timeout);
}

bool CondVar::WaitWithDeadline(Mutex* mutex, Time deadline) {
  static const auto original = Original<bool (*)(CondVar*, Mutex*, Time)>(
      typeid(CondVar), "", "16WaitWithDeadlineEPNS0_5MutexENS0_4TimeE");
  const Waiting waiting(mutex);
  return original(this, mutex, deadline);
}

void Notification::Notify() {
  static const auto original =
      Original<void (*)(Notification*)>(typeid(Notification), "", "6NotifyEv");
  // The inline HasBeenNotified looks at the flag, the waits below at the whole.
  __tsan_release(&notified_yet_);
  __tsan_release(this);
  const Hidden hidden;
  original(this);
}

void Notification::WaitForNotification() const {
  static const auto original =
      Original<void (*)(const Notification*)>(typeid(Notification), "K", "19WaitForNotificationEv");
  {
    const Hidden hidden;
    original(this);
  }
  __tsan_acquire(const_cast<Notification*>(this));
}

bool Notification::WaitForNotificationWithTimeout(Duration timeout) const {
  static const auto original = Original<bool (*)(const Notification*, Duration)>(
      typeid(Notification), "K", "30WaitForNotificationWithTimeoutENS0_8DurationE");
  bool notified = false;
  {
    const Hidden hidden;
    notified = original(this, timeout);
  }
  if (notified) __tsan_acquire(const_cast<Notification*>(this));
  return notified;
}

ABSL_NAMESPACE_END
}  // namespace absl
