// tests/support/sim_tls.h - TLS for simulated clients: BoringSSL on the bytes of a SimConnection.
//
// Affinity:  one thread. Ownership: a codec belongs to its connection, the store to the world.
// Why:       keys and randomness differ from run to run, but no length does, so a seed still gives
//            the same run: the server's certificate has to be one of RSA.
#pragma once

#include <openssl/ssl.h>

#include <cstdint>
#include <string>
#include <string_view>

#include "tests/support/sim_actors.h"

namespace ringway {

// What the clients of one world share.
struct SimTlsStore {
  SimTlsStore();

  bssl::UniquePtr<SSL_CTX> context;
  bssl::UniquePtr<SSL_SESSION> session;  // the newest that a server gave
  uint64_t handshakes = 0;
  uint64_t resumed = 0;
  uint64_t early_accepted = 0;
  uint64_t early_rejected = 0;
  std::string failure;  // of the first one that failed: the network never changes bytes
};

class SimTlsClient final : public SimCodec {
 public:
  // `early`: sends what it can before the handshake is over, if there is a session that allows it.
  SimTlsClient(SimTlsStore& store, bool early);

  std::string begin() override;
  std::string seal(std::string_view plain) override;
  std::string open(std::string_view wire, std::string& plain) override;
  std::string end() override;

 private:
  void drive(std::string& plain);
  // True: it may go on.
  [[nodiscard]] bool shake_hands();
  [[nodiscard]] bool write();
  // After a call that returned `result`; true: early data was rejected, and all begins anew.
  [[nodiscard]] bool starts_over(int result);
  void note_done();
  [[nodiscard]] std::string take();

  SimTlsStore& store_;
  bssl::UniquePtr<SSL> ssl_;
  BIO* in_ = nullptr;
  BIO* out_ = nullptr;
  std::string pending_;  // plain, not written yet
  std::string early_;    // written as early data
  bool may_talk_ = false;
  bool done_ = false;
  bool failed_ = false;
};

}  // namespace ringway
