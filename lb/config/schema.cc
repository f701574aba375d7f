// lb/config/schema.cc - the process-wide sections, and the root that holds all sections together.
#include "lb/config/schema.h"

#include "lb/config/schema_timeouts.h"
#include "lb/config/sections.h"
#include "lb/config/store.h"

namespace ringway::config {
namespace {

constexpr std::string_view kLaterProcess[] = {"user",         "group",   "numa",   "memory_limit",
                                              "drain_spread", "handoff", "sandbox"};
constexpr Key kProcessKeys[] = {
    {.name = "shards",
     .kind = Kind::kInteger,
     .min = 1,
     .max = 1024,
     .word = "auto",
     .number = store<&Process::shards>,
     .initial = "auto",
     .doc = "Threads that carry traffic, each with its own ring. `\"auto\"`: one per physical core "
            "of the cpuset and the CPU quota.",
     .example = "4"},
    {.name = "cpus",
     .kind = Kind::kText,
     .word = "auto",
     .text = item::cpus,
     .clear = clear<&Process::cpus>,
     .initial = "auto",
     .doc = "The CPUs to run on, as numbers and ranges: `\"0-3,8\"`. `\"auto\"`: all that are "
            "allowed.",
     .example = "\"0-1\""},
    {.name = "max_connections",
     .kind = Kind::kInteger,
     .min = 1,
     .max = 10'000'000,
     .number = store<&Process::max_connections>,
     .initial = "100_000",
     .doc = "Client connections of the whole process. The limit of file descriptors is derived "
            "from it.",
     .example = "400_000"},
    {.name = "drain_timeout",
     .kind = Kind::kDuration,
     .min = 1,
     .max = 7 * kDay,
     .number = store<&Process::drain_timeout>,
     .initial = "10m",
     .doc = "How long running exchanges may take to end after SIGTERM. The rest is closed.",
     .example = "\"30s\""},
};
const Section kProcessSection{.path = "process",
                              .doc = "The process as a whole. Changes need a restart.",
                              .keys = kProcessKeys,
                              .later = kLaterProcess};

constexpr Choice kEngineKinds[] = {
    {"auto", static_cast<uint64_t>(EngineKind::kAuto)},
    {"io_uring", static_cast<uint64_t>(EngineKind::kIoUring)},
    {"epoll", static_cast<uint64_t>(EngineKind::kEpoll)},
};
constexpr Choice kReceives[] = {
    {"auto", static_cast<uint64_t>(Receive::kAuto)},
    {"poll", static_cast<uint64_t>(Receive::kPoll)},
    {"multishot", static_cast<uint64_t>(Receive::kMultishot)},
};
constexpr std::string_view kLaterEngine[] = {"recv_buffers", "send_zero_copy_from", "splice_from",
                                             "sqpoll"};
constexpr Key kEngineKeys[] = {
    {.name = "kind",
     .kind = Kind::kEnum,
     .choices = kEngineKinds,
     .number = store<&Engine::kind>,
     .initial = "auto",
     .doc = "The way to the kernel. `\"auto\"` takes io_uring; a thread that gets none falls back "
            "to epoll, and a warning names it. `\"io_uring\"` refuses to start without it.",
     .example = "\"epoll\""},
    {.name = "receive",
     .kind = Kind::kEnum,
     .choices = kReceives,
     .number = store<&Engine::receive>,
     .initial = "auto",
     .doc =
         "How io_uring receives: by readiness (`\"poll\"`, which `\"auto\"` is) or into a shared "
         "ring of buffers (`\"multishot\"`). epoll always goes by readiness.",
     .example = "\"multishot\""},
    {.name = "entries",
     .kind = Kind::kInteger,
     .min = 64,
     .max = 32'768,
     .number = store<&Engine::entries>,
     .initial = "4096",
     .doc = "Submission queue entries of each ring. The kernel rounds up to a power of two.",
     .example = "8192"},
    {.name = "busy_poll",
     .kind = Kind::kDuration,
     .unit_us = 1,
     .min = 1,
     .max = 10'000,
     .word = "off",
     .number = store<&Engine::spin_us>,
     .initial = "10us",
     .doc = "How long an idle shard looks for new work before it sleeps, where that usually comes "
            "sooner. `\"50us\"` shortens answers by a wake-up and takes up to a fifth of the CPU.",
     .example = "\"20us\""},
};
const Section kEngineSection{.path = "engine",
                             .doc = "The engine of each shard. Changes need a restart.",
                             .keys = kEngineKeys,
                             .later = kLaterEngine};

constexpr Key kDefaultTimeoutKeys[] = {
    kProxyHeader,     kRequestHeaders, kRequestBody, kClientIdle, kKeepAlive, kConnect,
    kResponseHeaders, kServerIdle,     kTunnelIdle,  kHalfClosed, kQueue,     kTlsHandshake,
};
const Section kDefaultTimeoutsSection{
    .path = "defaults.timeouts",
    .doc =
        "Timeouts of all listeners, upstreams and routes that do not set their own. "
        "`\"off\"` means no limit.",
    .keys = kDefaultTimeoutKeys,
    .later = kLaterTimeouts};

constexpr Key kDefaultHealthKeys[] = {kInterval,      kFastInterval, kDownInterval,
                                      kHealthTimeout, kRise,         kFall};
const Section kDefaultHealthSection{.path = "defaults.health",
                                    .doc = "Health checks of all upstreams that have them.",
                                    .keys = kDefaultHealthKeys};

constexpr Key kDefaultsKeys[] = {
    {.name = "timeouts",
     .kind = Kind::kTable,
     .section = &kDefaultTimeoutsSection,
     .into = into<&Draft::timeouts>,
     .doc = "Timeouts."},
    {.name = "health",
     .kind = Kind::kTable,
     .section = &kDefaultHealthSection,
     .into = into<&Draft::health>,
     .doc = "Health checks."},
};
const Section kDefaultsSection{
    .path = "defaults", .doc = "What is written once for all.", .keys = kDefaultsKeys};

constexpr Choice kAccessFormats[] = {
    {"json", static_cast<uint64_t>(AccessFormat::kJson)},
    {"clf", static_cast<uint64_t>(AccessFormat::kClf)},
};
constexpr std::string_view kLaterFormats[] = {"haproxy_http", "haproxy_tcp"};
constexpr std::string_view kLaterAccess[] = {"sample", "always_when", "rotate", "on_overflow"};
constexpr Key kAccessKeys[] = {
    {.name = "output",
     .kind = Kind::kText,
     .word = "off",
     .text = item::access_output,
     .initial = "stdout",
     .doc = "`\"stdout\"`, `\"stderr\"`, `\"file:/path\"` or `\"off\"`.",
     .example = "\"file:/var/log/ringway/access.log\""},
    {.name = "format",
     .kind = Kind::kEnum,
     .choices = kAccessFormats,
     .later = kLaterFormats,
     .number = store<&AccessLog::format>,
     .initial = "json",
     .doc = "One JSON object per exchange, or the common log format.",
     .example = "\"clf\""},
};
const Section kAccessSection{
    .path = "logs.access",
    .doc = "One line per exchange or session. Without this table nothing is written.",
    .keys = kAccessKeys,
    .later = kLaterAccess};

constexpr Choice kLevels[] = {
    {"error", static_cast<uint64_t>(Level::kError)},
    {"warning", static_cast<uint64_t>(Level::kWarning)},
    {"info", static_cast<uint64_t>(Level::kInfo)},
    {"debug", static_cast<uint64_t>(Level::kDebug)},
};
constexpr Key kProcessLogKeys[] = {
    {.name = "output",
     .kind = Kind::kText,
     .text = item::process_output,
     .initial = "stderr",
     .doc = "`\"stdout\"`, `\"stderr\"` or `\"file:/path\"`.",
     .example = "\"stdout\""},
    {.name = "level",
     .kind = Kind::kEnum,
     .choices = kLevels,
     .number = store<&ProcessLog::level>,
     .initial = "info",
     .doc = "The least important level that is written.",
     .example = "\"debug\""},
};
const Section kProcessLogSection{
    .path = "logs.process", .doc = "What the process itself has to say.", .keys = kProcessLogKeys};

constexpr Key kLogsKeys[] = {
    {.name = "access",
     .kind = Kind::kTable,
     .section = &kAccessSection,
     .into = [](void* object) -> void* {
       auto& access = static_cast<Config*>(object)->access_log;
       access.enabled = true;  // the table is there
       return &access;
     },
     .doc = "The access log."},
    {.name = "process",
     .kind = Kind::kTable,
     .section = &kProcessLogSection,
     .into = into<&Config::process_log>,
     .doc = "The process log."},
};
const Section kLogsSection{.path = "logs", .doc = "Logs.", .keys = kLogsKeys};

constexpr std::string_view kLaterMetrics[] = {"histograms", "per_server"};
constexpr Key kMetricsKeys[] = {
    {.name = "prometheus",
     .kind = Kind::kText,
     .word = "off",
     .text = item::metrics_address,
     .initial = "off",
     .doc = "The address to serve `/metrics` on.",
     .example = "\"127.0.0.1:9101\""},
};
const Section kMetricsSection{
    .path = "metrics", .doc = "Counters.", .keys = kMetricsKeys, .later = kLaterMetrics};

constexpr std::string_view kLaterAdmin[] = {"http", "token"};
constexpr Key kAdminKeys[] = {
    {.name = "socket",
     .kind = Kind::kText,
     .word = "off",
     .text = item::admin_socket,
     .initial = "off",
     .doc =
         "The path of the unix socket that `ringctl` and the HTTP API use. A file that no process "
         "listens on is replaced.",
     .example = "\"/run/ringway/admin.sock\""},
    {.name = "socket_mode",
     .kind = Kind::kText,
     .text = item::admin_mode,
     .initial = "0600",
     .doc = "The mode of that file, in octal. Whoever may write to it may operate the process.",
     .example = "\"0660\""},
};
const Section kAdminSection{
    .path = "admin", .doc = "Control at run time.", .keys = kAdminKeys, .later = kLaterAdmin};

constexpr std::string_view kLaterRoot[] = {"acme",    "lists",     "maps",    "tables",    "peers",
                                           "filters", "resolvers", "tracing", "readiness", "tests"};
constexpr Key kRootKeys[] = {
    {.name = "version",
     .kind = Kind::kInteger,
     .required = true,
     .min = 1,
     .max = 1'000'000,
     .number = store<&Draft::version>,
     .doc = "The major version of this language. A newer one is refused.",
     .example = "1"},
    {.name = "include",
     .kind = Kind::kTexts,
     .max = 1000,
     .text = item::accept,
     .doc = "Files to include, as paths or patterns relative to this file; those that a pattern "
            "matches are sorted by name. An included file stands before the rest of the one that "
            "includes it. Defining one object in two files is an error.",
     .example = "[\"conf.d/*.toml\"]"},
    {.name = "process",
     .kind = Kind::kTable,
     .section = &kProcessSection,
     .into = [](void* object) -> void* { return &static_cast<Draft*>(object)->config.process; },
     .doc = "The process as a whole."},
    {.name = "engine",
     .kind = Kind::kTable,
     .section = &kEngineSection,
     .into = [](void* object) -> void* { return &static_cast<Draft*>(object)->config.engine; },
     .doc = "The engine of each shard."},
    {.name = "defaults",
     .kind = Kind::kTable,
     .section = &kDefaultsSection,
     .into = [](void* object) -> void* { return object; },
     .doc = "What is written once for all."},
    {.name = "listeners",
     .kind = Kind::kNamed,
     .max = 1000,
     .section = &kListenerSection,
     .element = object::listener,
     .doc = "Addresses that clients connect to."},
    {.name = "upstreams",
     .kind = Kind::kNamed,
     .max = 10'000,
     .section = &kUpstreamSection,
     .element = object::upstream,
     .doc = "Groups of servers."},
    {.name = "routes",
     .kind = Kind::kTables,
     .max = 10'000,
     .section = &kRouteSection,
     .element = object::route,
     .doc = "Which request goes where. The first one that matches wins."},
    {.name = "tls",
     .kind = Kind::kTable,
     .section = &kTlsSection,
     .into = [](void* object) -> void* { return object; },
     .doc = "TLS for clients."},
    {.name = "logs",
     .kind = Kind::kTable,
     .section = &kLogsSection,
     .into = [](void* object) -> void* { return &static_cast<Draft*>(object)->config; },
     .doc = "Logs."},
    {.name = "metrics",
     .kind = Kind::kTable,
     .section = &kMetricsSection,
     .into = [](void* object) -> void* { return &static_cast<Draft*>(object)->config.metrics; },
     .doc = "Counters."},
    {.name = "admin",
     .kind = Kind::kTable,
     .section = &kAdminSection,
     .into = [](void* object) -> void* { return &static_cast<Draft*>(object)->config.admin; },
     .doc = "Control at run time."},
};
const Section kRootSection{
    .path = "", .doc = "The top level.", .keys = kRootKeys, .later = kLaterRoot};

const Section* const kAll[] = {
    &kRootSection,
    &kProcessSection,
    &kEngineSection,
    &kDefaultsSection,
    &kDefaultTimeoutsSection,
    &kDefaultHealthSection,
    &kListenerSection,
    &kListenerProxySection,
    &kListenerPrereadSection,
    &kListenerHttp2Section,
    &kListenerCertificateSection,
    &kListenerLimitsSection,
    &kListenerTimeoutsSection,
    &kRouteSection,
    &kMatchSection,
    &kRedirectSection,
    &kRespondSection,
    &kRejectSection,
    &kRewriteSection,
    &kRequestEditsSection,
    &kResponseEditsSection,
    &kRouteTimeoutsSection,
    &kUpstreamSection,
    &kServerSection,
    &kServerSocketSection,
    &kBalanceSection,
    &kPoolSection,
    &kQueueSection,
    &kHealthSection,
    &kExpectSection,
    &kHealthTlsSection,
    &kRetrySection,
    &kUpstreamTimeoutsSection,
    &kUpstreamTlsSection,
    &kUpstreamTlsCertificateSection,
    &kTlsSection,
    &kTlsProfileSection,
    &kTlsTicketsSection,
    &kTlsClientAuthSection,
    &kTlsCertificatesSection,
    &kLogsSection,
    &kAccessSection,
    &kProcessLogSection,
    &kMetricsSection,
    &kAdminSection,
};

}  // namespace

const Section& root_section() {
  return kRootSection;
}
const Section& timeouts_section() {
  return kRouteTimeoutsSection;
}
std::span<const Section* const> all_sections() {
  return kAll;
}

}  // namespace ringway::config
