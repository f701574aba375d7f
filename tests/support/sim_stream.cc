// tests/support/sim_stream.cc - SimNet's byte streams: sending, arriving, FIN and reset.
#include <errno.h>
#include <string.h>

#include <algorithm>
#include <utility>

#include "core/base/check.h"
#include "tests/support/sim_io.h"
#include "tests/support/sim_net.h"

namespace ringway {
namespace {

SimRef other(SimRef ref) {
  ref.side ^= 1U;
  return ref;
}

}  // namespace

void SimNet::notify(Conn& conn, const SimRef& ref) {
  SimEnd& end = conn.ends[ref.side];
  if (end.io != nullptr && end.io->deliverable(end, ref)) end.io->list(end, ref);
}

// When something sent now arrives: never before what was sent earlier in the same direction.
int64_t SimNet::arrival_us(Conn& conn, SimPipe& pipe) {
  const auto latency = static_cast<int64_t>(conn.latency_us);
  int64_t at_us = now_us_ + latency + static_cast<int64_t>(prng_.below(conn.latency_us / 4 + 1));
  if (hit(Fault::kStall)) at_us += static_cast<int64_t>(prng_.between(100'000, 120'000'000));
  pipe.last_arrival_us = std::max(pipe.last_arrival_us, at_us);
  return pipe.last_arrival_us;
}

ssize_t SimNet::send(const SimRef& ref, std::span<const iovec> pieces) {
  Conn& conn = *find(ref);
  SimEnd& end = conn.ends[ref.side];
  SimPipe& pipe = conn.ends[ref.side ^ 1U].in;
  if (end.connecting) return 0;
  // As tcp_sendmsg(): the pending error once, EPIPE afterwards.
  if (end.error != 0) return -std::exchange(end.error, 0);
  if (end.broken || pipe.fin_sent) return -EPIPE;
  size_t total = 0;
  for (const iovec& piece : pieces) total += piece.iov_len;
  size_t take = std::min(total, pipe.room());
  if (take > 1 && hit(Fault::kShortSend)) take = prng_.between(1, take);
  if (hit(Fault::kZeroSend)) take = 0;
  if (take == 0) return 0;
  if (pipe.head > 65'536 && pipe.head * 2 > pipe.bytes.size()) {
    pipe.bytes.erase(pipe.bytes.begin(), pipe.bytes.begin() + static_cast<ptrdiff_t>(pipe.head));
    pipe.head = 0;
  }
  size_t left = take;
  for (const iovec& piece : pieces) {
    const size_t part = std::min(left, piece.iov_len);
    const auto* from = static_cast<const std::byte*>(piece.iov_base);
    pipe.bytes.insert(pipe.bytes.end(), from, from + part);
    left -= part;
  }
  pipe.sent += take;
  flow_to(conn, ref.side ^ 1U).sent += take;
  trace(110, ref.slot * 2 + ref.side, take);
  at(arrival_us(conn, pipe), Event::Kind::kBytes, other(ref), pipe.sent);
  if (hit(Fault::kReset)) {
    const uint64_t delay_us = prng_.below(conn.latency_us * 4);
    plan_hard_reset(conn, ref, now_us_ + static_cast<int64_t>(delay_us));
  }
  return static_cast<ssize_t>(take);
}

size_t SimNet::read(const SimRef& ref, std::span<std::byte> into) {
  Conn& conn = *find(ref);
  SimPipe& pipe = conn.ends[ref.side].in;
  RW_CHECK(into.size() <= pipe.readable());
  memcpy(into.data(), pipe.bytes.data() + pipe.head, into.size());
  pipe.head += into.size();
  pipe.read += into.size();
  if (pipe.read == pipe.sent) {
    pipe.bytes.clear();
    pipe.head = 0;
  }
  flow_to(conn, ref.side).received += into.size();
  if (!pipe.ack_pending) {
    pipe.ack_pending = true;
    at(now_us_ + static_cast<int64_t>(conn.latency_us), Event::Kind::kAck, other(ref));
  }
  return into.size();
}

void SimNet::send_fin(const SimRef& ref) {
  Conn& conn = *find(ref);
  SimPipe& pipe = conn.ends[ref.side ^ 1U].in;
  if (conn.ends[ref.side].broken || pipe.fin_sent) return;
  pipe.fin_sent = true;
  flow_to(conn, ref.side ^ 1U).fin_sent = true;
  at(arrival_us(conn, pipe), Event::Kind::kFin, other(ref));
}

// What close(2) does to the connection. `abort`: as with SO_LINGER 0.
void SimNet::close_end(const SimRef& ref, bool abort) {
  Conn& conn = *find(ref);
  SimEnd& end = conn.ends[ref.side];
  SimPipe& pipe = conn.ends[ref.side ^ 1U].in;
  const bool unread = end.in.readable() > 0;
  end.closing = true;
  if (end.connecting && !records_[conn.record].established) return;  // Nobody knows of it yet.
  if (end.broken) return;
  if (!abort) send_fin(ref);
  if (!abort && !unread) return;
  // Unread bytes make close(2) send a reset, which may destroy what is still under way.
  if (hit(Fault::kLossyReset)) {
    pipe.cut = prng_.between(pipe.arrived, pipe.sent);
  }
  pipe.fin_sent = true;
  at(arrival_us(conn, pipe), Event::Kind::kReset, other(ref));
}

void SimNet::on_bytes(Conn& conn, const SimRef& ref, uint64_t upto) {
  SimEnd& end = conn.ends[ref.side];
  if (end.broken) return;
  if (!end.alive || end.closing) {
    // Nobody will read this: the answer is a reset.
    if (conn.ends[ref.side ^ 1U].alive) {
      at(arrival_us(conn, conn.ends[ref.side ^ 1U].in), Event::Kind::kReset, other(ref));
    }
    return;
  }
  const uint64_t arrived = std::min(upto, end.in.cut);
  if (arrived <= end.in.arrived) return;
  end.in.arrived = arrived;
  notify(conn, ref);
}

void SimNet::on_fin(Conn& conn, const SimRef& ref) {
  SimEnd& end = conn.ends[ref.side];
  if (end.broken || end.in.cut < end.in.sent) return;
  end.in.fin_arrived = true;
  notify(conn, ref);
}

void SimNet::on_ack(Conn& conn, const SimRef& ref) {
  SimPipe& pipe = conn.ends[ref.side ^ 1U].in;
  pipe.ack_pending = false;
  pipe.acked = pipe.read;
  notify(conn, ref);
}

void SimNet::plan_hard_reset(Conn& conn, const SimRef& ref, int64_t at_us) {
  if (conn.hard_reset) return;
  conn.hard_reset = true;
  at(at_us, Event::Kind::kReset, ref, 1);
  const uint64_t apart_us = prng_.below(conn.latency_us * 2);
  at(at_us + static_cast<int64_t>(apart_us), Event::Kind::kReset, other(ref), 1);
}

// `hard`: made by the network, so that it overtakes bytes; both ends get it.
void SimNet::on_reset(Conn& conn, const SimRef& ref, bool hard) {
  SimEnd& end = conn.ends[ref.side];
  // Once faults have stopped, a planned reset is called off unless one end has seen it already.
  if (hard && faults_stopped_ && !conn.ends[ref.side ^ 1U].broken) return;
  if (end.broken || end.closing || !end.alive) return;
  SimPipe& in = end.in;
  if (hard && in.arrived < in.sent)
    in.arrived = prng_.between(in.arrived, std::min(in.sent, in.cut));
  if (hit(Fault::kLossyReset) && !in.fin_arrived) in.arrived = prng_.between(in.read, in.arrived);
  end.broken = true;
  // As tcp_reset(): after the peer's FIN it is EPIPE, unless ours was sent too.
  const bool close_wait = in.fin_arrived && !conn.ends[ref.side ^ 1U].in.fin_sent;
  end.error = close_wait ? EPIPE : ECONNRESET;
  records_[conn.record].reset = true;
  trace(111, ref.slot * 2 + ref.side, in.arrived);
  notify(conn, ref);
}

}  // namespace ringway
