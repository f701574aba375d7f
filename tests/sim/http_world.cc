// tests/sim/http_world.cc
#include "tests/sim/http_world.h"

#include <doctest/doctest.h>
#include <time.h>

#include <charconv>

#include "proto/proxy_header.h"
#include "tests/sim/h2_actors.h"

namespace ringway {

namespace {

constexpr uint32_t kReloadTag = 0;
constexpr uint32_t kDrainTag = 1;
constexpr uint32_t kSwapTag = 2;
// Certificates are made for today.
const int64_t kWallUs = static_cast<int64_t>(time(nullptr)) * 1'000'000;

// The PROXY header of client `number`, whose address says who it is.
std::string header_of(uint64_t number) {
  proxy::Plan plan{.family = proxy::Family::kIPv4, .checksum = true};
  plan.source.ip = {10, 9, static_cast<uint8_t>(number >> 8), static_cast<uint8_t>(number)};
  plan.source.port = static_cast<uint16_t>(5000 + number);
  plan.destination.ip = {10, 0, 0, 1};
  plan.destination.port = 80;
  std::array<char, 256> out;
  return std::string(number % 2 == 0 ? proxy::write_v1(plan, out) : proxy::write_v2(plan, out));
}

}  // namespace

SimShard::SimShard(SimNet& net, const WorkerOptions& options)
    : io(net), worker(io, options), net_(net) {
  io.set_wake_owner(*this);
  net.set_loop(io, this);
}

SimShard::~SimShard() {
  for (const Handed& handed : inbox_) {
    if (handed.fd < 0 && !handed.order) RW_CHECK(Worker::drop(handed.mail) < 0);
  }
}

void SimShard::turn() {
  io.run_once(0);
  const int64_t next_ms = worker.after_turn();
  worker.check_pools();
  deadline_us_ = next_ms < 0 ? kNever : net_.now_us() + std::max<int64_t>(next_ms, 1) * 1000;
}

void SimShard::post(uint32_t listener, int fd, const PeerAddress& peer) {
  inbox_.push_back({.listener = listener, .fd = fd, .peer = peer, .mail = {}});
  io.wake();
}

void SimShard::on_wake() {
  while (!inbox_.empty()) {
    const Handed handed = std::move(inbox_.front());
    inbox_.pop_front();
    if (handed.order) {
      handed.order();
    } else if (handed.fd < 0) {
      worker.take_mail(handed.mail);
    } else {
      worker.adopt(handed.listener, handed.fd, handed.peer);
    }
  }
}

void SimShard::tell(const ShardMail& mail) {
  inbox_.push_back({.peer = {}, .mail = mail});
  io.wake();
}

void SimShard::post(std::function<void()> order) {
  inbox_.push_back({.peer = {}, .mail = {}, .order = std::move(order)});
  io.wake();
}

HttpWorld::HttpWorld(uint64_t seed, bool faults)
    : net({.seed = seed, .faults = faults}),
      prng_(net.prng().fork()),
      faults_(faults),
      proxied_(seed % 4 == 3),
      seed_(seed),
      tls_(seed, net, prng_),
      loads_(1 + seed % 3) {
  SimOrigin::one_client_each = alone();
  REQUIRE(parse_address("10.0.0.1:80", front_));
  REQUIRE(parse_address("10.0.0.1:81", front_tcp_));
  add_servers(SimTlsSides::Group::kApp, 1, 3);
  if (tls_.preread()) {
    add_servers(SimTlsSides::Group::kRaw, 2, 2);
    add_servers(SimTlsSides::Group::kPass, 3, 2);
  }
  for (uint32_t i = 0; i < loads_.size(); ++i) {
    const WorkerOptions options{.shard = i,
                                .loads = loads_,
                                .peers = loads_.size() > 1 ? this : nullptr,
                                .clients_max = 1000,
                                .chunks_max = 4096,
                                .seed = seed * 16 + i + 1,
                                .wall_offset_us = kWallUs};
    shards_.push_back(std::make_unique<SimShard>(net, options));
  }
  apply(true);
  const uint64_t clients = 4 + prng_.below(8);
  for (uint64_t i = 0; i < clients; ++i) add_client(i);
  for (uint64_t i = prng_.below(3); i > 0; --i) {
    net.start_timer(static_cast<int64_t>(prng_.below(300'000)), *this, kReloadTag);
  }
  if (prng_.below(4) == 0) {
    net.start_timer(static_cast<int64_t>(prng_.below(400'000)), *this, kDrainTag);
  }
  for (uint64_t i = tls_.clients() ? prng_.below(3) : 0; i > 0; --i) {
    net.start_timer(static_cast<int64_t>(prng_.below(100'000)), *this, kSwapTag);
  }
}

HttpWorld::~HttpWorld() = default;

// Listens on 10.0.`subnet`.1 and so on.
void HttpWorld::add_servers(SimTlsSides::Group group, int subnet, size_t count) {
  auto& servers = group == SimTlsSides::Group::kApp   ? origins_
                  : group == SimTlsSides::Group::kRaw ? raw_origins_
                                                      : pass_origins_;
  for (uint32_t i = 0; i < count; ++i) {
    ServerAddress at;
    const std::string net_of = "10.0." + std::to_string(subnet) + ".";
    REQUIRE(parse_address(net_of + std::to_string(i + 1) + ":8080", at));
    const auto make = [this, group, i](SimConnection& connection) {
      std::unique_ptr<SimTlsServer> tls = tls_.server(group, i);
      const SimOriginSide side{.judge = this, .tls = tls.get()};
      connection.set_codec(std::move(tls));
      return std::make_unique<SimAnyOrigin>(faults_, side);
    };
    servers.push_back(std::make_unique<SimServer>(net, servers_io_, at, make));
  }
}

namespace {

std::string list_of(const std::vector<std::unique_ptr<SimServer>>& servers) {
  std::string out;
  for (const auto& server : servers) {
    out += "{ address = \"" + server->address().text() + "\" }, ";
  }
  return "servers = [" + out + "]\n";
}

}  // namespace

std::string HttpWorld::configuration(uint64_t generation) {
  std::string servers;
  for (uint64_t i = 0; i < origins_.size(); ++i) {
    // Reloads remove a server and change weights.
    if (generation > 0 && (generation + i) % 3 == 0) continue;
    servers += "{ name = \"s" + std::to_string(i) + "\", address = \"" +
               origins_[i]->address().text() +
               "\", weight = " + std::to_string(100 + generation * 10 * i) +
               ", max_requests = " + limit() + " }, ";
  }
  const std::string from =
      "\nproxy_protocol = { accept = \"required\", from = [\"127.0.0.0/8\"] }\n";
  const auto accept_on = [&](bool tcp) { return proxied_ ? from : tls_.on_listener(tcp); };
  const char* const versions[] = {"off", "v1", "v2"};
  const std::string version = versions[proxied_ ? (seed_ / 4 + generation) % 3 : 0];
  const std::string send = "send_proxy_protocol = \"" + version + "\"\n";
  // A reload changes it back and forth.
  const std::string source =
      bound() ? "source = \"10.0.7." + std::to_string(1 + generation % 2) + "\"\n" : "";
  const char* const attempts[] = {"\"off\"", "1", "2"};
  const std::string retry =
      tls_.bad() ? "retry = { attempts = " + std::string(attempts[seed_ / 16 % 3]) + " }\n" : "";
  const std::string pass =
      tls_.preread() ? "[upstreams.pass]\nprotocol = \"tcp\"\n" + list_of(pass_origins_) : "";
  const char* const modes[] = {"never", "safe", "aggressive", "always", "auto"};
  const uint64_t drawn = prng_.below(5);
  const uint64_t mode = alone() ? 0 : drawn;
  const bool h2 = prng_.below(2) == 0;
  const std::string pool =
      "reuse = \"" + std::string(modes[mode]) + "\"\nmax_connections_per_server = " + limit() +
      "\nmax_idle_per_server = " + limit() + "\nwarm = " +
      std::to_string(prng_.below(3) * (version == "off" && !tls_.request_names() ? 1 : 0)) +
      (prng_.below(2) == 0 ? "\nmax_requests_per_connection = 3" : "") +
      (prng_.below(2) == 0 ? "\nmax_age = \"1s\"" : "") +
      (prng_.below(4) == 0 ? "\nshare = \"shard\"" : "") +
      (h2 && seed_ % 3 == 0 ? "\nidle_ping = \"400ms\"" : "") +
      (prng_.below(2) == 0 ? "\nkey = [\"client.ip\"]\n" : "\n");
  return "version = 1\n[defaults.timeouts]\nrequest_headers = \"2s\"\nrequest_body = \"2s\"\n"
         "client_idle = \"3s\"\nkeep_alive = \"4s\"\nconnect = \"500ms\"\n"
         "response_headers = \"3s\"\nserver_idle = \"3s\"\ntunnel_idle = \"5s\"\n"
         "half_closed = \"2s\"\nproxy_header = \"2s\"\n[listeners.web]\nbind = \"10.0.0.1:80\"\n" +
         accept_on(false) + (seed_ % 4 < 2 ? "h2 = { idle_ping = \"500ms\" }\n" : "") +
         "[listeners.l4]\nprotocol = \"tcp\"\nbind = \"10.0.0.1:81\"\n" + accept_on(true) +
         tls_.profiles() + tls_.routes() +
         "[[routes]]\nname = \"web\"\nlisteners = [\"web\"]\nupstream = \"app\"\n"
         "[[routes]]\nname = \"l4\"\nlisteners = [\"l4\"]\nupstream = \"tcp\"\n"
         "[upstreams.app]\nservers = [" +
         servers + "]\n" + source + send + (h2 ? tls_.http_versions() : "") +
         tls_.to_servers(false) + retry +
         "[upstreams.app.timeouts]\nqueue = \"off\"\n"
         "[upstreams.app.pool]\nidle_timeout = \"2s\"\n" +
         pool + "[upstreams.tcp]\nprotocol = \"tcp\"\n" +
         (tls_.preread() ? list_of(raw_origins_) : "servers = [" + servers + "]\n") +
         "timeouts = { queue = \"off\" }\n" + source + send + tls_.to_servers(true) + pass;
}

// A small limit, a large one or none.
std::string HttpWorld::limit() {
  switch (prng_.below(4)) {
    case 0: return "\"off\"";
    case 1: return "100";
    default: return std::to_string(1 + prng_.below(4));
  }
}

void HttpWorld::apply(bool first) {
  config::LoadResult loaded = config::load_text(configuration(generation_++), "sim");
  INFO(config::render(loaded, false));
  REQUIRE(loaded.config != nullptr);
  snapshot_ = Snapshot::build(std::move(loaded.config), snapshot_.get(),
                              static_cast<uint32_t>(shards_.size()));
  snapshot_->tls = tls_.materials();
  all_snapshots_.push_back(snapshot_);
  if (!first) snapshot_->set_limits(*this);
  for (uint32_t i = 0; i < shards_.size(); ++i) {
    const auto& shard = shards_[i];
    tls_.taken(i, static_cast<uint32_t>(shards_.size()), tls_.number());
    const ListenFd fds[] = {
        {.id = 1, .listener = 0, .fd = first ? net.make_listener(front_) : -1},
        {.id = 2, .listener = 1, .fd = first ? net.make_listener(front_tcp_) : -1}};
    shard->worker.apply(snapshot_, fds, nullptr);
  }
}

// Every shard hears of it in its own time; a reload may overtake that, and knows it, too.
void HttpWorld::swap_certificates() {
  const uint64_t number = tls_.swap(prng_);
  for (uint32_t i = 0; i < shards_.size(); ++i) {
    shards_[i]->post([this, i, number, materials = tls_.materials()] {
      if (number <= tls_.number_of(i)) return;
      shards_[i]->worker.refresh_tls(*materials);
      tls_.taken(i, static_cast<uint32_t>(shards_.size()), number);
    });
  }
}

void HttpWorld::on_sim_timer(uint32_t tag) {
  if (tag == kSwapTag) return swap_certificates();
  if (tag == kReloadTag) {
    if (!drained_) apply(false);
    return;
  }
  drained_ = true;
  for (auto& shard : shards_) shard->worker.drain();
}

bool HttpWorld::hand_over(uint32_t to, uint32_t listener_id, int fd, const PeerAddress& peer) {
  shards_[to]->post(listener_id, fd, peer);
  return true;
}

// Mailboxes are full now and then.
bool HttpWorld::tell(uint32_t to, const ShardMail& mail) {
  if (prng_.below(8) == 0) return false;
  shards_[to]->tell(mail);
  return true;
}

void HttpWorld::ask_return(Budget& budget, uint32_t shard) {
  shards_[shard]->tell({.kind = ShardMail::Kind::kAskReturn, .object = &budget});
}

void HttpWorld::notify(Budget& budget, uint32_t shard) {
  shards_[shard]->tell({.kind = ShardMail::Kind::kNotify, .object = &budget});
}

Asked HttpWorld::ask(uint64_t id, const SimTlsSides::Way& way) {
  Asked asked{.id = id, .answer_bytes = prng_.below(1 + (1U << prng_.below(17)))};
  asked.host = tls_.host_of(id);
  asked.fields = tls_.made_up(way);
  // Mostly good servers; each kind of bad one now and then.
  asked.act = static_cast<Act>(prng_.below(prng_.below(3) == 0 ? uint64_t(Act::kCount) : 6));
  // A HEAD has no body to cut: the server would only close an idle connection without a word.
  asked.head = prng_.below(12) == 0 && asked.act != Act::kCut;
  if (!asked.head && prng_.below(3) == 0) {
    asked.body_bytes = 1 + prng_.below(1U << prng_.below(17));
  }
  asked.chunked = prng_.below(2) == 0;
  asked.trailers = asked.chunked && asked.body_bytes > 0 && prng_.below(2) == 0;
  return asked;
}

void HttpWorld::add_h2_client(uint64_t number, const SimTlsSides::Way& way) {
  SimH2Client::Script script;
  script.first = proxied_ ? header_of(number) : "";
  script.faults = faults_;
  script.tls = tls_.client(way, number, prng_);
  for (uint64_t i = 0, count = 1 + prng_.below(12); i < count; ++i) {
    script.asked.push_back(ask(number * 100 + i + 1, way));
  }
  if (prng_.below(4) == 0) {
    script.read_slice = 1 + prng_.below(4096);
    script.read_pause_us = static_cast<int64_t>(prng_.below(2'000));
  }
  Client client{.sim = nullptr, .asked = {}, .way = way, .h2 = nullptr};
  client.h2 = std::make_unique<SimH2Client>(net, clients_io_, std::move(script), prng_.fork());
  client.h2->start(front_, static_cast<int64_t>(prng_.below(100'000)));
  clients_.push_back(std::move(client));
}

void HttpWorld::add_client(uint64_t number) {
  const SimTlsSides::Way way = tls_.draw_way(prng_);
  if (way.http2) return add_h2_client(number, way);
  Client client{.sim = nullptr, .asked = {}, .way = way, .h2 = nullptr};
  client.tcp = way.tcp || way.through;
  SimClient::Script script;
  std::string all = proxied_ ? header_of(number) : "";
  for (uint64_t i = 0, count = 1 + prng_.below(6); i < count; ++i) {
    const Asked asked = ask(number * 100 + i + 1, way);
    all += asked.bytes();
    client.asked.push_back(asked);
  }
  while (!all.empty()) {
    const size_t part = std::min<size_t>(all.size(), 1 + prng_.below(1U << prng_.below(18)));
    script.pieces.push_back({static_cast<int64_t>(prng_.below(20'000)), all.substr(0, part)});
    all.erase(0, part);
  }
  script.end = SimClient::End::kNone;
  if (faults_ && prng_.below(8) == 0) script.end = SimClient::End::kReset;
  if (faults_ && prng_.below(8) == 0) script.end = SimClient::End::kFin;
  if (way.hello != SimTlsSides::Hello::kWhole) {
    script.pieces.clear();
    const bool cut = way.hello == SimTlsSides::Hello::kCut;
    script.end = cut ? SimClient::End::kFin : SimClient::End::kNone;
  }
  script.end_delay_us = static_cast<int64_t>(prng_.below(50'000));
  if (prng_.below(4) == 0) {
    script.read_slice = 1 + prng_.below(4096);
    script.read_pause_us = static_cast<int64_t>(prng_.below(2'000));
  }
  client.sim = std::make_unique<SimClient>(net, clients_io_, std::move(script));
  client.sim->connection().set_codec(tls_.client(way, number, prng_));
  if (tls_.preread() && prng_.below(2) == 0) {
    client.sim->connection().send_slowly(prng_.below(400), static_cast<int64_t>(prng_.below(200)));
  }
  client.sim->start(way.tcp ? front_tcp_ : front_, static_cast<int64_t>(prng_.below(100'000)));
  clients_.push_back(std::move(client));
}

bool HttpWorld::clients_done() const {
  for (const Client& client : clients_) {
    if (!(client.h2 != nullptr ? client.h2->done() : client.sim->done())) return false;
  }
  return true;
}

bool HttpWorld::run() {
  net.run_until([&] { return clients_done(); }, 20'000);
  net.stop_faults();
  if (!net.run_until([&] { return clients_done(); }, 2'000'000)) return false;
  for (auto& shard : shards_) shard->worker.stop();
  const auto finished = [&] {
    bool all = true;
    for (auto& shard : shards_) all = shard->worker.finished() && all;
    return all;
  };
  if (!net.run_until(finished, 200'000)) return false;
  for (auto* servers : {&origins_, &raw_origins_, &pass_origins_}) {
    for (auto& server : *servers) {
      server->stop();
      server->close_all();
    }
  }
  return net.run_until([&] { return net.live_sockets() == 0; }, 200'000);
}

// Servers are reached from the configured source alone.
std::string HttpWorld::check_sources() const {
  for (const SimRecord& record : net.records()) {
    const auto& ip = record.client.ip;
    const bool from_source = ip[0] == 10 && ip[2] == 7 && (ip[3] == 1 || ip[3] == 2);
    for (const auto& origin : origins_) {
      if (record.server != origin->address().text() || from_source == bound()) continue;
      return "a connection to " + record.server + " came from elsewhere";
    }
  }
  return {};
}

std::string HttpWorld::check() {
  if (SimOrigin::corrupted > 0) return "a request's body or path was corrupted on its way";
  if (!complaint_.empty()) return complaint_;
  for (const Client& client : clients_) {
    const std::string wrong = check_client(client);
    if (!wrong.empty()) return wrong;
  }
  std::string wrong = check_sources();
  if (wrong.empty()) wrong = check_tls();
  return wrong.empty() ? check_gauges() : wrong;
}

void HttpWorld::judge(const Asked& asked, std::string_view head, const SimTlsServer* tls,
                      bool http2) {
  if (!complaint_.empty()) return;
  const std::string wrong = tls_.judge(clients_.at(asked.id / 100).way, asked.id, head, tls, http2);
  if (!wrong.empty()) complaint_ = "request " + std::to_string(asked.id) + ": " + wrong;
}

bool HttpWorld::note_refused(std::string_view status, std::string_view body, bool head) {
  ++refused;
  if (status != "502" || !(head ? tls_.bad() : tls_.explains(body))) return false;
  ++explained;
  return true;
}

std::string HttpWorld::check_tls() {
  std::vector<SimTlsSides::Way> ways;
  uint64_t cut = 0;
  uint64_t silent = 0;
  for (const Client& client : clients_) {
    ways.push_back(client.way);
    if (client.way.hello == SimTlsSides::Hello::kCut) ++cut;
    if (client.way.hello == SimTlsSides::Hello::kSilent) ++silent;
  }
  const bool calm = !faults_ && !drained_;
  uint64_t errors[kPrereadErrorNames.size()] = {};
  std::vector<const void*> seen;
  for (const auto& snapshot : all_snapshots_) {
    for (const auto& listener : snapshot->listeners) {
      if (std::find(seen.begin(), seen.end(), listener.get()) != seen.end()) continue;
      seen.push_back(listener.get());
      for (uint32_t shard = 0; shard < shards_.size(); ++shard) {
        const ListenerStats& stats = listener->shard.at(shard);
        for (size_t i = 0; i < std::size(errors); ++i) errors[i] += stats.preread_errors[i].get();
      }
    }
  }
  for (const uint64_t count : errors) preread += count;
  if (!faults_ && preread > cut + silent) return "a whole hello was refused";
  if (calm && (errors[size_t(PrereadError::kTruncated)] != cut ||
               errors[size_t(PrereadError::kTimeout)] != silent)) {
    return "a hello that is not whole was not counted as such";
  }
  for (const auto& shard : shards_) {
    if (shard->worker.tls().sessions() != 0) return "TLS sessions are left";
    if (shard->worker.tls().handshakes_waiting() != 0) return "handshakes are left";
  }
  return tls_.check(ways, calm);
}

// Reads the answers in order. Only the last one may be cut, and only where something went wrong:
// good servers, no faults and no drain leave no request without its whole answer, up to one behind
// which the connection closes.
std::string HttpWorld::check_client(const Client& client) {
  if (client.h2 != nullptr) {
    if (!client.h2->fatal().empty()) return "the balancer breaks HTTP/2: " + client.h2->fatal();
    for (const auto& stream : client.h2->streams()) {
      if (tls_.refuses(client.way)) {
        if (!stream->head.empty()) return "an answer for who must have none";
        continue;
      }
      const std::string wrong = check_h2_stream(*stream);
      if (!wrong.empty()) return wrong;
    }
    return "";
  }
  std::string_view in = client.sim->connection().received();
  if (tls_.refuses(client.way)) return in.empty() ? "" : "an answer for who must have none";
  bool calm = !faults_ && !drained_;
  // Layer 4 has no answer of its own for a server that it does not trust.
  if (client.tcp && !client.way.through && tls_.bad()) calm = false;
  for (const Asked& asked : client.asked) {
    const std::string who = "request " + std::to_string(asked.id) + ": ";
    calm = calm && asked.act < Act::kMalformed;
    const std::string missing = calm ? who + "no whole answer" : "";
    std::string_view head;
    do {
      const size_t end = in.find("\r\n\r\n");
      if (end == std::string_view::npos) return missing;  // Cut, or not answered.
      head = in.substr(0, end + 4);
      in.remove_prefix(end + 4);
    } while (head.starts_with("HTTP/1.1 103"));
    const std::string status(head.substr(9, 3));
    std::string body;
    // An answer to a head that never became whole has a body: nobody knew it would say HEAD.
    const bool bodiless = (asked.head && !in.starts_with(status)) || status == "204";
    if (!bodiless && head.find("Transfer-Encoding: chunked") != std::string_view::npos) {
      std::string trailers;
      const size_t used = take_chunks(in, body, trailers);
      if (used == 0) return missing;
      in.remove_prefix(used);
    } else if (const size_t at = head.find("Content-Length: ");
               !bodiless && at != std::string_view::npos) {
      const size_t size = strtoull(std::string(head.substr(at + 16, 20)).c_str(), nullptr, 10);
      if (in.size() < size) {
        const std::string whole = body_of(asked.id, asked.answer_bytes, true);
        if (status == "200" && !whole.starts_with(in.substr(0, whole.size()))) {
          return who + "the part of the answer that came is not its own";
        }
        return missing;
      }
      body = in.substr(0, size);
      in.remove_prefix(size);
    } else if (!bodiless && client.tcp) {
      body = in;  // Until close, relayed as it is.
      in = {};
      if (body != body_of(asked.id, body.size(), true)) return who + "until-close body is wrong";
      return body.size() < asked.answer_bytes ? missing : "";
    }
    if (status == "200" || status == "204") {
      const std::string id = "-Id: " + std::to_string(asked.id) + "\r\n";
      std::string small = id;  // As servers of HTTP/2 write it.
      small[1] = 'i';
      if (head.find("X" + id) == std::string_view::npos &&
          head.find("x" + small) == std::string_view::npos) {
        // Layer 4 relays malformed answers too.
        if (client.tcp && asked.act == Act::kMalformed) return "";
        return who + "answered with another's response";
      }
      if (status == "200" && !asked.head && body != body_of(asked.id, asked.answer_bytes, true)) {
        return who + "the answer's body is wrong";
      }
      ++answered;
    } else if (!note_refused(status, body, asked.head) && calm) {
      return who + "status " + status;
    }
    calm = calm && head.find("Connection: close\r\n") == std::string_view::npos;
  }
  if (in.empty()) return "";
  return "bytes behind the last answer: " + std::string(in.substr(0, 160));
}

// What happened at all, so that a run of many seeds can tell that it went everywhere.
void HttpWorld::add_up(const Snapshot& snapshot, uint32_t shard) {
  const auto is_new = [&](const void* object) {
    if (std::find(counted_.begin(), counted_.end(), object) != counted_.end()) return false;
    counted_.push_back(object);
    return true;
  };
  for (const auto& upstream : snapshot.upstreams) {
    UpstreamStats& stats = upstream->shard.at(shard);
    if (is_new(&stats)) queued += stats.queued_total.get();
  }
  for (const auto& servers : snapshot.servers) {
    for (const auto& server : servers) {
      ServerStats& stats = server->shard.at(shard);
      if (!is_new(&stats)) continue;
      lent += stats.lent.get();
      for (size_t i = 0; i < kHows; ++i) handed[i] += stats.pool.handed[i].get();
      for (size_t i = 0; i < kCloseReasons; ++i) closed[i] += stats.pool.closed[i].get();
    }
  }
}

std::string HttpWorld::check_gauges() {
  for (const auto& snapshot : all_snapshots_) {
    for (uint32_t shard = 0; shard < shards_.size(); ++shard) {
      add_up(*snapshot, shard);
      for (const auto& listener : snapshot->listeners) {
        ListenerStats& stats = listener->shard.at(shard);
        if (stats.active.get() != 0) return "listener gauge: active";
        if (stats.active_requests.get() != 0) return "listener gauge: active_requests";
        uint64_t responses = 0;
        for (const Counter& by_class : stats.responses) responses += by_class.get();
        if (responses != stats.requests.get() + stats.rejected_heads.get()) {
          return "requests and responses do not add up";
        }
      }
      for (const auto& upstream : snapshot->upstreams) {
        if (upstream->shard.at(shard).active.get() != 0) return "upstream gauge: active";
      }
      for (const auto& servers : snapshot->servers) {
        for (const auto& server : servers) {
          ServerStats& stats = server->shard.at(shard);
          uint64_t left = 0;
          for (const Counter& place : stats.pool.places) left += place.get();
          if (left != 0) {
            return "server gauge: connections";
          }
          if (stats.sessions.get() != 0) return "server gauge: sessions";
        }
      }
    }
  }
  for (const ShardLoad& load : loads_) {
    if (load.clients.load() != 0) return "shard load";
  }
  return "";
}

}  // namespace ringway
