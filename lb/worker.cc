// lb/worker.cc
#include "lb/worker.h"

#include <errno.h>

#include <algorithm>

#include "core/base/check.h"
#include "core/base/utc.h"
#include "lb/tls/client_facts.h"

namespace ringway {
namespace {

// Different keys of server connections on one shard, over all servers.
constexpr size_t kKeyGroupsMax = 1 << 20;

// At once on one shard: with HTTP/2 a client may have many, and 1,000 clients with 100 are usual.
size_t requests_max(uint64_t clients_max) {
  return std::max<size_t>(clients_max * 4, 128 * 1024);
}

// A parser that knows for how many fields it was made: a reload may raise the limit.
class PooledParser final : public http1::HeadParser {
 public:
  explicit PooledParser(uint32_t fields) : HeadParser(fields), fields_max(fields) {}
  const uint32_t fields_max;
};

}  // namespace

void ShardListener::on_accepted(int fd, const PeerAddress& peer) {
  worker_.accept(*this, fd, peer);
}

void ShardListener::apply(std::shared_ptr<const Snapshot> snapshot, uint32_t index,
                          uint32_t shard) {
  index_ = index;
  config_ = &snapshot->config->listeners[index];
  object_ = snapshot->listeners[index];
  stats_ = &object_->shard.at(shard);
  snapshot_ = std::move(snapshot);
}

Worker::Worker(Io& io, const WorkerOptions& options)
    : io_(io),
      options_(options),
      timers_(std::max<int64_t>(io.now_us() / 1000, 1)),
      chunks_(options.chunks_max),
      tls_(io.now_us()),
      stream_env_{io_, chunks_, &tls_.shard()},
      server_conns_(options.clients_max * 2),
      key_groups_(kKeyGroupsMax),
      session_entries_(options.clients_max * 2),
      prng_(options.seed ^ 0x6b65'7973U),
      pool_memory_{key_groups_, options.secret, prng_, key_buffer_},
      clients_(options.clients_max),
      exchanges_(requests_max(options.clients_max)),
      http2_(options.clients_max, requests_max(options.clients_max)),
      sessions_(options.clients_max),
      tlv_rooms_(options.clients_max),
      origins_(options.clients_max),
      muxes_(options.clients_max * 2, requests_max(options.clients_max)),
      pool_{stream_env_, timers_, server_conns_, pool_memory_, &muxes_},
      upstream_context_{pool_,
                        options.shard,
                        static_cast<uint32_t>(options.loads.size()),
                        *this,
                        options.peers == nullptr ? nullptr : this,
                        tls_} {
  RW_CHECK(options_.shard < options_.loads.size());
}

Worker::~Worker() {
  reclaim();
  RW_CHECK(clients_.in_use() == 0 && sessions_.in_use() == 0);
  for (const Undelivered& item : undelivered_) {
    const int fd = drop(item.mail);
    if (fd >= 0) io_.discard(fd);
  }
  for (http1::HeadParser* parser : free_parsers_) delete static_cast<PooledParser*>(parser);
}

void Worker::apply(std::shared_ptr<const Snapshot> snapshot, std::span<const ListenFd> fds,
                   LogRing* access_log) {
  access_log_ = access_log;
  access_format_ = snapshot->config->access_log.format;
  snapshots_.push_back(std::make_unique<SnapshotUse>());
  current_ = snapshots_.back().get();
  current_->snapshot = std::move(snapshot);
  uint32_t fields = 1;
  size_t head_bytes = 4096;
  for (const config::Listener& listener : current_->snapshot->config->listeners) {
    fields = std::max(fields, listener.limits.headers);
    head_bytes = std::max<size_t>(head_bytes, listener.limits.header_bytes);
  }
  // A head grows by the forwarding fields and the configured ones.
  render_bytes_ = 2 * head_bytes + 65'536;
  render_ = std::make_unique_for_overwrite<char[]>(render_bytes_);
  path_buffer_.reserve(head_bytes);
  http2_.prepare(static_cast<uint32_t>(head_bytes), fields);
  muxes_.prepare(static_cast<uint32_t>(render_bytes_), fields);
  if (fields > parser_fields_) {
    for (http1::HeadParser* parser : free_parsers_) delete static_cast<PooledParser*>(parser);
    free_parsers_.clear();
    parser_fields_ = fields;
  }
  pace_ = OutputPace(current_->snapshot->config->engine.spin_us);
  apply_tls();
  apply_upstreams();
  apply_listeners(fds);
  unsettled_ = true;
  sweep();
}

void Worker::apply_upstreams() {
  const std::shared_ptr<const Snapshot>& snapshot = current_->snapshot;
  std::vector<std::unique_ptr<ShardUpstream>> old = std::move(upstreams_);
  upstreams_.clear();
  by_index_.clear();
  for (uint32_t i = 0; i < snapshot->config->upstreams.size(); ++i) {
    const std::string& name = snapshot->config->upstreams[i].name;
    const auto known = std::find_if(old.begin(), old.end(), [&](const auto& upstream) {
      return upstream != nullptr && upstream->name() == name;
    });
    if (known != old.end()) {
      upstreams_.push_back(std::move(*known));
    } else {
      upstreams_.push_back(std::make_unique<ShardUpstream>(
          upstream_context_, options_.seed + i * 0x9e37'79b9'7f4a'7c15U));
    }
    upstreams_.back()->apply(snapshot, i);
    by_index_.push_back(upstreams_.back().get());
  }
  for (auto& upstream : old) {
    if (upstream == nullptr) continue;
    upstream->retire();
    leaving_upstreams_.push_back(std::move(upstream));
  }
}

void Worker::apply_listeners(std::span<const ListenFd> fds) {
  std::vector<std::unique_ptr<ShardListener>> old = std::move(listeners_);
  listeners_.clear();
  for (const ListenFd& wanted : fds) {
    const auto known = std::find_if(old.begin(), old.end(), [&](const auto& listener) {
      return listener != nullptr && listener->id() == wanted.id;
    });
    if (known != old.end()) {
      RW_CHECK(wanted.fd < 0);
      listeners_.push_back(std::move(*known));
    } else {
      listeners_.push_back(std::make_unique<ShardListener>(*this, wanted.id, wanted.fd));
    }
    ShardListener& listener = *listeners_.back();
    listener.apply(current_->snapshot, wanted.listener, options_.shard);
    listener.tls_ = tls_.listener(wanted.listener);
    if (wanted.fd < 0) continue;
    if (draining_) {
      io_.discard(wanted.fd);
      listener.fd_ = -1;
    } else {
      io_.listen(wanted.fd, listener);
    }
  }
  for (auto& listener : old) {
    if (listener != nullptr) retire(std::move(listener));
  }
}

void Worker::retire(std::unique_ptr<ShardListener> listener) {
  if (listener->fd_ >= 0) {
    io_.unlisten(listener->fd_);
    io_.discard(listener->fd_);
    listener->fd_ = -1;
  }
  listener->retired = true;
  listener->tls_ = nullptr;  // Who still waits for a PROXY header finds none, and is closed.
  for (ClientConn& client : client_list_) {
    if (&client.listener() == listener.get()) client.drain();
  }
  leaving_listeners_.push_back(std::move(listener));
}

uint64_t Worker::clients_everywhere() const {
  uint64_t sum = 0;
  for (const ShardLoad& load : options_.loads) sum += load.clients.load(std::memory_order_relaxed);
  return sum;
}

uint32_t Worker::least_loaded() const {
  uint32_t best = options_.shard;
  const uint32_t own = options_.loads[best].clients.load(std::memory_order_relaxed);
  uint32_t least = own;
  for (uint32_t i = 0; i < options_.loads.size(); ++i) {
    const uint32_t clients = options_.loads[i].clients.load(std::memory_order_relaxed);
    if (clients >= least) continue;
    least = clients;
    best = i;
  }
  // A hand-over costs a wake-up: small differences stay, large ones never build up.
  return own > least + least / 8 ? best : options_.shard;
}

void Worker::accept(ShardListener& listener, int fd, const PeerAddress& peer) {
  listener.stats().accepted.add();
  const uint64_t limit = std::min(listener.config().max_connections, options_.clients_max);
  if (clients_everywhere() >= limit) {
    listener.stats().refused_limit.add();
    return io_.discard(fd);
  }
  uint32_t target = options_.shard;
  if (options_.peers != nullptr && listener.config().accept == config::AcceptMode::kBalanced) {
    target = least_loaded();
  }
  options_.loads[target].clients.fetch_add(1, std::memory_order_relaxed);
  if (target != options_.shard) {
    if (options_.peers->hand_over(target, listener.id(), fd, peer)) {
      return listener.stats().handed_over.add();
    }
    options_.loads[target].clients.fetch_sub(1, std::memory_order_relaxed);
    options_.loads[options_.shard].clients.fetch_add(1, std::memory_order_relaxed);
  }
  serve(listener, fd, peer);
}

void Worker::adopt(uint32_t listener_id, int fd, const PeerAddress& peer) {
  for (const auto& listener : listeners_) {
    if (listener->id() == listener_id && !stopping_) return serve(*listener, fd, peer);
  }
  // Its listener was removed while the descriptor was on its way.
  options_.loads[options_.shard].clients.fetch_sub(1, std::memory_order_relaxed);
  io_.discard(fd);
}

// REQUIRES: the client is counted in this shard's load.
void Worker::serve(ShardListener& listener, int fd, const PeerAddress& peer) {
  ++listener.users;
  listener.stats().active.add();
  // Who may be passed through begins as a session, whatever the listener speaks.
  if (listener.config().protocol == config::Protocol::kTcp || listener.config().preread.sni) {
    if (L4Session* session = sessions_.take(*this, listener, peer)) {
      session_list_.push_back(*session);
      return session->start(fd);
    }
  } else if (ClientConn* client = clients_.take(*this, listener, peer)) {
    client_list_.push_back(*client);
    return client->start(fd);
  }
  listener.stats().refused_memory.add();
  io_.discard(fd);
  uncount_client(listener);
}

void Worker::uncount_client(ShardListener& listener) {
  RW_CHECK(listener.users > 0);
  --listener.users;
  listener.stats().active.sub();
  options_.loads[options_.shard].clients.fetch_sub(1, std::memory_order_relaxed);
}

void Worker::client_gone(ClientConn& client) {
  uncount_client(client.listener());
  client_list_.erase(client_list_.iterator_to(client));
  clients_.give_back(&client);
}

void Worker::session_becomes_http(L4Session& session, int fd, ClientOrigin* origin,
                                  std::string_view bytes) {
  ShardListener& listener = session.listener();
  if (ClientConn* client = clients_.take(*this, listener, session.peer())) {
    ++listener.users;
    listener.stats().active.add();
    options_.loads[options_.shard].clients.fetch_add(1, std::memory_order_relaxed);
    client_list_.push_back(*client);
    client->go_on(fd, origin, bytes);
  } else {
    listener.stats().refused_memory.add();
    give_back_origin(origin);
    io_.discard(fd);
  }
  session_gone(session);
}

void Worker::session_gone(L4Session& session) {
  uncount_client(session.listener());
  session_list_.erase(session_list_.iterator_to(session));
  sessions_.give_back(&session);
}

void Worker::refresh_health() {
  for (const auto& upstream : upstreams_) upstream->refresh_health();
}

void Worker::report(PoolOrder& order) const {
  for (const auto* list : {&upstreams_, &leaving_upstreams_}) {
    for (const auto& upstream : *list) {
      if (order.upstream.empty() || order.upstream == upstream->name()) {
        upstream->report(order.reports);
      }
    }
  }
}

void Worker::drain() {
  if (draining_) return;
  draining_ = true;
  for (const auto& listener : listeners_) {
    if (listener->fd_ < 0) continue;
    io_.unlisten(listener->fd_);
    io_.discard(listener->fd_);
    listener->fd_ = -1;
  }
  // close() only marks: clients leave the list in a later turn, from on_closed().
  for (ClientConn& client : client_list_) client.drain();
}

void Worker::stop() {
  drain();
  stopping_ = true;
  for (ClientConn& client : client_list_) client.close();
  for (L4Session& session : session_list_) session.close();
}

bool Worker::quiet() const {
  return draining_ && client_list_.empty() && session_list_.empty();
}

bool Worker::finished() {
  RW_CHECK(stopping_);
  reclaim();
  if (!quiet()) return false;
  for (auto& upstream : upstreams_) {
    upstream->retire();
    leaving_upstreams_.push_back(std::move(upstream));
  }
  upstreams_.clear();
  by_index_.clear();
  sweep();
  return leaving_upstreams_.empty() && server_conns_.in_use() == 0;
}

int64_t Worker::after_turn() {
  timers_.expire(now_ms());
  TlsShard::set_wall_seconds(wall_us() / 1'000'000);
  tls_.shard().run(io_.now_us());
  if (!undelivered_.empty()) deliver_mail();
  if (upstream_context_.restless > 0) serve_queues();
  if (gathers_more()) {
    reclaim();
    return 0;
  }
  flush_output();
  reclaim();
  if (http2_.restless() || muxes_.pending()) return 0;
  if (!undelivered_.empty()) return 1;  // A full mailbox is soon emptied.
  const int64_t timer = timers_.next_in_ms(now_ms());
  const int64_t tls = tls_.shard().next_in_ms(io_.now_us());
  return timer < 0 || (tls >= 0 && tls < timer) ? tls : timer;
}

bool Worker::gathers_more() {
  if (http2_.restless() || muxes_.pending()) {
    return pace_.waits(io_.counters().events.get(), io_.now_us());
  }
  pace_.rest();
  return false;
}

void Worker::check_pools() const {
  for (const auto* list : {&upstreams_, &leaving_upstreams_}) {
    for (const auto& upstream : *list) upstream->check();
  }
}

void Worker::serve_queues() {
  for (const auto& upstream : upstreams_) upstream->serve_queue();
  for (const auto& upstream : leaving_upstreams_) upstream->serve_queue();
}

void Worker::ask_return(Budget& budget, uint32_t shard) {
  send_mail(shard, {.kind = ShardMail::Kind::kAskReturn, .object = &budget});
}

void Worker::notify(Budget& budget, uint32_t shard) {
  send_mail(shard, {.kind = ShardMail::Kind::kNotify, .object = &budget});
}

void Worker::send_mail(uint32_t shard, const ShardMail& mail) {
  const bool own = shard == options_.shard;
  if (!own && options_.peers != nullptr && options_.peers->tell(shard, mail)) return;
  if (own || options_.peers != nullptr) undelivered_.push_back({shard, mail});
}

void Worker::deliver_mail() {
  delivering_.swap(undelivered_);
  for (const Undelivered& item : delivering_) {
    item.shard == options_.shard ? take_mail(item.mail) : send_mail(item.shard, item.mail);
  }
  delivering_.clear();
}

void Worker::ask(uint32_t to, std::unique_ptr<Borrow> borrow) {
  send_mail(to, {.kind = ShardMail::Kind::kBorrow, .object = borrow.release()});
}

void Worker::answer(std::unique_ptr<Borrow> borrow) {
  const uint32_t to = borrow->from;
  send_mail(to, {.kind = ShardMail::Kind::kLent, .object = borrow.release()});
}

ServerSlot* Worker::find_slot(const void* object) {
  for (const auto* list : {&upstreams_, &leaving_upstreams_}) {
    for (const auto& upstream : *list) {
      if (ServerSlot* slot = upstream->find_slot(object)) return slot;
    }
  }
  return nullptr;
}

void Worker::take_mail(const ShardMail& mail) {
  if (mail.kind == ShardMail::Kind::kBorrow || mail.kind == ShardMail::Kind::kLent) {
    std::unique_ptr<Borrow> borrow(static_cast<Borrow*>(mail.object));
    ServerSlot* slot = find_slot(borrow->server);
    if (mail.kind == ShardMail::Kind::kBorrow) {
      return slot == nullptr ? answer(std::move(borrow)) : slot->lend(std::move(borrow));
    }
    if (slot != nullptr) return slot->lent(std::move(borrow));
    if (borrow->fd >= 0) io_.discard(borrow->fd);  // That server is gone here.
    return;
  }
  for (const auto* list : {&upstreams_, &leaving_upstreams_}) {
    for (const auto& upstream : *list) {
      if (upstream->take_mail(mail)) return;
    }
  }
}

int Worker::drop(const ShardMail& mail) {
  if (mail.kind != ShardMail::Kind::kBorrow && mail.kind != ShardMail::Kind::kLent) return -1;
  const std::unique_ptr<Borrow> borrow(static_cast<Borrow*>(mail.object));
  return borrow->fd;
}

ConnKey Worker::connection_key(const ServerPool& pool, std::span<const config::PoolKey> parts,
                               const RequestKey& request) {
  pool_name_.clear();
  for (const config::PoolKey part : parts) {
    switch (part) {
      case config::PoolKey::kRequestHost:
        // Case does not tell hosts apart (RFC 9110 4.2.3).
        for (const char c : request.host)
          pool_name_ += c >= 'A' && c <= 'Z' ? char(c - 'A' + 'a') : c;
        break;
      case config::PoolKey::kClientIp: pool_name_ += request.client.write_ip(ip_buffer_); break;
    }
    pool_name_ += '\n';  // In neither of them.
  }
  return key_buffer_.extend(pool.fixed_group().bytes(),
                            {.sni = request.sni,
                             .proxy_header = request.proxy_header,
                             .pool_name = pool_name_,
                             .only_http1 = request.only_http1},
                            pool_memory_.secret);
}

ClientOrigin* Worker::take_origin(ShardListener& listener, int fd) {
  PeerAddress to = PeerAddress::local_of(fd);
  if (to.family == PeerAddress::Family::kNone) {
    to = PeerAddress::from(*listener.config().bind.front().address.get());
  }
  ClientOrigin* origin = origins_.take(to, tlv_rooms_);
  if (origin == nullptr) listener.stats().refused_memory.add();
  return origin;
}

void Worker::give_back_origin(ClientOrigin* origin) {
  if (origin != nullptr) origins_.give_back(origin);
}

std::string_view Worker::proxy_header(config::ProxySend version, const config::ProxyTlvs& tlvs,
                                      const PeerAddress& client, const TlsSession* tls,
                                      ClientOrigin& origin) {
  if (tls != nullptr && !origin.tls_kept && (tlvs.alpn || tlvs.authority || tlvs.ssl)) {
    keep_tls_tlvs(*tls, origin);
  }
  if (tlvs.unique_id && origin.find(proxy::Tlv::kUniqueId).empty()) {
    // The secret is another one in every process, so no two ever make the same.
    char text[32];
    const uint64_t parts[] = {next_id_++, options_.shard, static_cast<uint64_t>(wall_us())};
    for (size_t half = 0; half < 2; ++half) {
      HashKey key = pool_memory_.secret;
      key.low += half;
      uint64_t hash = hash_bytes(std::as_bytes(std::span(parts)), key);
      for (size_t i = 0; i < 16; ++i, hash >>= 4)
        text[16 * half + i] = "0123456789abcdef"[hash & 15];
    }
    // No room: then it is sent without.
    (void)origin.add(proxy::Tlv::kUniqueId, {text, sizeof text});
  }
  return write_proxy_header(version, tlvs, client, origin, proxy_header_);
}

void Worker::note_proxy_error(ShardListener& listener, const PeerAddress& peer, ProxyError error) {
  const auto index = static_cast<size_t>(error);
  listener.stats().proxy_errors[index].add();
  if (error == ProxyError::kTimeout) listener.stats().timeouts.add();
  char ip[46];
  const std::string_view pieces[] = {
      "PROXY header refused: peer ", peer.write_ip(ip), ", listener ",
      listener.config().name,        ", reason ",       kProxyErrorNames[index]};
  log_event(pieces);
}

void Worker::reclaim() {
  while (!dead_.empty()) {
    Exchange* exchange = dead_.back();
    dead_.pop_back();
    exchanges_.give_back(exchange);
  }
  http2_.reclaim();
  muxes_.reclaim();
  // What a reload retired may stay in use for hours: looking now and then is enough.
  if (unsettled_ && (++turns_ % 64 == 0 || stopping_)) sweep();
}

void Worker::sweep() {
  std::erase_if(leaving_upstreams_, [](const auto& upstream) { return upstream->sweep(); });
  std::erase_if(leaving_listeners_, [](const auto& listener) { return listener->users == 0; });
  std::erase_if(snapshots_,
                [&](const auto& use) { return use->users == 0 && use.get() != current_; });
  bool settled = tls_.sweep() && leaving_upstreams_.empty() && leaving_listeners_.empty() &&
                 snapshots_.size() <= 1;
  for (const auto& upstream : upstreams_) {
    upstream->sweep();
    settled = settled && upstream->settled();
  }
  unsettled_ = !settled;
}

void Worker::bury(Exchange& exchange) {
  dead_.push_back(&exchange);
}

http1::HeadParser* Worker::take_parser() {
  if (free_parsers_.empty()) return new PooledParser(parser_fields_);
  http1::HeadParser* parser = free_parsers_.back();
  free_parsers_.pop_back();
  return parser;
}

void Worker::give_back_parser(http1::HeadParser* parser) {
  RW_CHECK(parser != nullptr);
  if (static_cast<PooledParser*>(parser)->fields_max == parser_fields_) {
    free_parsers_.push_back(parser);
  } else {
    delete static_cast<PooledParser*>(parser);
  }
}

std::span<char> Worker::answer_buffer(size_t bytes) {
  if (answer_.size() < bytes) answer_.resize(bytes);
  return answer_;
}

const config::Route* Worker::tcp_route(uint32_t listener, const tls::ClientHello& hello) const {
  return current_->snapshot->router.find_tcp(listener, hello);
}

SnapshotUse& Worker::use_snapshot() {
  ++current_->users;
  return *current_;
}

void Worker::release_snapshot(SnapshotUse& use) {
  RW_CHECK(use.users > 0);
  --use.users;
}

void Worker::log_access(const AccessRecord& record) {
  if (access_log_ == nullptr) return;
  char line[4096];
  const std::span<char> room(line);
  access_log_->write(access_format_ == config::AccessFormat::kJson
                         ? access_formatter_.json(record, room)
                         : access_formatter_.combined(record, room));
}

void Worker::log_event(std::span<const std::string_view> pieces) {
  if (options_.process_log == nullptr) return;
  const UtcText when(wall_us());
  std::array<std::string_view, 16> line{when.view(), " info "};
  RW_CHECK(pieces.size() + 2 <= line.size());
  std::copy(pieces.begin(), pieces.end(), line.begin() + 2);
  options_.process_log->write(std::span(line).first(pieces.size() + 2));
}

}  // namespace ringway
