// proto/http1_head.cc
//
// llhttp says where names and the end of the head are; check_bytes() says that every line of that
// head is one line to any other reader too. Both see each byte once, and whichever objects at the
// earlier byte decides, so a result does not depend on how the bytes were cut.
//
// A head that is there as a whole and has nothing odd about it, as nearly all have, goes by
// take_plain(): it finds the lines 16 bytes at a time, and llhttp reads those that it has an
// opinion about. What take_plain() does not like is read again in the way above, which says what is
// wrong. Both ways agree: the fuzz targets compare them on every input, as a head in pieces is
// never plain.
#include "proto/http1_head.h"

#include <llhttp.h>

#include <algorithm>
#include <cstring>

#include "core/base/check.h"
#include "proto/http1_bytes.h"
#include "proto/http1_fields.h"
#include "proto/http1_target.h"

namespace ringway::http1 {
namespace {

constexpr uint32_t kEmptyLinesMax = 4;
constexpr uint32_t kNameLenMax = UINT16_MAX;

Method method_of(uint8_t llhttp_method) {
  switch (llhttp_method) {
    case HTTP_GET: return Method::kGet;
    case HTTP_HEAD: return Method::kHead;
    case HTTP_POST: return Method::kPost;
    case HTTP_PUT: return Method::kPut;
    case HTTP_DELETE: return Method::kDelete;
    case HTTP_OPTIONS: return Method::kOptions;
    case HTTP_PATCH: return Method::kPatch;
    case HTTP_TRACE: return Method::kTrace;
    case HTTP_CONNECT: return Method::kConnect;
    default: return Method::kOther;
  }
}

// `text` is what follows the target: exactly "HTTP/1.0" or "HTTP/1.1".
HeadError check_version(std::string_view text, uint8_t& minor) {
  const bool version = text.size() == 8 && text.starts_with("HTTP/") && is_digit(text[5]) &&
                       text[6] == '.' && is_digit(text[7]);
  if (!version) return HeadError::kBadStartLine;
  if (text[5] != '1' || text[7] > '1') return HeadError::kBadVersion;
  minor = static_cast<uint8_t>(text[7] - '0');
  return HeadError::kNone;
}

}  // namespace

struct HeadParser::State {
  llhttp_t llhttp{};
  Head head;
  HeadLimits limits;
  ResponseContext context;
  Status status = Status::kNeedMore;
  Fault fault;
  bool started = false;
  bool response = false;
  bool name_too_long = false;
  uint32_t fields_max = 0;
  uint32_t num_fields = 0;
  uint32_t start_at = 0;    // of the start line, behind skipped empty lines
  uint32_t seen = 0;        // bytes taken so far
  uint32_t lines = 0;       // complete ones, the start line being the first
  uint32_t target_at = 0;   // 0: not reached
  uint32_t target_end = 0;  // 0: not reached
  const char* base = nullptr;
  std::unique_ptr<Field[]> fields;

  static int on_header_field(llhttp_t* parser, const char* at, size_t len);
  static int on_headers_complete(llhttp_t* /*parser*/) { return HPE_PAUSED; }
  static const llhttp_settings_t& settings_of(bool plain);

  void start(bool is_response, const HeadLimits& new_limits);
  void begin(bool plain);
  Status fail(Fault why);
  bool skip_empty_lines(uint32_t end);
  Status feed(uint32_t end);
  [[nodiscard]] bool take_plain(uint32_t end);
  [[nodiscard]] bool take_plain_start_line(uint32_t end);
  [[nodiscard]] bool take_plain_line(uint32_t end);
  // A control byte that a line may hold; a CR is looked at with the byte behind it.
  [[nodiscard]] bool may_stand_inside(char c) const {
    return c == '\r' || (c == '\t' && (lines != 0 || response));
  }
  Fault check_bytes(uint32_t from, uint32_t to);
  [[nodiscard]] Fault bare_cr(uint32_t at) const;
  Fault control_byte(uint32_t at);
  Fault begin_line(uint32_t at) const;
  Fault end_line(uint32_t lf);
  Fault check_target_length(uint32_t known);
  Fault check_request_line(uint32_t lf);
  Fault check_status_line(uint32_t lf);
  Fault fault_of_llhttp(int code, uint32_t at, uint32_t end) const;
  Fault finish(uint32_t head_len);
  Fault read_all_fields(uint32_t head_len);
  Fault take_built(const BuiltHead& built, bool body);
};

// A name may come in parts, which touch; two names never do.
int HeadParser::State::on_header_field(llhttp_t* parser, const char* at, size_t len) {
  State& s = *static_cast<State*>(parser->data);
  const auto offset = static_cast<uint32_t>(at - s.base);
  if (s.num_fields > 0) {
    Field& last = s.fields[s.num_fields - 1];
    if (last.name_at + last.name_len == offset) {
      s.name_too_long |= last.name_len + len > kNameLenMax;
      last.name_len = static_cast<uint16_t>(std::min<size_t>(last.name_len + len, kNameLenMax));
      return 0;
    }
  }
  if (s.num_fields == s.limits.fields) return -1;  // begin_line() refuses that line
  s.name_too_long |= len > kNameLenMax;
  s.fields[s.num_fields++] = {
      .name_at = offset, .name_len = static_cast<uint16_t>(std::min<size_t>(len, kNameLenMax))};
  return 0;
}

const llhttp_settings_t& HeadParser::State::settings_of(bool plain) {
  struct Both {
    llhttp_settings_t whole;
    llhttp_settings_t plain;
  };
  static const Both both = [] {
    Both made{};
    llhttp_settings_init(&made.plain);
    made.plain.on_headers_complete = on_headers_complete;
    made.whole = made.plain;
    made.whole.on_header_field = on_header_field;
    return made;
  }();
  return plain ? both.plain : both.whole;
}

void HeadParser::State::start(bool is_response, const HeadLimits& new_limits) {
  limits = new_limits;
  limits.fields = std::min(limits.fields, fields_max);
  status = Status::kNeedMore;
  fault = {};
  started = true;
  response = is_response;
  start_at = 0;
  base = nullptr;
  begin(true);
}

// Forgets all that was read behind `start_at`.
void HeadParser::State::begin(bool plain) {
  llhttp_init(&llhttp, response ? HTTP_RESPONSE : HTTP_REQUEST, &settings_of(plain));
  llhttp.data = this;
  head = Head{};
  name_too_long = false;
  num_fields = 0;
  seen = start_at;
  lines = 0;
  target_at = 0;
  target_end = 0;
}

HeadParser::Status HeadParser::State::fail(Fault why) {
  fault = why;
  status = Status::kError;
  return status;
}

// RFC 9112 2.2. False: more bytes are needed, or it failed.
bool HeadParser::State::skip_empty_lines(uint32_t end) {
  while (start_at < end) {
    const char c = base[start_at];
    if (c != '\r' && c != '\n') return true;
    if (c == '\n' || response || start_at == 2 * kEmptyLinesMax) {
      fail({HeadError::kBadStartLine, start_at});
      return false;
    }
    if (start_at + 1 == end) return false;
    if (base[start_at + 1] != '\n') {
      fail({HeadError::kBadStartLine, start_at + 1});
      return false;
    }
    start_at += 2;
    seen = start_at;
  }
  return false;
}

HeadParser::Status HeadParser::State::feed(uint32_t end) {
  const int code = llhttp_execute(&llhttp, base + seen, end - seen);
  const uint32_t stop =
      code == HPE_OK ? end : static_cast<uint32_t>(llhttp_get_error_pos(&llhttp) - base);
  const Fault ours = check_bytes(seen, stop);
  if (ours) return fail(ours);
  seen = stop;
  if (code == HPE_OK) return Status::kNeedMore;
  if (code != HPE_PAUSED) return fail(fault_of_llhttp(code, stop, end));
  const Fault last = finish(stop);
  if (last) return fail(last);
  status = Status::kDone;
  return status;
}

// The first try at a head: reads it if it is there as a whole and as plain as can be. False: it is
// not, and nothing of it has been read.
bool HeadParser::State::take_plain(uint32_t end) {
  bool plain = take_plain_start_line(end);
  while (plain && seen < end && base[seen] != '\r') plain = take_plain_line(end);
  if (plain && end - seen >= 2 && base[seen] == '\r' && base[seen + 1] == '\n' &&
      llhttp_execute(&llhttp, base + seen, 2) == HPE_PAUSED) {
    seen += 2;
    head.plain = true;
    if (!read_all_fields(seen)) {
      status = Status::kDone;
      return true;
    }
  }
  begin(false);
  return false;
}

bool HeadParser::State::take_plain_start_line(uint32_t end) {
  const void* const lf = memchr(base + start_at, '\n', end - start_at);
  if (lf == nullptr) return false;
  const auto line_end = static_cast<uint32_t>(static_cast<const char*>(lf) - base) + 1;
  if (llhttp_execute(&llhttp, base + start_at, line_end - start_at) != HPE_OK) return false;
  if (check_bytes(start_at, line_end)) return false;
  seen = line_end;
  return lines == 1;
}

// One "name: value" line at `seen`. llhttp reads it only if it is about this connection or a
// transfer coding: the others do not change what llhttp thinks of those. A Content-Length must be
// spelled as everybody does, which our rules for it then judge.
bool HeadParser::State::take_plain_line(uint32_t end) {
  if (num_fields == limits.fields) return false;
  const char* const name = base + seen;
  const char* const last = base + end - 1;  // a CR there has no LF behind it
  const char* const colon = find_not_token(name, last);
  const auto name_len = static_cast<size_t>(colon - name);
  if (colon == last || *colon != ':' || name_len == 0 || name_len > kNameLenMax) return false;
  const char* at = colon + 1;
  for (;;) {
    at = find_control(at, last);
    if (at == last) return false;
    if (*at != '\t') break;
    ++at;
  }
  if (at[0] != '\r' || at[1] != '\n') return false;
  const char* from = colon + 1;
  const char* to = at;
  while (from < to && is_blank(*from)) ++from;
  while (from < to && is_blank(to[-1])) --to;
  const FieldId id = field_id_of({name, name_len});
  if (id == FieldId::kContentLength && (to != at || from != colon + 2 || colon[1] != ' ')) {
    return false;
  }
  fields[num_fields++] = {.name_at = seen,
                          .value_at = static_cast<uint32_t>(from - base),
                          .value_len = static_cast<uint32_t>(to - from),
                          .name_len = static_cast<uint16_t>(name_len),
                          .id = id,
                          .hop_by_hop = is_hop_by_hop(id)};
  seen = static_cast<uint32_t>(at + 2 - base);
  return !is_hop_by_hop(id) ||
         llhttp_execute(&llhttp, name, static_cast<size_t>(at + 2 - name)) == HPE_OK;
}

// Our own rules, byte by byte: a line ends with CR LF and nothing else, holds no other control byte
// but HTAB, and does not continue the one before it. Calls end_line() for each line.
Fault HeadParser::State::check_bytes(uint32_t from, uint32_t to) {
  uint32_t at = from;
  while (at < to) {
    const char before = at > start_at ? base[at - 1] : '\0';
    if (before == '\r' && base[at] != '\n') return bare_cr(at);
    if (before == '\n') {
      if (const Fault fault = begin_line(at)) return fault;
    }
    at = static_cast<uint32_t>(find_control(base + at, base + to) - base);
    if (at == to) break;
    if (base[at] == '\r' && at + 1 < to && base[at + 1] == '\n') ++at;
    const char c = base[at];
    if (c == '\n' && at > start_at && base[at - 1] == '\r') {
      if (const Fault fault = end_line(at)) return fault;
    } else if (!may_stand_inside(c)) {
      return control_byte(at);
    }
    ++at;
  }
  return check_target_length(to);
}

// `at` is behind a CR that no LF follows.
Fault HeadParser::State::bare_cr(uint32_t at) const {
  return {lines == 0 ? HeadError::kBadStartLine : HeadError::kBadField, at};
}

// `at` is a control byte that may not be there.
Fault HeadParser::State::control_byte(uint32_t at) {
  if (const Fault fault = check_target_length(at)) return fault;
  if (lines > 0) return {HeadError::kBadField, at};
  const bool in_target = target_at != 0 && target_end == 0 && base[at] != '\n';
  return {in_target ? HeadError::kBadTarget : HeadError::kBadStartLine, at};
}

// `at` is the first byte of a line that is not the start line.
Fault HeadParser::State::begin_line(uint32_t at) const {
  const char c = base[at];
  if (c == '\r') return {};
  if (is_blank(c) || c == ':') return {HeadError::kBadField, at};  // obs-fold, or no name
  if (lines > limits.fields) return {HeadError::kTooManyFields, at};
  return {};
}

// A line ended with the LF at `lf`.
Fault HeadParser::State::end_line(uint32_t lf) {
  if (lines > 0) {
    ++lines;
    return {};
  }
  if (const Fault fault = check_target_length(lf)) return fault;
  lines = 1;
  return response ? check_status_line(lf) : check_request_line(lf);
}

// The start line is known up to `known`: finds the target's place in it and limits its length.
Fault HeadParser::State::check_target_length(uint32_t known) {
  if (response || lines > 0 || target_end != 0) return {};
  uint32_t from = std::max(seen, start_at);
  if (target_at == 0) {
    const void* const space = memchr(base + from, ' ', known - from);
    if (space == nullptr) return {};
    target_at = static_cast<uint32_t>(static_cast<const char*>(space) - base) + 1;
  }
  from = std::max(from, target_at);
  if (known < from) return {};
  const void* const space = memchr(base + from, ' ', known - from);
  if (space != nullptr) target_end = static_cast<uint32_t>(static_cast<const char*>(space) - base);
  const uint32_t end = space == nullptr ? known : target_end;
  if (end - target_at <= limits.uri_bytes) return {};
  return {HeadError::kUriTooLong, target_at + limits.uri_bytes};
}

// RFC 9112 3: method SP request-target SP HTTP-version, and not one space more.
Fault HeadParser::State::check_request_line(uint32_t lf) {
  if (target_end == 0 || target_at == target_end) return {HeadError::kBadStartLine, start_at};
  const std::string_view rest(base + target_end + 1, lf - 1 - (target_end + 1));
  const HeadError version = check_version(rest, head.version_minor);
  if (version != HeadError::kNone) return {version, target_end + 1};
  head.method = method_of(llhttp.method);
  if (head.method == Method::kConnect) return {HeadError::kConnectRefused, start_at};
  head.method_text = {.at = start_at, .len = target_at - 1 - start_at};
  head.target = {.at = target_at, .len = target_end - target_at};
  head.base = base;
  return parse_target(head);
}

// RFC 9112 4: HTTP-version SP 3DIGIT SP [reason]; the last SP may be missing.
Fault HeadParser::State::check_status_line(uint32_t lf) {
  const std::string_view line(base + start_at, lf - 1 - start_at);
  const HeadError version = check_version(line.substr(0, 8), head.version_minor);
  if (version != HeadError::kNone) return {version, start_at};
  const bool shape = line.size() >= 12 && line[8] == ' ' && is_digit(line[9]) &&
                     is_digit(line[10]) && is_digit(line[11]) &&
                     (line.size() == 12 || line[12] == ' ');
  if (!shape || line[9] < '1' || line[9] > '5') {
    return {HeadError::kBadStartLine, start_at + 8};
  }
  head.status =
      static_cast<uint16_t>((line[9] - '0') * 100 + (line[10] - '0') * 10 + line[11] - '0');
  if (line.size() > 13) {
    head.reason = {.at = start_at + 13, .len = static_cast<uint32_t>(line.size()) - 13};
  }
  return {};
}

Fault HeadParser::State::fault_of_llhttp(int code, uint32_t at, uint32_t end) const {
  const HeadError by_line = lines == 0 ? HeadError::kBadStartLine : HeadError::kBadField;
  switch (code) {
    case HPE_INVALID_METHOD: {
      const bool token = at < end && is_token_byte(base[at]);
      return {token ? HeadError::kUnknownMethod : HeadError::kBadStartLine, at};
    }
    case HPE_INVALID_URL: return {HeadError::kBadTarget, at};
    case HPE_INVALID_VERSION: {
      // Raised behind a version that llhttp does not know, or at a byte that continues none.
      uint8_t minor;
      const bool whole =
          at >= start_at + 8 && check_version({base + at - 8, 8}, minor) == HeadError::kBadVersion;
      const bool number = at < end && is_digit(base[at]);
      return {whole || number ? HeadError::kBadVersion : HeadError::kBadStartLine, at};
    }
    case HPE_PAUSED_H2_UPGRADE: return {HeadError::kBadVersion, at};
    case HPE_UNEXPECTED_CONTENT_LENGTH:
    case HPE_INVALID_CONTENT_LENGTH:
    case HPE_INVALID_TRANSFER_ENCODING: return {HeadError::kBadFraming, at};
    default: return {by_line, at};
  }
}

Fault HeadParser::State::finish(uint32_t head_len) {
  if (name_too_long) return {HeadError::kHeadTooLarge, head_len};
  // The two readers must agree: each line between the start line and the empty line is one field.
  if (lines != num_fields + 2) return {HeadError::kBadField, head_len};
  for (const Field& field : std::span(fields.get(), num_fields)) {
    const uint32_t colon = field.name_at + field.name_len;
    if (base[field.name_at - 1] != '\n' || base[colon] != ':' ||
        !is_token({base + field.name_at, field.name_len})) {
      return {HeadError::kBadField, field.name_at};
    }
  }
  return read_all_fields(head_len);
}

Fault HeadParser::State::read_all_fields(uint32_t head_len) {
  head.base = base;
  head.head_len = head_len;
  const std::span<Field> all(fields.get(), num_fields);
  return response ? read_response_fields(head, all, context) : read_request_fields(head, all);
}

// REQUIRES of the builder: each field is on a line of its own, and all of it is inside the text.
Fault HeadParser::State::take_built(const BuiltHead& built, bool body) {
  if (built.text.size() > limits.header_bytes) return {HeadError::kHeadTooLarge, 0};
  if (built.fields.size() > limits.fields) return {HeadError::kTooManyFields, 0};
  base = built.text.data();
  head.base = base;
  head.built = true;
  head.head_len = static_cast<uint32_t>(built.text.size());
  uint32_t line_end = 0;
  for (const Field& field : built.fields) {
    RW_CHECK(field.name_at > 0 && field.name_at >= line_end);
    line_end = field.value_at + field.value_len + 2;
    RW_CHECK(field.name_at + field.name_len < field.value_at && line_end < head.head_len);
  }
  std::copy(built.fields.begin(), built.fields.end(), fields.get());
  num_fields = static_cast<uint32_t>(built.fields.size());
  const std::span<Field> all(fields.get(), num_fields);
  if (response) {
    const size_t lf = built.text.find('\n');
    RW_CHECK(lf != std::string_view::npos && lf > 0);
    if (const Fault fault = check_status_line(static_cast<uint32_t>(lf))) return fault;
    RW_CHECK(head.status == built.status);
    return read_built_response_fields(head, all, context, body);
  }
  if (built.target.len > limits.uri_bytes) return {HeadError::kUriTooLong, built.target.at};
  RW_CHECK(built.method.at + built.method.len < built.target.at);
  RW_CHECK(built.target.at + built.target.len < head.head_len);
  if (!find_method(head.view(built.method), head.method)) return {HeadError::kUnknownMethod, 0};
  if (head.method == Method::kConnect) return {HeadError::kConnectRefused, 0};
  head.method_text = built.method;
  head.target = built.target;
  if (const Fault fault = parse_target(head)) return fault;
  return read_built_request_fields(head, all, body);
}

HeadParser::HeadParser(uint32_t fields_max) : state_(std::make_unique<State>()) {
  state_->fields_max = fields_max;
  state_->fields = std::make_unique<Field[]>(fields_max);
}

HeadParser::~HeadParser() = default;

void HeadParser::start_request(const HeadLimits& limits) {
  state_->start(false, limits);
}

void HeadParser::start_response(const HeadLimits& limits, const ResponseContext& context) {
  state_->start(true, limits);
  state_->context = context;
}

HeadParser::Status HeadParser::parse(std::string_view bytes) {
  State& s = *state_;
  RW_CHECK(s.started);
  RW_CHECK(s.status == Status::kNeedMore);
  RW_CHECK(bytes.size() >= s.seen);
  s.base = bytes.data();
  const auto end = static_cast<uint32_t>(std::min<size_t>(bytes.size(), s.limits.header_bytes));
  if (s.seen > s.start_at || (s.skip_empty_lines(end) && !s.take_plain(end))) s.feed(end);
  if (s.status == Status::kNeedMore && end == s.limits.header_bytes) {
    return s.fail({HeadError::kHeadTooLarge, end});
  }
  return s.status;
}

HeadError HeadParser::take_built(const BuiltHead& built, bool body) {
  State& s = *state_;
  RW_CHECK(s.started);
  RW_CHECK(s.status == Status::kNeedMore && s.seen == 0);
  if (const Fault fault = s.take_built(built, body)) {
    s.fail(fault);
  } else {
    s.status = Status::kDone;
  }
  return s.fault.error;
}

const Head& HeadParser::head() const {
  RW_CHECK(state_->status == Status::kDone);
  return state_->head;
}

Head& HeadParser::head() {
  RW_CHECK(state_->status == Status::kDone);
  return state_->head;
}

HeadError HeadParser::error() const {
  return state_->fault.error;
}

uint32_t HeadParser::error_at() const {
  return state_->fault.at;
}

}  // namespace ringway::http1
