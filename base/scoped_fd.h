// A file descriptor that is closed when its owner goes.
#ifndef RENGA_BASE_SCOPED_FD_H_
#define RENGA_BASE_SCOPED_FD_H_

#include <unistd.h>

#include <utility>

namespace renga::base {

class ScopedFd {
 public:
  explicit ScopedFd(int fd = -1) : fd_(fd) {}
  ~ScopedFd() {
    if (fd_ >= 0) ::close(fd_);
  }
  ScopedFd(ScopedFd&& other) noexcept : fd_(other.release()) {}
  ScopedFd& operator=(ScopedFd&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }

  int get() const { return fd_; }
  int release() { return std::exchange(fd_, -1); }

 private:
  int fd_;  // -1: none
};

}  // namespace renga::base

#endif  // RENGA_BASE_SCOPED_FD_H_
