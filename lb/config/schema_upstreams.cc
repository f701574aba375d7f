// lb/config/schema_upstreams.cc - the schema of upstreams.
#include "lb/config/schema_timeouts.h"
#include "lb/config/sections.h"
#include "lb/config/store.h"

namespace ringway::config {
namespace {

constexpr Choice kAlgorithms[] = {
    {"round_robin", static_cast<uint64_t>(Algorithm::kRoundRobin)},
    {"least_requests", static_cast<uint64_t>(Algorithm::kLeastRequests)},
    {"hash", static_cast<uint64_t>(Algorithm::kHash)},
    {"first", static_cast<uint64_t>(Algorithm::kFirst)},
};
constexpr std::string_view kLaterAlgorithms[] = {"least_time"};
constexpr Choice kHashKeys[] = {{"client.ip", 0}};
constexpr std::string_view kLaterHashKeys[] = {"request.path", "request.host", "request.uri"};

constexpr std::string_view kLaterBalance[] = {"slow_start", "table", "max_load", "backups",
                                              "when_full"};
constexpr Key kBalanceKeys[] = {
    {.name = "algorithm",
     .kind = Kind::kEnum,
     .choices = kAlgorithms,
     .later = kLaterAlgorithms,
     .number = store<&Balance::algorithm>,
     .initial = "round_robin",
     .doc = "`\"round_robin\"` by weight; `\"least_requests\"`: the server with the fewest running "
            "requests for its weight; `\"hash\"`: the same key goes to the same server; "
            "`\"first\"`: the first one that is up.",
     .example = "\"first\""},
    {.name = "choices",
     .kind = Kind::kInteger,
     .min = 2,
     .max = 64,
     .word = "all",
     .number = store<&Balance::choices>,
     .initial = "all",
     .doc = "`least_requests` only: how many random servers are compared.",
     .example = "2"},
    {.name = "key",
     .kind = Kind::kEnum,
     .choices = kHashKeys,
     .later = kLaterHashKeys,
     .number = [](void* object,
                  uint64_t value) { member<&Balance::key>(object) = kHashKeys[value].word; },
     .initial = "client.ip",
     .doc = "`hash` only: what is hashed.",
     .example = "\"client.ip\""},
};
constexpr Choice kServerStates[] = {
    {"ready", static_cast<uint64_t>(ServerState::kReady)},
    {"drain", static_cast<uint64_t>(ServerState::kDrain)},
    {"maintenance", static_cast<uint64_t>(ServerState::kMaintenance)},
};
constexpr Key kServerKeys[] = {
    {.name = "name",
     .kind = Kind::kText,
     .text = item::server_name,
     .doc = "The name in logs and metrics; absent: the address.",
     .example = "\"a1\""},
    {.name = "address",
     .kind = Kind::kText,
     .required = true,
     .text = item::server_address,
     .doc = "`\"10.0.1.11:8080\"`, `\"[2001:db8::1]:8080\"` or `\"unix:/path\"`. Names are not "
            "resolved.",
     .example = "\"10.0.1.11:8080\""},
    {.name = "weight",
     .kind = Kind::kInteger,
     .min = 0,
     .max = 1000,
     .number = store<&Server::weight>,
     .initial = "100",
     .doc = "Its share of the work; 0 takes no new work.",
     .example = "50"},
    {.name = "backup",
     .kind = Kind::kBoolean,
     .number = store<&Server::backup>,
     .initial = "false",
     .doc = "Used only while no other server is up.",
     .example = "true"},
    {.name = "max_requests",
     .kind = Kind::kInteger,
     .min = 1,
     .max = 1'000'000'000,
     .word = "off",
     .word_value = kUnlimited,
     .number = store<&Server::max_requests>,
     .initial = "off",
     .doc =
         "Requests or TCP sessions that may be in flight to it, over all shards, exactly. Further "
         "ones go to other servers, and wait when all are full.",
     .example = "200"},
    {.name = "state",
     .kind = Kind::kEnum,
     .choices = kServerStates,
     .number = store<&Server::state>,
     .initial = "ready",
     .doc =
         "`\"drain\"`: takes no new work, what runs may finish, idle connections are closed. "
         "`\"maintenance\"`: the same, and it is not checked either. `ringctl` changes it at run "
         "time; a reload that changes this key overrules `ringctl`.",
     .example = "\"maintenance\""},
    {.name = "source",
     .kind = Kind::kText,
     .text = item::server_source,
     .doc = "The address of this machine that connections to this server come from, those of "
            "health checks too: `\"10.0.0.5\"` or `\"2001:db8::5\"`, of the same family as "
            "`address`, without a port; absent: the upstream's `source`. A reload that changes it "
            "is for new connections; those from the old address finish what they do.",
     .example = "\"10.0.0.5\""},
};
constexpr Key kServerSocketKeys[] = {
    {.name = "mark",
     .kind = Kind::kInteger,
     .min = 1,
     .max = UINT32_MAX,
     .word = "off",
     .number = store<&ServerSocket::mark>,
     .initial = "off",
     .doc = "The mark of packets to the servers (SO_MARK), for routing rules and firewalls. Needs "
            "CAP_NET_ADMIN.",
     .example = "7"},
    {.name = "interface",
     .kind = Kind::kText,
     .text = item::socket_interface,
     .doc = "The network interface, or VRF, that packets to the servers leave by "
            "(SO_BINDTODEVICE); absent: as routed.",
     .example = "\"eth1\""},
};
constexpr Choice kReuses[] = {
    {"never", static_cast<uint64_t>(ReuseMode::kNever)},
    {"safe", static_cast<uint64_t>(ReuseMode::kSafe)},
    {"aggressive", static_cast<uint64_t>(ReuseMode::kAggressive)},
    {"always", static_cast<uint64_t>(ReuseMode::kAlways)},
    {"auto", static_cast<uint64_t>(ReuseMode::kAuto)},
};
constexpr Choice kShares[] = {
    {"shard", static_cast<uint64_t>(Share::kShard)},
    {"borrow", static_cast<uint64_t>(Share::kBorrow)},
};
constexpr std::string_view kLaterShares[] = {"node"};
constexpr Key kPoolKeys[] = {
    {.name = "reuse",
     .kind = Kind::kEnum,
     .choices = kReuses,
     .number = store<&Pool::reuse>,
     .initial = "safe",
     .doc =
         "Which requests may use a connection that another client used before. The first request "
         "of "
         "a client cannot be repeated by that client when the server was just closing the "
         "connection, so: `\"safe\"`: later requests only; `\"aggressive\"`: first ones too, on "
         "connections that have served more than one request; `\"always\"`: all; `\"auto\"`: "
         "first ones too if they are idempotent with a body of 16 KiB at most, whose length is "
         "known, so that Ringway can repeat them; "
         "`\"never\"`: each client has connections of its own, which are closed when it leaves. An "
         "HTTP/2 connection in use takes further requests of all clients; in the modes `\"safe\"` "
         "and `\"never\"` only of the client that uses it, so that no client can spoil another "
         "one's requests.",
     .example = "\"auto\""},
    {.name = "share",
     .kind = Kind::kEnum,
     .choices = kShares,
     .later = kLaterShares,
     .number = store<&Pool::share>,
     .initial = "borrow",
     .doc = "`\"borrow\"`: a shard without an idle connection asks another one for its before it "
            "connects, if the server has little traffic; `\"shard\"`: connections stay where they "
            "were made, as those over TLS or HTTP/2 and those with a PROXY header always do.",
     .example = "\"shard\""},
    {.name = "max_idle_per_server",
     .kind = Kind::kInteger,
     .min = 1,
     .max = 1'000'000,
     .word = "off",
     .word_value = kUnlimited,
     .number = store<&Pool::max_idle_per_server>,
     .initial = "512",
     .doc = "Idle connections that are kept, over all shards, exactly.",
     .example = "64"},
    {.name = "min_idle_per_shard",
     .kind = Kind::kInteger,
     .min = 0,
     .max = 10'000,
     .number = store<&Pool::min_idle_per_shard>,
     .initial = "1",
     .doc =
         "Idle connections that a shard keeps within `idle_timeout` even if its load needs fewer.",
     .example = "4"},
    {.name = "idle_timeout",
     .kind = Kind::kDuration,
     .min = 1,
     .max = kDay,
     .word = "off",
     .number = store<&Pool::idle_timeout>,
     .initial = "25s",
     .doc =
         "How long an idle connection is kept. Stay below the server's own limit; what the server "
         "says in Keep-Alive, or shows by closing, shortens it.",
     .example = "\"7s\""},
    {.name = "max_age",
     .kind = Kind::kDuration,
     .min = 1,
     .max = 30 * kDay,
     .word = "off",
     .number = store<&Pool::max_age>,
     .initial = "off",
     .doc = "The age at which a connection is not kept any longer, up to a tenth less.",
     .example = "\"10m\""},
    {.name = "max_streams_per_connection",
     .kind = Kind::kInteger,
     .min = 1,
     .max = 10'000,
     .number = store<&Pool::max_streams_per_connection>,
     .initial = "100",
     .doc = "Requests at once on an HTTP/2 connection, if the server does not allow fewer.",
     .example = "32"},
    {.name = "idle_ping",
     .kind = Kind::kDuration,
     .min = 100,
     .max = kDay,
     .word = "off",
     .number = store<&Pool::idle_ping>,
     .initial = "off",
     .doc =
         "An HTTP/2 connection on which the server has sent nothing for so long, idle or in use, "
         "gets a PING; if nothing comes in as long again, it is lost with all requests on it. "
         "Answers do not prolong `idle_timeout`. gRPC's own servers, unless set up for it, end "
         "connections that get several PINGs less than 5 minutes apart while they send nothing. "
         "A reload that switches it on is for connections made since.",
     .example = "\"30s\""},
    {.name = "header_table",
     .kind = Kind::kSize,
     .min = 0,
     .max = 64 * 1024,
     .number = store<&Pool::header_table>,
     .initial = "4KiB",
     .doc = "The dynamic table of HPACK on HTTP/2 connections: what is announced for answers, and "
            "the most that is used for requests, whatever the server allows.",
     .example = "\"16KiB\""},
    {.name = "max_requests_per_connection",
     .kind = Kind::kInteger,
     .min = 1,
     .max = 1'000'000'000,
     .word = "off",
     .word_value = kUnlimited,
     .number = store<&Pool::max_requests_per_connection>,
     .initial = "off",
     .doc = "Requests after which a connection is closed.",
     .example = "1000"},
    {.name = "max_connections_per_server",
     .kind = Kind::kInteger,
     .min = 1,
     .max = 1'000'000'000,
     .word = "off",
     .word_value = kUnlimited,
     .number = store<&Pool::max_connections_per_server>,
     .initial = "off",
     .doc =
         "Connections to one server, connecting and idle ones included, over all shards, exactly.",
     .example = "200"},
    {.name = "warm",
     .kind = Kind::kInteger,
     .min = 0,
     .max = 100'000,
     .number = store<&Pool::warm>,
     .initial = "0",
     .doc = "Connections per server that are opened before there is traffic, and held, over all "
            "shards. With `tls` they need `tls.sni`, as there is no request whose host could be "
            "the name.",
     .example = "8"},
    {.name = "key",
     .kind = Kind::kTexts,
     .max = 2,
     .text = item::pool_key,
     .clear = clear<&Pool::key>,
     .doc = "What else keeps connections apart: `\"request.host\"`, `\"client.ip\"`.",
     .example = "[\"request.host\"]"},
};
constexpr std::string_view kLaterQueue[] = {"max_per_server", "order", "priority", "ramp"};
constexpr Key kQueueKeys[] = {
    {.name = "max",
     .kind = Kind::kInteger,
     .min = 0,
     .max = 1'000'000,
     .number = store<&Queue::max>,
     .initial = "1024",
     .doc =
         "Requests or TCP sessions per shard that may wait, first come, first served, while every "
         "server has as much as `max_requests` or `max_connections_per_server` allow. Further ones "
         "are answered with 503.",
     .example = "100"},
};
constexpr Choice kProxySends[] = {
    {"off", static_cast<uint64_t>(ProxySend::kOff)},
    {"v1", static_cast<uint64_t>(ProxySend::kV1)},
    {"v2", static_cast<uint64_t>(ProxySend::kV2)},
};
void store_health_proxy(void* object, uint64_t value) {
  member<&Health::send_proxy>(object) = static_cast<ProxySend>(value);
  member<&Health::send_proxy_given>(object) = true;
}
void clear_tlvs(void* object) {
  member<&Upstream::send_proxy_tlvs>(object) = {};
}
constexpr Choice kHealthTypes[] = {
    {"off", static_cast<uint64_t>(HealthType::kOff)},
    {"tcp", static_cast<uint64_t>(HealthType::kTcp)},
    {"http", static_cast<uint64_t>(HealthType::kHttp)},
    {"tls", static_cast<uint64_t>(HealthType::kTls)},
    {"grpc", static_cast<uint64_t>(HealthType::kGrpc)},
};
constexpr std::string_view kLaterHealthTypes[] = {"exchange", "agent"};
constexpr Choice kInitials[] = {{"up", 1}, {"down", 0}};
constexpr std::string_view kLaterHealth[] = {"follow", "port", "steps"};
constexpr Key kHealthKeys[] = {
    {.name = "type",
     .kind = Kind::kEnum,
     .choices = kHealthTypes,
     .later = kLaterHealthTypes,
     .number = store<&Health::type>,
     .initial = "off",
     .doc =
         "`\"tcp\"`: connecting is enough. `\"http\"`: a request is answered as expected, over the "
         "version that requests would use (`http_versions`). `\"grpc\"`: "
         "grpc.health.v1.Health/Check, over HTTP/2, says SERVING. `\"tls\"`: a TLS handshake is "
         "enough, for servers whose TLS is not ours, with a certificate that is good for `host` "
         "(see `tls` below). "
         "With `[upstreams.NAME.tls]` all checks speak TLS as requests do, so that a "
         "certificate that is no good makes its server down, for `\"tcp\"` and `\"tls\"` too. "
         "Required in this table unless it is inherited.",
     .example = "\"tcp\""},
    kInterval,
    kFastInterval,
    kDownInterval,
    kHealthTimeout,
    kRise,
    kFall,
    {.name = "initial",
     .kind = Kind::kEnum,
     .choices = kInitials,
     .number = store<&Health::initial_up>,
     .initial = "up",
     .doc = "The state before the first verdict.",
     .example = "\"down\""},
    {.name = "send_proxy_protocol",
     .kind = Kind::kEnum,
     .choices = kProxySends,
     .number = store_health_proxy,
     .doc = "The PROXY header that checks begin with, which says that they speak for nobody else "
            "(LOCAL; UNKNOWN in version 1); absent: the version of the upstream's "
            "`send_proxy_protocol`.",
     .example = "\"v1\""},
    {.name = "method",
     .kind = Kind::kText,
     .text = item::health_method,
     .initial = "GET",
     .doc = "`http` only: the method.",
     .example = "\"HEAD\""},
    {.name = "path",
     .kind = Kind::kText,
     .text = item::health_path,
     .initial = "/",
     .doc = "`http` only: the path and query.",
     .example = "\"/healthz\""},
    {.name = "host",
     .kind = Kind::kText,
     .text = item::health_host,
     .doc =
         "The Host field; absent: the server's address, \"localhost\" for a unix socket. Over "
         "TLS also the name that is asked for, unless `tls.sni` is a fixed one, so `\"tcp\"` and "
         "`\"tls\"` may have it there; with neither, the certificate must be for the server's "
         "address.",
     .example = "\"api.example.com\""},
    {.name = "tls",
     .kind = Kind::kTable,
     .section = &kHealthTlsSection,
     .into = into<&Health::tls>,
     .doc = "`tls` only, where `[upstreams.NAME.tls]` does not say it already: whose certificates "
            "are good."},
    {.name = "service",
     .kind = Kind::kText,
     .text = item::health_service,
     .doc = "`grpc` only: the service that is asked for; absent: the server as a whole.",
     .example = "\"shop.Orders\""},
    {.name = "expect",
     .kind = Kind::kTable,
     .section = &kExpectSection,
     .into = [](void* object) { return object; },
     .doc = "`http` only: what a good answer is."},
};
constexpr Key kExpectKeys[] = {
    {.name = "status",
     .kind = Kind::kTexts,
     .max = 16,
     .text = item::expect_status,
     .clear = clear<&Health::expect_status>,
     .initial = "200-299",
     .doc = "Status codes and ranges of them.",
     .example = "[\"200-299\", \"401\"]"},
    {.name = "body",
     .kind = Kind::kText,
     .text = item::expect_body,
     .doc = "Text that the body must contain.",
     .example = "\"ok\""},
};
constexpr std::string_view kLaterRetry[] = {"on",      "methods", "other_server", "per_try_timeout",
                                            "backoff", "budget",  "max_body",     "hedge_after"};
constexpr Key kRetryKeys[] = {
    {.name = "attempts",
     .kind = Kind::kInteger,
     .min = 1,
     .max = 16,
     .word = "off",
     .number = store<&Retry::attempts>,
     .initial = "2",
     .doc = "Further attempts, each with another server if there is one, after the first one could "
            "not connect.",
     .example = "5"},
};
constexpr Key kUpstreamTimeoutKeys[] = {kConnect,    kResponseHeaders, kServerIdle,
                                        kTunnelIdle, kHalfClosed,      kQueue};
constexpr std::string_view kLaterUpstream[] = {"sticky", "discover", "on_server_down", "outlier"};
constexpr Key kUpstreamKeys[] = {
    {.name = "http_versions",
     .kind = Kind::kTexts,
     .max = 2,
     .text = item::server_http_version,
     .clear = clear<&Upstream::http_versions>,
     .initial = "[\"http/1.1\"]",
     .doc =
         "What the servers speak, best first. With `[upstreams.NAME.tls]` both may stand here, "
         "and each server chooses (ALPN); in clear text it is one of them, `\"h2\"` by prior "
         "knowledge. HTTP/2 connections carry many requests at once. With both, a WebSocket goes "
         "over HTTP/2 once a server has said that it takes them so (RFC 8441). HTTP only.",
     .example = "[\"h2\"]"},
    {.name = "extends",
     .kind = Kind::kText,
     .text = item::accept,
     .doc = "Another upstream, whose keys hold where this one has none. Up to 3 deep.",
     .example = "\"api\""},
    {.name = "protocol",
     .kind = Kind::kEnum,
     .choices = kProtocols,
     .later = kLaterProtocols,
     .number = store<&Upstream::protocol>,
     .initial = "http",
     .doc = "HTTP/1.1, or TCP as it comes.",
     .example = "\"tcp\""},
    {.name = "servers",
     .kind = Kind::kTables,
     .max = 1000,
     .section = &kServerSection,
     .clear = clear<&Upstream::servers>,
     .element = object::server,
     .doc = "The servers; at least one, here or in what it extends."},
    {.name = "source",
     .kind = Kind::kText,
     .text = item::upstream_source,
     .doc = "The address of this machine that connections to these servers come from, where a "
            "server has no `source` of its own.",
     .example = "\"10.0.0.5\""},
    {.name = "socket",
     .kind = Kind::kTable,
     .section = &kServerSocketSection,
     .into = into<&Upstream::socket>,
     .doc = "Options of the sockets to the servers."},
    {.name = "send_proxy_protocol",
     .kind = Kind::kEnum,
     .choices = kProxySends,
     .number = store<&Upstream::send_proxy>,
     .initial = "off",
     .doc = "The PROXY header that every connection to these servers begins with, in clear also "
            "before TLS: it names the client. An HTTP connection that carries one is used again by "
            "requests with the same header only: those of its own client connection, and where "
            "the addresses came in a PROXY header, without `unique_id`, of others that brought "
            "the same. Over HTTP/2 many of them at once. So `pool.warm` has no place beside it.",
     .example = "\"v2\""},
    {.name = "send_proxy_tlvs",
     .kind = Kind::kTexts,
     .max = 7,
     .text = item::proxy_tlv,
     .clear = clear_tlvs,
     .doc = "What a header of version 2 says beside the addresses, as far as it is known: "
            "`\"alpn\"`, `\"authority\"` (the TLS server name) and `\"ssl\"` (version, cipher, the "
            "client's certificate) of the TLS that the listener speaks, else as the client's own "
            "PROXY header said, `\"authority\"` also from `preread`; `\"unique_id\"` from there or "
            "made here and then in the access log too; `\"netns\"` and `\"custom\"` (the types "
            "0xE0 to 0xEF) as the client's own PROXY header said; `\"crc32c\"` always.",
     .example = "[\"unique_id\", \"crc32c\"]"},
    {.name = "balance",
     .kind = Kind::kTable,
     .section = &kBalanceSection,
     .into = into<&Upstream::balance>,
     .doc = "How a server is chosen."},
    {.name = "pool",
     .kind = Kind::kTable,
     .section = &kPoolSection,
     .into = into<&Upstream::pool>,
     .doc = "Connections that are kept."},
    {.name = "queue",
     .kind = Kind::kTable,
     .section = &kQueueSection,
     .into = into<&Upstream::queue>,
     .doc = "What waits for a server."},
    {.name = "health",
     .kind = Kind::kTable,
     .section = &kHealthSection,
     .into = into<&Upstream::health>,
     .doc = "Active checks."},
    {.name = "retry",
     .kind = Kind::kTable,
     .section = &kRetrySection,
     .into = into<&Upstream::retry>,
     .doc = "Further attempts."},
    {.name = "timeouts",
     .kind = Kind::kTable,
     .section = &kUpstreamTimeoutsSection,
     .into = into<&Upstream::timeouts>,
     .doc = "The server's side."},
    {.name = "tls",
     .kind = Kind::kTable,
     .section = &kUpstreamTlsSection,
     .into = [](void* object) -> void* {
       UpstreamTls& tls = member<&Upstream::tls>(object);
       tls.enabled = true;  // the table is there
       return &tls;
     },
     .doc = "TLS to the servers."},
};

}  // namespace

const Section kUpstreamSection{.path = "upstreams.NAME",
                               .doc = "A group of servers that do the same.",
                               .keys = kUpstreamKeys,
                               .later = kLaterUpstream};
const Section kBalanceSection{.path = "upstreams.NAME.balance",
                              .doc = "How a server is chosen.",
                              .keys = kBalanceKeys,
                              .later = kLaterBalance};
const Section kServerSection{.path = "upstreams.NAME.servers[]",
                             .doc = "The servers, as an array of inline tables.",
                             .keys = kServerKeys};
const Section kServerSocketSection{.path = "upstreams.NAME.socket",
                                   .doc =
                                       "What sockets to the servers are set to before they "
                                       "connect, those of health checks too.",
                                   .keys = kServerSocketKeys};
const Section kPoolSection{.path = "upstreams.NAME.pool",
                           .doc = "Connections to servers that are kept. HTTP only.",
                           .keys = kPoolKeys};
const Section kQueueSection{.path = "upstreams.NAME.queue",
                            .doc = "What waits while every server is full.",
                            .keys = kQueueKeys,
                            .later = kLaterQueue};
const Section kHealthSection{.path = "upstreams.NAME.health",
                             .doc =
                                 "Active checks, made once per process, over "
                                 "`[defaults.health]`.",
                             .keys = kHealthKeys,
                             .later = kLaterHealth};
const Section kExpectSection{
    .path = "upstreams.NAME.health.expect", .doc = "What a good answer is.", .keys = kExpectKeys};
const Section kRetrySection{.path = "upstreams.NAME.retry",
                            .doc = "What happens when a server cannot be reached.",
                            .keys = kRetryKeys,
                            .later = kLaterRetry};
const Section kUpstreamTimeoutsSection{.path = "upstreams.NAME.timeouts",
                                       .doc = "The server's side, over `[defaults.timeouts]`.",
                                       .keys = kUpstreamTimeoutKeys,
                                       .later = kLaterTimeouts};

}  // namespace ringway::config
