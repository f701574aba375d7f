// lb/access_log.h - one line per request or TCP session: what happened, and how it is written.
//
// Affinity:  one AccessLogFormatter per shard (it caches the date); records are plain values.
// Ownership: a record borrows its text for the call.
// Bounds:    a line never exceeds the caller's buffer, and nothing is allocated.
// Why:       this runs once per request, so it is formatted by hand.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "core/address.h"

namespace ringway {

// What is known at the end of a request or session. Empty text, status 0 and negative times mean
// "there was none" and are left out of JSON.
struct AccessRecord {
  enum class Protocol : uint8_t { kHttp, kTcp };
  // Who ended it. kNone: it ended as it should.
  enum class EndedBy : uint8_t { kNone, kClient, kProxy, kServer };

  int64_t timestamp_us = 0;  // wall clock at its beginning, since 1970
  PeerAddress client;
  Protocol protocol = Protocol::kHttp;
  std::string_view listener;  // names from the configuration
  std::string_view route;
  std::string_view upstream;
  std::string_view server;

  uint16_t status = 0;
  uint64_t bytes_received = 0;  // from the client, heads included
  uint64_t bytes_sent = 0;      // to the client, heads included
  int64_t total_us = 0;
  int64_t connect_us = -1;     // until the server connection stood; -1: reused, or never
  int64_t queue_us = -1;       // waited for a server to have room
  int64_t first_byte_us = -1;  // from the request sent to the first byte of the response
  uint32_t attempts = 0;       // servers tried
  bool reused = false;         // went over a pooled server connection
  EndedBy ended_by = EndedBy::kNone;
  std::string_view cause;  // why, a fixed word such as "connect_timeout"

  // Of the client's TLS, where the balancer speaks it; empty: it does not.
  std::string_view tls_version;  // "TLSv1.3"
  std::string_view tls_cipher;   // "TLS_AES_128_GCM_SHA256"
  std::string_view tls_alpn;
  bool tls_resumed = false;
  bool tls_ech = false;              // its name came encrypted
  bool early_data = false;           // the request came as early data
  std::string_view tls_certificate;  // name_of() its verdict; empty: there is none

  std::string_view sni;        // the server name that the client's TLS asks for
  std::string_view unique_id;  // of the client's connection
  // TLVs of the client's PROXY header, well-formed, each type once.
  std::string_view proxy_tlvs;
  std::string_view method;   // as the client sent them
  std::string_view version;  // "HTTP/1.1"
  std::string_view host;
  std::string_view target;
  std::string_view user_agent;
  std::string_view referer;
};

class AccessLogFormatter {
 public:
  // Buffers are at least this large; 2 to 4 KiB hold nearly every line whole.
  static constexpr size_t kRoomMin = 256;

  // Write one line without its newline into `room` and return the part used. REQUIRES: `room` has
  // kRoomMin bytes or more.
  //
  // JSON: one object, always valid UTF-8. Fields come in the order of AccessRecord, so the long
  // ones from clients are last: the first that does not fit is cut (text) or left out, all after it
  // are left out, and "truncated":true is appended. Bytes that are not UTF-8 become \u00XX.
  [[nodiscard]] std::string_view json(const AccessRecord& record, std::span<char> room);

  // The Common Log Format, and the same with referer and user agent ("combined"). Times are UTC,
  // bytes that do not print are \xHH as Apache writes them. What does not fit is cut in the order
  // user agent, referer, request target; the line keeps all its fields.
  [[nodiscard]] std::string_view common(const AccessRecord& record, std::span<char> room);
  [[nodiscard]] std::string_view combined(const AccessRecord& record, std::span<char> room);

 private:
  void refresh_date(int64_t second);

  int64_t second_ = -1;  // what the texts below show
  char iso_[20] = {};    // "2026-11-27T13:14:15."
  char clf_[28] = {};    // "[27/Nov/2026:13:14:15 +0000]"
};

}  // namespace ringway
