// proto/http2_session.h - one HTTP/2 connection, either side of it: frames in, events out.
//
// Knows stream states, flow control, settings, header blocks and what a peer must not do; knows no
// socket, no clock and no body: what is sent goes to SessionOwner::put(), body bytes are the
// owner's to keep while a window is closed.
//
// Affinity:  one thread. Ownership: streams are the owner's objects, in the table from open() or
//            start() until they are closed; they may be freed after the event under way.
// Bounds:    SessionLimits. Floods end the connection with ENHANCE_YOUR_CALM and their name.
// Source:    RFC 9113; RFC 9218 (priority); RFC 8441 (extended CONNECT).
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "proto/http2_frame.h"
#include "proto/http2_head.h"
#include "proto/http2_hpack.h"

namespace ringway::h2 {

enum class Role : uint8_t { kServer, kClient };

// So many per so long; 0 of `count`: any number.
struct FloodLimit {
  uint32_t count = 0;
  uint32_t period_ms = 10'000;
  bool operator==(const FloodLimit&) const = default;
};

// A bucket that holds `count` and is filled evenly, once per period.
class FloodGate {
 public:
  // One more. False: too many.
  [[nodiscard]] bool pass(const FloodLimit& limit, int64_t now_ms);

 private:
  int64_t full_at_ms_ = 0;  // when the bucket would be full again; microseconds would overflow none
};

struct SessionLimits {
  uint32_t max_streams = 100;                    // that the peer may have open
  uint32_t stream_window = 256 * 1024;           // what a fast stream's window grows to
  uint32_t connection_window = 8 * 1024 * 1024;  // received and not used yet, all streams together
  uint32_t header_table = 4096;                  // of HPACK, each direction
  FloodLimit resets{.count = 200};               // streams reset by the peer, or because of it
  FloodLimit control{.count = 2000};             // frames that ask for work and carry nothing
  http1::HeadLimits head{};
  bool websocket = false;  // RFC 8441
  bool operator==(const SessionLimits&) const = default;
};

// What ended a connection, for counters; the text says more. Resets and refused streams share
// SessionLimits::resets, frames from kPing on share SessionLimits::control: the one that was too
// much gives its name.
enum class Flood : uint8_t {
  kNone,
  kResets,
  kStreams,       // refused, since too many were open
  kContinuation,  // a header block that does not end
  kHeaderBomb,
  kPing,
  kSettings,
  kPriority,      // PRIORITY_UPDATE, too
  kWindowUpdate,  // that no DATA of ours explains
  kEmptyData,
  kLateReset,  // of a stream that is over
  kGoaway,
  kUnknownFrame,
  kInterim  // responses (client side)
};
// As metrics and logs name those behind kNone.
inline constexpr std::array<std::string_view, 13> kFloodNames{
    "resets",   "streams",       "continuation",  "header_bomb", "ping",
    "settings", "priority",      "window_update", "empty_data",  "late_reset",
    "goaway",   "unknown_frame", "interim"};
static_assert(kFloodNames.size() == static_cast<size_t>(Flood::kInterim));

class Session;

class Stream {
 public:
  [[nodiscard]] uint32_t id() const { return id_; }
  // In the table of a session.
  [[nodiscard]] bool open() const { return open_; }
  // The peer has sent its last byte; we have.
  [[nodiscard]] bool received_end() const { return remote_closed_; }
  [[nodiscard]] bool sent_end() const { return local_closed_; }
  // Inside on_data(): the peer's last bytes are among these, and on_end() follows at once, without
  // trailers; so what is made of them may say so itself. True ever after.
  [[nodiscard]] bool end_follows() const { return end_follows_; }
  // RFC 9218: 0 is the most urgent; 3 unless told.
  [[nodiscard]] uint8_t urgency() const { return urgency_; }
  [[nodiscard]] bool incremental() const { return incremental_; }

 protected:
  ~Stream() = default;

 private:
  friend class Session;

  uint32_t id_ = 0;
  int32_t send_window_ = 0;          // may be negative (RFC 9113 6.9.2)
  int32_t receive_window_ = 0;       // what the peer may still send
  uint32_t receive_size_ = 0;        // what it is filled up to
  uint32_t used_ = 0;                // used by the owner, not credited yet
  uint32_t buffered_ = 0;            // handed up, not used yet
  uint64_t body_left_ = UINT64_MAX;  // of an announced length
  uint8_t urgency_ = 3;
  bool incremental_ = false;
  bool open_ = false;
  bool remote_closed_ = false;
  bool local_closed_ = false;
  bool head_received_ = false;  // client side: the final response head
  bool end_follows_ = false;
};

// Scratch for header blocks; one per shard serves all its sessions.
struct SessionScratch {
  SessionScratch(uint32_t text_bytes, uint32_t fields_max)
      : builder(text_bytes, fields_max),
        fields(fields_max + 16),
        names(text_bytes),
        block(text_bytes + 4096) {}

  HeadBuilder builder;
  std::vector<HeaderField> fields;
  std::vector<char> names;
  std::vector<char> block;
};

// Told by feed(), inside the call. It may call the session back. Views are valid inside the call.
class SessionOwner {
 public:
  // Server side. A request: open() a stream for it, or it is refused. `end`: it has no body.
  virtual void on_request(uint32_t id, const HeadBuilder& head, bool end) = 0;
  // Server side. A request that cannot be served for `error`; kMalformed ones are reset after the
  // call. The others may be answered by answer().
  virtual void on_bad_request(uint32_t id, BlockError error, bool end) = 0;
  // Client side. The head of a response, or of an interim one.
  virtual void on_response(Stream& stream, const HeadBuilder& head, bool end) = 0;
  // Body bytes: all of them are taken; consumed() follows, at once or later.
  virtual void on_data(Stream& stream, std::string_view bytes) = 0;
  // The peer's last byte was handed up. `trailers`: lines as of HeadBuilder, or empty.
  virtual void on_end(Stream& stream, std::string_view trailers) = 0;
  // The stream is closed: by the peer, or since the peer broke a rule (`ours`).
  virtual void on_reset(Stream& stream, ErrorCode code, bool ours) = 0;
  // A closed window has opened: that of `stream`, or (null) of all.
  virtual void on_window(Stream* stream) = 0;
  // The peer ends the connection: streams of ours above `last` were not looked at.
  virtual void on_goaway(uint32_t last, ErrorCode code) = 0;
  // Client side: the peer takes another number of streams.
  virtual void on_capacity() = 0;
  // Our PING was answered, or drain() has said its last GOAWAY.
  virtual void on_ping_ack() = 0;
  virtual void on_drained() = 0;
  // The connection is over: GOAWAY was put. No other event follows.
  virtual void on_fatal(ErrorCode code, Flood flood, std::string_view cause) = 0;
  // Bytes to send, one frame or a part of one, in order.
  virtual void put(std::string_view head, std::string_view payload) = 0;

 protected:
  ~SessionOwner() = default;
};

class Session {
 public:
  Session(Role role, SessionOwner& owner, SessionScratch& scratch, const SessionLimits& limits);
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  // Puts our preface: SETTINGS, and as a client the magic before it.
  void begin();
  // Takes what was received. Returns the bytes used; the rest, less than a frame, comes again with
  // more behind it. After on_fatal() everything counts as used.
  [[nodiscard]] size_t feed(std::string_view bytes, int64_t now_ms);
  [[nodiscard]] bool dead() const { return dead_; }
  // A header block has begun and not ended, or the preface is not complete.
  [[nodiscard]] bool inside_head() const { return continuation_ != 0 || preface_left_ > 0; }

  // Server side, inside on_request(): the request gets this stream. `body_bytes`: its announced
  // length, UINT64_MAX: none.
  void open(Stream& stream, uint64_t body_bytes);
  // Client side: how many streams can be started now. The ids of a connection end.
  [[nodiscard]] uint32_t capacity() const;
  // Client side: starts a stream. `text`: the head by http1::write_request_head(). False: the head
  // does not fit; nothing was sent and the stream is not open. REQUIRES: capacity() > 0.
  [[nodiscard]] bool start(Stream& stream, std::string_view text, std::string_view scheme,
                           bool extended_connect, bool end);
  // Client side: the body of the response to `stream` has this length.
  static void expect_body(Stream& stream, uint64_t bytes) { stream.body_left_ = bytes; }

  // Server side: a head by http1::write_response_head() or write_own_response(), interim ones too.
  // False: it does not fit; nothing was sent.
  [[nodiscard]] bool send_head(Stream& stream, std::string_view text, bool end,
                               bool extended_connect = false);
  // Server side, inside on_request() without open(): the request is not refused, which would let
  // it be tried again, but malformed.
  void call_malformed() { malformed_ = true; }
  // Server side, inside on_request() or on_bad_request(): the whole answer, and the stream is
  // closed.
  void answer(uint32_t id, std::string_view head, std::string_view body, bool request_ended);
  // How much may be sent of a body now.
  [[nodiscard]] size_t sendable(const Stream& stream) const;
  // Sends as much of `bytes` as the windows allow, and `end` behind the last byte. Returns how
  // much. REQUIRES: open, not sent_end().
  size_t send_data(Stream& stream, std::string_view bytes, bool end);
  // Ends our side with trailers ("name: value\r\n" lines; none: an empty DATA frame).
  void send_end(Stream& stream, std::string_view trailers);
  // Closes the stream; no event follows. Does nothing if it is closed. One that both have ended
  // only leaves the table.
  void reset(Stream& stream, ErrorCode code);
  // The same without a word to the peer, which has said that it does not look at it, or is gone.
  void forget(Stream& stream);
  // The owner is done with so many bytes of on_data().
  void consumed(Stream& stream, size_t bytes);
  // They will never be used, since the stream is closed.
  void drop_buffered(Stream& stream);

  // Graceful end: no new streams. In two steps, so that none is lost that is on its way
  // (RFC 9113 6.8); on_drained() when the second GOAWAY is out.
  void drain();
  [[nodiscard]] bool draining() const { return draining_; }
  // Takes the second step without the peer's answer.
  void finish_drain();
  // Asks for a sign of life: on_ping_ack() when the peer answers.
  void ping();
  // Ends the connection with GOAWAY.
  void fail(ErrorCode code, Flood flood, std::string_view cause);

  [[nodiscard]] size_t streams() const { return table_.size(); }
  // The peer said that it takes WebSockets (RFC 8441 3).
  [[nodiscard]] bool peer_websocket() const { return peer_websocket_; }
  [[nodiscard]] bool settings_received() const { return settings_received_; }
  [[nodiscard]] uint32_t peer_max_streams() const { return peer_max_streams_; }
  // Server side: requests that were refused since max_streams were open, since the last call.
  [[nodiscard]] uint32_t take_refused() { return std::exchange(refused_, 0); }
  // The stream's own window is closed, whatever that of the connection is.
  [[nodiscard]] static bool window_closed(const Stream& stream) { return stream.send_window_ <= 0; }

 private:
  static constexpr std::string_view kDrainPing = "ringway!";  // tells drain()'s PING from ping()'s

  size_t take_data(std::string_view rest);
  size_t take_preface(std::string_view rest);
  size_t take_whole(std::string_view rest);
  bool may_come(const FrameHeader& frame);
  size_t begin_data(const FrameHeader& frame, std::string_view rest);
  void account_data(const FrameHeader& frame, uint32_t overhead);
  void end_data();
  void take_frame(const FrameHeader& frame, std::string_view payload);
  void take_headers(const FrameHeader& frame, std::string_view payload);
  void take_continuation(const FrameHeader& frame, std::string_view payload);
  void take_block(std::string_view block);
  void take_request(uint32_t id, bool end);
  void take_response(Stream& stream, bool end);
  void take_trailers(Stream& stream, bool end);
  void swallow_block(std::string_view block);
  bool decode(std::string_view block);
  void take_settings(const FrameHeader& frame, std::string_view payload);
  bool take_setting(uint16_t id, uint32_t value);
  bool move_windows(uint32_t initial);
  void take_ping(const FrameHeader& frame, std::string_view payload);
  void take_goaway(const FrameHeader& frame, std::string_view payload);
  void take_window_update(const FrameHeader& frame, std::string_view payload);
  void take_rst(const FrameHeader& frame, std::string_view payload);
  void take_priority(const FrameHeader& frame, std::string_view payload);
  void take_priority_update(const FrameHeader& frame, std::string_view payload);
  void end_remote(Stream& stream, std::string_view trailers);

  [[nodiscard]] Stream* find(uint32_t id) const;
  // The peer may name it: it was opened once, by whoever opens such ids.
  [[nodiscard]] bool was_opened(uint32_t id) const;
  void insert(Stream& stream, uint32_t id);
  void remove(Stream& stream);
  void remove_if_done(Stream& stream);
  // The peer broke a rule of this stream.
  void stream_error(Stream& stream, ErrorCode code);
  void stream_error(uint32_t id, ErrorCode code, Flood kind = Flood::kResets);
  void put_reset(uint32_t id, ErrorCode code);
  // We have reset it not long ago: the peer may not have known when it sent this.
  [[nodiscard]] bool was_reset(uint32_t id) const;
  void count_reset(Flood kind);
  // False: too many, and the connection is over.
  bool count_control(Flood kind);
  void explain_updates(size_t sent, bool cut);
  void credit_connection(size_t bytes);
  void credit_stream(Stream& stream, size_t bytes);
  void put_frame(FrameType type, uint8_t flags, uint32_t stream, std::string_view payload);
  void put_number(FrameType type, uint32_t stream, uint32_t number);
  void put_settings();
  void put_goaway(uint32_t last, ErrorCode code, std::string_view text);
  bool put_block(uint32_t stream, size_t fields, bool end);

  SessionOwner& owner_;
  SessionScratch& scratch_;
  SessionLimits limits_;
  Inflater inflater_;
  Deflater deflater_;
  std::vector<Stream*> table_;  // by id
  std::string block_;           // of a header block in several frames
  FloodGate resets_;
  FloodGate controls_;
  int64_t now_ms_ = 0;
  int32_t send_window_ = kWindowInitial;
  int32_t receive_window_ = kWindowInitial;
  uint32_t used_ = 0;      // of the connection's window, not credited yet
  uint32_t promised_ = 0;  // the windows of all open streams: what they may make us keep
  uint32_t peer_initial_ = kWindowInitial;
  uint32_t peer_max_streams_ = 100;  // before its SETTINGS, what RFC 9113 6.5.2 calls safe
  uint32_t last_peer_id_ = 0;
  uint32_t next_id_ = 1;               // client side
  uint32_t peer_opened_ = 0;           // how many streams
  uint32_t goaway_last_ = kWindowMax;  // what we have promised to look at
  uint32_t peer_goaway_ = kWindowMax;
  uint32_t window_allowance_ = 0;  // WINDOW_UPDATEs that our DATA explains
  uint32_t unexplained_ = 0;       // bytes of small frames that explain none yet
  uint32_t refused_ = 0;           // see take_refused()
  uint32_t continuation_ = 0;      // the stream whose block has begun
  uint32_t continuation_frames_ = 0;
  uint8_t block_flags_ = 0;
  uint32_t preface_left_;
  std::array<uint32_t, 64> reset_ids_{};
  uint32_t resets_put_ = 0;
  // The DATA frame under way.
  uint32_t data_stream_ = 0;
  uint32_t data_left_ = 0;
  uint32_t pad_left_ = 0;
  bool data_end_ = false;
  bool in_data_ = false;
  Role role_;
  bool settings_received_ = false;
  bool draining_ = false;
  bool drained_ = false;
  bool peer_websocket_ = false;
  bool dead_ = false;
  bool opened_ = false;     // the request under way has its stream, or its answer
  bool malformed_ = false;  // or is to be reset as malformed
};

}  // namespace ringway::h2
