// lb/http2_client.cc
#include "lb/http2_client.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "core/base/check.h"
#include "lb/client_conn.h"
#include "lb/exchange.h"
#include "lb/worker.h"

namespace ringway {

using h2::ErrorCode;

namespace {

// Of streams in a list of which those that take turns are in the order of their turns.
bool goes_before(const h2::Stream& one, const h2::Stream& other) {
  if (one.urgency() != other.urgency()) return one.urgency() < other.urgency();
  return !one.incremental() && !other.incremental() && one.id() < other.id();
}

}  // namespace

// --- what the connections of a shard share ---

void Http2Shard::prepare(uint32_t head_bytes, uint32_t fields) {
  if (!scratches_.empty() && head_bytes <= head_bytes_ && fields <= fields_) return;
  head_bytes_ = std::max(head_bytes, head_bytes_);
  fields_ = std::max(fields, fields_);
  scratches_.push_back(std::make_unique<h2::SessionScratch>(head_bytes_, fields_));
}

void Http2Shard::flush() {
  // One that is closed here may free a place at a server, and so give another one something to say.
  for (int round = 0; round < kFlushRounds && !dirty_.empty(); ++round) {
    flushing_.swap(dirty_);
    for (Http2Client* client : flushing_) client->flush();
    flushing_.clear();
  }
}

void Http2Shard::reclaim() {
  for (Http2Stream* stream : dead_streams_) streams_.give_back(stream);
  dead_streams_.clear();
  for (Http2Client* client : dead_clients_) {
    if (client->dirty_) {  // It died after this turn's flush().
      std::erase(dirty_, client);
    }
    clients_.give_back(client);
  }
  dead_clients_.clear();
}

// --- the connection ---

Http2Client::Http2Client(Worker& worker, ClientConn& client, const h2::SessionLimits& limits)
    : worker_(worker),
      client_(&client),
      session_(h2::Role::kServer, *this, *worker.http2().scratches_.back(), limits),
      ping_timer_(*this) {}

Http2Client::~Http2Client() {
  RW_CHECK(all_.empty() && turn_count_ == 0);
}

void Http2Client::begin() {
  session_.begin();
  const int64_t now = worker_.now_ms();
  const int64_t interval = client_->listener().config().h2.idle_ping;
  watch_.received(now);
  if (interval != config::kOff) worker_.timers().set(ping_timer_, now + interval);
}

size_t Http2Client::feed(std::string_view bytes) {
  RW_CHECK(!feeding_ && client_ != nullptr);
  feeding_ = true;
  const int64_t now = worker_.now_ms();
  watch_.received(now);
  const size_t used = session_.feed(bytes, now);
  deliver_fresh();
  feeding_ = false;
  if (const uint32_t refused = session_.take_refused(); refused > 0 && client_ != nullptr) {
    client_->listener().stats().http2_refused.add(refused);
  }
  pump();
  return used;
}

// Requests that came without a body, or whose body has not begun: one behind the other, so that
// what came with a head goes out with it.
void Http2Client::deliver_fresh() {
  for (size_t i = 0; i < fresh_.size(); ++i) {
    Http2Stream& stream = *fresh_[i];
    if (!stream.fresh_) continue;
    stream.fresh_ = false;
    if (!stream.buried_) stream.deliver({});
  }
  fresh_.clear();
}

void Http2Client::on_request(uint32_t id, const h2::HeadBuilder& head, bool end) {
  ListenerStats& stats = client_->listener().stats();
  seen_request_ = true;
  const config::Limits& limits = client_->listener().config().limits;
  http1::HeadParser* parser = worker_.take_parser();
  parser->start_request({.header_bytes = limits.header_bytes,
                         .fields = limits.headers,
                         .uri_bytes = limits.uri_bytes});
  // What follows an extended CONNECT is no body but the tunnel's bytes (RFC 8441 5).
  const bool body = !end && !head.is_extended_connect();
  const http1::HeadError error = parser->take_built(head.built(), body);
  if (error != http1::HeadError::kNone) {
    worker_.give_back_parser(parser);
    return refuse(id, error, end);
  }
  Http2Stream* stream = worker_.http2().streams_.take(*this);
  Exchange* exchange =
      stream == nullptr ? nullptr : worker_.exchanges().take(worker_, *client_, stream);
  if (exchange == nullptr) {
    if (stream != nullptr) worker_.http2().streams_.give_back(stream);
    worker_.give_back_parser(parser);
    stats.refused_memory.add();
    return;  // REFUSED_STREAM: it may be tried again.
  }
  client_->count_request();
  all_.push_back(*stream);
  ++live_;
  const http1::Head& request = parser->head();
  session_.open(*stream,
                request.body == http1::BodyKind::kLength ? request.content_length : UINT64_MAX);
  stream->exchange_ = exchange;
  stream->fresh_ = true;
  fresh_.push_back(stream);
  exchange->start(parser, head.text(), client_->in_early_data());
}

// One that goes on may end, and others with it; so the list is looked at anew. 14 KiB of early data
// hold few requests.
void Http2Client::on_confirmed() {
  const auto waits = [](const Http2Stream& stream) {
    return stream.exchange_ != nullptr && stream.exchange_->awaits_handshake();
  };
  for (;;) {
    const auto found = std::find_if(all_.begin(), all_.end(), waits);
    if (found == all_.end()) return;
    found->exchange_->on_handshake_done();
  }
}

void Http2Client::on_bad_request(uint32_t id, h2::BlockError error, bool end) {
  refuse(id, h2::head_error_of(error), end);
}

// RFC 9113 8.1.1 has malformed requests reset. What is only too much is answered.
void Http2Client::refuse(uint32_t id, http1::HeadError error, bool end) {
  const auto status = static_cast<uint16_t>(http1::status_of(error));
  if (status == 400) {
    client_->note_refusal(0, http1::phrase_of(error), 0);
    return session_.call_malformed();
  }
  client_->note_refusal(status, http1::phrase_of(error), 0);
  char body[160];
  http1::Out text(std::span<char>(body, sizeof body));
  text.put_number(status);
  text.put(" ");
  text.put(http1::reason_phrase(status));
  text.put(": ");
  text.put(http1::phrase_of(error));
  text.put("\n");
  http1::Out out(worker_.render_buffer());
  RW_CHECK(http1::write_own_response({.status = status, .body = text.written(), .head_only = true},
                                     out));
  session_.answer(id, out.written(), text.written(), end);
}

void Http2Client::on_response(h2::Stream& /*stream*/, const h2::HeadBuilder& /*head*/,
                              bool /*end*/) {
  RW_CHECK(false);  // A server's side gets none.
}

void Http2Client::on_data(h2::Stream& stream, std::string_view bytes) {
  Http2Stream& to = static_cast<Http2Stream&>(stream);
  to.lingering_ ? session_.consumed(stream, bytes.size()) : to.deliver(bytes);
}

void Http2Client::on_end(h2::Stream& stream, std::string_view trailers) {
  Http2Stream& ended = static_cast<Http2Stream&>(stream);
  if (ended.lingering_) return bury(ended);
  ended.input_ended_ = true;
  ended.trailers_.assign(trailers);
  if (!ended.fresh_) ended.deliver({});
}

void Http2Client::on_reset(h2::Stream& stream, ErrorCode /*code*/, bool ours) {
  Http2Stream& gone = static_cast<Http2Stream&>(stream);
  if (ours) client_->listener().stats().rejected_heads.add();
  if (gone.exchange_ != nullptr) gone.exchange_->on_client_gone();
  bury(gone);
}

void Http2Client::on_window(h2::Stream* /*stream*/) {
  // feed() pumps at its end, once for all that came.
}

void Http2Client::on_goaway(uint32_t /*last*/, ErrorCode /*code*/) {
  // The client opens no more streams; it closes when it has its answers.
}

void Http2Client::on_fatal(ErrorCode code, h2::Flood flood, std::string_view cause) {
  silent_ ? client_->http2_silent(cause) : client_->http2_failed(code, flood, cause);
  close_wanted_ = true;
  note_dirty();
}

void Http2Client::on_timer(Timer& /*timer*/) {
  RW_CHECK(client_ != nullptr);
  const int64_t interval = client_->listener().config().h2.idle_ping;
  if (interval == config::kOff || session_.dead()) return;  // The former by a reload.
  const int64_t now = worker_.now_ms();
  // A PING would stand behind what the client does not take, and what it sends is not even read
  // while that is a lot: `client_idle` judges it.
  if (client_->queued() > 0) {
    watch_.held_up(now);
    return worker_.timers().set(ping_timer_, now + interval);
  }
  const h2::IdlePing::Step step = watch_.step(now, interval);
  switch (step.act) {
    case h2::IdlePing::Act::kWait: break;
    case h2::IdlePing::Act::kPing: session_.ping(); break;
    case h2::IdlePing::Act::kLost:
      silent_ = true;
      return session_.fail(ErrorCode::kNoError, h2::Flood::kNone,
                           "the client does not answer PING");
  }
  worker_.timers().set(ping_timer_, step.again_ms);
}

void Http2Client::on_input_end() {
  // RFC 9113 knows no half of a close: without its windows and resets nobody reads there any more.
  client_->close();
}

void Http2Client::bury(Http2Stream& stream) {
  if (stream.buried_) return;
  stream.buried_ = true;
  if (stream.exchange_ != nullptr) --live_;
  stream.exchange_ = nullptr;
  worker_.timers().cancel(stream.timer_);
  stream.in_.clear(worker_.chunks());
  stream.out_.clear(worker_.chunks());
  stream.end_waits_ = false;
  if (static_cast<Http2Hook<Http2WaitingTag>&>(stream).is_linked()) {
    waiting_.erase(waiting_.iterator_to(stream));
  }
  all_.erase(all_.iterator_to(stream));
  worker_.http2().dead_streams_.push_back(&stream);
  if (close_wanted_ && idle()) note_dirty();
}

void Http2Client::connection_gone() {
  if (client_ == nullptr) return;
  while (!all_.empty()) {
    Http2Stream& stream = all_.front();
    session_.reset(stream, ErrorCode::kCancel);  // Nobody hears it; the table gets empty.
    if (stream.exchange_ != nullptr) stream.exchange_->on_client_gone();
    bury(stream);
  }
  worker_.timers().cancel(ping_timer_);
  client_ = nullptr;
  while (turn_count_ > 0) worker_.chunks().give_back(turn_[--turn_count_]);
  worker_.http2().dead_clients_.push_back(this);
}

// --- what goes out ---

void Http2Client::note_dirty() {
  if (dirty_) return;
  dirty_ = true;
  worker_.http2().dirty_.push_back(this);
}

void Http2Client::put(std::string_view head, std::string_view payload) {
  if (broken_ || client_ == nullptr) return;
  append(head);
  append(payload);
  note_dirty();
}

void Http2Client::append(std::string_view bytes) {
  while (!bytes.empty() && !broken_) {
    Chunk* chunk = turn_count_ == 0 ? nullptr : turn_[turn_count_ - 1];
    if (chunk == nullptr || chunk->end == Chunk::kBytes) {
      if (turn_count_ == kTurnChunks) send_gathered();
      chunk = worker_.chunks().take();
      if (chunk == nullptr) {
        broken_ = true;
        return;
      }
      turn_[turn_count_++] = chunk;
    }
    const size_t part = std::min<size_t>(bytes.size(), Chunk::kBytes - chunk->end);
    memcpy(chunk->bytes + chunk->end, bytes.data(), part);
    chunk->end += static_cast<uint32_t>(part);
    bytes.remove_prefix(part);
  }
}

void Http2Client::send_gathered() {
  std::array<iovec, kTurnChunks> pieces{};
  size_t count = 0;
  for (size_t i = 0; i < turn_count_; ++i) {
    Chunk* chunk = turn_[i];
    pieces[count++] = {.iov_base = chunk->bytes, .iov_len = chunk->end};
  }
  if (count > 0 && !broken_ && !client_->send_frames(std::span(pieces).first(count))) {
    broken_ = true;
  }
  while (turn_count_ > 0) worker_.chunks().give_back(turn_[--turn_count_]);
}

// The last call of a turn, so it may close the connection.
void Http2Client::flush() {
  dirty_ = false;
  if (client_ == nullptr) return;
  send_gathered();
  if (broken_) return client_->close();
  // Of a connection that is over, answers under way may still be waited for.
  if (close_wanted_ && (session_.dead() || idle())) return client_->end_http2();
  client_->after_flush();
}

bool Http2Client::output_blocked() const {
  return broken_ || client_ == nullptr || client_->above_high_water();
}

// RFC 9218 10: the most urgent first; of those the incremental ones take turns, the others go one
// after the other in the order of their requests.
Http2Stream* Http2Client::next_waiting() {
  Http2Stream* best = nullptr;
  for (Http2Stream& stream : waiting_) {
    if (!stream.out_.empty() && session_.sendable(stream) == 0) continue;
    if (best == nullptr || goes_before(stream, *best)) best = &stream;
  }
  return best;
}

void Http2Client::pump() {
  if (pumping_ || client_ == nullptr) return;
  pumping_ = true;
  while (!waiting_.empty() && !output_blocked() && !session_.dead()) {
    Http2Stream* stream = next_waiting();
    if (stream == nullptr || !pump_stream(*stream)) break;
  }
  pumping_ = false;
}

bool Http2Client::pump_stream(Http2Stream& stream) {
  std::array<iovec, 1> piece{};
  size_t sent = 0;
  if (!stream.out_.empty()) {
    if (stream.out_.peek(piece) == 0) return false;
    const std::string_view bytes(static_cast<const char*>(piece[0].iov_base), piece[0].iov_len);
    const bool last =
        stream.end_waits_ && stream.answer_trailers_.empty() && bytes.size() == stream.out_.bytes();
    sent = stream.send(bytes, last);
    stream.out_.consume(worker_.chunks(), sent);
    if (last && sent == bytes.size()) stream.end_waits_ = false;
  }
  if (stream.out_.empty() && stream.end_waits_) {
    stream.end_waits_ = false;
    session_.send_end(stream, stream.answer_trailers_);
    sent = 1;
  }
  waiting_.erase(waiting_.iterator_to(stream));
  if (stream.queued() > 0) {
    stream.incremental() ? waiting_.push_back(stream) : waiting_.push_front(stream);
  }
  stream.rearm();
  if (stream.out_.bytes() <= Http2Stream::kLowWaterBytes && stream.exchange_ != nullptr) {
    stream.exchange_->on_client_drained();
  }
  return sent > 0;
}

// --- a stream ---

Http2Stream::~Http2Stream() {
  RW_CHECK(exchange_ == nullptr && !open());
}

bool Http2Stream::send_head(std::string_view text, bool end, bool websocket) {
  return client_.session_.send_head(*this, text, end, websocket);
}

void Http2Stream::write(std::string_view bytes, bool end) {
  RW_CHECK(!end_waits_ && open());
  size_t sent = 0;
  if (out_.empty() && !client_.output_blocked()) {
    sent = send(bytes, end);
    if (sent == bytes.size()) return;
  }
  end_waits_ = end;
  keep(bytes.substr(sent));
}

// Puts into frames what the windows allow; returns how much.
size_t Http2Stream::send(std::string_view bytes, bool end) {
  const size_t sent = client_.session_.send_data(*this, bytes, end);
  drained_ += sent;
  client_.drained_ += sent;
  return sent;
}

void Http2Stream::keep(std::string_view bytes) {
  const iovec piece{.iov_base = const_cast<char*>(bytes.data()), .iov_len = bytes.size()};
  if (!out_.append(client_.worker_.chunks(), {&piece, 1}, 0)) {
    // The connection cannot be kept in order any more: it ends with this turn.
    client_.broken_ = true;
    client_.note_dirty();
    return;
  }
  if (!static_cast<Http2Hook<Http2WaitingTag>&>(*this).is_linked()) {
    client_.waiting_.push_back(*this);
  }
  rearm();
}

void Http2Stream::finish(std::string_view trailers) {
  if (sent_end() || !open()) return;
  if (out_.empty()) return client_.session_.send_end(*this, trailers);
  answer_trailers_.assign(trailers);
  end_waits_ = true;
}

void Http2Stream::resume_input() {
  if (!fresh_) deliver({});
}

// Hands the exchange what came of the body, behind what waited already, and its end.
void Http2Stream::deliver(std::string_view bytes) {
  fresh_ = false;
  if (buried_) return;
  if (delivering_ || exchange_ == nullptr || !in_.empty()) {
    keep_input(bytes);
    bytes = {};
  }
  if (delivering_ || exchange_ == nullptr) return;
  const bool waited = !in_.empty();
  delivering_ = true;
  const size_t used = offer(waited ? in_.view() : bytes);
  delivering_ = false;
  if (buried_) return;
  // It is over, and lingers.
  if (exchange_ == nullptr) return swallow(waited ? in_.size() : bytes.size());
  if (waited) {
    in_.consume(client_.worker_.chunks(), used);
  } else {
    keep_input(bytes.substr(used));
  }
  client_.session_.consumed(*this, used);
  if (in_.empty() && input_ended_ && !end_told_) tell_end();
  if (!buried_ && exchange_ != nullptr) rearm();
}

// Returns how many of `bytes` the exchange has used. It may be over afterwards.
size_t Http2Stream::offer(std::string_view bytes) {
  size_t used = 0;
  size_t part = 0;
  offers_last_ = trailers_.empty() && (input_ended_ || end_follows());
  do {
    part = exchange_->on_request_bytes(bytes.substr(used));
    used += part;
  } while (part > 0 && used < bytes.size() && !buried_ && exchange_ != nullptr);
  return used;
}

void Http2Stream::keep_input(std::string_view bytes) {
  if (bytes.empty() || in_.append(client_.worker_.chunks(), bytes, SIZE_MAX)) return;
  client_.broken_ = true;
  client_.note_dirty();
}

// `bytes` of the request were handed up by the session, and nobody wants them any more.
void Http2Stream::swallow(size_t bytes) {
  in_.clear(client_.worker_.chunks());
  client_.session_.consumed(*this, bytes);
}

void Http2Stream::tell_end() {
  if (exchange_->in_tunnel()) {
    end_told_ = true;
    exchange_->on_client_end(0);
  } else if (exchange_->takes_request_end()) {
    end_told_ = true;
    exchange_->on_request_end(trailers_);
  }
}

void Http2Stream::on_exchange_done() {
  RW_CHECK(exchange_ != nullptr);
  --client_.live_;
  exchange_ = nullptr;
  if (!open() || received_end() || client_.session_.draining()) {
    client_.session_.reset(*this, ErrorCode::kNoError);
    return client_.bury(*this);
  }
  lingering_ = true;
  if (!delivering_) swallow(in_.size());  // Else deliver() does.
  client_.worker_.timers().set(timer_, client_.worker_.now_ms() + kLingerMs);
}

void Http2Stream::abort(h2::ErrorCode code) {
  if (buried_) return;
  client_.session_.reset(*this, code);
  if (exchange_ != nullptr) exchange_->on_client_gone();
  client_.bury(*this);
}

void Http2Stream::rearm() {
  if (client_.client_ == nullptr || exchange_ == nullptr) return;
  const config::Timeouts& timeouts = client_.client_->listener().config().timeouts;
  if (queued() > 0 && timeouts.client_idle != config::kOff) return watch_drain();
  draining_ = false;
  const bool waits = queued() == 0 && !input_ended_ && exchange_->wants_body();
  const int64_t ms = waits ? timeouts.request_body : config::kOff;
  if (ms == config::kOff) return client_.worker_.timers().cancel(timer_);
  client_.worker_.timers().set(timer_, client_.worker_.now_ms() + ms);
}

// Something waits for the client. The time runs on until it has taken enough, or all.
void Http2Stream::watch_drain() {
  if (draining_ && drained_ < kDrainBytes) return;
  draining_ = true;
  drained_ = 0;
  connection_mark_ = client_.drained_;
  const int64_t ms = client_.client_->listener().config().timeouts.client_idle;
  client_.worker_.timers().set(timer_, client_.worker_.now_ms() + ms);
}

// Its window is open, so others of a connection that does drain go first: as much for each of
// those that wait.
bool Http2Stream::waits_for_others() const {
  if (h2::Session::window_closed(*this)) return false;
  return client_.drained_ - connection_mark_ >= kDrainBytes * client_.waiting_.size();
}

void Http2Stream::on_timer(Timer& /*timer*/) {
  if (lingering_) {
    client_.session_.reset(*this, ErrorCode::kNoError);
    return client_.bury(*this);
  }
  if (exchange_ == nullptr) return;
  const bool drains = std::exchange(draining_, false);
  const bool sending_body = queued() == 0;
  if (sending_body && !exchange_->wants_body()) return;
  if (drains && waits_for_others()) return watch_drain();
  client_.client_->listener().stats().timeouts.add();
  if (!sending_body) client_.client_->listener().stats().http2_stalls.add();
  exchange_->on_client_timeout(sending_body);
}

}  // namespace ringway
