// tests/sim/h2_actors.h - simulated clients and servers that speak HTTP/2.
//
// Affinity:  their SimIo's thread. Ownership: as in tests/support/sim_actors.h.
// Why:       proto's own h2::Session in the other role: what it says is legal, so whatever a
// balancer
//            makes of it is the balancer's doing. Illegal frames are the business of other tests.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "proto/http2_session.h"
#include "tests/sim/http_world.h"

namespace ringway {

struct SimH2Stream final : h2::Stream {
  Asked asked;
  std::string head;  // of the answer; servers: of the request
  std::string body;  // received
  std::string trailers;
  std::string out;  // not sent yet
  std::string out_trailers;
  bool sending = false;  // `out`, then the end, are to be sent
  bool started = false;
  bool ended = false;  // all of the message was received
  bool reset = false;  // closed by whoever
  bool ours = false;   // by us
};

// What both sides share: a session over a SimConnection, and bodies that wait for windows.
class SimH2Peer : public SimHandler, public h2::SessionOwner {
 public:
  SimH2Peer(h2::Role role, const h2::SessionLimits& limits, Prng prng)
      : scratch_(64 * 1024, 64), session_(role, *this, scratch_, limits), prng_(prng) {}
  ~SimH2Peer() override;

  void on_done(SimConnection& connection) override;
  void on_request(uint32_t id, const h2::HeadBuilder& head, bool end) override;
  void on_bad_request(uint32_t id, h2::BlockError error, bool end) override;
  void on_response(h2::Stream& stream, const h2::HeadBuilder& head, bool end) override;
  void on_data(h2::Stream& stream, std::string_view bytes) override;
  void on_end(h2::Stream& stream, std::string_view trailers) override;
  void on_reset(h2::Stream& stream, h2::ErrorCode code, bool ours) override;
  void on_window(h2::Stream* /*stream*/) override {}
  void on_goaway(uint32_t /*last*/, h2::ErrorCode /*code*/) override {}
  void on_capacity() override {}
  void on_ping_ack() override {}
  void on_drained() override {}
  void on_fatal(h2::ErrorCode code, h2::Flood flood, std::string_view cause) override;
  void put(std::string_view head, std::string_view payload) override;

 protected:
  // Takes what came, sends what can be sent.
  void receive(SimConnection& connection, std::string_view bytes);
  void pump(SimConnection& connection);
  void reset(SimH2Stream& stream, h2::ErrorCode code);

  h2::SessionScratch scratch_;
  h2::Session session_;
  Prng prng_;
  std::vector<std::unique_ptr<SimH2Stream>> streams_;
  std::string in_;
  std::string out_;
};

// The server of the same requests as SimOrigin. It may end its connections (GOAWAY), and refuse
// requests that it has not looked at.
class SimH2Origin final : public SimH2Peer {
 public:
  // `client`: whom the connection's PROXY header names; -1: nobody.
  SimH2Origin(SimConnection& connection, bool faults, int64_t client, const SimOriginSide& side);
  void on_bytes(SimConnection& connection, std::string_view bytes) override;
  void on_request(uint32_t id, const h2::HeadBuilder& head, bool end) override;
  void on_end(h2::Stream& stream, std::string_view trailers) override;
  void on_ping_ack() override { session_.finish_drain(); }
  void on_drained() override { drained_ = true; }

  // Over all of them, so that a run of many seeds can tell that it went everywhere.
  static uint64_t served;
  static uint64_t goaways;
  static uint64_t refusals;
  static uint64_t named;          // requests behind a PROXY header
  static uint64_t with_trailers;  // requests with the right ones

 private:
  void answer(SimH2Stream& stream);

  int64_t requests_left_;  // before it says GOAWAY
  int64_t client_;
  int64_t owner_ = -1;  // whose requests came
  bool faults_;
  SimOriginSide side_;
  bool drained_ = false;
};

// Reads the first bytes of a connection, behind a PROXY header if there is one: HTTP/2 or not. With
// faults, one that speaks TLS may leave in the middle of a handshake.
class SimAnyOrigin final : public SimHandler, public SimTimerOwner {
 public:
  SimAnyOrigin(bool faults, const SimOriginSide& side) : faults_(faults), side_(side) {}
  void on_open(SimConnection& connection) override;
  void on_bytes(SimConnection& connection, std::string_view bytes) override;
  void on_end(SimConnection& connection, int error) override;
  void on_done(SimConnection& connection) override;
  void on_sim_timer(uint32_t tag) override;

 private:
  std::unique_ptr<SimHandler> chosen_;
  bool faults_;
  SimOriginSide side_;
  SimConnection* connection_ = nullptr;  // while timer_ runs
  uint64_t timer_ = 0;
};

// Sends requests on one connection, many at once, and keeps the answers.
class SimH2Client final : public SimH2Peer, public SimTimerOwner {
 public:
  struct Script {
    std::string first;  // in front of everything
    std::vector<Asked> asked;
    std::unique_ptr<SimCodec> tls{};  // or null
    bool faults = false;
    size_t read_slice = 0;  // see SimConnection::read_slowly()
    int64_t read_pause_us = 0;
  };

  SimH2Client(SimNet& net, SimIo& io, Script script, Prng prng);
  ~SimH2Client() override;
  void start(const ServerAddress& server, int64_t delay_us);
  // Nothing is open or planned any more.
  [[nodiscard]] bool done() const { return tried_ && !connection_.open(); }
  [[nodiscard]] const std::vector<std::unique_ptr<SimH2Stream>>& streams() const {
    return streams_;
  }

  void on_open(SimConnection& connection) override;
  void on_bytes(SimConnection& connection, std::string_view bytes) override;
  void on_goaway(uint32_t last, h2::ErrorCode code) override;
  void on_sim_timer(uint32_t tag) override;

  // Why the session itself has ended, for a peer that never errs; empty: it has not.
  [[nodiscard]] const std::string& fatal() const { return fatal_; }
  void on_fatal(h2::ErrorCode code, h2::Flood flood, std::string_view cause) override;

 private:
  void begin_next();
  void plan();
  void end_if_done();

  SimNet& net_;
  SimConnection connection_;
  Script script_;
  bool tls_;
  ServerAddress server_;
  std::string fatal_;
  size_t next_ = 0;
  uint64_t timer_ = 0;
  bool tried_ = false;
  bool open_ = false;
  bool goaway_ = false;
  bool over_ = false;
};

}  // namespace ringway
