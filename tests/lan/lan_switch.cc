// renga-lan-switch: a LAN of made-up machines for tests and benchmarks.
//
// Each machine is a network namespace with one Ethernet device, lan0, whose frames this process
// forwards like a switch: to the port where an address was last seen, or to all. Every frame
// arrives a fixed delay after it has left, so the delay holds for any protocol between any two
// machines, and what runs on them need not know. Namespaces live as long as this process and what
// runs in them: nothing is left on the system, however it ends.
//
//   renga-lan-switch MACHINES DELAY_US MBIT_PER_S
//
// MBIT_PER_S limits what each port gives its machine; 0 is no limit. Once all is set up, stdout has
// a line "machine ADDRESS NAMESPACE_FILE" for each machine and then "ready". SIGTERM ends it. Needs
// root (CAP_SYS_ADMIN, CAP_NET_ADMIN) and /dev/net/tun; exit status 77 says that these lack.
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "tests/lan/delay_line.h"

namespace renga::lan {
namespace {

constexpr char kDevice[] = "lan0";
constexpr int kNotPermittedExit = 77;
constexpr int kMaxMachines = 64;
constexpr size_t kMaxAddresses = 1024;
constexpr size_t kMaxFrameBytes = 1 << 16;
// Frames read from one machine before the others get their turn.
constexpr int kReadsPerTurn = 64;
constexpr int64_t kNanosecondsPerSecond = 1'000'000'000;

using MacAddress = std::array<std::byte, 6>;
constexpr size_t kMacHeaderBytes = 2 * sizeof(MacAddress);

struct Setup {
  int machines = 0;
  DelayLine::Options line;
};

struct Port {
  int namespace_fd = -1;
  int tap_fd = -1;
  std::string address;
  DelayLine line;  // towards the machine
};

absl::Status FromErrno(absl::string_view what) {
  const std::string text = absl::StrCat(what, ": ", std::strerror(errno));
  if (errno == EPERM || errno == EACCES || errno == ENOENT || errno == ENODEV) {
    return absl::PermissionDeniedError(text);
  }
  return absl::InternalError(text);
}

int64_t NowNs() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * kNanosecondsPerSecond + now.tv_nsec;
}

ifreq RequestFor(const char* device) {
  ifreq request{};
  std::strncpy(request.ifr_name, device, IFNAMSIZ - 1);
  return request;
}

absl::Status SetUp(int socket_fd, const char* device) {
  ifreq request = RequestFor(device);
  if (ioctl(socket_fd, SIOCGIFFLAGS, &request) != 0) return FromErrno("cannot read flags");
  request.ifr_flags |= IFF_UP | IFF_RUNNING;
  if (ioctl(socket_fd, SIOCSIFFLAGS, &request) != 0) return FromErrno("cannot set a device up");
  return absl::OkStatus();
}

absl::Status SetIpAddress(int socket_fd, unsigned long what, const std::string& text) {
  ifreq request = RequestFor(kDevice);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  inet_pton(AF_INET, text.c_str(), &address.sin_addr);
  std::memcpy(&request.ifr_addr, &address, sizeof(address));
  if (ioctl(socket_fd, what, &request) != 0) return FromErrno("cannot set an address");
  return absl::OkStatus();
}

// The other end of the present namespace's Ethernet device, which it makes.
absl::StatusOr<int> OpenTap() {
  const int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) return FromErrno("cannot open /dev/net/tun");
  ifreq request = RequestFor(kDevice);
  request.ifr_flags = IFF_TAP | IFF_NO_PI;
  if (ioctl(fd, TUNSETIFF, &request) != 0) return FromErrno("cannot make a TAP device");
  return fd;
}

// Leaves this thread in the machine's namespace.
absl::StatusOr<Port> MakeMachine(const Setup& setup, int number) {
  if (unshare(CLONE_NEWNET) != 0) return FromErrno("cannot make a network namespace");
  Port port = {.address = absl::StrCat("10.77.0.", number + 1), .line = DelayLine(setup.line)};
  port.namespace_fd = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
  if (port.namespace_fd < 0) return FromErrno("cannot open a network namespace");
  RENGA_ASSIGN_OR_RETURN(port.tap_fd, OpenTap());
  const int socket_fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (socket_fd < 0) return FromErrno("cannot open a socket");
  RENGA_RETURN_IF_ERROR(SetUp(socket_fd, "lo"));
  RENGA_RETURN_IF_ERROR(SetIpAddress(socket_fd, SIOCSIFADDR, port.address));
  RENGA_RETURN_IF_ERROR(SetIpAddress(socket_fd, SIOCSIFNETMASK, "255.255.255.0"));
  RENGA_RETURN_IF_ERROR(SetUp(socket_fd, kDevice));
  close(socket_fd);
  return port;
}

class Switch {
 public:
  static absl::StatusOr<Switch> Create(const Setup& setup);
  void PrintMachines() const;
  // Until SIGTERM or SIGINT.
  absl::Status Run();

 private:
  absl::Status Watch(int fd);
  void ReadFrom(size_t port);
  void Forward(size_t from, std::span<const std::byte> frame, int64_t now_ns);
  void Deliver();
  void SetTimer();

  std::vector<Port> ports_;
  std::map<MacAddress, size_t> seen_at_;
  int epoll_fd_ = -1;
  int timer_fd_ = -1;
  int signal_fd_ = -1;
  std::vector<std::byte> buffer_ = std::vector<std::byte>(kMaxFrameBytes);
};

absl::StatusOr<Switch> Switch::Create(const Setup& setup) {
  Switch made;
  for (int i = 0; i < setup.machines; ++i) {
    RENGA_ASSIGN_OR_RETURN(Port port, MakeMachine(setup, i));
    made.ports_.push_back(std::move(port));
  }
  made.epoll_fd_ = epoll_create1(EPOLL_CLOEXEC);
  made.timer_fd_ = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  sigprocmask(SIG_BLOCK, &signals, nullptr);
  made.signal_fd_ = signalfd(-1, &signals, SFD_NONBLOCK | SFD_CLOEXEC);
  RENGA_RETURN_IF_ERROR(made.Watch(made.timer_fd_));
  RENGA_RETURN_IF_ERROR(made.Watch(made.signal_fd_));
  for (const Port& port : made.ports_) RENGA_RETURN_IF_ERROR(made.Watch(port.tap_fd));
  return made;
}

absl::Status Switch::Watch(int fd) {
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.fd = fd;
  if (fd < 0 || epoll_ctl(epoll_fd_, EPOLL_CTL_ADD, fd, &event) != 0) {
    return FromErrno("cannot watch a file");
  }
  return absl::OkStatus();
}

void Switch::PrintMachines() const {
  for (const Port& port : ports_) {
    std::printf("machine %s /proc/%d/fd/%d\n", port.address.c_str(), getpid(), port.namespace_fd);
  }
  std::printf("ready\n");
  std::fflush(stdout);
}

absl::Status Switch::Run() {
  std::array<epoll_event, 16> events{};
  while (true) {
    const int count = epoll_wait(epoll_fd_, events.data(), static_cast<int>(events.size()), -1);
    if (count < 0 && errno != EINTR) return FromErrno("epoll_wait");
    for (int i = 0; i < count; ++i) {
      if (events[i].data.fd == signal_fd_) return absl::OkStatus();
    }
    for (size_t port = 0; port < ports_.size(); ++port) ReadFrom(port);
    Deliver();
    SetTimer();
  }
}

void Switch::ReadFrom(size_t port) {
  for (int i = 0; i < kReadsPerTurn; ++i) {
    const ssize_t size = read(ports_[port].tap_fd, buffer_.data(), buffer_.size());
    if (size < static_cast<ssize_t>(kMacHeaderBytes)) return;
    Forward(port, std::span(buffer_).first(static_cast<size_t>(size)), NowNs());
  }
}

void Switch::Forward(size_t from, std::span<const std::byte> frame, int64_t now_ns) {
  MacAddress to;
  MacAddress source;
  std::memcpy(to.data(), frame.data(), to.size());
  std::memcpy(source.data(), frame.data() + to.size(), source.size());
  if (seen_at_.size() < kMaxAddresses || seen_at_.contains(source)) seen_at_[source] = from;
  const auto known = seen_at_.find(to);
  for (size_t port = 0; port < ports_.size(); ++port) {
    if (port == from || (known != seen_at_.end() && known->second != port)) continue;
    // A full port drops, as a switch does; TCP sends again.
    ports_[port].line.Push(frame, now_ns);
  }
}

void Switch::Deliver() {
  for (Port& port : ports_) {
    while (const std::optional<Frame> frame = port.line.PopDue(NowNs())) {
      // A device that is down loses frames: so does a cable.
      [[maybe_unused]] const ssize_t written = write(port.tap_fd, frame->data(), frame->size());
    }
  }
}

void Switch::SetTimer() {
  // 0 disarms; a time that is past fires at once.
  int64_t next_ns = 0;
  for (const Port& port : ports_) {
    const std::optional<int64_t> due = port.line.next_due_ns();
    if (due.has_value() && (next_ns == 0 || *due < next_ns)) next_ns = *due;
  }
  itimerspec timer{};
  timer.it_value.tv_sec = next_ns / kNanosecondsPerSecond;
  timer.it_value.tv_nsec = next_ns % kNanosecondsPerSecond;
  timerfd_settime(timer_fd_, TFD_TIMER_ABSTIME, &timer, nullptr);
}

// A busy machine must not make the wire slower: this process goes before others where that is
// permitted.
void TakePrecedence() {
  const sched_param parameters = {.sched_priority = 1};
  sched_setscheduler(0, SCHED_RR, &parameters);
}

absl::StatusOr<Setup> ParseArguments(int argc, char** argv) {
  int machines = 0;
  int64_t delay_us = 0;
  int64_t mbit = 0;
  if (argc != 4 || !absl::SimpleAtoi(argv[1], &machines) || !absl::SimpleAtoi(argv[2], &delay_us) ||
      !absl::SimpleAtoi(argv[3], &mbit) || machines < 1 || machines > kMaxMachines ||
      delay_us < 0 || delay_us > 10'000'000 || mbit < 0 || mbit > 100'000) {
    return absl::InvalidArgumentError(
        absl::StrCat("usage: renga-lan-switch MACHINES (1 to ", kMaxMachines,
                     ") DELAY_US (0 to 10000000) MBIT_PER_S (0 to 100000; 0: no limit)"));
  }
  return Setup{.machines = machines,
               .line = {.delay_ns = delay_us * 1000, .bits_per_second = mbit * 1'000'000}};
}

absl::Status Main(int argc, char** argv) {
  RENGA_ASSIGN_OR_RETURN(const Setup setup, ParseArguments(argc, argv));
  RENGA_ASSIGN_OR_RETURN(Switch made, Switch::Create(setup));
  TakePrecedence();
  made.PrintMachines();
  return made.Run();
}

}  // namespace
}  // namespace renga::lan

int main(int argc, char** argv) {
  const absl::Status status = renga::lan::Main(argc, argv);
  if (status.ok()) return 0;
  std::fprintf(stderr, "renga-lan-switch: %s\n", std::string(status.message()).c_str());
  return absl::IsPermissionDenied(status) ? renga::lan::kNotPermittedExit : 1;
}
