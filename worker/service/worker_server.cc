#include "worker/service/worker_server.h"

#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <malloc.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <optional>
#include <string>
#include <system_error>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "base/boot_id.h"
#include "base/byte_size.h"
#include "base/log.h"
#include "base/machine_limits.h"
#include "base/scoped_fd.h"
#include "base/status_macros.h"
#include "transport/hello.h"
#include "transport/peer_identity.h"
#include "transport/peer_listener.h"
#include "transport/secure_socket.h"
#include "worker/engine/memory_budget.h"
#include "worker/service/coordinator_link.h"
#include "worker/service/data_port.h"
#include "worker/service/disk_probe.h"
#include "worker/service/kept_pieces.h"
#include "worker/service/link_meter.h"
#include "worker/service/local_model.h"
#include "worker/service/memory_watch.h"
#include "worker/service/process_report.h"
#include "worker/service/quiet_probe.h"
#include "worker/service/shard_host.h"
#include "worker/service/speed_probe.h"
#include "worker/service/worker_service.h"

namespace renga::worker {
namespace {

// Where the disk is most probably not needed a rough figure does, so that answers begin sooner.
constexpr absl::Duration kShortDiskProbe = absl::Milliseconds(40);
// A disk that reads at this share of the speed that it was measured at is called slow, and at twice
// that no more.
constexpr double kSlowDisk = 0.25;

absl::Status CheckOptions(const WorkerOptions& options) {
  if (options.memory_bytes <= 0) {
    return absl::InvalidArgumentError("a worker must offer some memory");
  }
  if (options.dialer == nullptr) return absl::InvalidArgumentError("a worker needs a dialer");
  if (options.listen_address.empty()) return absl::OkStatus();
  RENGA_ASSIGN_OR_RETURN(const transport::HostPort host_port,
                         transport::ParseHostPort(options.listen_address));
  if (!options.identity.has_value() && !transport::IsLoopbackHost(host_port.host)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "without certificates a worker serves on loopback only, not on ", options.listen_address));
  }
  return absl::OkStatus();
}

// What the device is called, and which card it is.
struct DeviceNames {
  std::string for_people;
  std::string card = "";
};
DeviceNames NamesOf(const std::string& device) {
  if (!kernels::IsCard(device)) return {.for_people = CpuName()};
  const absl::StatusOr<kernels::CardDescription> card = kernels::DescribeCard(device);
  if (!card.ok()) return {.for_people = device};
  return {
      .for_people = absl::StrCat(card->name, " (", base::FormatByteSize(card->total_bytes), ")"),
      .card = card->bus_id};
}

proto::KernelSpeed ToProto(const KernelSpeed& kernel) {
  proto::KernelSpeed to;
  to.set_gguf_type(base::GetDataTypeInfo(kernel.type).gguf_id);
  to.set_decode_bytes_per_second(kernel.decode_bytes_per_second);
  to.set_prefill_bytes_per_second(kernel.prefill_bytes_per_second);
  return to;
}

transport::PeerPolicy PolicyOf(const WorkerOptions& options) {
  return options.identity.has_value() ? transport::PeerPolicy::kMutualTls
                                      : transport::PeerPolicy::kTrustEveryone;
}

class WorkerServerImpl : public WorkerServer {
 public:
  WorkerServerImpl(const WorkerOptions& options, std::unique_ptr<kernels::Backend> backend,
                   std::unique_ptr<LocalModel> local_model)
      : options_(options),
        backend_(std::move(backend)),
        local_model_(std::move(local_model)),
        budget_(options.memory_bytes),
        device_path_(backend_->path_name()),
        device_names_(NamesOf(options.device.device)),
        link_meter_(options.dialer),
        service_(PolicyOf(options)),
        kept_pieces_(options.cache_directory),
        pieces_service_(&kept_pieces_, PolicyOf(options)),
        data_port_(PolicyOf(options)) {
    if (!kernels::IsCard(options.device.device)) return;
    memory_watch_.emplace(
        [device = options.device.device] { return kernels::AvailableBytesOf(device); },
        [on_event = options.on_event](const std::string& line) {
          RENGA_LOG(WARNING) << line;
          if (on_event) on_event(line);
        });
  }
  ~WorkerServerImpl() override {
    Shutdown();
    listener_.reset();  // its thread hands over to what goes away now
  }

  // Of a worker that one command started for itself. A model of less than half of what is offered
  // fits, with its keys and values as a rule: without a measured one the plan takes the speed of a
  // usual disk.
  double MeasureOwnDisk() const {
    std::error_code error;
    const uintmax_t bytes = std::filesystem::file_size(options_.local_model_path, error);
    const auto offered = static_cast<uintmax_t>(budget_.total_bytes());
    if (!error && bytes <= offered / 2) return 0;
    return MeasureDisk(options_.packed_directory,
                       error || bytes > offered ? kDiskProbe : kShortDiskProbe);
  }

  absl::Status MeasureSpeed() {
    if (!options_.measure_speed) {
      speed_.disk_bytes_per_second = MeasureOwnDisk();
      return absl::OkStatus();
    }
    RENGA_ASSIGN_OR_RETURN(speed_, MeasureDevice(*backend_, budget_, options_.cache_directory));
    RENGA_LOG(INFO) << device_path_ << " reads "
                    << base::FormatByteSize(
                           static_cast<int64_t>(speed_.kernels[0].decode_bytes_per_second))
                    << " of weights per second";
    return absl::OkStatus();
  }

  absl::Status Serve() {
    RENGA_RETURN_IF_ERROR(ListenForPeers());
    host_ = std::make_unique<ShardHost>(ShardHost::Options{
        .backend = backend_.get(),
        .budget = &budget_,
        .dialer = options_.dialer,
        .coordinator = options_.coordinator,
        .cache_directory = options_.cache_directory,
        .packed_directory = options_.packed_directory,
        .local_model = local_model_.get(),
        .screen_directory = options_.screen_directory,
        .listener = listener_.get(),
        .socket_credentials = socket_credentials_,
        .on_loaded = [this](uint32_t window) { data_port_.GrantWindows(window); },
        .frame_looker = {.look = [this] { data_port_.Poll(); },
                         .rest = [this] { data_port_.StopPolling(); }},
        .on_event = options_.on_event});
    local_worker_ = std::make_shared<transport::LocalWorker>(transport::LocalWorker::Functions{
        .run_frame = [host = host_.get()](
                         proto::StepFrame frame) { host->RunFrame(std::move(frame), [] {}); },
        .attach_results =
            [host = host_.get()](uint64_t epoch, std::shared_ptr<transport::ResultSink> sink) {
              host->AttachResults(epoch, std::move(sink));
            },
        .withdraw_steps =
            [host = host_.get()](uint64_t epoch, std::span<const uint64_t> numbers) {
              host->WithdrawSteps(epoch, numbers);
            }});
    service_.SetHost(host_.get());
    data_port_.SetHost(host_.get());
    service_.SetLinkMeter(&link_meter_);
    grpc::ServerBuilder builder;
    transport::ConfigureServer(builder);
    builder.RegisterService(service_.service());
    builder.RegisterService(pieces_service_.service());
    if (!options_.listen_address.empty()) {
      builder.AddListeningPort(options_.listen_address,
                               options_.identity.has_value()
                                   ? transport::TlsServerCredentials(*options_.identity, true)
                                   : transport::InsecureServerCredentialsForLoopback(),
                               &port_);
    }
    server_ = builder.BuildAndStart();
    if (server_ == nullptr || (!options_.listen_address.empty() && port_ == 0)) {
      return absl::UnavailableError(
          absl::StrCat("cannot listen on ", options_.listen_address, ": is the port in use?"));
    }
    return absl::OkStatus();
  }

  void Join() override {
    absl::MutexLock lock(&mutex_);
    if (link_ != nullptr || shut_down_) return;
    StartQuietProbe();
    link_ = std::make_unique<CoordinatorLink>(
        CoordinatorLink::Options{.coordinator = options_.coordinator,
                                 .dialer = options_.dialer,
                                 .hello = [this] { return MakeHello(); },
                                 .heartbeat =
                                     [this] {
                                       FollowOffer();
                                       WatchDisk();
                                       return MakeHeartbeat();
                                     },
                                 .join_timeout = options_.join_timeout,
                                 .rejoin_timeout = options_.rejoin_timeout,
                                 .on_event = options_.on_event});
  }

  absl::Status WaitForWelcome() override {
    CoordinatorLink* link = Link();
    if (link == nullptr) return absl::FailedPreconditionError("the worker has not begun to join");
    return link->WaitForWelcome();
  }

  absl::Status Wait() override {
    CoordinatorLink* link = Link();
    if (link == nullptr) return absl::FailedPreconditionError("the worker has not begun to join");
    return link->Wait();
  }

  void Shutdown() override {
    CoordinatorLink* link = nullptr;
    {
      absl::MutexLock lock(&mutex_);
      if (std::exchange(shut_down_, true)) return;
      link = link_.get();
    }
    if (link != nullptr) link->Stop();
    if (quiet_probe_ != nullptr) quiet_probe_->Cancel();
    link_meter_.Stop();
    if (local_worker_ != nullptr) local_worker_->Close();
    if (host_ != nullptr) host_->Stop();
    if (quiet_probe_ != nullptr) quiet_probe_->Stop();
    data_port_.Close();
    if (server_ != nullptr) server_->Shutdown(std::chrono::system_clock::now());
  }

  grpc::Server* grpc_server() override { return server_.get(); }
  std::shared_ptr<transport::LocalWorker> local_worker() override { return local_worker_; }
  int port() const override { return port_; }
  int data_port() const override { return listener_ == nullptr ? 0 : listener_->port(); }
  const std::string& device_path() const override { return device_path_; }

 private:
  CoordinatorLink* Link() {
    absl::MutexLock lock(&mutex_);
    return link_.get();
  }

  absl::Status ListenForPeers() {
    if (options_.listen_address.empty()) return absl::OkStatus();
    RENGA_ASSIGN_OR_RETURN(const transport::HostPort host_port,
                           transport::ParseHostPort(options_.listen_address));
    if (options_.identity.has_value()) {
      RENGA_ASSIGN_OR_RETURN(socket_credentials_,
                             transport::SocketCredentials::CreateTls(*options_.identity));
    } else {
      socket_credentials_ = transport::SocketCredentials::CreateInsecureLoopback();
    }
    RENGA_ASSIGN_OR_RETURN(listener_, transport::PeerListener::Start(
                                          host_port.host, options_.data_port, socket_credentials_,
                                          [this](const transport::PeerHello& hello,
                                                 std::unique_ptr<transport::SecureSocket> socket) {
                                            data_port_.Serve(hello, std::move(socket));
                                          }));
    return absl::OkStatus();
  }

  // Where nothing is divided by speed, it does not matter.
  void StartQuietProbe() {
    if (!options_.measure_speed || options_.measure_again_after == absl::InfiniteDuration()) return;
    QuietProbe::Options probe = {
        .clock =
            [] { return absl::FromChrono(std::chrono::steady_clock::now().time_since_epoch()); },
        .orders = [this] { return host_->orders(); },
        .measure = [this](const GiveWay& give_way) { return MeasureAgain(give_way); },
        .first = speed_,
        .good_for = options_.measure_again_after};
    probe.idle_after = std::min(probe.idle_after, probe.good_for);
    probe.doubt = std::min(probe.doubt, probe.good_for);
    probe.tick = std::min(probe.tick, probe.good_for);
    quiet_probe_ = std::make_unique<QuietProbe>(std::move(probe));
  }

  // As when the worker started, within what its shard leaves of the offer. On the probe's thread.
  absl::StatusOr<DeviceSpeed> MeasureAgain(const GiveWay& give_way) {
    std::optional<base::ScopedFd> turn = TryToTakeTurn(
        options_.cache_directory.empty() ? options_.packed_directory : options_.cache_directory);
    if (!turn.has_value()) return absl::CancelledError("another worker here is being measured");
    absl::StatusOr<DeviceSpeed> speed = absl::CancelledError("there is something better to do");
    host_->RunQuietly([&](const GiveWay& has_work) {
      if (give_way()) return;
      speed = MeasureComputing(*backend_, budget_, kProbeTime,
                               [&] { return has_work() || give_way(); });
    });
    malloc_trim(0);
    RENGA_RETURN_IF_ERROR(speed.status());
    turn.reset();
    speed->disk_bytes_per_second = MeasureDisk(options_.cache_directory, kDiskProbe, give_way);
    return speed;
  }

  // A user, or the system, changes what the worker may use while it runs.
  void FollowOffer() {
    if (!options_.memory_bytes_now) return;
    const int64_t before = budget_.total_bytes();
    const int64_t now = options_.memory_bytes_now();
    if (now <= 0 || now == before) return;
    budget_.SetTotal(now);
    Tell(absl::StrCat("offering ", base::FormatByteSize(now), " instead of ",
                      base::FormatByteSize(before)));
  }

  // Tokens come late then, and nothing else would say why.
  void WatchDisk() {
    const double now = host_->residency().streamed_per_second;
    const double planned = speed_.disk_bytes_per_second;
    if (now <= 0 || planned <= 0) return;
    const bool slow = now < planned * (disk_is_slow_ ? 2 * kSlowDisk : kSlowDisk);
    if (slow == std::exchange(disk_is_slow_, slow)) return;
    Tell(absl::StrCat(
        "the disk reads weights at ", base::FormatByteSize(static_cast<int64_t>(now)),
        " per second, measured before: ", base::FormatByteSize(static_cast<int64_t>(planned)),
        slow ? "; tokens wait for it: is another program using it?" : ""));
  }

  void Tell(const std::string& line) const {
    RENGA_LOG(INFO) << line;
    if (options_.on_event) options_.on_event(line);
  }

  proto::Hello MakeHello() const {
    proto::Hello hello;
    *hello.mutable_build() = transport::ThisBuild();
    hello.set_worker_name(options_.name);
    hello.set_listen_port(static_cast<uint32_t>(port_));
    hello.set_data_port(static_cast<uint32_t>(data_port()));
    hello.set_advertise_host(options_.advertise_host);
    hello.set_resident_epoch(host_->epoch());
    proto::DeviceOffer& offer = *hello.mutable_offer();
    offer.set_device_path(device_path_);
    offer.set_device_name(device_names_.for_people);
    offer.set_machine(base::BootId());
    offer.set_card(device_names_.card);
    offer.set_memory_bytes(budget_.total_bytes());
    offer.set_memory_available_bytes(kernels::AvailableBytesOf(options_.device.device).value_or(0));
    const DeviceSpeed speed = quiet_probe_ != nullptr ? quiet_probe_->Read().speed : speed_;
    offer.set_weight_bytes_per_second(speed.kernels.empty()
                                          ? options_.assumed_weight_bytes_per_second
                                          : speed.kernels[0].decode_bytes_per_second);
    const int threads =
        options_.device.threads > 0 ? options_.device.threads : base::UsableCpuCount();
    offer.set_threads(static_cast<uint32_t>(threads));
    for (const KernelSpeed& kernel : speed.kernels) *offer.add_kernels() = ToProto(kernel);
    offer.set_copy_bytes_per_second(speed.copy_bytes_per_second);
    offer.set_disk_bytes_per_second(speed.disk_bytes_per_second);
    offer.set_layer_us(speed.layer_us);
    offer.set_spare(options_.spare);
    return hello;
  }

  // On the link's thread, like the watch.
  proto::Heartbeat MakeHeartbeat() {
    proto::Heartbeat heartbeat;
    heartbeat.set_epoch(host_->epoch());
    heartbeat.set_steps_done(host_->steps_done());
    heartbeat.set_memory_used_bytes(budget_.used_bytes());
    heartbeat.set_memory_offered_bytes(budget_.total_bytes());
    heartbeat.set_resident_bytes(ResidentBytes());
    const engine::ResidencyReport residency = host_->residency();
    heartbeat.set_pinned_weight_bytes(residency.pinned);
    heartbeat.set_pinned_now_bytes(residency.pinned_now);
    heartbeat.set_streamed_weight_bytes(residency.streamed);
    heartbeat.set_streamed_bytes_per_second(residency.streamed_per_second);
    heartbeat.set_left_out(residency.left_out);
    heartbeat.set_weight_places(residency.places);
    heartbeat.set_weight_bytes_to_come(residency.to_come);
    const ShardHost::Progress progress = host_->progress();
    heartbeat.set_step(progress.step);
    heartbeat.set_weight_bytes_brought(progress.weight_bytes);
    if (quiet_probe_ != nullptr) {
      const QuietProbe::Report report = quiet_probe_->Read();
      proto::MeasuredSpeed& to = *heartbeat.mutable_speed();
      for (const KernelSpeed& kernel : report.speed.kernels) *to.add_kernels() = ToProto(kernel);
      to.set_copy_bytes_per_second(report.speed.copy_bytes_per_second);
      to.set_disk_bytes_per_second(report.speed.disk_bytes_per_second);
      to.set_layer_us(report.speed.layer_us);
      to.set_age_s(static_cast<uint32_t>(absl::ToInt64Seconds(report.age)));
      to.set_confirmed(report.confirmed);
    }
    if (memory_watch_.has_value()) heartbeat.set_trouble(memory_watch_->Look(absl::Now()));
    return heartbeat;
  }

  const WorkerOptions options_;
  const std::unique_ptr<kernels::Backend> backend_;
  const std::unique_ptr<LocalModel> local_model_;  // null: none
  engine::MemoryBudget budget_;
  const std::string device_path_;
  const DeviceNames device_names_;
  std::shared_ptr<const transport::SocketCredentials> socket_credentials_;
  std::unique_ptr<transport::PeerListener> listener_;  // null: no port
  DeviceSpeed speed_;                                  // as measured at the start
  bool disk_is_slow_ = false;                          // the link's thread's own
  LinkMeter link_meter_;
  WorkerService service_;
  KeptPieces kept_pieces_;
  transport::PiecesService pieces_service_;
  std::unique_ptr<ShardHost> host_;
  DataPort data_port_;                                    // after host_, which its connections use
  std::unique_ptr<QuietProbe> quiet_probe_;               // made before link_; null: none
  std::optional<MemoryWatch> memory_watch_;               // of a card
  std::shared_ptr<transport::LocalWorker> local_worker_;  // calls host_ until it is closed
  std::unique_ptr<grpc::Server> server_;
  int port_ = 0;

  absl::Mutex mutex_;
  bool shut_down_ ABSL_GUARDED_BY(mutex_) = false;
  std::unique_ptr<CoordinatorLink> link_ ABSL_GUARDED_BY(mutex_);  // once made, it stays
};

}  // namespace

absl::StatusOr<std::unique_ptr<WorkerServer>> WorkerServer::Create(const WorkerOptions& options) {
  RENGA_RETURN_IF_ERROR(CheckOptions(options));
  kernels::BackendOptions device = options.device;
  device.card_memory_bytes = options.memory_bytes;
  RENGA_ASSIGN_OR_RETURN(auto backend, kernels::CreateBackend(device));
  std::unique_ptr<LocalModel> local_model;
  if (!options.local_model_path.empty()) {
    RENGA_ASSIGN_OR_RETURN(local_model, LocalModel::Open(options.local_model_path));
  }
  auto worker =
      std::make_unique<WorkerServerImpl>(options, std::move(backend), std::move(local_model));
  RENGA_RETURN_IF_ERROR(worker->MeasureSpeed());
  RENGA_RETURN_IF_ERROR(worker->Serve());
  return worker;
}

}  // namespace renga::worker
