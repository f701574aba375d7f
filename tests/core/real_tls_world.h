// tests/core/real_tls_world.h - a TlsWorld on a real engine, over loopback.
#pragma once

#include <netinet/in.h>

#include "tests/core/loopback.h"
#include "tests/support/tls_world.h"

namespace ringway {

class RealTlsWorld final : public TlsWorld {
 public:
  explicit RealTlsWorld(Io& io, const TlsGateOptions& gate = {.per_turn = 1000})
      : TlsWorld(io, gate), listener_(listen_any()) {
    address = bound(listener_);
    io.listen(listener_, *this);
  }
  ~RealTlsWorld() override {
    close_all();
    io.unlisten(listener_);
    ::close(listener_);
  }
  [[nodiscard]] std::string address_text() const {
    const auto* at = reinterpret_cast<const sockaddr_in*>(address.get());
    return "127.0.0.1:" + std::to_string(ntohs(at->sin_port));
  }
  bool run(const std::function<bool()>& done) override {
    const auto give_up = std::chrono::steady_clock::now() + std::chrono::seconds(30);
    while (!done()) {
      if (std::chrono::steady_clock::now() > give_up) return false;
      run_shards();
      const int next = shards_next_ms();
      io.run_once(next < 0 ? 1 : std::min(next, 1));
    }
    return true;
  }

 private:
  int listener_;
};

}  // namespace ringway
