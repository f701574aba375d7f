// lb/config/schema_tls.cc - the schema of TLS: profiles, certificates, and TLS to servers.
#include "lb/config/schema_timeouts.h"
#include "lb/config/sections.h"
#include "lb/config/store.h"

namespace ringway::config {
namespace {

constexpr Choice kVersions[] = {
    {"1.2", static_cast<uint64_t>(TlsVersion::k12)},
    {"1.3", static_cast<uint64_t>(TlsVersion::k13)},
};
constexpr Choice kAuthModes[] = {
    {"off", static_cast<uint64_t>(ClientAuthMode::kOff)},
    {"optional", static_cast<uint64_t>(ClientAuthMode::kOptional)},
    {"required", static_cast<uint64_t>(ClientAuthMode::kRequired)},
};

// A key that names a file.
template <auto M>
constexpr Key file_key(const char* name, bool required, const char* doc, const char* example) {
  return {.name = name,
          .kind = Kind::kText,
          .required = required,
          .text = [](Reader& reader, const Key& key, const Node& node,
                     void* object) { read_path(reader, key, node, member<M>(object)); },
          .doc = doc,
          .example = example};
}

// A key that names a field for servers.
template <auto M>
constexpr Key field_key(const char* name, const char* initial, const char* doc,
                        const char* example) {
  return {.name = name,
          .kind = Kind::kText,
          .word = "off",
          .text = [](Reader& reader, const Key& key, const Node& node,
                     void* object) { read_own_name(reader, key, node, member<M>(object)); },
          .initial = initial,
          .doc = doc,
          .example = example};
}
constexpr Key kCertificateHeaderKeys[] = {
    field_key<&ClientCertificateHeaders::verify>(
        "verify", "x-ssl-client-verify",
        "`SUCCESS`, `NONE` (there is no certificate, or none was asked for) or `FAILED:` and the "
        "reason, as in metrics. With the last two nothing else is said. `\"off\"`: not said, here "
        "and below.",
        "\"ssl-client-verify\""),
    field_key<&ClientCertificateHeaders::subject>(
        "subject", "x-ssl-client-subject", "The certificate's subject, by RFC 2253.", "\"off\""),
    field_key<&ClientCertificateHeaders::issuer>("issuer", "x-ssl-client-issuer",
                                                 "Its issuer, likewise.", "\"off\""),
    field_key<&ClientCertificateHeaders::serial>(
        "serial", "x-ssl-client-serial", "Its serial number, hexadecimal, upper case.", "\"off\""),
    field_key<&ClientCertificateHeaders::fingerprint>(
        "fingerprint", "x-ssl-client-fingerprint",
        "The SHA-256 of the whole certificate, hexadecimal, lower case.", "\"off\""),
};

constexpr std::string_view kLaterTickets[] = {"share"};
constexpr Key kTicketKeys[] = {
    {.name = "rotate",
     .kind = Kind::kDuration,
     .min = 60 * kSecond,
     .max = 7 * kDay,
     .number = store<&TlsTickets::rotate>,
     .initial = "12h",
     .doc = "How long a key makes new tickets. It still opens old ones for as long again.",
     .example = "\"6h\""},
    file_key<&TlsTickets::keys>(
        "keys", false,
        "A file of keys that several nodes share. Absent: keys that only this process knows.",
        "\"/etc/ringway/tickets\""),
};
constexpr Key kClientAuthKeys[] = {
    {.name = "mode",
     .kind = Kind::kEnum,
     .choices = kAuthModes,
     .number = store<&TlsClientAuth::mode>,
     .initial = "off",
     .doc = "`\"required\"`: no handshake without a valid certificate. `\"optional\"`: whatever is "
            "given, or nothing; routes (`match.client_certificate`) and servers "
            "(`client_certificate_headers` of the listener) decide.",
     .example = "\"required\""},
    file_key<&TlsClientAuth::ca>("ca", false,
                                 "The authorities that sign clients' certificates, PEM. Needed "
                                 "unless `mode` is `\"off\"`. Read again when it changes, as `crl` "
                                 "is: a bad file leaves the old one in force.",
                                 "\"/etc/ringway/clients.pem\""),
    file_key<&TlsClientAuth::crl>(
        "crl", false,
        "Lists of revoked certificates, PEM: one of each authority that has signed clients.",
        "\"/etc/ringway/clients.crl\""),
};
constexpr std::string_view kLaterProfile[] = {"ktls", "alpn"};
constexpr Choice kEarlyData[] = {{"off", 0}, {"safe_methods", 1}};
constexpr Choice kOcsp[] = {{"off", 0}, {"file", 1}};
constexpr std::string_view kLaterOcsp[] = {"auto"};
constexpr Key kProfileKeys[] = {
    {.name = "certificates",
     .kind = Kind::kTexts,
     .required = true,
     .max = 10'000,
     .text = item::accept,
     .doc = "Names of `[tls.certificates]`. The very first certificate answers clients that name "
            "no server, and those that name an unknown one, unless `strict_sni`.",
     .example = "[\"main\", \"tenants\"]"},
    {.name = "min_version",
     .kind = Kind::kEnum,
     .choices = kVersions,
     .number = store<&TlsProfile::min_version>,
     .initial = "1.2",
     .doc = "The oldest version of TLS that is spoken.",
     .example = "\"1.3\""},
    {.name = "max_version",
     .kind = Kind::kEnum,
     .choices = kVersions,
     .number = store<&TlsProfile::max_version>,
     .initial = "1.3",
     .doc = "The newest.",
     .example = "\"1.2\""},
    {.name = "ciphers",
     .kind = Kind::kTexts,
     .max = 64,
     .text = item::cipher,
     .clear = clear<&TlsProfile::ciphers>,
     .initial = "modern",
     .doc = "For TLS 1.2, the preferred first. `\"modern\"`: ECDHE with AES-GCM or "
            "ChaCha20-Poly1305. `\"intermediate\"`: also ECDHE with AES-CBC, for clients of before "
            "2014. Or names as OpenSSL or IANA write them. TLS 1.3 has its own three, always.",
     .example = "\"intermediate\""},
    {.name = "groups",
     .kind = Kind::kTexts,
     .max = 16,
     .text = item::group,
     .clear = clear<&TlsProfile::groups>,
     .initial = "[\"X25519\", \"P-256\", \"P-384\"]",
     .doc = "Groups for the key exchange, the preferred first.",
     .example = "[\"P-256\", \"X25519\"]"},
    {.name = "strict_sni",
     .kind = Kind::kBoolean,
     .number = store<&TlsProfile::strict_sni>,
     .initial = "false",
     .doc =
         "Refuses clients that name no server, or one without a certificate here, with the alert "
         "unrecognized_name (112).",
     .example = "true"},
    {.name = "ocsp",
     .kind = Kind::kEnum,
     .choices = kOcsp,
     .later = kLaterOcsp,
     .number = store<&TlsProfile::ocsp>,
     .initial = "file",
     .doc = "`\"file\"`: the OCSP response (DER) in the file `CERT.ocsp` beside a certificate is "
            "stapled until its next update. `\"off\"`: none is.",
     .example = "\"off\""},
    {.name = "early_data",
     .kind = Kind::kEnum,
     .choices = kEarlyData,
     .number = store<&TlsProfile::early_data>,
     .initial = "off",
     .doc =
         "`\"safe_methods\"`: clients that resume a session of TLS 1.3 may send requests with "
         "their first flight (0-RTT). Whoever sees them can send them again, within a minute and "
         "as often as he likes. So only GET, HEAD, OPTIONS and TRACE without a body go on at "
         "once, with `Early-Data: 1` for servers (RFC 8470); all others wait for the end of the "
         "handshake. For HTTP listeners, with tickets, without `client_auth`.",
     .example = "\"safe_methods\""},
    file_key<&TlsProfile::ech>(
        "ech", false,
        "A file of keys for Encrypted Client Hello (RFC 9849), PEM: X25519 keys, `PRIVATE KEY`, "
        "each "
        "with its `ECHCONFIG` behind it (RFC 9934). Clients that know the configuration, from DNS, "
        "send the name they ask for encrypted. All keys open; clients with a configuration of none "
        "are sent the first key's. Certificates must answer for its public name too. Read again "
        "when "
        "it changes.",
        "\"/etc/ringway/ech.pem\""),
    {.name = "tickets",
     .kind = Kind::kTable,
     .word = "off",
     .section = &kTlsTicketsSection,
     .number = [](void* object, uint64_t) { member<&TlsProfile::tickets>(object).enabled = false; },
     .into = into<&TlsProfile::tickets>,
     .doc = "Session tickets, for resumption."},
    {.name = "client_auth",
     .kind = Kind::kTable,
     .section = &kTlsClientAuthSection,
     .into = into<&TlsProfile::client_auth>,
     .doc = "Certificates of clients."},
    {.name = "handshakes_per_shard",
     .kind = Kind::kText,
     .word = "off",
     .text = item::handshake_rate,
     .initial = "off",
     .doc = "How many handshakes a shard begins in a second, as `\"2000/s\"`. Further ones wait, "
            "and established traffic goes on. Of several profiles the lowest number counts.",
     .example = "\"2000/s\""},
};
constexpr Key kCertificatesKeys[] = {
    file_key<&TlsCertificates::cert>("cert", false,
                                     "The chain, PEM, the server's own certificate first. Needs "
                                     "`key`.",
                                     "\"/etc/ringway/tls/example.com.pem\""),
    file_key<&TlsCertificates::key>("key", false,
                                    "The private key of `cert`, PEM without a pass phrase: RSA of "
                                    "2048 bits or more, ECDSA P-256 or P-384, or Ed25519.",
                                    "\"/etc/ringway/tls/example.com.key\""),
    file_key<&TlsCertificates::pem>("pem", false, "Instead: chain and private key in one file.",
                                    "\"/etc/ringway/tls/both.pem\""),
    file_key<&TlsCertificates::directory>(
        "directory", false,
        "Instead: all pairs of a directory, NAME.pem or NAME.crt with NAME.key, or NAME.pem with "
        "both in it, in the order of their names. One that is broken is left out with a warning.",
        "\"/etc/ringway/tls/tenants.d\""),
    {.name = "watch",
     .kind = Kind::kBoolean,
     .number = store<&TlsCertificates::watch>,
     .initial = "true",
     .doc = "Takes over what changes on disk within 2 s, without a reload, after checking it.",
     .example = "false"},
};
constexpr Key kTlsKeys[] = {
    {.name = "profiles",
     .kind = Kind::kNamed,
     .max = 1000,
     .section = &kTlsProfileSection,
     .element = object::tls_profile,
     .doc = "How TLS is spoken; listeners name one."},
    {.name = "certificates",
     .kind = Kind::kNamed,
     .max = 10'000,
     .section = &kTlsCertificatesSection,
     .element = object::tls_certificates,
     .doc = "Where certificates come from; profiles name them."},
};
constexpr Key kUpstreamTlsKeys[] = {
    {.name = "verify",
     .kind = Kind::kBoolean,
     .number = store<&UpstreamTls::verify>,
     .initial = "true",
     .doc = "The server has to show a certificate for the name in `sni` that `ca` vouches for; if "
            "not, requests get 502.",
     .example = "false"},
    {.name = "ca",
     .kind = Kind::kText,
     .word = "system",
     .text = item::upstream_ca,
     .initial = "system",
     .doc =
         "The authorities that servers' certificates are checked with: `\"system\"` (the file in "
         "the environment's SSL_CERT_FILE, else the system's bundle), or a PEM file, which is "
         "read again when it changes.",
     .example = "\"/etc/ringway/servers-ca.pem\""},
    {.name = "sni",
     .kind = Kind::kText,
     .text = item::upstream_sni,
     .doc = "The name that servers are asked for: a fixed one, or `\"{request.host}\"`, the host "
            "that the client asked for, which is what holds for HTTP when it is absent. TCP needs "
            "a fixed one to verify.",
     .example = "\"api.example.com\""},
    {.name = "certificate",
     .kind = Kind::kTable,
     .section = &kUpstreamTlsCertificateSection,
     .into = [](void* object) { return object; },
     .doc = "What servers are shown if they ask for a certificate."},
    {.name = "min_version",
     .kind = Kind::kEnum,
     .choices = kVersions,
     .number = store<&UpstreamTls::min_version>,
     .initial = "1.2",
     .doc = "The oldest version of TLS that is spoken.",
     .example = "\"1.3\""},
};
constexpr Key kHealthTlsKeys[] = {
    {.name = "verify",
     .kind = Kind::kBoolean,
     .number = store<&HealthTls::verify>,
     .initial = "true",
     .doc = "The server has to show a certificate for the name in `host` that `ca` vouches for, or "
            "it is down. `false`: any handshake will do.",
     .example = "false"},
    {.name = "ca",
     .kind = Kind::kText,
     .word = "system",
     .text = item::health_ca,
     .initial = "system",
     .doc = "The authorities, as in `[upstreams.NAME.tls]`.",
     .example = "\"/etc/ringway/servers-ca.pem\""},
};
constexpr Key kUpstreamTlsCertificateKeys[] = {
    file_key<&UpstreamTls::cert>("cert", true, "The chain, PEM.", "\"/etc/ringway/client.pem\""),
    file_key<&UpstreamTls::key>("key", true, "Its private key, PEM.",
                                "\"/etc/ringway/client.key\""),
};

}  // namespace

const Section kListenerCertificateSection{
    .path = "listeners.NAME.client_certificate_headers",
    .doc =
        "Fields that tell servers about the client's certificate. Only with this table are they "
        "written. What clients send by these names is removed on every listener, certificate or "
        "not, trailers included, and so is what servers may take for them: `X_SSL_CLIENT_VERIFY` "
        "and the like. On listeners without this table `trusted_proxies` may send them.",
    .keys = kCertificateHeaderKeys};
const Section kTlsSection{.path = "tls", .doc = "TLS for clients.", .keys = kTlsKeys};
const Section kTlsProfileSection{.path = "tls.profiles.NAME",
                                 .doc = "How TLS is spoken with clients, and with whose name.",
                                 .keys = kProfileKeys,
                                 .later = kLaterProfile};
const Section kTlsTicketsSection{.path = "tls.profiles.NAME.tickets",
                                 .doc =
                                     "Session tickets. `tickets = \"off\"`: every connection makes "
                                     "a full handshake.",
                                 .keys = kTicketKeys,
                                 .later = kLaterTickets};
const Section kTlsClientAuthSection{.path = "tls.profiles.NAME.client_auth",
                                    .doc = "Certificates of clients.",
                                    .keys = kClientAuthKeys};
const Section kTlsCertificatesSection{
    .path = "tls.certificates.NAME",
    .doc = "Where certificates come from: `cert` and `key`, or `pem`, or `directory`.",
    .keys = kCertificatesKeys};
const Section kUpstreamTlsSection{.path = "upstreams.NAME.tls",
                                  .doc =
                                      "TLS to the servers. Without this table they are spoken to "
                                      "in clear text.",
                                  .keys = kUpstreamTlsKeys};
const Section kHealthTlsSection{.path = "upstreams.NAME.health.tls",
                                .doc =
                                    "For checks of type `\"tls\"` without `[upstreams.NAME.tls]`: "
                                    "whose certificates are good.",
                                .keys = kHealthTlsKeys};
const Section kUpstreamTlsCertificateSection{.path = "upstreams.NAME.tls.certificate",
                                             .doc = "The certificate of this balancer as a client.",
                                             .keys = kUpstreamTlsCertificateKeys};

}  // namespace ringway::config
