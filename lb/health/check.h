// lb/health/check.h - one server under watch: the check in flight, and when the next one is due.
//
// Affinity:  the checker's thread. Ownership: owned by the HealthChecker, until quiet().
// Bounds:    one check at a time; a response head of kCheckHead, kBodyBytes of its body.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "core/stream.h"
#include "core/timers.h"
#include "lb/health/h2_request.h"
#include "lb/health/health.h"
#include "proto/http1_body.h"
#include "proto/http1_head.h"

namespace ringway {

class Watched;

// What heads of answers may be.
inline constexpr http1::HeadLimits kCheckHead{
    .header_bytes = 16 * 1024, .fields = 128, .uri_bytes = 0};

// What a Watched needs of its checker.
class WatchedOwner {
 public:
  // May a check start now? False: start() will be called later, in turn.
  [[nodiscard]] virtual bool may_start(Watched& watched) = 0;
  // A check that had started is over and its socket closed.
  virtual void on_check_over() = 0;
  // For heads of HTTP/2 within kCheckHead, all checks'.
  [[nodiscard]] virtual h2::SessionScratch& scratch() = 0;

 protected:
  ~WatchedOwner() = default;
};

class Watched final : public SocketOwner, public TimerOwner {
 public:
  Watched(StreamEnv& env, Timers& timers, HealthEvents& events, WatchedOwner& owner,
          CheckTarget target);
  ~Watched();

  // The first check is due in `delay_ms`.
  void schedule(int64_t delay_ms);
  // Begins a check; it is in its owner's turn. Calls on_check_over() at once if that is impossible.
  void start();
  // No further checks; what is in flight is closed.
  void stop();
  [[nodiscard]] bool quiet() const { return stopped_ && !attached(); }
  // From the next check on.
  void set_tls(CheckTls tls) { target_.tls = std::move(tls); }
  [[nodiscard]] const CheckTarget& target() const { return target_; }

  void on_connected(Socket& socket, int error) override;
  void on_receive(Socket& socket, std::span<const std::byte> bytes) override;
  void on_receive_end(Socket& socket, int error) override;
  void on_writable(Socket& socket) override;
  void on_closed(Socket& socket) override;
  void on_timer(Timer& timer) override;

 private:
  static constexpr size_t kBodyBytes = 64 * 1024;

  // kSkipped: we lacked a descriptor or a port, which says nothing about the server.
  enum class Result : uint8_t { kPassed, kFailed, kSkipped };

  [[nodiscard]] int64_t now_ms() const { return env_.io.now_us() / 1000; }
  [[nodiscard]] bool attached() const { return stream_.has_value() && stream_->attached(); }
  // Starts the connection, with TLS where that is spoken. Returns an errno.
  [[nodiscard]] int connect();
  // Once connected: false, it is concluded, if the server has not chosen what is to be spoken.
  [[nodiscard]] bool choose_version();
  [[nodiscard]] bool start_h2();
  void send_request();
  void send_h2();
  // What HTTP/2 has received may decide.
  void judge_h2();
  void judge_grpc();
  [[nodiscard]] bool expects(uint16_t number);
  void sent();
  void expect_response();
  // Both return whether the body is to be read: the check is not decided yet, and the head is
  // whole.
  [[nodiscard]] bool read_head();
  [[nodiscard]] bool judge_head(const http1::Head& head);
  void read_body();
  void take_body(std::string_view piece);
  void lack_of_body_text();
  // What a connection that is not up yet waits for.
  [[nodiscard]] std::string_view stage() const;
  // The kernel's word, or that of TLS, ends the check; `stage` is where.
  void fail(std::string_view stage, int error);
  // The check is decided; its socket is closed, and the next one is due later.
  void conclude(Result result, const std::string& reason);
  void count(Result result, const std::string& reason);
  [[nodiscard]] int64_t next_delay_ms() const;

  StreamEnv& env_;
  Timers& timers_;
  HealthEvents& events_;
  WatchedOwner& owner_;
  CheckTarget target_;
  std::optional<Stream> stream_;                   // of the check in flight, or of the last one
  std::shared_ptr<TlsClientContext> tls_context_;  // its
  Timer timer_;  // the next start, or the timeout of the check in flight
  std::unique_ptr<http1::HeadParser> parser_;
  std::unique_ptr<H2Request> h2_;  // of a check that speaks HTTP/2
  http1::BodyReader body_;
  std::string request_;
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
