// tests/sim/h2_actors.cc
#include "tests/sim/h2_actors.h"

#include <algorithm>
#include <utility>

#include "proto/proxy_header.h"

namespace ringway {

uint64_t SimH2Origin::served = 0;
uint64_t SimH2Origin::goaways = 0;
uint64_t SimH2Origin::refusals = 0;
uint64_t SimH2Origin::named = 0;
uint64_t SimH2Origin::with_trailers = 0;

namespace {

constexpr uint32_t kConnectTag = 1;
constexpr uint32_t kNextTag = 2;

h2::SessionLimits limits_of(Prng& prng) {
  h2::SessionLimits limits;
  limits.max_streams = static_cast<uint32_t>(1 + prng.below(1U << prng.below(7)));
  limits.stream_window = static_cast<uint32_t>(65'535 + prng.below(100'000));
  limits.connection_window = 2 * limits.stream_window * (limits.max_streams + 1);
  limits.resets.count = 0;
  return limits;
}

}  // namespace

// ---- both sides

SimH2Peer::~SimH2Peer() {
  for (const auto& stream : streams_) session_.forget(*stream);
}

void SimH2Peer::on_done(SimConnection& /*connection*/) {
  for (const auto& stream : streams_) session_.forget(*stream);
}

void SimH2Peer::on_request(uint32_t /*id*/, const h2::HeadBuilder& /*head*/, bool /*end*/) {
  RW_CHECK(false);
}

void SimH2Peer::on_bad_request(uint32_t /*id*/, h2::BlockError /*error*/, bool /*end*/) {
  ++SimOrigin::corrupted;
}

void SimH2Peer::on_response(h2::Stream& stream, const h2::HeadBuilder& head, bool /*end*/) {
  if (head.built().status >= 200) static_cast<SimH2Stream&>(stream).head = head.text();
}

void SimH2Peer::on_data(h2::Stream& stream, std::string_view bytes) {
  static_cast<SimH2Stream&>(stream).body += bytes;
  session_.consumed(stream, bytes.size());
}

void SimH2Peer::on_end(h2::Stream& stream, std::string_view trailers) {
  static_cast<SimH2Stream&>(stream).trailers = trailers;
  static_cast<SimH2Stream&>(stream).ended = true;
}

void SimH2Peer::on_reset(h2::Stream& stream, h2::ErrorCode /*code*/, bool ours) {
  static_cast<SimH2Stream&>(stream).reset = true;
  static_cast<SimH2Stream&>(stream).ours = ours;
}

void SimH2Peer::on_fatal(h2::ErrorCode /*code*/, h2::Flood /*flood*/, std::string_view /*cause*/) {}

void SimH2Peer::put(std::string_view head, std::string_view payload) {
  out_.append(head).append(payload);
}

void SimH2Peer::receive(SimConnection& connection, std::string_view bytes) {
  in_ += bytes;
  in_.erase(0, session_.feed(in_, connection.net().now_us() / 1000));
  pump(connection);
}

void SimH2Peer::pump(SimConnection& connection) {
  for (size_t i = 0; i < streams_.size() && !session_.dead(); ++i) {
    SimH2Stream& stream = *streams_[i];
    if (!stream.sending || !stream.open() || stream.sent_end()) continue;
    const bool plain = stream.out_trailers.empty();
    stream.out.erase(0, session_.send_data(stream, stream.out, plain));
    if (!plain && stream.out.empty()) session_.send_end(stream, stream.out_trailers);
  }
  if (!out_.empty()) connection.send(std::exchange(out_, {}));
}

void SimH2Peer::reset(SimH2Stream& stream, h2::ErrorCode code) {
  session_.reset(stream, code);
  stream.reset = stream.ours = true;
}

// ---- server

SimH2Origin::SimH2Origin(SimConnection& connection, bool faults, int64_t client,
                         const SimOriginSide& side)
    : SimH2Peer(h2::Role::kServer, limits_of(connection.net().prng()),
                connection.net().prng().fork()),
      requests_left_(prng_.below(3) == 0 ? static_cast<int64_t>(1 + prng_.below(5)) : INT64_MAX),
      client_(client),
      faults_(faults),
      side_(side) {
  session_.begin();
}

void SimH2Origin::on_bytes(SimConnection& connection, std::string_view bytes) {
  receive(connection, bytes);
  if (session_.dead() || (drained_ && session_.streams() == 0)) connection.close_after_send();
}

void SimH2Origin::on_request(uint32_t id, const h2::HeadBuilder& head, bool end) {
  streams_.push_back(std::make_unique<SimH2Stream>());
  SimH2Stream& stream = *streams_.back();
  session_.open(stream, UINT64_MAX);
  if (--requests_left_ == 0) {
    ++goaways;
    session_.drain();
  }
  if (!parse_path(head.text(), stream.asked)) {
    ++SimOrigin::corrupted;
    return reset(stream, h2::ErrorCode::kInternalError);
  }
  if (side_.judge != nullptr) side_.judge->judge(stream.asked, head.text(), side_.tls, true);
  SimOrigin::check_client(stream.asked, client_, owner_);
  if (client_ >= 0) ++named;
  // The id decides, so that the same request is refused by one server in two; another takes it.
  if (faults_ && end && (id + stream.asked.id) % 7 == 0) {
    ++refusals;
    return reset(stream, h2::ErrorCode::kRefusedStream);
  }
  if (stream.asked.act == Act::kEarly) answer(stream);
}

void SimH2Origin::on_end(h2::Stream& ended, std::string_view trailers) {
  SimH2Peer::on_end(ended, trailers);
  SimH2Stream& stream = static_cast<SimH2Stream&>(ended);
  const Asked& asked = stream.asked;
  if (stream.body != body_of(asked.id, asked.body_bytes, false)) ++SimOrigin::corrupted;
  SimOrigin::check_trailers(asked, std::string(trailers));
  if (asked.trailers) ++with_trailers;
  ++SimOrigin::served;
  ++served;
  if (asked.act != Act::kEarly) answer(stream);
}

void SimH2Origin::answer(SimH2Stream& stream) {
  const Asked& asked = stream.asked;
  if (!stream.open()) return;
  if (faults_ && prng_.below(12) == 0) return reset(stream, h2::ErrorCode::kInternalError);
  const std::string body = asked.head ? "" : body_of(asked.id, asked.answer_bytes, true);
  std::string head = "HTTP/1.1 200 OK\r\nX-Id: " + std::to_string(asked.id) + "\r\nX-H2: 1\r\n";
  const auto send = [&](const std::string& lines, bool end) {
    RW_CHECK(session_.send_head(stream, head + lines + "\r\n", end));
  };
  switch (asked.act) {
    case Act::kInterim:
      RW_CHECK(session_.send_head(stream, "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", false));
      [[fallthrough]];
    case Act::kLength:
    case Act::kEarly:
      send("Content-Length: " + std::to_string(asked.answer_bytes) + "\r\n", body.empty());
      break;
    case Act::kUntilClose: send("", body.empty()); break;
    case Act::kChunked:
      send("", asked.head);
      if (!asked.head) stream.out_trailers = "X-Sum: " + std::to_string(asked.id) + "\r\n";
      break;
    case Act::kEmpty:
      head.replace(9, 6, "204 No Content");
      send("", true);
      return;
    case Act::kMalformed:
      send("Content-Length: 1\r\n", false);
      stream.out = "ab";
      stream.sending = true;
      return;
    case Act::kCut:
      send("Content-Length: 1000000\r\n", false);
      (void)session_.send_data(stream, body, false);
      return reset(stream, h2::ErrorCode::kInternalError);
    case Act::kSilent:
    case Act::kCount: return;
  }
  stream.out = body;
  stream.sending = true;
}

void SimAnyOrigin::on_open(SimConnection& connection) {
  Prng& prng = connection.net().prng();
  if (!faults_ || side_.tls == nullptr || prng.below(12) != 0) return;
  connection_ = &connection;
  const auto delay_us = static_cast<int64_t>(prng.below(6'000));
  timer_ = connection.net().start_timer(delay_us, *this, static_cast<uint32_t>(prng.below(2)));
}

void SimAnyOrigin::on_sim_timer(uint32_t tag) {
  timer_ = 0;
  if (!connection_->open()) return;
  tag == 0 ? connection_->close() : connection_->abort();
}

void SimAnyOrigin::on_bytes(SimConnection& connection, std::string_view bytes) {
  if (chosen_ == nullptr) {
    std::string_view all = connection.received();
    const proxy::Parsed header = proxy::parse(all, 4096);
    if (header.status == proxy::Status::kNeedMore) return;
    int64_t client = -1;
    if (header.status == proxy::Status::kDone) {
      client = header.header.source.ip[2] << 8 | header.header.source.ip[3];
      all.remove_prefix(header.header.length);
    }
    if (all.size() < 3 && h2::kPreface.starts_with(all)) return;
    if (!all.starts_with("PRI")) {
      chosen_ = std::make_unique<SimOrigin>(side_);
    } else {
      if (client >= 0) ++SimOrigin::headers;
      chosen_ = std::make_unique<SimH2Origin>(connection, faults_, client, side_);
      bytes = all;
    }
  }
  chosen_->on_bytes(connection, bytes);
}

void SimAnyOrigin::on_end(SimConnection& connection, int error) {
  if (chosen_ != nullptr) return chosen_->on_end(connection, error);
  SimHandler::on_end(connection, error);
}

void SimAnyOrigin::on_done(SimConnection& connection) {
  connection.net().cancel_timer(timer_);
  if (chosen_ != nullptr) chosen_->on_done(connection);
}

// ---- client

SimH2Client::SimH2Client(SimNet& net, SimIo& io, Script script, Prng prng)
    : SimH2Peer(h2::Role::kClient, limits_of(prng), prng),
      net_(net),
      connection_(net, io),
      script_(std::move(script)),
      tls_(script_.tls != nullptr) {
  connection_.set_handler(this);
  connection_.set_codec(std::move(script_.tls));
  connection_.keep_nothing();
  connection_.read_slowly(script_.read_slice, script_.read_pause_us);
  for (const Asked& asked : script_.asked) {
    streams_.push_back(std::make_unique<SimH2Stream>());
    streams_.back()->asked = asked;
  }
}

SimH2Client::~SimH2Client() {
  net_.cancel_timer(timer_);
}

void SimH2Client::start(const ServerAddress& server, int64_t delay_us) {
  server_ = server;
  timer_ = net_.start_timer(delay_us, *this, kConnectTag);
}

void SimH2Client::on_open(SimConnection& connection) {
  open_ = true;
  connection.send(script_.first);
  session_.begin();
  pump(connection);
  plan();
}

void SimH2Client::plan() {
  timer_ = net_.start_timer(static_cast<int64_t>(1 + prng_.below(15'000)), *this, kNextTag);
}

void SimH2Client::on_sim_timer(uint32_t tag) {
  timer_ = 0;
  if (tag == kConnectTag) {
    tried_ = true;
    (void)connection_.connect(server_);
    return;
  }
  if (!connection_.open() || over_) return;
  // Several at once now and then.
  for (uint64_t count = 1 + prng_.below(3); count > 0; --count) begin_next();
  if (script_.faults && prng_.below(10) == 0) {
    SimH2Stream& one = *streams_[prng_.below(streams_.size())];
    if (one.open()) reset(one, h2::ErrorCode::kCancel);
  }
  pump(connection_);
  end_if_done();
  if (!over_) plan();
}

void SimH2Client::begin_next() {
  if (next_ == streams_.size() || goaway_ || session_.dead() || session_.capacity() == 0) return;
  SimH2Stream& stream = *streams_[next_++];
  const Asked& asked = stream.asked;
  std::string head = asked.bytes();
  const size_t end = head.find("\r\n\r\n");
  head.resize(end + 4);
  stream.started = true;
  RW_CHECK(session_.start(stream, head, tls_ ? "https" : "http", false, asked.body_bytes == 0));
  stream.out = body_of(asked.id, asked.body_bytes, false);
  stream.sending = asked.body_bytes > 0;
  stream.out_trailers = asked.trailer_lines();
}

void SimH2Client::on_bytes(SimConnection& connection, std::string_view bytes) {
  receive(connection, bytes);
  end_if_done();
}

void SimH2Client::on_goaway(uint32_t last, h2::ErrorCode /*code*/) {
  goaway_ = true;
  for (const auto& stream : streams_) {
    if (stream->open() && stream->id() > last) {
      session_.forget(*stream);
      stream->reset = true;
    }
  }
}

void SimH2Client::on_fatal(h2::ErrorCode /*code*/, h2::Flood /*flood*/, std::string_view cause) {
  if (!over_) fatal_ = cause.empty() ? "fatal" : cause;
}

void SimH2Client::end_if_done() {
  if (over_) return;
  const bool all = next_ == streams_.size() || goaway_;
  if (!session_.dead() && (!all || session_.streams() > 0)) return;
  over_ = true;
  connection_.close_after_send();
}

// ---- what an answer must be

std::string HttpWorld::check_h2_stream(const SimH2Stream& stream) {
  const Asked& asked = stream.asked;
  const std::string who = "HTTP/2 request " + std::to_string(asked.id) + ": ";
  const std::string_view head = stream.head;
  const bool calm = !faults_ && !drained_ && asked.act < Act::kMalformed;
  const std::string_view status = head.empty() ? head : head.substr(9, 3);
  const std::string whole = asked.head ? "" : body_of(asked.id, asked.answer_bytes, true);
  if (status == "200" || status == "204") {
    if (head.find("x-id: " + std::to_string(asked.id) + "\r\n") == std::string_view::npos) {
      return who + "answered with another's response";
    }
  }
  if (status == "200" && asked.act == Act::kMalformed) {
    // Its head is well; a body that is longer than announced must not pass as a whole one.
    return stream.ended && !asked.head ? who + "a malformed answer looks whole" : "";
  }
  if (status == "200" && !whole.starts_with(stream.body)) {
    return who + "the answer's body is wrong, act " + std::to_string(static_cast<int>(asked.act));
  }
  if (!stream.ended) return calm && !stream.ours ? who + "no whole answer" : "";
  if (status != "200" && status != "204") {
    const bool right = note_refused(status, stream.body, asked.head);
    return calm && !right ? who + "status " + std::string(status) : "";
  }
  if (status == "200" && stream.body.size() != whole.size()) {
    // Bodies that may last until their connection ends can be cut over HTTP/1 only.
    return who + "ended inside the answer's body";
  }
  const bool trailers = head.find("x-h2: 1\r\n") != std::string_view::npos &&
                        asked.act == Act::kChunked && !asked.head;
  if (trailers && stream.trailers != "x-sum: " + std::to_string(asked.id) + "\r\n") {
    return who + "wrong trailers: " + stream.trailers;
  }
  ++answered;
  ++h2_answered;
  return "";
}

}  // namespace ringway
