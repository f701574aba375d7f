// lb/health/h2_request.h - one request of a health check over HTTP/2, and what came back.
//
// Affinity:  the checker's thread. Ownership: part of the Watched whose check it is.
// Bounds:    one stream; a head as of http1::HeadLimits; body bytes are kept until take_body().
// Why:       pulled, not called: whoever feeds it looks at what there is afterwards.
// Source:    RFC 9113; the client's role of proto/http2_session.h.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "proto/http1_head.h"
#include "proto/http2_session.h"

namespace ringway {

// The value in lines of "name: value\r\n"; `name` is in lower case, as are those of HTTP/2.
[[nodiscard]] std::optional<std::string_view> field_of(std::string_view lines,
                                                       std::string_view name);

class H2Request final : public h2::SessionOwner {
 public:
  // Heads of answers are within `limits`, for which `scratch` has room.
  H2Request(h2::SessionScratch& scratch, const http1::HeadLimits& limits);
  ~H2Request();

  // The connection's preface and the request, whose head is one by the rules of
  // http1::write_request_head(), into output(). False: the head does not fit.
  [[nodiscard]] bool start(std::string_view head, std::string_view scheme, bool is_head,
                           std::string_view body);
  void feed(std::span<const std::byte> bytes, int64_t now_ms);
  // Says GOAWAY. Nothing else comes.
  void finish();
  // What is to be sent; the caller takes it out.
  [[nodiscard]] std::string& output() { return output_; }

  // The final response's status; 0: not yet.
  [[nodiscard]] uint16_t status() const { return status_; }
  // Its head, and its trailers, as lines.
  [[nodiscard]] std::string_view head() const { return head_; }
  [[nodiscard]] std::string_view trailers() const { return trailers_; }
  // The body bytes since the last call.
  [[nodiscard]] std::string take_body();
  // All of the response is there.
  [[nodiscard]] bool complete() const { return complete_; }
  // Why there will be no (further) response; empty: there may be.
  [[nodiscard]] const std::string& failure() const { return failure_; }

  // SessionOwner.
  void on_request(uint32_t id, const h2::HeadBuilder& head, bool end) override;
  void on_bad_request(uint32_t id, h2::BlockError error, bool end) override;
  void on_response(h2::Stream& stream, const h2::HeadBuilder& head, bool end) override;
  void on_data(h2::Stream& stream, std::string_view bytes) override;
  void on_end(h2::Stream& stream, std::string_view trailers) override;
  void on_reset(h2::Stream& stream, h2::ErrorCode code, bool ours) override;
  void on_window(h2::Stream* /*stream*/) override {}  // What is sent fits into any first window.
  void on_goaway(uint32_t last, h2::ErrorCode code) override;
  void on_capacity() override {}
  void on_ping_ack() override {}
  void on_drained() override {}
  void on_fatal(h2::ErrorCode code, h2::Flood flood, std::string_view cause) override;
  void put(std::string_view head, std::string_view payload) override;

 private:
  struct OneStream final : h2::Stream {};

  void fail(std::string reason);

  http1::HeadLimits limits_;
  h2::Session session_;
  OneStream stream_;
  http1::HeadParser parser_;
  std::string output_;
  std::string input_;  // less than a frame
  std::string head_;
  std::string body_;
  std::string trailers_;
  std::string failure_;
  uint16_t status_ = 0;
  bool is_head_ = false;
  bool complete_ = false;
};

}  // namespace ringway
