// lb/admin/http_server.cc
#include "lb/admin/http_server.h"

#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <span>
#include <utility>

#include "core/base/check.h"
#include "proto/http1_body.h"
#include "proto/http1_write.h"

namespace ringway {
namespace {

constexpr uint32_t kFieldsMax = 100;

HttpPeer peer_of(int fd) {
  sockaddr_storage address{};
  socklen_t length = sizeof address;
  ucred credentials{};
  socklen_t size = sizeof credentials;
  if (getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length) != 0 ||
      address.ss_family != AF_UNIX ||
      getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &size) != 0) {
    return {};
  }
  return {.uid = credentials.uid, .pid = credentials.pid};
}

}  // namespace

// One client. Receives while it waits for a request or for its answer, but never while it sends, so
// that requests sent ahead wait in the kernel.
class HttpServer::Connection final : public SocketOwner, public TimerOwner {
 public:
  Connection(HttpServer& server, int fd)
      : server_(server), peer_(peer_of(fd)), parser_(kFieldsMax) {
    server_.io_.adopt(socket_, fd);
    begin_request();
  }

  void close() {
    state_ = State::kClosing;
    ticket_ = 0;
    server_.timers_.cancel(timer_);
    server_.io_.close(socket_);
  }
  // Ends with the answer at hand, or now if there is none.
  void finish() {
    keep_alive_ = false;
    if (state_ == State::kHead || state_ == State::kPause || state_ == State::kBody) close();
  }
  [[nodiscard]] HttpTicket ticket() const { return ticket_; }
  void respond(HttpAnswer answer);

  void on_connected(Socket&, int) override { RW_CHECK(false); }  // Accepted, never connecting.
  void on_receive(Socket&, std::span<const std::byte> bytes) override;
  void on_receive_end(Socket&, int error) override;
  void on_reset(Socket&, int /*error*/) override { close(); }
  void on_writable(Socket&) override { send(); }
  void on_closed(Socket&) override { server_.forget(*this); }  // Destroys *this.
  void on_timer(Timer&) override;

 private:
  enum class State : uint8_t {
    kHead,   // waiting for a request head
    kBody,   // waiting for the rest of a body
    kWait,   // the handler owes an answer
    kPause,  // the next request is here already; it is answered a tick later
    kSend,   // sending an answer
    kDrain,  // all is sent; the peer has to end before we may close without a reset
    kClosing
  };

  void begin_request();
  void parse_head();
  void begin_body(const http1::Head& head);
  void parse_body();
  void refuse(uint16_t status, std::string_view text);
  void hand_over();
  void send();
  void end_answer();
  void arm(int64_t ms) { server_.timers_.set(timer_, server_.io_.now_us() / 1000 + ms); }
  [[nodiscard]] const HttpServerLimits& limits() const { return server_.limits_; }

  HttpServer& server_;
  HttpPeer peer_;
  Socket socket_{*this};
  Timer timer_{*this};
  http1::HeadParser parser_;
  http1::BodyReader reader_;
  State state_ = State::kHead;
  HttpTicket ticket_ = 0;    // of the request that waits, else 0
  bool keep_alive_ = false;  // after the answer being sent
  bool head_only_ = false;
  bool handing_over_ = false;
  std::string in_;       // received, not yet handed over; begins with the head being read
  size_t body_at_ = 0;   // in in_: what the body reader has not seen
  std::string request_;  // the decoded body
  std::string head_;     // of the answer being sent
  std::string body_;
  size_t sent_ = 0;  // of head_ and body_ together
};

void HttpServer::Connection::begin_request() {
  state_ = State::kHead;
  parser_.start_request({.header_bytes = limits().head_bytes, .fields = kFieldsMax});
  server_.io_.set_receiving(socket_, true);
  arm(in_.empty() ? limits().idle_ms : limits().head_ms);
}

void HttpServer::Connection::on_timer(Timer&) {
  if (state_ != State::kPause) return close();
  begin_request();
  parse_head();
}

void HttpServer::Connection::on_receive(Socket&, std::span<const std::byte> bytes) {
  if (state_ == State::kDrain || state_ == State::kClosing) return;  // Not answered any more.
  // The time for a head counts from its first byte, however slowly the rest drips in.
  if (state_ == State::kHead && in_.empty()) arm(limits().head_ms);
  in_.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  if (state_ == State::kHead) return parse_head();
  if (state_ == State::kBody) return parse_body();
  // It was to wait for its answer; what it sends ahead stays with the kernel from here on.
  server_.io_.set_receiving(socket_, false);
}

void HttpServer::Connection::on_receive_end(Socket&, int error) {
  if (state_ != State::kWait || error != 0) return close();
  keep_alive_ = false;
  arm(limits().half_closed_ms);
}

// Takes the request at the start of in_ if its head is complete.
void HttpServer::Connection::parse_head() {
  using Status = http1::HeadParser::Status;
  switch (parser_.parse(in_)) {
    case Status::kNeedMore: return;
    case Status::kDone: return begin_body(parser_.head());
    case Status::kError: {
      const http1::HeadError error = parser_.error();
      return refuse(static_cast<uint16_t>(http1::status_of(error)), http1::phrase_of(error));
    }
  }
}

void HttpServer::Connection::begin_body(const http1::Head& head) {
  head_only_ = head.method == http1::Method::kHead;
  const bool has_body = head.body != http1::BodyKind::kNone;
  keep_alive_ = head.keep_alive && head.version_minor == 1 && !server_.finishing_;
  request_.clear();
  body_at_ = head.head_len;
  if (has_body && limits().body_bytes == 0) {
    keep_alive_ = false;
    return hand_over();
  }
  reader_.start(head.body, head.content_length,
                {.body_bytes = limits().body_bytes, .trailer_bytes = 1024});
  state_ = State::kBody;
  if (has_body) arm(limits().body_ms);
  parse_body();
}

void HttpServer::Connection::parse_body() {
  using Kind = http1::BodyReader::Kind;
  for (;;) {
    const auto step = reader_.next(std::string_view(in_).substr(body_at_));
    body_at_ += step.consumed;
    switch (step.kind) {
      case Kind::kNeedMore: return;
      case Kind::kPiece: request_ += step.piece; continue;
      case Kind::kEnd: return hand_over();
      case Kind::kError:
        if (reader_.error() == http1::BodyError::kTooLarge) return refuse(413, "body too large");
        return refuse(400, "malformed body");
    }
  }
}

void HttpServer::Connection::refuse(uint16_t status, std::string_view text) {
  keep_alive_ = false;
  head_only_ = false;
  in_.clear();
  state_ = State::kWait;
  ticket_ = ++server_.last_ticket_;
  respond({.status = status, .body = std::string(text) + "\n"});
}

// The request is complete: the handler's turn.
void HttpServer::Connection::hand_over() {
  const http1::Head& head = parser_.head();
  // The head's bytes may have moved while the body came.
  http1::Head here = head;
  here.rebase(in_.data());
  state_ = State::kWait;
  ticket_ = ++server_.last_ticket_;
  server_.timers_.cancel(timer_);  // However long the answer takes is the handler's business.
  const HttpRequest request{.method = here.method,
                            .path = here.view(here.path),
                            .query = here.view(here.query),
                            .body = request_,
                            .peer = peer_};
  handing_over_ = true;  // An answer inside the call must not send yet: in_ is in use.
  server_.handler_.on_request(server_, ticket_, request);
  handing_over_ = false;
  in_.erase(0, body_at_);
  body_at_ = 0;
  request_.clear();
  if (state_ == State::kSend) send();
}

void HttpServer::Connection::respond(HttpAnswer answer) {
  RW_CHECK(state_ == State::kWait);
  ticket_ = 0;
  server_.io_.set_receiving(socket_, false);
  http1::OwnResponse response;
  response.status = answer.status;
  response.body = answer.body;
  response.content_type = answer.content_type;
  response.extra = answer.extra;
  response.keep_alive = keep_alive_;
  response.head_only = true;  // The body stays where it is and is sent from there.
  char room[1024];
  http1::Out out(room);
  RW_CHECK(http1::write_own_response(response, out));
  head_ = out.written();
  body_ = head_only_ ? std::string() : std::move(answer.body);
  sent_ = 0;
  state_ = State::kSend;
  arm(limits().send_ms);
  if (!handing_over_) send();
}

void HttpServer::Connection::send() {
  if (state_ != State::kSend) return;
  while (sent_ < head_.size() + body_.size()) {
    const size_t of_head = std::min(sent_, head_.size());
    const size_t of_body = sent_ - of_head;
    const iovec pieces[] = {{head_.data() + of_head, head_.size() - of_head},
                            {body_.data() + of_body, body_.size() - of_body}};
    const ssize_t taken = server_.io_.send(socket_, pieces);
    if (taken < 0) return close();
    if (taken == 0) return server_.io_.want_writable(socket_);
    sent_ += static_cast<size_t>(taken);
  }
  end_answer();
}

// The answer is with the kernel: the next request, or the end.
void HttpServer::Connection::end_answer() {
  head_.clear();
  body_ = {};  // Pages of metrics are large; an idle connection keeps none.
  if (keep_alive_ && in_.empty()) return begin_request();
  if (keep_alive_) {
    // Requests sent ahead are paced, so that a batch of them cannot hold the thread.
    state_ = State::kPause;
    return arm(0);
  }
  // Closing with unread bytes would reset the connection and may destroy the answer on its way.
  state_ = State::kDrain;
  in_ = {};
  server_.io_.set_receiving(socket_, true);
  server_.io_.shutdown_send(socket_);
  arm(limits().drain_ms);
}

HttpServer::HttpServer(Io& io, Timers& timers, int listen_fd, HttpHandler& handler,
                       const HttpServerLimits& limits)
    : io_(io),
      timers_(timers),
      handler_(handler),
      limits_(limits),
      listen_fd_(listen_fd),
      slab_(limits.connections) {
  connections_.reserve(limits.connections);
  io_.listen(listen_fd_, *this);
}

HttpServer::~HttpServer() {
  RW_CHECK(listen_fd_ < 0 && connections_.empty());
}

void HttpServer::respond(HttpTicket ticket, HttpAnswer answer) {
  RW_CHECK(ticket != 0 && ticket <= last_ticket_);
  for (Connection* connection : connections_) {
    if (connection->ticket() == ticket) return connection->respond(std::move(answer));
  }
}

void HttpServer::stop() {
  finishing_ = true;
  if (listen_fd_ >= 0) io_.unlisten(std::exchange(listen_fd_, -1));
  for (Connection* connection : connections_) connection->close();
}

void HttpServer::finish() {
  finishing_ = true;
  if (listen_fd_ >= 0) io_.unlisten(std::exchange(listen_fd_, -1));
  for (Connection* connection : connections_) connection->finish();
}

void HttpServer::on_accepted(int fd, const PeerAddress&) {
  Connection* connection = slab_.take(*this, fd);
  if (connection == nullptr) {
    ++refused_;
    io_.discard(fd);
    return;
  }
  connections_.push_back(connection);
}

void HttpServer::forget(Connection& connection) {
  std::erase(connections_, &connection);
  slab_.give_back(&connection);
}

}  // namespace ringway
