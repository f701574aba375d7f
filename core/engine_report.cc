// core/engine_report.cc
#include "core/engine_report.h"

#include <sys/resource.h>
#include <sys/utsname.h>

#include "core/ring_engine.h"

namespace ringway {
namespace {

struct Bit {
  uint32_t bit;
  const char* name;
  const char* use;
};

constexpr Bit kFlags[] = {
    {IORING_SETUP_SINGLE_ISSUER, "SINGLE_ISSUER", "one thread per ring"},
    {IORING_SETUP_DEFER_TASKRUN, "DEFER_TASKRUN", "completions only when the shard asks"},
    {IORING_SETUP_SUBMIT_ALL, "SUBMIT_ALL", "one bad entry does not stop a batch"},
    {IORING_SETUP_COOP_TASKRUN, "COOP_TASKRUN", "instead of DEFER_TASKRUN on old kernels"},
    {IORING_SETUP_TASKRUN_FLAG, "TASKRUN_FLAG", "spinning sees pending work without a call"},
    {IORING_SETUP_CQSIZE, "CQSIZE", "a completion queue of four times the entries"},
};

constexpr Bit kFeatures[] = {
    {IORING_FEAT_NODROP, "NODROP", "needed: an overflowing queue loses nothing"},
    {IORING_FEAT_EXT_ARG, "EXT_ARG", "needed: waiting with a timeout"},
    {IORING_FEAT_CQE_SKIP, "CQE_SKIP", "needed: cancels without a completion"},
    {IORING_FEAT_FAST_POLL, "FAST_POLL", "needed: polls inside the kernel"},
};

constexpr const char* kUnused =
    "not used, on purpose (docs/decisions.md):\n"
    "  SEND, SEND_ZC, SPLICE, SHUTDOWN, fixed files, linked operations, SQPOLL: each measured "
    "equal\n"
    "  to or dearer than recv(2)/sendmsg(2) on one hot buffer, or unsafe on kernels we support\n";

void add_bits(std::string& text, std::span<const Bit> bits, uint32_t present) {
  for (const Bit& bit : bits) {
    text += (present & bit.bit) != 0 ? "  yes " : "  no  ";
    text += std::string(bit.name) + ": " + bit.use + "\n";
  }
}

void add_receive(std::string& text, RingEngine& ring) {
  const std::string failure = ring.use_multishot(ReceiveRing::kPlain);
  text += "self-test of multishot receives: " + (failure.empty() ? "passed" : failure) + "\n";
  if (failure.empty()) {
    const ReceiveRing& buffers = *ring.receive_ring();
    text += "  " + std::to_string(buffers.shape().count) + " buffers of " +
            std::to_string(buffers.shape().buffer_bytes / 1024) + " KiB\n";
  }
  text += failure.empty() ? "engine.receive = \"multishot\" uses: them\n"
                          : "engine.receive = \"multishot\" uses: recv(2) when readable\n";
  text += "engine.receive = \"auto\" uses: recv(2) when readable (docs/decisions.md)\n";
}

}  // namespace

std::string engine_report() {
  utsname kernel{};
  uname(&kernel);
  rlimit memlock{};
  getrlimit(RLIMIT_MEMLOCK, &memlock);
  std::string text = std::string("kernel: ") + kernel.release + "\nlocked memory limit: ";
  text += memlock.rlim_cur == RLIM_INFINITY ? "none" : std::to_string(memlock.rlim_cur) + " bytes";
  text += "\n";
  RingEngine ring(0);
  ring.start(256);
  const RingProbe& probe = ring.probe();
  if (probe.setup_error != 0) {
    return text + "io_uring: not usable: " + ring_setup_failure(probe.setup_error) +
           "\nengine.kind = \"auto\" uses: epoll\n";
  }
  text += "set-up flags:\n";
  add_bits(text, kFlags, probe.setup_flags);
  text += "features:\n";
  add_bits(text, kFeatures, probe.features);
  text += std::string("registered ring descriptor: ") + (probe.registered_fd ? "yes" : "no") + "\n";
  text += std::string("self-test of multishot polls: ") +
          (probe.usable() ? "passed" : probe.failure.c_str()) + "\n";
  if (probe.usable()) {
    const std::string failure = ring.use_ring_messages();
    text +=
        "self-test of ring messages (MSG_RING): " + (failure.empty() ? "passed" : failure) + "\n";
    add_receive(text, ring);
  }
  text += kUnused;
  text +=
      std::string("engine.kind = \"auto\" uses: ") + (probe.usable() ? "io_uring" : "epoll") + "\n";
  return text;
}

}  // namespace ringway
