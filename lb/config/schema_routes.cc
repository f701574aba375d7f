// lb/config/schema_routes.cc - the schema of listeners and routes.
#include "lb/config/schema_timeouts.h"
#include "lb/config/sections.h"
#include "lb/config/store.h"

namespace ringway::config {
namespace {

constexpr Choice kAcceptModes[] = {
    {"balanced", static_cast<uint64_t>(AcceptMode::kBalanced)},
    {"reuseport", static_cast<uint64_t>(AcceptMode::kReuseport)},
};

constexpr Key kLimitKeys[] = {
    {.name = "header_bytes",
     .kind = Kind::kSize,
     .min = 1024,
     .max = 1U << 20U,
     .number = store<&Limits::header_bytes>,
     .initial = "64KiB",
     .doc = "A whole request head. Longer ones get 431.",
     .example = "\"32KiB\""},
    {.name = "headers",
     .kind = Kind::kInteger,
     .min = 1,
     .max = 1024,
     .number = store<&Limits::headers>,
     .initial = "128",
     .doc = "Fields of a request. More get 431.",
     .example = "64"},
    {.name = "uri_bytes",
     .kind = Kind::kSize,
     .min = 256,
     .max = 1U << 20U,
     .number = store<&Limits::uri_bytes>,
     .initial = "8KiB",
     .doc = "The request target. Longer ones get 414. At most `header_bytes`.",
     .example = "\"4KiB\""},
    {.name = "body_bytes",
     .kind = Kind::kSize,
     .min = 0,
     .max = 1ULL << 50U,
     .word = "off",
     .word_value = kUnlimited,
     .number = store<&Limits::body_bytes>,
     .initial = "off",
     .doc = "A request body. Longer ones get 413.",
     .example = "\"10MiB\""},
};
constexpr Choice kProxyAccepts[] = {
    {"off", static_cast<uint64_t>(ProxyAccept::kOff)},
    {"optional", static_cast<uint64_t>(ProxyAccept::kOptional)},
    {"required", static_cast<uint64_t>(ProxyAccept::kRequired)},
};
constexpr Key kProxyKeys[] = {
    {.name = "accept",
     .kind = Kind::kEnum,
     .choices = kProxyAccepts,
     .number = store<&ProxyProtocol::accept>,
     .initial = "off",
     .doc = "`\"required\"`: every client begins with a header of version 1 or 2. "
            "`\"optional\"`: it may. The address that the header carries becomes the client's, "
            "in logs, `X-Forwarded-For`, hashing and `trusted_proxies`; a header that says LOCAL "
            "or UNKNOWN changes nothing. A header that is wrong or comes from anybody else than "
            "`from` closes the connection, and nothing of it reaches a server.",
     .example = "\"required\""},
    {.name = "from",
     .kind = Kind::kTexts,
     .max = 1000,
     .text = item::proxy_from,
     .clear =
         [](void* object) {
           member<&ProxyProtocol::from>(object).clear();
           member<&ProxyProtocol::from_unix>(object) = false;
         },
     .doc = "Networks that may send a header; `\"unix\"` stands for the clients of unix sockets. "
            "Needed unless `accept` is `\"off\"`.",
     .example = "[\"10.9.0.0/24\", \"unix\"]"},
    {.name = "header_bytes",
     .kind = Kind::kSize,
     .min = 232,
     .max = 1U << 16U,
     .number = store<&ProxyProtocol::header_bytes>,
     .initial = "4KiB",
     .doc = "A whole header of version 2. Longer ones close the connection.",
     .example = "\"1KiB\""},
};
constexpr Key kPrereadKeys[] = {
    {.name = "sni",
     .kind = Kind::kBoolean,
     .number = store<&Preread::sni>,
     .initial = "false",
     .doc =
         "Read the client's TLS hello, so that routes can `match` its `sni` and `alpn`. "
         "Nothing is decrypted; every byte is passed on as it came. What is not TLS, and a "
         "hello without a name, goes to routes without `sni` only. On an HTTP listener, which "
         "needs `tls` then, clients that a route to a TCP upstream takes (it names the listener, "
         "and `sni` or `alpn`) are passed through, and all others are answered here.",
     .example = "true"},
    {.name = "timeout",
     .kind = Kind::kDuration,
     .min = 1,
     .max = kDay,
     .number = store<&Preread::timeout>,
     .initial = "3s",
     .doc = "The time the client has to send its whole hello. Then it is closed.",
     .example = "\"7s\""},
    {.name = "hello_bytes",
     .kind = Kind::kSize,
     .min = 512,
     .max = 1U << 18U,
     .number = store<&Preread::hello_bytes>,
     .initial = "32KiB",
     .doc = "A whole hello, in as many records as it takes. Longer ones are closed.",
     .example = "\"16KiB\""},
};
constexpr Key kListenerTimeoutKeys[] = {kProxyHeader, kRequestHeaders, kRequestBody,
                                        kClientIdle,  kKeepAlive,      kTlsHandshake};
constexpr std::string_view kLaterListener[] = {"max_connections_per_client", "socket", "udp",
                                               "extends"};
constexpr Key kListenerKeys[] = {
    {.name = "bind",
     .kind = Kind::kTexts,
     .required = true,
     .max = 64,
     .text = item::bind,
     .clear = clear<&Listener::bind>,
     .doc = "Addresses: `\"0.0.0.0:80\"`, `\"[::]:80\"` (IPv6 only), `\"unix:/path\"`.",
     .example = "[\"0.0.0.0:80\", \"[::]:80\"]"},
    {.name = "protocol",
     .kind = Kind::kEnum,
     .choices = kProtocols,
     .later = kLaterProtocols,
     .number = store<&Listener::protocol>,
     .initial = "http",
     .doc = "HTTP, or TCP as it comes.",
     .example = "\"tcp\""},
    {.name = "tls",
     .kind = Kind::kText,
     .text = item::accept,
     .doc = "The profile of `[tls.profiles]` that clients speak TLS by. Absent: clear text.",
     .example = "\"public\""},
    {.name = "accept",
     .kind = Kind::kEnum,
     .choices = kAcceptModes,
     .number = store<&Listener::accept>,
     .initial = "balanced",
     .doc = "`\"reuseport\"`: a connection stays on the shard that the kernel's hash chose. "
            "`\"balanced\"`: it moves to the least loaded shard.",
     .example = "\"reuseport\""},
    {.name = "backlog",
     .kind = Kind::kInteger,
     .min = 1,
     .max = 1'000'000,
     .number = store<&Listener::backlog>,
     .initial = "4096",
     .doc = "Connections that wait to be accepted. The kernel cuts it to `net.core.somaxconn`.",
     .example = "1024"},
    {.name = "max_connections",
     .kind = Kind::kInteger,
     .min = 1,
     .max = 10'000'000,
     .word = "off",
     .word_value = kUnlimited,
     .number = store<&Listener::max_connections>,
     .initial = "off",
     .doc = "Client connections of this listener, over all shards.",
     .example = "20_000"},
    {.name = "trusted_proxies",
     .kind = Kind::kTexts,
     .max = 1000,
     .text = item::trusted_proxy,
     .clear = clear<&Listener::trusted_proxies>,
     .initial = "[]",
     .doc = "Networks whose `Forwarded` and `X-Forwarded-*` fields are believed and continued; "
            "those of all others are replaced.",
     .example = "[\"10.0.0.0/8\"]"},
    {.name = "proxy_protocol",
     .kind = Kind::kTable,
     .section = &kListenerProxySection,
     .into = into<&Listener::proxy>,
     .doc = "PROXY headers that clients begin with."},
    {.name = "preread",
     .kind = Kind::kTable,
     .section = &kListenerPrereadSection,
     .into = into<&Listener::preread>,
     .doc = "What is read of a TLS hello before its client is routed."},
    {.name = "http_versions",
     .kind = Kind::kTexts,
     .max = 2,
     .text = item::http_version,
     .clear = clear<&Listener::http_versions>,
     .initial = "[\"h2\", \"http/1.1\"]",
     .doc =
         "What clients may speak, best first. Over TLS they choose by ALPN; in clear text HTTP/2 "
         "is told by its preface (prior knowledge). HTTP only.",
     .example = "[\"http/1.1\"]"},
    {.name = "h2",
     .kind = Kind::kTable,
     .section = &kListenerHttp2Section,
     .into = into<&Listener::h2>,
     .doc = "Bounds of HTTP/2 connections."},
    {.name = "client_certificate_headers",
     .kind = Kind::kTable,
     .section = &kListenerCertificateSection,
     .into = [](void* object) -> void* {
       auto& headers = member<&Listener::certificate_headers>(object);
       headers.enabled = true;  // the table is there
       return &headers;
     },
     .doc = "What servers are told about the client's certificate."},
    {.name = "limits",
     .kind = Kind::kTable,
     .section = &kListenerLimitsSection,
     .into = into<&Listener::limits>,
     .doc = "What a request may be."},
    {.name = "timeouts",
     .kind = Kind::kTable,
     .section = &kListenerTimeoutsSection,
     .into = into<&Listener::timeouts>,
     .doc = "The client's side."},
    {.name = "forwarded",
     .kind = Kind::kBoolean,
     .number = store<&Listener::forwarded>,
     .initial = "false",
     .doc = "Write `Forwarded` (RFC 7239).",
     .example = "true"},
    {.name = "x_forwarded",
     .kind = Kind::kBoolean,
     .number = store<&Listener::x_forwarded>,
     .initial = "true",
     .doc = "Write `X-Forwarded-For`, `-Proto` and `-Host`.",
     .example = "false"},
};

constexpr Key kMatchKeys[] = {
    {.name = "host",
     .kind = Kind::kTexts,
     .max = 1000,
     .text = item::host,
     .clear = clear<&Match::host>,
     .doc = "Host names without a port. `\"*.example.com\"` stands for one label or more. Case "
            "does not matter.",
     .example = "[\"example.com\", \"*.example.com\"]"},
    {.name = "path",
     .kind = Kind::kTexts,
     .max = 1000,
     .text = item::path,
     .clear = clear<&Match::path>,
     .doc = "Whole paths. Any of `path`, `path_prefix` and `path_regex` is enough.",
     .example = "\"/health\""},
    {.name = "path_prefix",
     .kind = Kind::kTexts,
     .max = 1000,
     .text = item::path_prefix,
     .clear = clear<&Match::path_prefix>,
     .doc = "How a path begins, as plain text: `\"/v1\"` takes `/v1`, `/v1/a` and `/v10`.",
     .example = "\"/v1/\""},
    {.name = "path_regex",
     .kind = Kind::kTexts,
     .max = 100,
     .text = item::path_regex,
     .clear = clear<&Match::path_regex>,
     .doc = "Regular expressions (RE2) for the whole path.",
     .example = "'/v[0-9]+/.*'"},
    {.name = "method",
     .kind = Kind::kTexts,
     .max = 100,
     .text = item::method,
     .clear = clear<&Match::method>,
     .doc = "Methods.",
     .example = "[\"GET\", \"HEAD\"]"},
    {.name = "header",
     .kind = Kind::kEntries,
     .flags = true,
     .max = 100,
     .text = item::header_match,
     .clear = clear<&Match::headers>,
     .doc = "Fields that all must be there: a name, and the exact value or `true` for any.",
     .example = "{ x-beta = true }"},
    {.name = "client_certificate",
     .kind = Kind::kTexts,
     .max = 20,
     .text = item::client_certificate,
     .clear = [](void* object) { member<&Match::client_certificate>(object) = 0; },
     .doc = "What became of the client's certificate: `\"ok\"`, `\"none\"`, `\"refused\"`, or one "
            "of the reasons of `ringway_tls_refused_certificates_total`, such as `\"expired\"`.",
     .example = "[\"none\", \"refused\"]"},
    {.name = "sni",
     .kind = Kind::kTexts,
     .max = 1000,
     .text = item::sni,
     .clear = clear<&Match::sni>,
     .doc = "Listeners with `preread` only, and routes to TCP upstreams: server names of the TLS "
            "hello, as in `host`.",
     .example = "[\"*.db.example.com\"]"},
    {.name = "alpn",
     .kind = Kind::kTexts,
     .max = 100,
     .text = item::alpn,
     .clear = clear<&Match::alpn>,
     .doc = "The same: protocols of which the client offers one.",
     .example = "[\"h2\"]"},
};
constexpr Choice kRedirectStatus[] = {
    {"301", 301}, {"302", 302}, {"303", 303}, {"307", 307}, {"308", 308}};
constexpr Choice kSchemes[] = {{"http", 0}, {"https", 1}};
constexpr Key kRedirectKeys[] = {
    {.name = "scheme",
     .kind = Kind::kEnum,
     .choices = kSchemes,
     .number =
         [](void* object, uint64_t value) {
           member<&Route::Redirect::scheme>(object) = kSchemes[value].word;
         },
     .doc = "The new scheme; absent: the request's.",
     .example = "\"https\""},
    {.name = "host",
     .kind = Kind::kText,
     .text = item::redirect_host,
     .doc = "The new host, with a port if need be; absent: the request's.",
     .example = "\"www.example.com\""},
    {.name = "path",
     .kind = Kind::kText,
     .text = item::redirect_path,
     .doc = "The new path and query; absent: the request's.",
     .example = "\"/new\""},
    {.name = "status",
     .kind = Kind::kInteger,
     .choices = kRedirectStatus,
     .number = store<&Route::Redirect::status>,
     .initial = "308",
     .doc = "The status.",
     .example = "301"},
};
constexpr Key kRespondKeys[] = {
    {.name = "status",
     .kind = Kind::kInteger,
     .min = 200,
     .max = 599,
     .number = store<&Route::Respond::status>,
     .initial = "200",
     .doc = "The status.",
     .example = "404"},
    {.name = "body",
     .kind = Kind::kText,
     .text = item::respond_body,
     .doc = "The body, up to 16 KiB.",
     .example = "\"gone\""},
    {.name = "content_type",
     .kind = Kind::kText,
     .text = item::respond_content_type,
     .initial = "text/plain; charset=utf-8",
     .doc = "The Content-Type of the body.",
     .example = "\"text/html\""},
};
constexpr std::string_view kLaterReject[] = {"retry_after", "drop"};
constexpr Key kRejectKeys[] = {
    {.name = "status",
     .kind = Kind::kInteger,
     .min = 400,
     .max = 599,
     .number = store<&Route::Respond::status>,
     .initial = "403",
     .doc = "The status; the body says the same in words.",
     .example = "429"},
};
constexpr std::string_view kLaterRewrite[] = {"path", "query", "regex", "add_prefix"};
constexpr Key kRewriteKeys[] = {
    {.name = "strip_prefix",
     .kind = Kind::kText,
     .text = item::strip_prefix,
     .doc = "Taken off the front of the path before the request is sent on.",
     .example = "\"/v1\""},
};
constexpr Key kEditKeys[] = {
    {.name = "set",
     .kind = Kind::kEntries,
     .max = 100,
     .text = item::header_set,
     .clear = clear<&http1::HeaderEdits::set>,
     .doc = "Fields to write in place of any of the same name.",
     .example = "{ x-env = \"prod\" }"},
    {.name = "add",
     .kind = Kind::kEntries,
     .max = 100,
     .text = item::header_add,
     .clear = clear<&http1::HeaderEdits::add>,
     .doc = "Fields to write beside any of the same name.",
     .example = "{ via = \"1.1 edge\" }"},
    {.name = "remove",
     .kind = Kind::kTexts,
     .max = 100,
     .text = item::header_remove,
     .clear = clear<&http1::HeaderEdits::remove>,
     .doc = "Fields to leave out. This comes first, then `set`, then `add`.",
     .example = "[\"x-debug\"]"},
};
constexpr Key kRouteTimeoutKeys[] = {kResponseHeaders, kServerIdle, kTunnelIdle, kHalfClosed,
                                     kQueue};

constexpr std::string_view kLaterRoute[] = {"when",      "filters",       "split",  "mirror",
                                            "otherwise", "retry",         "server", "priority",
                                            "let",       "buffer_request"};
constexpr Key kRouteKeys[] = {
    {.name = "name",
     .kind = Kind::kText,
     .required = true,
     .text = item::route_name,
     .doc = "The name in logs and metrics.",
     .example = "\"api\""},
    {.name = "listeners",
     .kind = Kind::kTexts,
     .max = 1000,
     .text = item::accept,
     .doc = "The listeners it belongs to; absent: all of the protocol.",
     .example = "[\"web\"]"},
    {.name = "match",
     .kind = Kind::kTable,
     .section = &kMatchSection,
     .into = into<&Route::match>,
     .doc = "Which requests it takes; absent: all."},
    {.name = "upstream",
     .kind = Kind::kText,
     .text = item::accept,
     .doc = "Action: send to this upstream.",
     .example = "\"api\""},
    {.name = "redirect",
     .kind = Kind::kTable,
     .section = &kRedirectSection,
     .into = into<&Route::redirect>,
     .doc = "Action: answer with a redirect."},
    {.name = "respond",
     .kind = Kind::kTable,
     .section = &kRespondSection,
     .into = into<&Route::respond>,
     .doc = "Action: answer with this."},
    {.name = "reject",
     .kind = Kind::kTable,
     .section = &kRejectSection,
     .into = [](void* object) -> void* {
       auto& respond = static_cast<Route*>(object)->respond;
       respond.status = 403;
       return &respond;
     },
     .doc = "Action: refuse."},
    {.name = "rewrite",
     .kind = Kind::kTable,
     .section = &kRewriteSection,
     .into = [](void* object) { return object; },
     .doc = "Changes of the path."},
    {.name = "request_headers",
     .kind = Kind::kTable,
     .section = &kRequestEditsSection,
     .into = into<&Route::request_headers>,
     .doc = "Changes of the request's fields."},
    {.name = "response_headers",
     .kind = Kind::kTable,
     .section = &kResponseEditsSection,
     .into = into<&Route::response_headers>,
     .doc = "Changes of the response's fields."},
    {.name = "timeouts",
     .kind = Kind::kTable,
     .section = &kRouteTimeoutsSection,
     .into = into<&Route::timeouts>,
     .doc = "The server's side, over the upstream's."},
};

}  // namespace

const Section kListenerSection{.path = "listeners.NAME",
                               .doc = "Addresses that clients connect to.",
                               .keys = kListenerKeys,
                               .later = kLaterListener};
const Section kListenerProxySection{
    .path = "listeners.NAME.proxy_protocol",
    .doc =
        "The PROXY protocol: a balancer in front says for whom it connects. What version 2 says "
        "beside the addresses is in the access log (JSON): `sni` (`proxy_sni` where the client's "
        "own TLS names another), `unique_id`, `proxy_alpn`, `proxy_tls_version`, "
        "`proxy_tls_cipher`, `proxy_tls_certificate` (\"ok\" or \"failed\", if the client has "
        "one), `proxy_tls_cn` if that is \"ok\", `proxy_netns`, `proxy_aws_vpce`, and other "
        "types from 0xE0 to 0xEF as `proxy_tlv_e0` to `proxy_tlv_ef`: printable text, or \"0x\" "
        "and hexadecimal. `send_proxy_tlvs` passes them on. A CRC32C that is there has to be "
        "right.",
    .keys = kProxyKeys};
const Section kListenerPrereadSection{
    .path = "listeners.NAME.preread",
    .doc = "What is read before a TCP client is routed. TCP only.",
    .keys = kPrereadKeys};
const Section kListenerLimitsSection{.path = "listeners.NAME.limits",
                                     .doc = "What a request may be. HTTP only.",
                                     .keys = kLimitKeys};
const Section kListenerTimeoutsSection{.path = "listeners.NAME.timeouts",
                                       .doc =
                                           "The client's side, over `[defaults.timeouts]`. All "
                                           "but `proxy_header` are for HTTP.",
                                       .keys = kListenerTimeoutKeys,
                                       .later = kLaterTimeouts};
const Section kRouteSection{
    .path = "routes[]",
    .doc =
        "Which request goes where: the first route in the file that matches wins. Exactly one "
        "of `upstream`, `redirect`, `respond` and `reject` says what happens.",
    .keys = kRouteKeys,
    .later = kLaterRoute};
const Section kMatchSection{.path = "routes[].match",
                            .doc =
                                "All kinds that are given must hold; of one kind, any "
                                "alternative.",
                            .keys = kMatchKeys};
const Section kRedirectSection{
    .path = "routes[].redirect", .doc = "A redirect.", .keys = kRedirectKeys};
const Section kRespondSection{
    .path = "routes[].respond", .doc = "A fixed answer.", .keys = kRespondKeys};
const Section kRejectSection{.path = "routes[].reject",
                             .doc = "A refusal with a short body.",
                             .keys = kRejectKeys,
                             .later = kLaterReject};
const Section kRewriteSection{.path = "routes[].rewrite",
                              .doc = "Changes of the path.",
                              .keys = kRewriteKeys,
                              .later = kLaterRewrite};
const Section kRequestEditsSection{.path = "routes[].request_headers",
                                   .doc = "Changes of the fields that are sent to the server.",
                                   .keys = kEditKeys};
const Section kResponseEditsSection{.path = "routes[].response_headers",
                                    .doc = "Changes of the fields that are sent to the client.",
                                    .keys = kEditKeys};
const Section kRouteTimeoutsSection{.path = "routes[].timeouts",
                                    .doc = "The server's side, over the upstream's.",
                                    .keys = kRouteTimeoutKeys,
                                    .later = kLaterTimeouts};

}  // namespace ringway::config
