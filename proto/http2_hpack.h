// proto/http2_hpack.h - header compression, by nghttp2's codec (RFC 7541).
//
// Affinity:  one thread; one Inflater and one Deflater per connection, as they have state.
// Ownership: hold nghttp2 objects; their dynamic tables allocate as they grow, up to their bound.
//            In steady state (all fields in the tables) neither allocates.
// Source:    RFC 7541; RFC 9113 4.3, 6.5.2, 10.5.1.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

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

 protected:
  ~FieldSink() = default;
};

class Inflater {
 public:
  // `table_bytes`: SETTINGS_HEADER_TABLE_SIZE that we announce.
  explicit Inflater(uint32_t table_bytes);
  ~Inflater();
  Inflater(const Inflater&) = delete;
  Inflater& operator=(const Inflater&) = delete;

  // Decodes one whole block. False: COMPRESSION_ERROR, and the connection is over. The work is
  // bounded: `decoded_max` bytes of names and values (32 per field added, RFC 9113 6.5.2) may come
  // out of it; beyond them nothing is handed up any more, and beyond 16 times as many the block is
  // refused as a bomb (false, too_big()).
  [[nodiscard]] bool decode(std::string_view block, size_t decoded_max, FieldSink& sink);
  [[nodiscard]] bool too_big() const { return too_big_; }

 private:
  nghttp2_hd_inflater* inflater_;
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
  // Encodes `fields` into `room`. Returns the bytes used; 0: they do not fit, and nothing of the
  // state has changed (bound() is checked first).
  [[nodiscard]] size_t encode(std::span<const HeaderField> fields, std::span<char> room);

 private:
  nghttp2_hd_deflater* deflater_;
  uint32_t own_max_;
};

}  // namespace ringway::h2
