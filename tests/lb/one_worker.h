// tests/lb/one_worker.h - one worker in a simulated network without faults, with scripted peers.
#pragma once

#include <doctest/doctest.h>
#include <time.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "lb/config/load.h"
#include "lb/worker.h"
#include "tests/support/sim_actors.h"

namespace ringway {

// What a scripted server does with each request: gets the bytes so far of a connection, answers on
// it as it likes, and returns how many of them it is done with.
using ServerScript = std::function<size_t(SimConnection& connection, std::string_view bytes)>;

// Answers every complete head with 200 and `body`.
inline ServerScript answers(std::string body) {
  return [body = std::move(body)](SimConnection& connection, std::string_view bytes) -> size_t {
    const size_t end = bytes.find("\r\n\r\n");
    if (end == std::string_view::npos) return 0;
    connection.send("HTTP/1.1 200 OK\r\nContent-Length: " + std::to_string(body.size()) +
                    "\r\n\r\n" + body);
    return end + 4;
  };
}

class ScriptHandler final : public SimHandler {
 public:
  ScriptHandler(const ServerScript& script, uint64_t& requests)
      : script_(script), requests_(requests) {}
  void on_bytes(SimConnection& connection, std::string_view /*bytes*/) override {
    while (at_ < connection.received().size()) {
      const size_t used = script_(connection, std::string_view(connection.received()).substr(at_));
      if (used == 0) return;
      at_ += used;
      ++requests_;
    }
  }

 private:
  const ServerScript& script_;
  uint64_t& requests_;
  size_t at_ = 0;
};

class OneWorker final : public SimLoop {
 public:
  // `settings` stands behind the servers of the upstream: "retry = ..." and tables of it;
  // `listener` behind the listener's bind. %0, %1, ... in neither. `tls`: what they need of TLS.
  explicit OneWorker(std::vector<ServerScript> scripts, const std::string& settings = "",
                     const std::string& listener = "", bool tcp = false,
                     std::shared_ptr<const TlsMaterials> tls = nullptr)
      : tcp_(tcp), listener_(listener), tls_(std::move(tls)) {
    net.set_loop(io, this);
    scripts_ = std::move(scripts);
    requests.resize(scripts_.size());
    for (size_t i = 0; i < scripts_.size(); ++i) {
      ServerAddress at;
      REQUIRE(parse_address("10.0.1." + std::to_string(i + 1) + ":80", at));
      addresses.push_back(at);
      servers_.push_back(nullptr);
      start_server(i);
    }
    REQUIRE(parse_address("10.0.0.1:80", front));
    apply(settings, net.make_listener(front));
  }

  ~OneWorker() {
    worker.stop();
    CHECK(net.run_until([&] { return worker.finished(); }, 100'000));
    for (auto& server : servers_) {
      if (server == nullptr) continue;
      server->stop();
      server->close_all();
    }
    for (auto& client : clients_) client->connection().close();
    CHECK(net.run_until([&] { return net.live_sockets() == 0; }, 100'000));
  }
  // Before what their codecs use is gone.
  void close_clients() {
    for (auto& client : clients_) client->connection().close();
    run(10);
  }

  // What stands behind the listener's bind from the next apply() on.
  void set_listener(const std::string& text) { listener_ = text; }
  void apply(const std::string& settings, int fd = -1) {
    std::string text = "version = 1\n[listeners.web]\nbind = \"10.0.0.1:80\"\n" +
                       std::string(tcp_ ? "protocol = \"tcp\"\n" : "") + listener_ +
                       "\n[[routes]]\nname = \"all\"\nupstream = \"app\"\n[upstreams.app]\n" +
                       std::string(tcp_ ? "protocol = \"tcp\"\n" : "") +
                       "balance.algorithm = " + "\"first\"\nservers = [";
    for (const ServerAddress& at : addresses) text += "{ address = \"" + at.text() + "\" }, ";
    config::LoadResult loaded = config::load_text(text + "]\n" + settings + "\n", "test");
    INFO(config::render(loaded, false));
    REQUIRE(loaded.config != nullptr);
    snapshot = Snapshot::build(std::move(loaded.config), snapshot.get(), 1);
    snapshot->tls = tls_;
    const ListenFd listen{.id = 1, .listener = 0, .fd = fd};
    worker.apply(snapshot, {&listen, 1}, nullptr);
  }

  void start_server(size_t i) {
    servers_[i] =
        std::make_unique<SimServer>(net, servers_io, addresses[i], [this, i](auto& connection) {
          if (server_codec) connection.set_codec(server_codec(i));
          return std::make_unique<ScriptHandler>(scripts_[i], requests[i]);
        });
  }
  void stop_server(size_t i) {
    servers_[i]->stop();
    servers_[i]->close_all();
  }

  // A client that sends `pieces`, a millisecond apart. Its answers come with run().
  // `codec`: its TLS, or null.
  SimConnection& client(const std::vector<std::string>& pieces,
                        std::unique_ptr<SimCodec> codec = nullptr) {
    SimClient::Script script;
    script.end = SimClient::End::kNone;
    for (const std::string& piece : pieces) script.pieces.push_back({1'000, piece});
    clients_.push_back(std::make_unique<SimClient>(net, clients_io, std::move(script)));
    clients_.back()->connection().set_codec(std::move(codec));
    clients_.back()->start(front);
    return clients_.back()->connection();
  }
  // Lets `ms` of virtual time pass.
  void run(int64_t ms) { net.run_for(ms * 1000, 1'000'000); }
  // What one client gets for `bytes` within `ms`.
  std::string ask(const std::string& bytes, int64_t ms = 100) {
    SimConnection& asking = client({bytes});
    run(ms);
    return asking.received();
  }

  void turn() override {
    io.run_once(0);
    const int64_t next_ms = worker.after_turn();
    worker.check_pools();
    deadline_us_ = next_ms < 0 ? kNever : net.now_us() + std::max<int64_t>(next_ms, 1) * 1000;
  }
  [[nodiscard]] int64_t deadline_us() const override { return deadline_us_; }

  [[nodiscard]] ListenerStats& listener() { return snapshot->listeners[0]->shard.at(0); }
  [[nodiscard]] UpstreamStats& upstream() { return snapshot->upstreams[0]->shard.at(0); }
  [[nodiscard]] ServerStats& server(size_t i) { return snapshot->servers[0][i]->shard.at(0); }

  SimNet net{SimOptions{.faults = false, .latency_us_max = 200}};
  SimIo io{net};
  SimIo servers_io{net};
  SimIo clients_io{net};
  std::array<ShardLoad, 1> loads;
  Worker worker{io,
                {.loads = loads,
                 .clients_max = 100,
                 .chunks_max = 1024,
                 .wall_offset_us = static_cast<int64_t>(time(nullptr)) * 1'000'000}};
  std::shared_ptr<Snapshot> snapshot;
  std::vector<ServerAddress> addresses;
  std::vector<uint64_t> requests;  // that each server was done with
  ServerAddress front;
  // The TLS of a connection to a server, by its number; empty: none.
  std::function<std::unique_ptr<SimCodec>(size_t)> server_codec;

 private:
  bool tcp_;
  std::string listener_;
  std::shared_ptr<const TlsMaterials> tls_;
  std::vector<ServerScript> scripts_;
  std::vector<std::unique_ptr<SimServer>> servers_;
  std::vector<std::unique_ptr<SimClient>> clients_;
  int64_t deadline_us_ = 0;
};

inline const std::string kGet = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

// How often `what` stands in `text`.
inline size_t count_of(std::string_view text, std::string_view what) {
  size_t count = 0;
  for (size_t at = 0; (at = text.find(what, at)) != std::string_view::npos; at += what.size()) {
    ++count;
  }
  return count;
}

}  // namespace ringway
