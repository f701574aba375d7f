// pool/server_stream.h - one request on an HTTP/2 connection to a server.
//
// Affinity:  one shard. Ownership: a slab object of the shard's ServerMuxes; an exchange holds it
//            from ServerSlot::take() or ServerUser::on_server_stream() until it calls finish() or
//            abort(), or hears on_stream_lost().
// Bounds:    bytes that the server's windows do not take yet wait here, up to kHighWaterBytes and
//            one write; bytes of the response are held back by not calling consumed().
// Why:       an exchange speaks to it as it speaks to a ServerConn, and never sees frames.
#pragma once

#include <boost/intrusive/list.hpp>
#include <cstdint>
#include <string>
#include <string_view>

#include "core/chunks.h"
#include "core/timers.h"
#include "proto/http2_session.h"

namespace ringway {

class ServerConn;
class ServerMux;
class StreamUser;

struct StreamListTag;
struct StreamQueueTag;
template <typename Tag>
using StreamHook =
    boost::intrusive::list_base_hook<boost::intrusive::tag<Tag>,
                                     boost::intrusive::link_mode<boost::intrusive::auto_unlink>>;

class ServerStream final : public h2::Stream,
                           public TimerOwner,
                           public StreamHook<StreamListTag>,
                           public StreamHook<StreamQueueTag> {
 public:
  static constexpr size_t kHighWaterBytes = 32 * 1024;
  static constexpr size_t kLowWaterBytes = 8 * 1024;

  ServerStream(ServerMux& mux, StreamUser& user);
  ~ServerStream();

  // Sends the head that http1::write_request_head() wrote; `end`: no body follows. Once, first.
  // False: it does not fit into the frames' bounds, and nothing was sent. If the server takes fewer
  // requests since the stream was opened, on_stream_lost() follows (unseen).
  [[nodiscard]] bool send_head(std::string_view text, std::string_view scheme, bool websocket,
                               bool end);
  // Body bytes: sends or keeps them.
  void write(std::string_view bytes, bool end);
  // The request ends here, with trailer lines or none.
  void end(std::string_view trailers);
  [[nodiscard]] size_t queued() const { return out_.bytes(); }
  [[nodiscard]] bool above_high_water() const { return out_.bytes() >= kHighWaterBytes; }
  // The user is done with so many bytes of the response: the server may send more.
  void consumed(size_t bytes);
  // How long the response's body is (for the check of RFC 9113 8.1.1).
  void expect_body(uint64_t bytes);
  // Calls on_stream_timeout() after `ms`; 0 switches it off.
  void set_deadline(int64_t ms);

  // The user is done: the response is complete. If the request is not, the rest is cancelled. The
  // connection goes back to the pool as far as this stream is concerned. The last call.
  void finish();
  // The user does not want the response any more, or it was malformed. The last call.
  void abort(h2::ErrorCode code);

  // Nothing of the request was given to the connection yet.
  [[nodiscard]] bool untouched() const { return !open() && id() == 0; }
  // It is over, and on_stream_lost() is on its way: before the turn ends. Calls do nothing any
  // more, but finish() and abort() still say that nobody is to be told.
  [[nodiscard]] bool lost() const { return lost_; }
  // The server's SETTINGS have come. Before that, await_settings() asks for on_stream_settings().
  [[nodiscard]] bool settings_received() const;
  void await_settings() { awaits_settings_ = true; }
  // The server takes WebSockets (RFC 8441). REQUIRES: settings_received().
  [[nodiscard]] bool takes_websocket() const;
  // It is on its connection: not over, nor is the connection.
  [[nodiscard]] bool attached() const { return !left_; }
  // REQUIRES: attached().
  [[nodiscard]] ServerConn& conn() const;
  // The connection has carried a request before this one.
  [[nodiscard]] bool reused() const { return reused_; }

  void on_timer(Timer& timer) override;

 private:
  friend class ServerMux;
  friend class ServerMuxes;

  ServerMux& mux_;
  StreamUser* user_;  // null: done, and to be freed
  OutQueue out_;
  std::string trailers_;
  Timer timer_;
  uint64_t put_at_ = 0;     // how many bytes the connection had put before its head
  std::string_view cause_;  // of its loss
  h2::ErrorCode lost_code_ = h2::ErrorCode::kNoError;
  bool end_waits_ = false;  // the request's end stands behind out_
  bool reused_ = false;
  bool complete_ = false;  // the response is
  bool left_ = false;      // the connection does not count it any more
  bool lost_ = false;      // its user is to be told
  bool unseen_ = false;
  bool awaits_settings_ = false;
};

// Whoever uses a stream. Called from Io turns, timers and ServerMuxes::flush() only; may call the
// stream back, also its last call.
class StreamUser {
 public:
  // A response head, interim ones included; the views are valid inside the call. `end`: no body;
  // on_stream_end() follows all the same, unless the stream was finished.
  virtual void on_stream_head(const h2::HeadBuilder& head, bool end) = 0;
  // Body bytes, all of which are taken; consumed() follows, at once or later.
  virtual void on_stream_data(std::string_view bytes) = 0;
  // What await_settings() asked for; the server may well take nothing of what it was asked for.
  virtual void on_stream_settings() {}
  // The response is complete.
  virtual void on_stream_end(std::string_view trailers) = 0;
  // What waited to be sent fell below the low-water mark.
  virtual void on_stream_drained() = 0;
  virtual void on_stream_timeout() = 0;
  // The stream is over before its end, and is gone already. `unseen`: the server says, or it is
  // known, that it has not looked at the request (REFUSED_STREAM, an id above GOAWAY's, or no byte
  // of it was sent), so that it may be tried again whatever it is. `code`: the server's, if it
  // reset the stream; kNoError if the connection ended.
  virtual void on_stream_lost(bool unseen, h2::ErrorCode code, std::string_view cause) = 0;

 protected:
  ~StreamUser() = default;
};

}  // namespace ringway
