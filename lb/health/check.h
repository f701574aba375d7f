// lb/health/check.h - one server under watch: the check in flight, and when the next one is due.
//
// Affinity:  the checker's thread. Ownership: owned by the HealthChecker, until quiet().
// Bounds:    one check at a time; a response head of kHeadBytes, kBodyBytes of its body.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "core/io.h"
#include "core/timers.h"
#include "lb/health/health.h"
#include "proto/http1_body.h"
#include "proto/http1_head.h"

namespace ringway {

class Watched;

// What a Watched needs of its checker.
class WatchedOwner {
 public:
  // May a check start now? False: start() will be called later, in turn.
  [[nodiscard]] virtual bool may_start(Watched& watched) = 0;
  // A check that had started is over and its socket closed.
  virtual void on_check_over() = 0;

 protected:
  ~WatchedOwner() = default;
};

class Watched final : public SocketOwner, public TimerOwner {
 public:
  Watched(Io& io, Timers& timers, HealthEvents& events, WatchedOwner& owner, CheckTarget target);
  ~Watched();

  // The first check is due in `delay_ms`.
  void schedule(int64_t delay_ms);
  // Begins a check; it is in its owner's turn. Calls on_check_over() at once if that is impossible.
  void start();
  // No further checks; what is in flight is closed.
  void stop();
  [[nodiscard]] bool quiet() const { return stopped_ && !socket_.open(); }
  [[nodiscard]] const CheckTarget& target() const { return target_; }

  void on_connected(Socket& socket, int error) override;
  void on_receive(Socket& socket, std::span<const std::byte> bytes) override;
  void on_receive_end(Socket& socket, int error) override;
  void on_writable(Socket& socket) override;
  void on_closed(Socket& socket) override;
  void on_timer(Timer& timer) override;

 private:
  static constexpr uint32_t kHeadBytes = 16 * 1024;
  static constexpr uint32_t kFields = 128;
  static constexpr size_t kBodyBytes = 64 * 1024;

  // kSkipped: we lacked a descriptor or a port, which says nothing about the server.
  enum class Result : uint8_t { kPassed, kFailed, kSkipped };

  [[nodiscard]] int64_t now_ms() const { return io_.now_us() / 1000; }
  void send_request();
  void expect_response();
  // Both return whether the body is to be read: the check is not decided yet, and the head is
  // whole.
  [[nodiscard]] bool read_head();
  [[nodiscard]] bool judge_head(const http1::Head& head);
  void read_body();
  void take_body(std::string_view piece);
  void lack_of_body_text();
  // The kernel's word ends the check; `stage` is where.
  void fail(std::string_view stage, int error);
  // The check is decided; its socket is closed, and the next one is due later.
  void conclude(Result result, const std::string& reason);
  void count(Result result, const std::string& reason);
  [[nodiscard]] int64_t next_delay_ms() const;

  Io& io_;
  Timers& timers_;
  HealthEvents& events_;
  WatchedOwner& owner_;
  CheckTarget target_;
  Socket socket_;
  Timer timer_;  // the next start, or the timeout of the check in flight
  std::unique_ptr<http1::HeadParser> parser_;
  http1::BodyReader body_;
  std::string request_;
  size_t request_sent_ = 0;
  std::string received_;   // what neither parser nor body reader has taken yet
  std::string body_text_;  // its first kBodyBytes
  int64_t started_ms_ = 0;
  uint32_t opposite_ = 0;  // results in a row that disagree with the verdict
  bool checking_ = false;
  bool decided_ = false;
  bool connected_ = false;
  bool skipped_ = false;  // the last result was
  bool head_done_ = false;
  bool stopped_ = false;
};

}  // namespace ringway
