// tests/support/sim_tls.h - TLS for simulated clients: BoringSSL on the bytes of a SimConnection.
//
// Affinity:  one thread. Ownership: a codec belongs to its connection, the store to the world and
//            outlives the codecs.
// Why:       keys and randomness differ from run to run, but no length does, so a seed still gives
//            the same run: certificates have to be ones of RSA or Ed25519.
#pragma once

#include <openssl/ssl.h>

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "tests/support/make_certificate.h"
#include "tests/support/sim_actors.h"

namespace ringway {

// Common to both ends: BoringSSL between two buffers.
class SimTlsCodec : public SimCodec {
 public:
  std::string end() override;

 protected:
  explicit SimTlsCodec(SSL_CTX* context);

  [[nodiscard]] std::string take();
  // Why BoringSSL gave up, once it has.
  [[nodiscard]] static std::string reason();

  bssl::UniquePtr<SSL> ssl_;
  BIO* in_ = nullptr;
  BIO* out_ = nullptr;
  std::string pending_;  // plain, not written yet
  bool done_ = false;
  bool failed_ = false;
};

// What became of one client's handshake.
struct SimTlsMeeting {
  uint64_t client = 0;
  int64_t begun_us = 0;
  int64_t done_us = -1;  // -1: never
  bool resumed = false;
  std::string certificate{};  // the server's, DER
  std::string alpn{};
  std::string failure{};  // why TLS has ended it, then or later; empty: it has not
};

// What the clients of one world share that are of one kind.
struct SimTlsStore {
  // Offers `alpn` (one protocol; empty: none), and shows `certificate` if asked for one.
  SimTlsStore(const SimNet& its_net, const std::string& alpn,
              const test::MadeCertificate* certificate = nullptr);

  const SimNet& net;
  bssl::UniquePtr<SSL_CTX> context;
  // The newest that a server gave, by the name that was asked for.
  std::map<std::string, bssl::UniquePtr<SSL_SESSION>> sessions;
  std::vector<SimTlsMeeting> meetings;
  uint64_t early_accepted = 0;
  uint64_t early_rejected = 0;
};

// One connection of a client.
struct SimTlsAsk {
  uint64_t client = 0;
  std::string name{};    // the server's (SNI); empty: none
  bool resume = true;    // if there is a session of that name
  bool early = false;    // sends what it can before the handshake is over, if the session allows it
  size_t record = 0;     // the hello comes in records of so many bytes; 0: in one
  size_t hello_max = 0;  // it ends after so many bytes, and nothing follows; 0: it is whole
};

class SimTlsClient final : public SimTlsCodec {
 public:
  SimTlsClient(SimTlsStore& store, const SimTlsAsk& ask);

  std::string begin() override;
  void connecting() override { meeting().begun_us = store_.net.now_us(); }
  std::string seal(std::string_view plain) override;
  std::string open(std::string_view wire, std::string& plain) override;

 private:
  [[nodiscard]] SimTlsMeeting& meeting() { return store_.meetings[meeting_]; }
  void drive(std::string& plain);
  // True: it may go on.
  [[nodiscard]] bool shake_hands();
  [[nodiscard]] bool write();
  // After a call that returned `result`; true: early data was rejected, and all begins anew.
  [[nodiscard]] bool starts_over(int result);
  void note_done();

  SimTlsStore& store_;
  SimTlsAsk ask_;
  size_t meeting_;
  std::string early_;  // written as early data
  bool may_talk_ = false;
};

// A server of one certificate.
struct SimTlsServerStore {
  // Chooses "h2" if `http2`, else "http/1.1", where one is offered. `number` tells it from others.
  SimTlsServerStore(const test::MadeCertificate& certificate, bool http2, uint32_t number);

  bssl::UniquePtr<SSL_CTX> context;
  bool http2;
  uint32_t number;
  uint64_t handshakes = 0;
  uint64_t resumed = 0;
  uint64_t tickets = 0;                 // given
  std::map<uint64_t, uint64_t> offers;  // of each: how often it was offered
  std::string failure;                  // of the first handshake that failed
  std::string wrong;                    // the first thing that a client must not do
};

// A server's side of a connection. A PROXY header in front of the handshake passes in clear.
class SimTlsServer final : public SimTlsCodec {
 public:
  explicit SimTlsServer(SimTlsServerStore& store);

  std::string begin() override { return {}; }
  std::string seal(std::string_view plain) override;
  std::string open(std::string_view wire, std::string& plain) override;

  [[nodiscard]] const SimTlsServerStore& store() const { return store_; }
  // The name that the client asked for; empty: none.
  [[nodiscard]] const std::string& name() const { return name_; }
  [[nodiscard]] const std::string& alpn() const { return alpn_; }

 private:
  struct Tickets;
  // False: a PROXY header is not whole yet.
  [[nodiscard]] bool pass_header(std::string& plain);
  void drive(std::string& plain);
  void fail(int result);
  void note_done();

  SimTlsServerStore& store_;
  std::string front_;  // received before the handshake
  std::string name_;
  std::string alpn_;
  std::string ticket_name_;  // of the session that is resumed
  bool begun_ = false;
};

}  // namespace ringway
