// lb/config/schema_http2.cc - the tables of HTTP/2: listeners.NAME.h2.
#include <charconv>

#include "lb/config/schema_timeouts.h"
#include "lb/config/sections.h"
#include "lb/config/store.h"
#include "lb/config/values.h"

namespace ringway::config {
namespace {

constexpr uint32_t kRateMax = 1'000'000;

// "200/10s": so many in any such time.
template <auto M>
void rate(Reader& reader, const Key& key, const Node& node, void* object) {
  EventRate& to = member<M>(object);
  const std::string& text = node.text;
  if (text == "off") {
    to = {.count = 0};
    return;
  }
  uint32_t count = 0;
  const char* end = text.data() + text.size();
  const auto parsed = std::from_chars(text.data(), end, count);
  const std::string_view rest(parsed.ptr, static_cast<size_t>(end - parsed.ptr));
  uint32_t seconds = 1;
  bool good = parsed.ec == std::errc{} && rest.starts_with('/') && rest.ends_with('s');
  if (good && rest != "/s") {
    const auto period = std::from_chars(rest.data() + 1, end - 1, seconds);
    good = period.ec == std::errc{} && period.ptr == end - 1;
  }
  if (!good) {
    reader.report.error("E0303", node.span, "\"" + text + "\" is no rate",
                        "a whole number and a time in seconds, such as \"200/10s\", or \"off\"");
  } else if (count == 0 || count > kRateMax || seconds == 0 || seconds > 3600) {
    reader.report.error("E0304", node.span,
                        std::string("`") + key.name + "` must be from \"1/1s\" to \"" +
                            std::to_string(kRateMax) + "/3600s\", or \"off\"");
  } else {
    to = {.count = count, .period_ms = seconds * 1000};
  }
}

constexpr Key kHttp2Keys[] = {
    {.name = "max_streams",
     .kind = Kind::kInteger,
     .min = 1,
     .max = 10'000,
     .number = store<&Http2::max_streams>,
     .initial = "100",
     .doc = "Requests that a connection may have open at once. Further ones are refused "
            "(REFUSED_STREAM), which lets the client try them again.",
     .example = "250"},
    {.name = "stream_window",
     .kind = Kind::kSize,
     .min = 16 * 1024,
     .max = 16 * 1024 * 1024,
     .number = store<&Http2::stream_window>,
     .initial = "256KiB",
     .doc = "How much of one request's body may be under way or wait for its server. A stream "
            "begins with 64 KiB at most, and gets more while its server takes it at once.",
     .example = "\"1MiB\""},
    {.name = "connection_window",
     .kind = Kind::kSize,
     .min = 64 * 1024,
     .max = 64 * 1024 * 1024,
     .number = store<&Http2::connection_window>,
     .initial = "8MiB",
     .doc = "The same for all requests of one connection together, which bounds its memory. With "
            "less than 64 KiB for each of `max_streams`, uploads to servers that do not read can "
            "hold up others of the same connection.",
     .example = "\"4MiB\""},
    {.name = "header_table",
     .kind = Kind::kSize,
     .min = 0,
     .max = 64 * 1024,
     .number = store<&Http2::header_table>,
     .initial = "4KiB",
     .doc =
         "The dynamic table of HPACK: what is announced for requests "
         "(SETTINGS_HEADER_TABLE_SIZE), and the most that is used for answers, whatever the "
         "client allows. `\"0B\"`: nothing is remembered, so each head is sent in full. Below "
         "4 KiB clients have to confirm it in a header block (RFC 7541 4.2), which some old ones "
         "do not.",
     .example = "\"16KiB\""},
    {.name = "max_resets",
     .kind = Kind::kText,
     .text = rate<&Http2::max_resets>,
     .initial = "200/10s",
     .doc = "Streams that a client may reset, or make us reset by breaking the protocol "
            "(CVE-2023-44487, CVE-2025-8671), and requests above `max_streams`, as a number and a "
            "time; or `\"off\"`. Beyond it the connection ends with ENHANCE_YOUR_CALM.",
     .example = "\"50/10s\""},
    {.name = "max_control",
     .kind = Kind::kText,
     .text = rate<&Http2::max_control>,
     .initial = "2000/10s",
     .doc =
         "The same for frames that make work and carry nothing: PING, SETTINGS, PRIORITY, GOAWAY, "
         "frames of unknown types, empty DATA, resets of streams that are over, and "
         "WINDOW_UPDATE beyond two for each DATA frame that was sent, or for 64 bytes of them "
         "where windows made them small. All together; the kind that was too much is named in "
         "the log and in `ringway_listener_http2_floods_total`.",
     .example = "\"off\""},
    {.name = "idle_ping",
     .kind = Kind::kDuration,
     .min = 100,
     .max = kDay,
     .word = "off",
     .number = store<&Http2::idle_ping>,
     .initial = "off",
     .doc =
         "A client that has sent nothing for so long gets a PING, with requests open or without; "
         "if nothing comes in as long again, the connection ends with everything on it. While it "
         "leaves bytes untaken, `client_idle` judges it instead. Its answers do not prolong "
         "`keep_alive`. A reload that switches it on is for connections made since.",
     .example = "\"30s\""},
};

}  // namespace

const Section kListenerHttp2Section{.path = "listeners.NAME.h2",
                                    .doc =
                                        "Bounds of HTTP/2 connections. HTTP only. Those of header "
                                        "blocks follow from `limits.header_bytes`: one may have "
                                        "4 KiB more than that before it is decoded, in at most 129 "
                                        "frames; what decodes to more is answered with 431, to 16 "
                                        "times as much ends the connection.",
                                    .keys = kHttp2Keys};

namespace item {

namespace {

void add_version(Reader& reader, const Node& node, std::vector<HttpVersion>& versions) {
  const bool http2 = node.text == "h2";
  if (node.text == "h3") {
    reader.report.error("E0105", node.span, "\"h3\" is not supported yet");
    return;
  }
  if (!http2 && node.text != "http/1.1") {
    reader.report.error("E0305", node.span, "\"" + node.text + "\" is no version of HTTP",
                        "\"h2\" or \"http/1.1\"");
    return;
  }
  const HttpVersion version = http2 ? HttpVersion::kHttp2 : HttpVersion::kHttp1;
  for (const HttpVersion have : versions) {
    if (have != version) continue;
    reader.report.error("E0303", node.span, "\"" + node.text + "\" stands here twice");
    return;
  }
  versions.push_back(version);
}

}  // namespace

void http_version(Reader& reader, const Key& /*key*/, const Node& node, void* object) {
  add_version(reader, node, member<&Listener::http_versions>(object));
}

void server_http_version(Reader& reader, const Key& /*key*/, const Node& node, void* object) {
  add_version(reader, node, member<&Upstream::http_versions>(object));
}

}  // namespace item

}  // namespace ringway::config
