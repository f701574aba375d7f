// tools/ringctl_client.cc
#include "tools/ringctl_client.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <string_view>

#include "core/address.h"
#include "proto/http1_body.h"
#include "proto/http1_head.h"

namespace ringway {
namespace {

// Sends all of `text`. False: errno says why.
bool send_all(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t sent = send(fd, text.data(), text.size(), MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0) return false;
    text.remove_prefix(static_cast<size_t>(sent));
  }
  return true;
}

// Reads until the other side ends. False: errno says why.
bool receive_all(int fd, std::string& text) {
  char piece[64 * 1024];
  for (;;) {
    const ssize_t got = recv(fd, piece, sizeof piece, 0);
    if (got == 0) return true;
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return false;
    text.append(piece, static_cast<size_t>(got));
  }
}

bool parse_reply(std::string_view text, AdminReply& reply) {
  http1::HeadParser parser(100);
  parser.start_response({}, {});
  if (parser.parse(text) != http1::HeadParser::Status::kDone) return false;
  const http1::Head& head = parser.head();
  reply.status = head.status;
  text.remove_prefix(head.head_len);
  http1::BodyReader reader;
  reader.start(head.body, head.content_length, {});
  using Kind = http1::BodyReader::Kind;
  for (;;) {
    const auto step = reader.next(text);
    text.remove_prefix(step.consumed);
    reply.body += step.piece;
    if (step.kind == Kind::kEnd) return true;
    if (step.kind == Kind::kError) return false;
    if (step.kind == Kind::kNeedMore) return reader.finish_at_close();
  }
}

bool exchange(int fd, const ServerAddress& address, const AdminRequest& request, std::string& text,
              std::string& error) {
  const timeval patience{.tv_sec = request.patience_s, .tv_usec = 0};
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
  if (connect(fd, address.get(), address.length) != 0) {
    error = strerrordesc_np(errno);
    return false;
  }
  std::string head = request.method + " " + request.target +
                     " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n";
  if (!request.body.empty()) {
    head +=
        "Content-Type: application/json\r\nContent-Length: " + std::to_string(request.body.size()) +
        "\r\n";
  }
  if (send_all(fd, head + "\r\n" + request.body) && receive_all(fd, text)) return true;
  error = errno == EAGAIN ? "no answer in " + std::to_string(request.patience_s) + " s"
                          : strerrordesc_np(errno);
  return false;
}

}  // namespace

bool ask_admin(const std::string& path, const AdminRequest& request, AdminReply& reply,
               std::string& error) {
  ServerAddress address;
  if (!parse_address("unix:" + path, address)) {
    error = "no path of a socket";
    return false;
  }
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) {
    error = strerrordesc_np(errno);
    return false;
  }
  std::string text;
  bool good = exchange(fd, address, request, text, error);
  ::close(fd);
  if (good && !parse_reply(text, reply)) {
    good = false;
    error = text.empty() ? "closed without an answer (too many clients?)" : "no HTTP answer";
  }
  return good;
}

std::string percent_encode(const std::string& text) {
  constexpr const char* kHex = "0123456789ABCDEF";
  std::string out;
  for (const char c : text) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       c == '-' || c == '_' || c == '.' || c == '~';
    if (plain) {
      out += c;
      continue;
    }
    const auto byte = static_cast<uint8_t>(c);
    out += {'%', kHex[byte >> 4U], kHex[byte & 15U]};
  }
  return out;
}

}  // namespace ringway
