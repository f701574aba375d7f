// lb/admin/admin_api.h - the runtime API: servers, pools, shards, metrics and reload over HTTP.
//
// Affinity:  control thread. Ownership: owns the requests that wait for shards; the host and the
//            servers that requests come from are the caller's.
// Bounds:    one waiting request per connection of the HTTP servers. Nothing here blocks: a change
//            is answered when every shard has acknowledged it.
// Why:       after that answer no shard starts a request on a server that was taken out. A request
//            that was connecting to it when the shard was told counts until its connection is made
//            or has failed, so the acknowledgement waits for those as well.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/io.h"
#include "core/timers.h"
#include "lb/admin/admin_json.h"
#include "lb/admin/http_server.h"
#include "lb/shard.h"
#include "lb/snapshot.h"

namespace ringway {

// What the API asks of the control thread.
class AdminHost {
 public:
  struct Status {
    std::string file;  // "": started without one
    uint64_t reloads_ok = 0;
    uint64_t reloads_failed = 0;
    int64_t uptime_us = 0;
    bool reloading = false;
    bool draining = false;
  };
  struct Reloaded {
    bool good = false;
    std::string error{};
    std::string text{};         // diagnostics for people; may be empty
    std::string diagnostics{};  // the same as a JSON document; may be empty
  };

  [[nodiscard]] virtual const std::shared_ptr<const Snapshot>& admin_snapshot() = 0;
  [[nodiscard]] virtual ShardSet& admin_shards() = 0;
  [[nodiscard]] virtual std::string metrics() = 0;
  [[nodiscard]] virtual Status status() = 0;
  // Reads the file again, soon; returns the number of that reload, with which AdminApi::reloaded()
  // is called when it has ended, never before this returns. It is one that had not begun.
  [[nodiscard]] virtual uint64_t ask_reload() = 0;
  // Makes all shards read the settings of servers again. They have once each one's controlled() is
  // at least the number returned.
  [[nodiscard]] virtual uint64_t post_controls() = 0;
  // A server went into or out of maintenance.
  virtual void checks_changed() = 0;
  // One line in the process log, whatever its level.
  virtual void audit(const std::string& text) = 0;

 protected:
  ~AdminHost() = default;
};

class AdminApi final : public HttpHandler, public TimerOwner {
 public:
  AdminApi(Io& io, Timers& timers, AdminHost& host);
  ~AdminApi();

  void on_request(HttpServer& server, HttpTicket ticket, const HttpRequest& request) override;
  // Looks at what waits for shards. To be called after every turn.
  void step();
  // A reload has ended: what asked for it is answered.
  void reloaded(uint64_t number, const AdminHost::Reloaded& outcome);
  // `server` is about to die; nobody will get its answers.
  void forget(const HttpServer& server);
  // Requests that wait.
  [[nodiscard]] size_t waiting() const { return pending_.size(); }

  void on_timer(Timer& timer) override;

  static constexpr int64_t kPollMs = 10;
  static constexpr int64_t kConnectingMsMax = 30'000;
  static constexpr uint64_t kWaitSecondsMax = 86'400;

 private:
  struct Call;
  struct Pending;

  void route(Call& call);
  void route_servers(Call& call);
  void route_server(Call& call, std::string_view rest);
  void patch_server(Call& call, const ServerRef& server);
  void reload(Call& call);
  void await_reload(Pending& pending);
  void refuse_reload(Pending& pending, const AdminHost::Reloaded& outcome);
  void ask_pools(Call& call);
  void wait_for_shards(Call& call, std::unique_ptr<Pending> pending);

  [[nodiscard]] bool acknowledged(uint64_t sequence);
  // True: it was answered.
  [[nodiscard]] bool advance(Pending& pending);
  [[nodiscard]] bool advance_wait(Pending& pending);
  void answer(Pending& pending);

  [[nodiscard]] ServerRef find(std::string_view upstream, std::string_view server);
  [[nodiscard]] int64_t now_ms() const { return io_.now_us() / 1000; }

  Io& io_;
  Timers& timers_;
  AdminHost& host_;
  Timer timer_{*this};
  std::vector<std::unique_ptr<Pending>> pending_;
};

}  // namespace ringway
