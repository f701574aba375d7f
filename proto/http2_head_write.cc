// proto/http2_head_write.cc - heads in HTTP/1 form as fields of an HTTP/2 block, and priorities.
#include <cstring>

#include "proto/http1_bytes.h"
#include "proto/http1_fields.h"
#include "proto/http2_head.h"

namespace ringway::h2 {
namespace {

using http1::FieldId;

// A cookie shorter than this could be guessed byte by byte through the sizes of blocks
// (RFC 7541 7.1.3); the bound is nghttp2's.
constexpr size_t kShortCookie = 20;

// Sets bit 5 of the upper case letters among 8 bytes.
uint64_t lower8(uint64_t bytes) {
  constexpr uint64_t kOnes = 0x0101010101010101;
  const uint64_t low7 = bytes & (0x7f * kOnes);
  const uint64_t from_a = low7 + (0x80 - 'A') * kOnes;
  const uint64_t above_z = low7 + (0x7f - 'Z') * kOnes;
  const uint64_t upper = (from_a ^ above_z) & ~bytes & (0x80 * kOnes);
  return bytes | upper >> 2;
}

// Copies `from` in lower case.
void lower_into(std::string_view from, char* to) {
  size_t i = 0;
  for (; i + 8 <= from.size(); i += 8) {
    uint64_t bytes;
    memcpy(&bytes, from.data() + i, sizeof bytes);
    bytes = lower8(bytes);
    memcpy(to + i, &bytes, sizeof bytes);
  }
  for (; i < from.size(); ++i) to[i] = http1::to_lower(from[i]);
}

// Takes lines from the front of a text.
class LineReader {
 public:
  explicit LineReader(std::string_view text) : at_(text.data()), end_(at_ + text.size()) {}

  [[nodiscard]] bool at_end() const { return at_ == end_; }

  // The next line without its CRLF. False: there is none, or it has control bytes.
  bool next(std::string_view& line) {
    const char* const begin = at_;
    for (;;) {
      at_ = http1::find_control(at_, end_);
      if (at_ == end_) return false;
      if (*at_ == '\r') break;
      if (*at_ != '\t') return false;
      ++at_;
    }
    line = {begin, static_cast<size_t>(at_ - begin)};
    if (at_ + 1 == end_ || at_[1] != '\n') return false;
    at_ += 2;
    return true;
  }

 private:
  const char* at_;
  const char* end_;
};

struct Line {
  std::string_view name;  // as written
  std::string_view value;
  FieldId id = FieldId::kOther;
  bool bare = false;  // no blank behind the colon
};

bool split(std::string_view text, Line& line) {
  const size_t colon = text.find(':');
  if (colon == 0 || colon == std::string_view::npos) return false;
  line.name = text.substr(0, colon);
  const std::string_view rest = text.substr(colon + 1);
  line.value = http1::trim(rest);
  line.bare = !rest.empty() && !http1::is_blank(rest.front());
  line.id = http1::field_id_of(line.name);
  return true;
}

// Collects the fields of a block.
class FieldWriter {
 public:
  explicit FieldWriter(BlockRoom room) : room_(room) {}

  // `name` in lower case.
  bool put(std::string_view name, std::string_view value) {
    if (num_ == room_.fields.size()) return false;
    room_.fields[num_++] = {.name = name, .value = value};
    return true;
  }

  bool put(const Line& line) {
    if (line.name.size() > room_.names.size() - names_used_) return false;
    char* const name = room_.names.data() + names_used_;
    lower_into(line.name, name);
    names_used_ += line.name.size();
    if (!put({name, line.name.size()}, line.value)) return false;
    HeaderField& field = room_.fields[num_ - 1];
    field.sensitive = line.bare || is_always_sensitive(line.id, field.name, field.value);
    return true;
  }

  [[nodiscard]] size_t num() const { return num_; }

 private:
  BlockRoom room_;
  size_t num_ = 0;
  size_t names_used_ = 0;
};

// RFC 9113 8.2.2: what ends at this hop has no place in a block, except for "te: trailers".
bool is_left_out(const Line& line) {
  if (line.id == FieldId::kTe) return !http1::equal_nocase(line.value, "trailers");
  return http1::is_hop_by_hop(line.id);
}

// Puts all fields up to the empty line. False: they do not fit, or it is missing.
bool put_fields(LineReader& lines, bool extended_connect, FieldWriter& writer) {
  std::string_view text;
  while (lines.next(text)) {
    if (text.empty()) return true;
    Line line;
    if (!split(text, line) || line.id == FieldId::kHost) return false;
    if (is_left_out(line)) continue;
    if (extended_connect && (http1::equal_nocase(line.name, "sec-websocket-key") ||
                             http1::equal_nocase(line.name, "sec-websocket-accept"))) {
      continue;
    }
    if (!writer.put(line)) return false;
  }
  return false;
}

// The value of the first Upgrade line, or nothing.
std::string_view protocol_of(LineReader lines) {
  std::string_view text;
  while (lines.next(text) && !text.empty()) {
    Line line;
    if (split(text, line) && line.id == FieldId::kUpgrade) return line.value;
  }
  return {};
}

// One member of the dictionary in a `priority` value: "u=1", "i", "i=?0"; parameters are ignored.
void read_priority_member(std::string_view member, uint8_t& urgency, bool& incremental) {
  const std::string_view item = http1::trim(member.substr(0, member.find(';')));
  if (item.size() == 3 && item.starts_with("u=") && item[2] >= '0' && item[2] <= '7') {
    urgency = static_cast<uint8_t>(item[2] - '0');
  } else if (item == "i" || item == "i=?1") {
    incremental = true;
  } else if (item == "i=?0") {
    incremental = false;
  }
}

}  // namespace

bool is_always_sensitive(FieldId id, std::string_view name, std::string_view value) {
  if (id == FieldId::kAuthorization) return true;
  if (id == FieldId::kCookie) return value.size() < kShortCookie;
  return name == "proxy-authorization";
}

void read_priority(std::string_view value, uint8_t& urgency, bool& incremental) {
  size_t from = 0;
  bool quoted = false;
  for (size_t at = 0; at < value.size(); ++at) {
    if (quoted && value[at] == '\\') {
      ++at;
    } else if (value[at] == '"') {
      quoted = !quoted;
    } else if (!quoted && value[at] == ',') {
      read_priority_member(value.substr(from, at - from), urgency, incremental);
      from = at + 1;
    }
  }
  read_priority_member(value.substr(from), urgency, incremental);
}

size_t fields_of_request(std::string_view text, std::string_view scheme, bool extended_connect,
                         BlockRoom room) {
  LineReader lines(text);
  std::string_view start;
  if (!lines.next(start)) return 0;
  const size_t space = start.find(' ');
  const size_t last = start.rfind(' ');
  if (space == 0 || space == std::string_view::npos || last <= space + 1) return 0;
  Line host;
  if (std::string_view line; !lines.next(line) || !split(line, host)) return 0;
  if (host.id != FieldId::kHost) return 0;
  FieldWriter writer(room);
  bool good = writer.put(":method", extended_connect ? "CONNECT" : start.substr(0, space)) &&
              writer.put(":scheme", scheme) &&
              (host.value.empty() || writer.put(":authority", host.value)) &&
              writer.put(":path", start.substr(space + 1, last - space - 1));
  if (extended_connect) {
    const std::string_view protocol = protocol_of(lines);
    // Names of HTTP/1 are not case-sensitive (RFC 6455 4.1), those of the registry are.
    good =
        good && http1::equal_nocase(protocol, "websocket") && writer.put(":protocol", "websocket");
  }
  return good && put_fields(lines, extended_connect, writer) ? writer.num() : 0;
}

size_t fields_of_response(std::string_view text, bool extended_connect, BlockRoom room) {
  LineReader lines(text);
  std::string_view start;
  if (!lines.next(start) || start.size() < 12 || !start.starts_with("HTTP/1.1 ")) return 0;
  std::string_view status = start.substr(9, 3);
  if (status == "101") {
    if (!extended_connect) return 0;  // RFC 9113 8.6
    status = "200";
  }
  FieldWriter writer(room);
  return writer.put(":status", status) && put_fields(lines, extended_connect, writer) ? writer.num()
                                                                                      : 0;
}

size_t fields_of_trailers(std::string_view lines, BlockRoom room) {
  LineReader reader(lines);
  FieldWriter writer(room);
  while (!reader.at_end()) {
    std::string_view text;
    Line line;
    if (!reader.next(text) || !split(text, line)) return 0;
    if (is_left_out(line)) continue;
    if (!writer.put(line)) return 0;
  }
  return writer.num();
}

}  // namespace ringway::h2
