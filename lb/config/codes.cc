// lb/config/codes.cc
#include "lb/config/codes.h"

#include <string>

#include "lb/config/load.h"

namespace ringway::config {
namespace {

constexpr Code kCodes[] = {
    {"E0001", "file cannot be read",
     "The file does not exist, is no file, is larger than 8 MiB, or the user that runs Ringway may "
     "not read it. The message has the system's reason and the user id that tried."},
    {"E0003", "include not possible",
     "Includes are at most 4 deep, at most 1000 files take part, no file is included twice, and a "
     "text that is no file includes nothing. Remove the include that closes the circle."},
    {"E0101", "not TOML",
     "The file is not valid TOML 1.0. Only the first such error of a file is found; nothing else "
     "in "
     "that file was looked at."},
    {"E0103", "newer version of the language",
     "The file was written for a newer Ringway. Update Ringway, or remove what is new and lower "
     "`version`."},
    {"E0104", "unknown key",
     "No such key exists in this table. Nothing is ever ignored: a wrong name would otherwise be a "
     "limit that does not hold. Check the spelling and the table that the key stands in."},
    {"E0105", "not supported yet",
     "The key, value or expression belongs to the language, but this version of Ringway does not "
     "have it. Remove it; it is never ignored silently."},
    {"E0106", "key is missing", "The table needs this key. The label shows an example."},
    {"E0107", "defined in two files",
     "One object is defined in one place. Remove one of the two, or give one another name."},
    {"E0211", "upstream does not exist",
     "The route names an upstream that no file defines. Names are case-sensitive."},
    {"E0212", "listener does not exist",
     "The route names a listener that no file defines, or an empty list."},
    {"E0213", "extended upstream does not exist",
     "`extends` names an upstream that no file defines."},
    {"E0214", "extends too deep",
     "Upstreams extend each other in a circle, or more than 3 deep. Write the common part into one "
     "upstream."},
    {"E0215", "protocols differ",
     "A route joins listeners and an upstream of one protocol. Name the listeners it belongs to, "
     "or change `protocol`."},
    {"E0216", "HTTP on a TCP route",
     "TCP sessions have no requests, so a route that carries them matches `sni` and `alpn` at "
     "most, changes no heads, and cannot answer by itself."},
    {"E0217", "route name used twice", "Names of routes appear in logs and metrics: one each."},
    {"E0218", "server name used twice",
     "Within an upstream each server has its own name; without `name` it is the address."},
    {"E0219", "address bound twice",
     "Two listeners, or a listener and the metrics endpoint, cannot share an address and port."},
    {"E0220", "not exactly one action",
     "A route has exactly one of `upstream`, `redirect`, `respond` and `reject`."},
    {"E0221", "no listener", "Without a listener nothing can be accepted. Add [listeners.NAME]."},
    {"E0222", "no route", "Without a route every request would get 404. Add [[routes]]."},
    {"E0223", "upstream without servers",
     "An upstream needs at least one server, its own or one that it inherits with `extends`."},
    {"E0224", "TLS profile does not exist",
     "The listener names a profile that no file defines as [tls.profiles.NAME]."},
    {"E0225", "certificate does not exist",
     "The profile names a certificate that no file defines in [tls.certificates]."},
    {"E0226", "not exactly one place of a certificate",
     "A certificate is `cert` with `key`, or `pem`, or `directory`; one of the three."},
    {"E0227", "source does not fit the server",
     "Connections come from an address of the family that they go to: a server with an IPv6 "
     "address "
     "needs an IPv6 `source`. Those to unix sockets have neither `source` nor `socket`."},
    {"E0301", "wrong type",
     "The value has another type than the key needs, a number in quotes for instance."},
    {"E0302", "unit is missing",
     "Durations and sizes say their unit: \"5s\", \"64KiB\". Programs differ in what a bare number "
     "means, so it is refused."},
    {"E0303", "malformed value",
     "The value does not have the form that the key needs. The label shows the form."},
    {"E0304", "out of range",
     "The value is smaller or larger than what is possible, or a list has too few or too many "
     "items."},
    {"E0305", "not one of the choices", "The key takes only the words that the message lists."},
    {"E0306", "bad address",
     "Addresses are IP:port, [IPv6]:port or unix:/path. Host names are not resolved."},
    {"E0307", "bad network",
     "Networks are written as 10.0.0.0/8 or fd00::/8; bits beyond the prefix are zero."},
    {"E0308", "bad regular expression",
     "Regular expressions have RE2's syntax: no back-references and no look-around. In TOML they "
     "are best written in single quotes."},
    {"E0309", "bad field", "The name or value cannot stand in an HTTP head (RFC 9110 5.1, 5.5)."},
    {"E0310", "bad host",
     "Hosts are names without a port, \"*.example.com\" for all names below, or [IPv6]."},
    {"E0311", "bad path",
     "Paths begin with `/` and are compared as they stand on the wire: percent-encoded."},
    {"E0312", "bad reference",
     "${env:NAME} needs the variable to be set; ${env:NAME:-default} says what holds when it is "
     "not. A literal ${ is written $${."},
    {"E0313", "secret cannot be read",
     "${file:/path} needs an absolute path to a file of at most 64 KiB that the user who runs "
     "Ringway may read."},
    {"E0314", "bad list of CPUs", "CPUs are numbers and ranges: \"0-3,8\"; each at most once."},
    {"E0315", "bad status", "Statuses are \"200\" or ranges \"200-299\", from 100 to 599."},
    {"E0317", "keys that exclude each other",
     "The key has no effect together with what else is set, so it is refused rather than ignored."},
    {"E0318", "field cannot be changed",
     "Fields that frame a message or belong to one connection are written by the balancer."},
    {"E0319", "bad name",
     "Names have 1 to 64 characters; those of tables are letters, digits, "
     "`_`, `-` and `.`."},
    {"E0320", "unknown cipher",
     "Ciphers are `modern`, `intermediate`, or names that BoringSSL has for TLS 1.2, as OpenSSL or "
     "IANA write them. Those of TLS 1.3 are always on."},
    {"E0321", "unknown group",
     "The TLS library that Ringway is built with has no such group for the key exchange."},
    {"E0322", "certificate cannot be used",
     "A file that the key names cannot be read, or does not hold what it should: the message says "
     "which file, and at which line of it."},
    {"W0401", "listener without a route", "All that it accepts will get 404, or be closed."},
    {"W0402", "upstream that is never used", "No route sends to it and no upstream extends it."},
    {"W0403", "durations in an odd order",
     "The durations contradict each other; both still hold as they are written."},
    {"W0404", "no server takes work",
     "Servers of weight 0, and those whose `state` is not \"ready\", take no new work, and there "
     "is "
     "no other."},
    {"W0405", "include matches nothing", "The pattern of an `include` matches no file."},
    {"W0406", "prefix is never stripped",
     "None of the paths that the route takes begins with `strip_prefix`."},
    {"W0407", "admin socket is open to all",
     "Whoever may write to the admin socket may take servers out of use and reload: leave it to "
     "its "
     "owner, or to a group."},
    {"W0408", "server is not verified",
     "Without verification TLS hides what is sent from those who only listen, but not from those "
     "who stand in the way."},
    {"W0409", "certificate ends soon",
     "The certificate has expired or will within 7 days. It is used all the same."},
    {"W0410", "route can never match",
     "An earlier route takes every request that this one would take. Move it up, or remove it."},
    {"W0411", "certificate left out",
     "One certificate of a directory cannot be used; the others are. A reload does not stop for "
     "it, and what served before goes on."},
    {"W0412", "TLS object that is never used",
     "No listener names the profile, or no profile the certificate."},
};

}  // namespace

std::span<const Code> all_codes() {
  return kCodes;
}

std::string explain(const std::string& code) {
  for (const Code& known : kCodes) {
    if (code == known.code) {
      return std::string(known.code) + ": " + known.title + "\n\n" + known.text + "\n";
    }
  }
  return {};
}

}  // namespace ringway::config
