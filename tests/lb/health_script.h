// tests/lb/health_script.h - what the tests of health checks share: scripted servers, verdicts
// seen.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/io.h"
#include "lb/health/health.h"

namespace ringway {

struct VerdictLog final : HealthEvents {
  struct Verdict {
    std::string id;
    bool up;
    std::string reason;
  };
  void on_verdict(const CheckTarget& target, bool up, std::string_view reason) override {
    all.push_back({target.id, up, std::string(reason)});
  }
  [[nodiscard]] std::vector<Verdict> of(std::string_view id) const {
    std::vector<Verdict> found;
    for (const Verdict& verdict : all) {
      if (verdict.id == id) found.push_back(verdict);
    }
    return found;
  }
  std::vector<Verdict> all;
};

// Answers every connection with the same bytes, and ends it as told. Lives on the Io it is given.
class ScriptedServer final : public AcceptOwner {
 public:
  enum class End : uint8_t { kClose, kAbort, kStay };
  enum class When : uint8_t { kRequested, kAccepted };
  struct Script {
    std::string bytes;
    End end = End::kClose;
    When when = When::kRequested;
  };

  // `fd` listens, and stays the caller's.
  ScriptedServer(Io& io, int fd, Script script) : io_(io), fd_(fd), script_(std::move(script)) {
    io_.listen(fd_, *this);
  }
  // What it says from now on.
  void set_script(Script script) { script_ = std::move(script); }
  void stop() {
    io_.unlisten(fd_);
    for (auto& served : served_) {
      if (served->socket.open()) io_.close(served->socket);
    }
  }
  [[nodiscard]] bool quiet() const { return live() == 0; }
  [[nodiscard]] size_t live() const {
    size_t count = 0;
    for (const auto& served : served_) count += served->socket.open() ? 1 : 0;
    return count;
  }
  // When connections came, by the Io's clock.
  [[nodiscard]] const std::vector<int64_t>& accepted_ms() const { return accepted_ms_; }
  // All that clients have sent.
  [[nodiscard]] const std::string& received() const { return received_; }

  void on_accepted(int fd, const PeerAddress& /*peer*/) override {
    accepted_ms_.push_back(io_.now_us() / 1000);
    served_.push_back(std::make_unique<Served>(*this));
    Served& served = *served_.back();
    io_.adopt(served.socket, fd);
    if (script_.when == When::kAccepted) served.answer();
    if (served.answered && script_.end != End::kStay) return;
    io_.set_receiving(served.socket, true);
  }

  // A head of `count` fields that does not end.
  static std::string many_fields(int count) {
    std::string head = "HTTP/1.1 200 OK\r\n";
    for (int i = 0; i < count; ++i) head += "X-" + std::to_string(i) + ": 1\r\n";
    return head;
  }

 private:
  struct Served final : SocketOwner {
    explicit Served(ScriptedServer& from) : server(from), socket(*this) {}
    void answer() {
      left = server.script_.bytes;
      answered = true;
      flush();
    }
    void flush() {
      while (!left.empty()) {
        const iovec piece{.iov_base = left.data(), .iov_len = left.size()};
        const ssize_t sent = server.io_.send(socket, {&piece, 1});
        if (sent < 0) return server.io_.close(socket);
        if (sent == 0) return server.io_.want_writable(socket);
        left.erase(0, static_cast<size_t>(sent));
      }
      switch (server.script_.end) {
        case End::kClose: return server.io_.close(socket);
        case End::kAbort: return server.io_.abort(socket);
        case End::kStay: return;
      }
    }
    void on_connected(Socket& /*socket*/, int /*error*/) override {}
    void on_receive(Socket& /*socket*/, std::span<const std::byte> bytes) override {
      got.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
      server.received_.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
      if (!answered && got.ends_with("\r\n\r\n")) answer();
    }
    void on_receive_end(Socket& /*socket*/, int /*error*/) override { server.io_.close(socket); }
    void on_writable(Socket& /*socket*/) override { flush(); }
    void on_closed(Socket& /*socket*/) override {}

    ScriptedServer& server;
    Socket socket;
    std::string got;
    std::string left;
    bool answered = false;
  };

  Io& io_;
  int fd_;
  Script script_;
  std::vector<std::unique_ptr<Served>> served_;
  std::vector<int64_t> accepted_ms_;
  std::string received_;
};

}  // namespace ringway
