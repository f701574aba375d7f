// tests/sim/origin.cc - the simulated origin: reads requests strictly, answers as their paths ask.
#include <doctest/doctest.h>

#include <charconv>

#include "proto/proxy_header.h"
#include "tests/sim/h2_actors.h"
#include "tests/sim/http_world.h"

namespace ringway {

uint64_t SimOrigin::corrupted = 0;
uint64_t SimOrigin::served = 0;
uint64_t SimOrigin::headers = 0;
uint64_t SimOrigin::early = 0;
uint64_t SimOrigin::with_trailers = 0;
bool SimOrigin::one_client_each = false;

std::string body_of(uint64_t id, size_t bytes, bool answer) {
  std::string out(bytes, '\0');
  for (size_t i = 0; i < bytes; ++i) {
    out[i] = static_cast<char>((id * 2654435761U + i * 31 + i / 251 + (answer ? 77 : 0)) >> 3);
  }
  return out;
}

std::string Asked::bytes() const {
  const std::string path = "/" + std::to_string(id) + "/" + std::to_string(static_cast<int>(act)) +
                           "/" + std::to_string(body_bytes) + "/" + std::to_string(answer_bytes) +
                           "/" + (trailers ? "1" : "0");
  std::string text = (head             ? "HEAD "
                      : body_bytes > 0 ? "POST "
                                       : "GET ") +
                     path + " HTTP/1.1\r\nHost: " + host + "\r\n" + fields;
  if (body_bytes == 0) return text + "\r\n";
  const std::string body = body_of(id, body_bytes, false);
  if (!chunked) return text + "Content-Length: " + std::to_string(body_bytes) + "\r\n\r\n" + body;
  text += "Transfer-Encoding: chunked\r\n\r\n";
  for (size_t at = 0; at < body.size();) {
    const size_t part = std::min<size_t>(body.size() - at, 1 + (id + at) % 700);
    char size[20];
    snprintf(size, sizeof size, "%zx\r\n", part);
    text += size + body.substr(at, part) + "\r\n";
    at += part;
  }
  return text + "0\r\n" + trailer_lines() + "\r\n";
}

std::string Asked::trailer_lines() const {
  return trailers ? "X-Sum: " + std::to_string(id) + "\r\n" : "";
}

bool parse_path(std::string_view head, Asked& out) {
  const size_t from = head.find(' ');
  if (from == std::string_view::npos) return false;
  std::string_view path = head.substr(from + 1);
  path = path.substr(0, path.find(' '));
  uint64_t numbers[5] = {};
  for (uint64_t& number : numbers) {
    if (!path.starts_with('/')) return false;
    path.remove_prefix(1);
    const auto parsed = std::from_chars(path.data(), path.data() + path.size(), number);
    if (parsed.ec != std::errc{}) return false;
    path.remove_prefix(static_cast<size_t>(parsed.ptr - path.data()));
  }
  out = {.id = numbers[0],
         .act = static_cast<Act>(numbers[1]),
         .head = head.starts_with("HEAD"),
         .body_bytes = numbers[2],
         .answer_bytes = numbers[3],
         .trailers = numbers[4] == 1};
  return true;
}

size_t take_chunks(std::string_view in, std::string& body, std::string& trailers) {
  size_t at = 0;
  for (;;) {
    const size_t line = in.find("\r\n", at);
    if (line == std::string_view::npos) return 0;
    const size_t size = strtoull(std::string(in.substr(at, line - at)).c_str(), nullptr, 16);
    at = line + 2;
    if (size == 0) {  // Trailers, or none.
      const size_t end = in.find("\r\n\r\n", at - 2);
      if (end == std::string_view::npos) return 0;
      if (end >= at) trailers = in.substr(at, end + 2 - at);
      return end + 4;
    }
    if (in.size() < at + size + 2) return 0;
    body.append(in.substr(at, size));
    at += size + 2;
  }
}

bool SimOrigin::take_header(SimConnection& connection) {
  const proxy::Parsed parsed = proxy::parse(connection.received(), 4096);
  if (parsed.status == proxy::Status::kNeedMore) return false;
  begun_ = true;
  if (parsed.status != proxy::Status::kDone) return true;
  ++headers;
  client_ = parsed.header.source.ip[2] << 8 | parsed.header.source.ip[3];
  at_ = parsed.header.length;
  return true;
}

void SimOrigin::on_bytes(SimConnection& connection, std::string_view /*bytes*/) {
  if (!begun_ && !take_header(connection)) return;
  while (!done_ && take_request(connection)) {
  }
}

bool SimOrigin::take_request(SimConnection& connection) {
  const std::string_view in = std::string_view(connection.received()).substr(at_);
  const size_t end = in.find("\r\n\r\n");
  if (end == std::string_view::npos) return false;
  Asked asked;
  if (!parse_path(in, asked)) {
    ++corrupted;
    done_ = true;
    connection.close();
    return false;
  }
  if (asked.act == Act::kEarly && !early_) {
    early_ = true;
    answer(connection, asked);
  }
  const std::string_view head = in.substr(0, end + 4);
  if (side_.judge != nullptr) side_.judge->judge(asked, head, side_.tls, false);
  std::string body;
  std::string trailers;
  size_t used = 0;
  if (head.find("Transfer-Encoding: chunked") != std::string_view::npos) {
    used = take_chunks(in.substr(head.size()), body, trailers);
    if (used == 0) return false;
  } else if (asked.body_bytes > 0) {
    if (in.size() < head.size() + asked.body_bytes) return false;
    used = asked.body_bytes;
    body = in.substr(head.size(), used);
  }
  if (body != body_of(asked.id, asked.body_bytes, false)) ++corrupted;
  check_trailers(asked, trailers);
  const bool marked = head.find("\r\nEarly-Data: 1\r\n") != std::string_view::npos;
  if (marked && asked.body_bytes > 0) ++corrupted;
  if (marked) ++early;
  check_client(asked, client_, owner_);
  ++served;
  at_ += head.size() + used;
  if (!early_) answer(connection, asked);
  early_ = false;
  return true;
}

// A connection that names a client carries nobody else's requests.
void SimOrigin::check_client(const Asked& asked, int64_t client, int64_t& owner) {
  const auto by = static_cast<int64_t>(asked.id / 100);
  if (client >= 0 && by != client) ++corrupted;
  if (one_client_each && owner >= 0 && by != owner) ++corrupted;
  owner = by;
}

void SimOrigin::check_trailers(const Asked& asked, std::string lines) {
  if (!lines.empty()) lines[0] = 'X';  // HTTP/2 has no capital letters in names.
  if (lines.starts_with("X-sum")) lines[2] = 'S';
  if (lines != asked.trailer_lines()) ++corrupted;
  if (asked.trailers) ++with_trailers;
}

void SimOrigin::answer(SimConnection& connection, const Asked& asked) {
  const std::string body = body_of(asked.id, asked.answer_bytes, true);
  const std::string id = "X-Id: " + std::to_string(asked.id) + "\r\n";
  const std::string length = "Content-Length: " + std::to_string(body.size()) + "\r\n";
  const std::string whole =
      "HTTP/1.1 200 OK\r\n" + id + length + "\r\n" + (asked.head ? std::string() : body);
  switch (asked.act) {
    case Act::kLength:
    case Act::kEarly: connection.send(whole); return;
    case Act::kInterim:
      connection.send("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + whole);
      return;
    case Act::kChunked: {
      std::string out = "HTTP/1.1 200 OK\r\n" + id + "Transfer-Encoding: chunked\r\n\r\n";
      for (size_t at = 0; at < body.size() && !asked.head;) {
        const size_t part = std::min<size_t>(body.size() - at, 1 + (asked.id + at) % 900);
        char size[20];
        snprintf(size, sizeof size, "%zx\r\n", part);
        out += size + body.substr(at, part) + "\r\n";
        at += part;
      }
      connection.send(asked.head ? out : out + "0\r\n\r\n");
      return;
    }
    case Act::kUntilClose:
      connection.send("HTTP/1.1 200 OK\r\n" + id + "Connection: close\r\n\r\n" +
                      (asked.head ? std::string() : body));
      done_ = true;
      connection.close_after_send();
      return;
    case Act::kEmpty: connection.send("HTTP/1.1 204 No Content\r\n" + id + "\r\n"); return;
    case Act::kMalformed:
      connection.send("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab");
      return;
    case Act::kCut:
      connection.send("HTTP/1.1 200 OK\r\n" + id + "Content-Length: 1000000\r\n\r\n" +
                      (asked.head ? std::string() : body));
      done_ = true;
      connection.close_after_send();
      return;
    case Act::kSilent: done_ = true; return;
    case Act::kCount: return;
  }
}

}  // namespace ringway
