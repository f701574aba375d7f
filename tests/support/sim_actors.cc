// tests/support/sim_actors.cc
#include "tests/support/sim_actors.h"

#include <algorithm>

#include "core/base/check.h"

namespace ringway {
namespace {

constexpr uint32_t kConnectTag = 1;
constexpr uint32_t kPieceTag = 2;
constexpr uint32_t kEndTag = 3;
constexpr uint32_t kReadTag = 0;
constexpr uint32_t kSendTag = 1;

}  // namespace

uint64_t stream_hash(std::string_view bytes, uint64_t hash) {
  for (const char byte : bytes) {
    hash = (hash ^ static_cast<unsigned char>(byte)) * 0x100000001b3U + 0x9e3779b97f4a7c15U;
  }
  return hash;
}

void SimHandler::on_end(SimConnection& connection, int error) {
  if (error != 0) return connection.close();
  connection.close_after_send();
}

// ---- SimConnection

SimConnection::~SimConnection() {
  net_.cancel_timer(timer_);
  net_.cancel_timer(send_timer_);
}

void SimConnection::read_slowly(size_t bytes, int64_t pause_us) {
  slice_bytes_ = bytes;
  pause_us_ = pause_us;
}

void SimConnection::send_slowly(size_t bytes, int64_t pause_us) {
  single_bytes_ = bytes;
  single_pause_us_ = pause_us;
}

int SimConnection::connect(const ServerAddress& server) {
  if (codec_ != nullptr) codec_->connecting();
  return io_.connect(socket_, server);
}

void SimConnection::adopt(int fd) {
  io_.adopt(socket_, fd);
  opened();
}

void SimConnection::opened() {
  connected_ = true;
  if (codec_ != nullptr) queue_.append(codec_->begin());
  io_.set_receiving(socket_, true);
  if (handler_ != nullptr) handler_->on_open(*this);
  flush();
}

void SimConnection::send(std::string_view bytes) {
  if (fin_after_ || close_after_ || closing_ || send_failed_) return;
  codec_ != nullptr ? queue_.append(codec_->seal(bytes)) : queue_.append(bytes);
  flush();
}

// Once, before the first of finish() and close_after_send().
void SimConnection::send_end() {
  if (codec_ != nullptr && !fin_after_ && !close_after_ && !send_failed_) {
    queue_.append(codec_->end());
  }
}

void SimConnection::flush() {
  if (!connected_ || closing_ || waiting_ || send_timer_ != 0) return;
  while (queue_at_ < queue_.size()) {
    const size_t part = single_bytes_ > 0 ? 1 : queue_.size() - queue_at_;
    const iovec piece{queue_.data() + queue_at_, part};
    const ssize_t sent = io_.send(socket_, {&piece, 1});
    if (sent < 0) {
      send_failed_ = true;
      queue_.clear();
      queue_at_ = 0;
      break;
    }
    queue_at_ += static_cast<size_t>(sent);
    sent_bytes_ += static_cast<size_t>(sent);
    if (sent == 0) {
      waiting_ = true;
      return io_.want_writable(socket_);
    }
    if (single_bytes_ > 0) {
      --single_bytes_;
      send_timer_ = net_.start_timer(single_pause_us_, *this, kSendTag);
      return;
    }
  }
  queue_.clear();
  queue_at_ = 0;
  if (close_after_ || send_failed_) return close();
  if (fin_after_ && !fin_sent_) {
    fin_sent_ = true;
    io_.shutdown_send(socket_);
    if (ended_) close();
  }
}

void SimConnection::finish() {
  send_end();
  fin_after_ = true;
  flush();
}

void SimConnection::close_after_send() {
  if (!connected_) return close();
  send_end();
  close_after_ = true;
  flush();
}

void SimConnection::close() {
  closing_ = true;
  io_.close(socket_);
}

void SimConnection::abort() {
  closing_ = true;
  io_.abort(socket_);
}

void SimConnection::on_connected(Socket& /*socket*/, int error) {
  connect_error_ = error;
  if (error != 0) return close();
  opened();
}

void SimConnection::on_receive(Socket& socket, std::span<const std::byte> bytes) {
  std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  std::string plain;
  if (codec_ != nullptr) {
    const std::string reply = codec_->open(text, plain);
    text = plain;
    if (!fin_after_ && !close_after_ && !send_failed_) queue_.append(reply);
  }
  received_bytes_ += text.size();
  received_hash_ = stream_hash(text, received_hash_);
  if (keep_) received_.append(text);
  slice_got_ += bytes.size();
  if (slice_bytes_ != 0 && slice_got_ >= slice_bytes_) {
    slice_got_ = 0;
    io_.set_receiving(socket, false);
    timer_ = net_.start_timer(pause_us_, *this, kReadTag);
  }
  if (codec_ != nullptr) flush();
  if (handler_ != nullptr && !text.empty()) handler_->on_bytes(*this, text);
}

void SimConnection::on_sim_timer(uint32_t tag) {
  if (tag == kSendTag) {
    send_timer_ = 0;
    return flush();
  }
  if (!closing_ && socket_.open()) io_.set_receiving(socket_, true);
}

void SimConnection::on_receive_end(Socket& /*socket*/, int error) {
  RW_CHECK(!ended_);
  ended_ = true;
  end_error_ = error;
  if (handler_ != nullptr) return handler_->on_end(*this, error);
  if (error != 0) return close();
  close_after_send();
}

void SimConnection::on_writable(Socket& /*socket*/) {
  RW_CHECK(waiting_);  // One call per want_writable().
  waiting_ = false;
  flush();
}

void SimConnection::on_closed(Socket& /*socket*/) {
  done_ = closing_ = true;
  net_.cancel_timer(timer_);
  net_.cancel_timer(send_timer_);
  if (handler_ != nullptr) handler_->on_done(*this);
  if (on_closed_) on_closed_();
}

// ---- SimClient

SimClient::SimClient(SimNet& net, SimIo& io, Script script)
    : net_(net), connection_(net, io), script_(std::move(script)) {
  connection_.set_handler(this);
  connection_.read_slowly(script_.read_slice, script_.read_pause_us);
}

SimClient::~SimClient() {
  net_.cancel_timer(timer_);
}

void SimClient::start(const ServerAddress& server, int64_t delay_us) {
  RW_CHECK(!started_);
  started_ = planned_ = true;
  server_ = server;
  timer_ = net_.start_timer(delay_us, *this, kConnectTag);
}

void SimClient::on_open(SimConnection& connection) {
  if (observer_ != nullptr) observer_->on_open(connection);
  plan_next();
}

void SimClient::plan_next() {
  if (next_piece_ < script_.pieces.size()) {
    timer_ = net_.start_timer(script_.pieces[next_piece_].delay_us, *this, kPieceTag);
  } else if (script_.end != End::kNone) {
    timer_ = net_.start_timer(script_.end_delay_us, *this, kEndTag);
  }
}

void SimClient::on_sim_timer(uint32_t tag) {
  if (tag == kConnectTag) {
    planned_ = false;
    const int error = connection_.connect(server_);
    // Like a client that finds no free port: it comes again a little later.
    if (error == 0) return;
    planned_ = true;
    timer_ = net_.start_timer(10'000, *this, kConnectTag);
    return;
  }
  if (!connection_.open()) return;
  if (tag == kPieceTag) {
    connection_.send(script_.pieces[next_piece_++].bytes);
    return plan_next();
  }
  switch (script_.end) {
    case End::kNone: return;
    case End::kFin: return connection_.finish();
    case End::kClose: return connection_.close();
    case End::kReset: return connection_.abort();
  }
}

void SimClient::on_bytes(SimConnection& connection, std::string_view bytes) {
  if (observer_ != nullptr) observer_->on_bytes(connection, bytes);
}

void SimClient::on_end(SimConnection& connection, int error) {
  if (observer_ != nullptr) return observer_->on_end(connection, error);
  SimHandler::on_end(connection, error);
}

void SimClient::on_done(SimConnection& connection) {
  net_.cancel_timer(timer_);
  if (observer_ != nullptr) observer_->on_done(connection);
}

// ---- SimServer

SimServer::SimServer(SimNet& net, SimIo& io, const ServerAddress& address, MakeHandler make)
    : net_(net), io_(io), address_(address), make_(std::move(make)) {
  start();
}

SimServer::~SimServer() {
  RW_CHECK(live_ == 0 && fd_ < 0);
}

void SimServer::start() {
  RW_CHECK(fd_ < 0);
  fd_ = net_.make_listener(address_);
  address_ = net_.address_of(fd_);
  io_.listen(fd_, *this);
}

void SimServer::stop() {
  if (fd_ < 0) return;
  io_.unlisten(fd_);
  net_.close_listener(fd_);
  fd_ = -1;
}

void SimServer::close_all() {
  for (const Served& served : served_) {
    if (served.connection->open()) served.connection->close();
  }
}

// Connections that are closed for good. Not from their own on_closed(), which is still running.
void SimServer::remove_done() {
  std::erase_if(served_, [](const Served& served) { return served.connection->done(); });
}

void SimServer::on_accepted(int fd, const PeerAddress& /*peer*/) {
  remove_done();
  ++accepted_;
  ++live_;
  Served served{std::make_unique<SimConnection>(net_, io_), nullptr};
  SimConnection& connection = *served.connection;
  served.handler = make_(connection);
  connection.set_handler(served.handler.get());
  connection.set_on_closed([this] { --live_; });
  served_.push_back(std::move(served));
  connection.adopt(fd);
}

}  // namespace ringway
