// proto/http2_hpack.h - header compression, by nghttp2's codec (RFC 7541).
//
// Affinity:  one thread; one Inflater and one Deflater per connection, as they have state.
// Ownership: hold nghttp2 objects; their dynamic tables allocate as they grow, up to their bound.
//            What nghttp2 needs for a literal or a table entry is reused (http2_blocks.h), so in
//            steady state neither allocates.
// Source:    RFC 7541; RFC 9113 4.3, 6.5.2, 10.5.1.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "proto/http2_blocks.h"

struct nghttp2_hd_deflater;
struct nghttp2_hd_inflater;

namespace ringway::h2 {

struct HeaderField {
  std::string_view name;
  std::string_view value;
  bool sensitive = false;  // never indexed, by us and by those behind (RFC 7541 7.1.3)
};

// Receives the fields of one block, in their order.
class FieldSink {
 public:
  // The views are valid inside the call only. False: enough; the rest is still decoded, since the
  // tables of both sides must agree, but not handed up.
  virtual bool on_field(const HeaderField& field) = 0;
  // The block is larger than `decoded_max`: no more fields come, and those so far are not all.
  virtual void on_cut() = 0;

 protected:
  ~FieldSink() = default;
};

class Inflater {
 public:
  // `table_bytes`: SETTINGS_HEADER_TABLE_SIZE that we announce. Until the peer has acknowledged it,
  // it may use the 4096 bytes of the default.
  explicit Inflater(uint32_t table_bytes);
  ~Inflater();
  Inflater(const Inflater&) = delete;
  Inflater& operator=(const Inflater&) = delete;

  // The peer has acknowledged our SETTINGS: a smaller table than the default holds from now on, and
  // its next block has to say so (RFC 7541 4.2). Not needed for `table_bytes` from 4096 on.
  void on_settings_ack();

  // Decodes one whole block. False: COMPRESSION_ERROR, and the connection is over. The work is
  // bounded: `decoded_max` bytes of names and values (32 per field added, RFC 9113 6.5.2) may come
  // out of it; beyond them the sink is told on_cut() and gets nothing any more, and beyond 16 times
  // as many the block is refused as a bomb (false, too_big()). After false, it stays false.
  [[nodiscard]] bool decode(std::string_view block, size_t decoded_max, FieldSink& sink);
  [[nodiscard]] bool too_big() const { return too_big_; }
  // How often malloc(3) was asked since the beginning.
  [[nodiscard]] uint64_t mallocs() const { return blocks_.mallocs(); }

 private:
  BlockPool blocks_;
  nghttp2_hd_inflater* inflater_ = nullptr;
  uint32_t table_bytes_;
  bool failed_ = false;
  bool too_big_ = false;
};

class Deflater {
 public:
  // `table_bytes`: our own bound of the dynamic table.
  explicit Deflater(uint32_t table_bytes);
  ~Deflater();
  Deflater(const Deflater&) = delete;
  Deflater& operator=(const Deflater&) = delete;

  // The peer's SETTINGS_HEADER_TABLE_SIZE.
  void limit_table(uint32_t bytes);
  // Encodes `fields` (at least one) into `room`, which needs the bytes of all names and values, 12
  // for each field, and 12 for each 64 fields begun. Returns the bytes used; 0: they might not fit,
  // and nothing of the state has changed.
  [[nodiscard]] size_t encode(std::span<const HeaderField> fields, std::span<char> room);
  [[nodiscard]] uint64_t mallocs() const { return blocks_.mallocs(); }

 private:
  BlockPool blocks_;
  nghttp2_hd_deflater* deflater_ = nullptr;
  uint32_t own_max_;
};

}  // namespace ringway::h2
