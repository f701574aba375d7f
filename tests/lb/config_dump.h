// tests/lb/config_dump.h - a Config as text, every value but positions; for comparing two.
#pragma once

#include <sstream>
#include <string>

#include "lb/config/config.h"

namespace ringway::config {

inline void dump(std::ostream& out, const Timeouts& t) {
  out << " timeouts " << t.proxy_header << ' ' << t.request_headers << ' ' << t.request_body << ' '
      << t.client_idle << ' ' << t.keep_alive << ' ' << t.connect << ' ' << t.response_headers
      << ' ' << t.server_idle << ' ' << t.tunnel_idle << ' ' << t.half_closed << ' ' << t.queue
      << ' ' << t.tls_handshake << '\n';
}

inline void dump(std::ostream& out, const std::vector<std::string>& list) {
  for (const std::string& item : list) out << " <" << item << '>';
  out << '\n';
}

inline void dump(std::ostream& out, const http1::HeaderEdits& edits) {
  for (const std::string& name : edits.remove) out << " remove " << name << '\n';
  for (const auto& pair : edits.set) out << " set " << pair.name << '=' << pair.value << '\n';
  for (const auto& pair : edits.add) out << " add " << pair.name << '=' << pair.value << '\n';
}

inline void dump(std::ostream& out, const TlsProfile& p) {
  out << "profile " << p.name << ' ' << int(p.min_version) << ' ' << int(p.max_version)
      << " ciphers";
  dump(out, p.ciphers);
  dump(out, p.groups);
  for (const uint32_t index : p.certificates) out << ' ' << index;
  out << ' ' << p.strict_sni << " tickets " << p.tickets.enabled << ' ' << p.tickets.rotate << ' '
      << p.tickets.keys.path << " auth " << int(p.client_auth.mode) << ' ' << p.client_auth.ca.path
      << ' ' << p.client_auth.crl.path << ' ' << p.ocsp << ' ' << p.handshakes_per_shard
      << " early " << p.early_data << " ech " << p.ech.path << '\n';
}

inline void dump(std::ostream& out, const TlsCertificates& c) {
  out << "certificates " << c.name << ' ' << c.cert.path << ' ' << c.key.path << ' ' << c.pem.path
      << ' ' << c.directory.path << ' ' << c.watch << '\n';
}

inline void dump(std::ostream& out, const UpstreamTls& t) {
  out << " tls " << t.enabled << ' ' << t.verify << ' ' << t.ca.path << ' ' << t.sni_from_request
      << ' ' << t.sni << ' ' << t.cert.path << ' ' << t.key.path << ' ' << int(t.min_version)
      << '\n';
}

inline void dump(std::ostream& out, const Listener& l) {
  out << "listener " << l.name << ' ' << int(l.protocol) << ' ' << int(l.accept) << ' ' << l.backlog
      << ' ' << l.max_connections << ' ' << l.forwarded << ' ' << l.x_forwarded << ' '
      << (l.tls ? int(*l.tls) : -1) << '\n';
  const ClientCertificateHeaders& c = l.certificate_headers;
  out << " certificate " << c.enabled << ' ' << c.verify << ' ' << c.subject << ' ' << c.issuer
      << ' ' << c.serial << ' ' << c.fingerprint << '\n';
  for (const auto& bind : l.bind)
    out << " bind " << bind.text << ' ' << bind.address.text() << '\n';
  for (const Network& network : l.trusted_proxies) {
    char text[46];
    out << " trusted " << network.base.write_ip(text) << '/' << int(network.prefix_bits) << '\n';
  }
  out << " proxy " << int(l.proxy.accept) << ' ' << l.proxy.from_unix << ' '
      << l.proxy.header_bytes;
  for (const Network& network : l.proxy.from) {
    char text[46];
    out << ' ' << network.base.write_ip(text) << '/' << int(network.prefix_bits);
  }
  out << '\n';
  out << " preread " << l.preread.sni << ' ' << l.preread.timeout << ' ' << l.preread.hello_bytes
      << '\n';
  for (const HttpVersion version : l.http_versions) out << " speaks " << int(version);
  out << " h2 " << l.h2.max_streams << ' ' << l.h2.stream_window << ' ' << l.h2.connection_window
      << ' ' << l.h2.header_table << ' ' << l.h2.max_resets.count << '/'
      << l.h2.max_resets.period_ms << ' ' << l.h2.max_control.count << '/'
      << l.h2.max_control.period_ms << ' ' << l.h2.idle_ping << '\n';
  out << " limits " << l.limits.header_bytes << ' ' << l.limits.headers << ' ' << l.limits.uri_bytes
      << ' ' << l.limits.body_bytes << '\n';
  dump(out, l.timeouts);
}

inline void dump(std::ostream& out, const Route& r) {
  out << "route " << r.name << " listeners";
  for (const uint32_t index : r.listeners) out << ' ' << index;
  out << " action " << int(r.action) << " upstream " << r.upstream << '\n';
  for (const auto* list : {&r.match.host, &r.match.path, &r.match.path_prefix, &r.match.path_regex,
                           &r.match.method, &r.match.sni, &r.match.alpn}) {
    dump(out, *list);
  }
  for (const HeaderMatch& h : r.match.headers) {
    out << " header " << h.name << '=' << h.value << ' ' << h.present << '\n';
  }
  out << " certificate " << r.match.client_certificate << '\n';
  out << " redirect " << r.redirect.scheme << ' ' << r.redirect.host << ' ' << r.redirect.path
      << ' ' << r.redirect.status << '\n';
  out << " respond " << r.respond.status << ' ' << r.respond.body << ' ' << r.respond.content_type
      << '\n';
  out << " strip " << r.strip_prefix << '\n';
  dump(out, r.request_headers);
  out << " response\n";
  dump(out, r.response_headers);
  out << " has_timeouts " << r.has_timeouts << '\n';
  if (r.has_timeouts) dump(out, r.timeouts);
}

inline void dump(std::ostream& out, const Health& h) {
  out << " health " << int(h.type) << ' ' << h.interval << ' ' << h.fast_interval << ' '
      << h.down_interval << ' ' << h.timeout << ' ' << h.rise << ' ' << h.fall << ' '
      << h.initial_up << ' ' << h.method << ' ' << h.path << ' ' << h.host << ' ' << h.service
      << ' ' << h.tls.verify << h.tls.ca.path;
  for (const StatusRange& range : h.expect_status) out << ' ' << range.first << '-' << range.last;
  out << ' ' << h.expect_body << ' ' << int(h.send_proxy) << '\n';
}

inline void dump(std::ostream& out, const Upstream& u) {
  out << "upstream " << u.name << ' ' << int(u.protocol) << " balance " << int(u.balance.algorithm)
      << ' ' << u.balance.choices << ' ' << u.balance.key << '\n';
  const ProxyTlvs& tlvs = u.send_proxy_tlvs;
  out << " send proxy " << int(u.send_proxy) << ' ' << tlvs.alpn << tlvs.authority << tlvs.unique_id
      << tlvs.ssl << tlvs.netns << tlvs.custom << tlvs.crc32c << '\n';
  for (const Server& s : u.servers) {
    out << " server " << s.name << ' ' << s.address_text << ' ' << s.address.text() << ' '
        << s.weight << ' ' << s.backup << ' ' << s.max_requests << ' ' << int(s.state) << " from "
        << s.source_text << ' ' << s.local.source.text() << ' ' << s.local.interface << ' '
        << s.local.mark << '\n';
  }
  out << " pool " << int(u.pool.reuse) << ' ' << int(u.pool.share) << ' '
      << u.pool.max_idle_per_server << ' ' << u.pool.min_idle_per_shard << ' '
      << u.pool.idle_timeout << ' ' << u.pool.max_age << ' ' << u.pool.max_requests_per_connection
      << ' ' << u.pool.max_connections_per_server << ' ' << u.pool.warm << ' '
      << u.pool.max_streams_per_connection << ' ' << u.pool.header_table << ' ' << u.pool.idle_ping
      << " key";
  for (const HttpVersion version : u.http_versions) out << " speaks " << int(version);
  for (const PoolKey part : u.pool.key) out << ' ' << int(part);
  out << " queue " << u.queue.max << '\n';
  dump(out, u.health);
  out << " retry " << u.retry.attempts << '\n';
  dump(out, u.timeouts);
  dump(out, u.tls);
}

inline std::string dump(const Config& c) {
  std::ostringstream out;
  out << "process " << c.process.shards << ' ' << c.process.max_connections << ' '
      << c.process.drain_timeout << " cpus";
  for (const uint32_t cpu : c.process.cpus) out << ' ' << cpu;
  out << "\nengine " << int(c.engine.kind) << ' ' << int(c.engine.receive) << ' '
      << c.engine.entries << ' ' << c.engine.spin_us << '\n';
  for (const Listener& listener : c.listeners) dump(out, listener);
  for (const Route& route : c.routes) dump(out, route);
  for (const Upstream& upstream : c.upstreams) dump(out, upstream);
  for (const TlsProfile& profile : c.tls_profiles) dump(out, profile);
  for (const TlsCertificates& certificates : c.tls_certificates) dump(out, certificates);
  out << "access " << c.access_log.enabled << ' ' << c.access_log.output << ' '
      << int(c.access_log.format) << "\nprocess log " << c.process_log.output << ' '
      << int(c.process_log.level) << "\nmetrics " << c.metrics.enabled << ' '
      << c.metrics.address_text << ' ' << c.metrics.address.text() << "\nadmin " << c.admin.socket
      << ' ' << c.admin.mode << '\n';
  return out.str();
}

}  // namespace ringway::config
