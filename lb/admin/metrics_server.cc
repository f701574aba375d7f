// lb/admin/metrics_server.cc
#include "lb/admin/metrics_server.h"

#include <sys/uio.h>

#include <algorithm>
#include <span>
#include <string_view>
#include <utility>

#include "core/base/check.h"
#include "lb/admin/metrics.h"
#include "proto/http1_head.h"
#include "proto/http1_write.h"

namespace ringway {
namespace {

constexpr uint32_t kFieldsMax = 100;

}  // namespace

// One scraper. Receives while it waits for a request, sends while it has a response; never both, so
// that requests sent ahead wait in the kernel.
class MetricsServer::Connection final : public SocketOwner, public TimerOwner {
 public:
  Connection(MetricsServer& server, int fd) : server_(server), parser_(kFieldsMax) {
    server_.io_.adopt(socket_, fd);
    begin_request();
  }

  void close() {
    state_ = State::kClosing;
    server_.timers_.cancel(timer_);
    server_.io_.close(socket_);
  }

  void on_connected(Socket&, int) override { RW_CHECK(false); }  // Accepted, never connecting.
  void on_receive(Socket&, std::span<const std::byte> bytes) override;
  void on_receive_end(Socket&, int) override { close(); }
  void on_writable(Socket&) override { send(); }
  void on_closed(Socket&) override { server_.forget(*this); }  // Destroys *this.
  void on_timer(Timer&) override;

 private:
  enum class State : uint8_t {
    kHead,   // waiting for a request head
    kPause,  // the next request is here already; it is answered a tick later
    kSend,   // sending a response
    kDrain,  // all is sent; the peer has to end before we may close without a reset
    kClosing
  };

  void begin_request();
  void parse();
  void answer(const http1::Head& head);
  void respond(const http1::OwnResponse& response, std::string body);
  void send();
  void end_response();
  void arm(int64_t ms) { server_.timers_.set(timer_, server_.io_.now_us() / 1000 + ms); }

  MetricsServer& server_;
  Socket socket_{*this};
  Timer timer_{*this};
  http1::HeadParser parser_;
  State state_ = State::kHead;
  bool keep_alive_ = false;  // after the response being sent
  std::string in_;           // received, not yet answered
  std::string head_;         // of the response being sent
  std::string body_;
  size_t sent_ = 0;  // of head_ and body_ together
};

void MetricsServer::Connection::begin_request() {
  state_ = State::kHead;
  parser_.start_request({.header_bytes = kHeadBytesMax, .fields = kFieldsMax});
  server_.io_.set_receiving(socket_, true);
  arm(in_.empty() ? kIdleMs : kHeadMs);
}

void MetricsServer::Connection::on_timer(Timer&) {
  if (state_ != State::kPause) return close();
  begin_request();
  parse();
}

void MetricsServer::Connection::on_receive(Socket&, std::span<const std::byte> bytes) {
  if (state_ != State::kHead) return;  // Draining: whatever it still says is not answered.
  // The time for a head counts from its first byte, however slowly the rest drips in.
  if (in_.empty()) arm(kHeadMs);
  in_.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  parse();
}

// Answers the request at the start of in_ if it is complete.
void MetricsServer::Connection::parse() {
  using Status = http1::HeadParser::Status;
  switch (parser_.parse(in_)) {
    case Status::kNeedMore: return;
    case Status::kDone: {
      const http1::Head& head = parser_.head();
      answer(head);
      in_.erase(0, head.head_len);
      break;
    }
    case Status::kError: {
      const http1::HeadError error = parser_.error();
      keep_alive_ = false;
      http1::OwnResponse response;
      response.status = static_cast<uint16_t>(http1::status_of(error));
      respond(response, std::string(http1::phrase_of(error)) + "\n");
      break;
    }
  }
  server_.io_.set_receiving(socket_, false);
  send();
}

void MetricsServer::Connection::answer(const http1::Head& head) {
  const bool head_only = head.method == http1::Method::kHead;
  const std::string_view path = head.view(head.path);
  // Request bodies are not read: a request that has one is the last.
  keep_alive_ = head.keep_alive && head.version_minor == 1 && head.body == http1::BodyKind::kNone;
  http1::OwnResponse response;
  response.keep_alive = keep_alive_;
  response.head_only = head_only;
  if (path != "/metrics" && path != "/healthz") {
    response.status = 404;
    return respond(response, "not found\n");
  }
  if (head.method != http1::Method::kGet && !head_only) {
    response.status = 405;
    response.extra = "Allow: GET, HEAD\r\n";
    return respond(response, "method not allowed\n");
  }
  response.status = 200;
  if (path == "/healthz") return respond(response, "ok\n");
  response.content_type = MetricsWriter::kContentType;
  respond(response, server_.source_.metrics());
}

// Makes the response with `body`; `response` says the rest.
void MetricsServer::Connection::respond(const http1::OwnResponse& response, std::string body) {
  char room[1024];
  http1::Out out(room);
  http1::OwnResponse head = response;
  head.body = body;
  head.head_only = true;  // The body stays where it is and is sent from there.
  RW_CHECK(http1::write_own_response(head, out));
  head_ = out.written();
  body_ = response.head_only ? std::string() : std::move(body);
  sent_ = 0;
  state_ = State::kSend;
  arm(kSendMs);
}

void MetricsServer::Connection::send() {
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
  end_response();
}

// The response is with the kernel: the next request, or the end.
void MetricsServer::Connection::end_response() {
  head_.clear();
  body_ = {};  // Pages of metrics are large; an idle connection keeps none.
  if (keep_alive_ && in_.empty()) return begin_request();
  if (keep_alive_) {
    // Requests sent ahead are paced, so that a batch of them cannot hold the thread.
    state_ = State::kPause;
    return arm(0);
  }
  // Closing with unread bytes would reset the connection and may destroy the response on its way.
  state_ = State::kDrain;
  in_ = {};
  server_.io_.set_receiving(socket_, true);
  server_.io_.shutdown_send(socket_);
  arm(kDrainMs);
}

MetricsServer::MetricsServer(Io& io, Timers& timers, int listen_fd, MetricsSource& source)
    : io_(io), timers_(timers), source_(source), listen_fd_(listen_fd), slab_(kConnectionsMax) {
  connections_.reserve(kConnectionsMax);
  io_.listen(listen_fd_, *this);
}

MetricsServer::~MetricsServer() {
  RW_CHECK(listen_fd_ < 0 && connections_.empty());
}

void MetricsServer::stop() {
  if (listen_fd_ >= 0) io_.unlisten(std::exchange(listen_fd_, -1));
  for (Connection* connection : connections_) connection->close();
}

void MetricsServer::on_accepted(int fd, const PeerAddress&) {
  Connection* connection = slab_.take(*this, fd);
  if (connection == nullptr) {
    ++refused_;
    io_.discard(fd);
    return;
  }
  connections_.push_back(connection);
}

void MetricsServer::forget(Connection& connection) {
  std::erase(connections_, &connection);
  slab_.give_back(&connection);
}

}  // namespace ringway
