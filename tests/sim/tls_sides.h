// tests/sim/tls_sides.h - what a seed makes of TLS: who speaks it, how, and with whose certificate.
//
// Affinity:  one thread. Ownership: part of an HttpWorld; outlives its actors.
// Why:       the world asks for pieces of a configuration, for codecs and for verdicts, and knows
//            nothing of certificates itself.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "lb/tls/tls_materials.h"
#include "tests/support/sim_tls.h"

namespace ringway {

class SimTlsSides {
 public:
  enum class Auth : uint8_t { kOff, kOptional, kRequired };
  // What is wrong with a server's certificate.
  enum class Bad : uint8_t { kNone, kExpired, kWrongName, kSelfSigned, kUnknownCa };
  // The certificate that a client shows if it is asked for one.
  enum class Shown : uint8_t { kNothing, kGood, kRevoked, kStrange };
  // Servers by what is asked of them: requests, bytes of whatever protocol, bytes for one name.
  enum class Group : uint8_t { kApp, kRaw, kPass };
  enum class Hello : uint8_t { kWhole, kSilent, kCut };

  // What one client does.
  struct Way {
    bool tls = false;
    bool tcp = false;  // by the listener of layer 4
    bool http2 = false;
    bool through = false;  // its TLS ends at a server of `group`
    Group group = Group::kApp;
    std::string name{};  // that it asks for
    Shown shown = Shown::kNothing;
    Hello hello = Hello::kWhole;
  };

  SimTlsSides(uint64_t seed, const SimNet& net, Prng& prng);

  [[nodiscard]] bool clients() const { return clients_; }
  [[nodiscard]] bool servers() const { return servers_; }
  [[nodiscard]] bool preread() const { return preread_; }
  // Whether servers have certificates that must be refused; all of them.
  [[nodiscard]] bool bad() const { return bad_ != Bad::kNone; }
  // Servers are asked for the names that requests have: connections opened ahead have none.
  [[nodiscard]] bool request_names() const { return request_names_; }
  [[nodiscard]] bool all_bad() const { return bad() && bad_server_ < 0; }

  // Pieces of the configuration.
  [[nodiscard]] std::string profiles() const;
  [[nodiscard]] std::string on_listener(bool tcp) const;
  [[nodiscard]] std::string routes() const;
  [[nodiscard]] std::string http_versions() const;  // of servers that may speak HTTP/2
  [[nodiscard]] std::string to_servers(bool tcp) const;
  [[nodiscard]] const std::shared_ptr<const TlsMaterials>& materials() const { return materials_; }

  // Another certificate for clients, as the directory's watcher finds it. Returns its number.
  uint64_t swap(Prng& prng);
  // Shard `shard` of `shards` uses the materials number `number` from now on.
  void taken(uint32_t shard, uint32_t shards, uint64_t number);
  // The number of what a shard uses.
  [[nodiscard]] uint64_t number_of(uint32_t shard) const { return by_shard_.at(shard); }
  [[nodiscard]] uint64_t number() const { return number_; }

  [[nodiscard]] Way draw_way(Prng& prng) const;
  // TLS of a client, or null.
  [[nodiscard]] std::unique_ptr<SimCodec> client(const Way& way, uint64_t client, Prng& prng);
  // TLS of a server, or null.
  [[nodiscard]] std::unique_ptr<SimTlsServer> server(Group group, uint32_t index);
  // The host that request `id` names, and the lines about certificates that a client makes up.
  [[nodiscard]] std::string host_of(uint64_t id) const;
  [[nodiscard]] std::string made_up(const Way& way) const;

  // Oracles; "" or what is wrong.
  // A request as a server sees it: `head` as it came, on a connection of `tls` (or null).
  [[nodiscard]] std::string judge(const Way& way, uint64_t id, std::string_view head,
                                  const SimTlsServer* tls, bool http2) const;
  // What an answer of status 502 may say.
  [[nodiscard]] bool explains(std::string_view body) const;
  // The client's handshake must not succeed.
  [[nodiscard]] bool refuses(const Way& way) const;
  // Everything that was seen in the end.
  [[nodiscard]] std::string check(const std::vector<Way>& ways, bool calm) const;

  // How often what happened, for a run of many seeds.
  struct Count {
    uint64_t handshakes = 0;
    uint64_t resumed = 0;
    uint64_t early = 0;           // data that was accepted
    uint64_t early_rejected = 0;  // and rejected
    uint64_t http2 = 0;           // connections of clients
    uint64_t through = 0;         // handshakes with servers behind layer 4
    uint64_t refused = 0;         // clients, over their certificate
    uint64_t swapped = 0;         // met a certificate that was put in place while running
    uint64_t to_servers = 0;      // handshakes of the balancer
    uint64_t to_servers_resumed = 0;
    uint64_t bad_servers = 0;  // that the balancer refused

    Count& operator+=(const Count& other);
    [[nodiscard]] bool all_met() const;
  };
  [[nodiscard]] Count count() const;

 private:
  struct Kind {
    bool http2;
    bool through;
    Shown shown;
    std::unique_ptr<SimTlsStore> store;
  };
  struct Server {
    Group group;
    uint32_t index;
    Bad bad;
    std::unique_ptr<SimTlsServerStore> store;
  };
  struct Swap {
    int64_t first_us = -1;  // a shard had it; -1: not yet
    int64_t last_us = -1;   // all had it
  };

  [[nodiscard]] SimTlsStore& store_of(const Way& way);
  [[nodiscard]] std::string check_meeting(const SimTlsMeeting& meeting, const Way& way) const;
  [[nodiscard]] std::string check_front(const SimTlsMeeting& meeting) const;

  const SimNet& net_;
  bool clients_;
  bool servers_;
  bool preread_ = false;
  bool request_names_ = false;  // servers are asked for the name that the request has
  bool all_http2_ = false;      // all servers choose it
  Auth auth_ = Auth::kOff;
  Bad bad_ = Bad::kNone;
  int bad_server_ = -1;  // the only one that is bad
  uint64_t number_ = 0;
  std::shared_ptr<const TlsMaterials> materials_;
  std::vector<Swap> swaps_;
  std::vector<uint64_t> by_shard_;
  std::vector<Kind> kinds_;
  std::vector<Server> stores_;
};

}  // namespace ringway
