// proto/http2_hpack.cc
#include "proto/http2_hpack.h"

#include <nghttp2/nghttp2.h>

#include <algorithm>

#include "core/base/check.h"
#include "proto/http2_huffman.h"

namespace ringway::h2 {
namespace {

constexpr uint32_t kDefaultTableBytes = 4096;  // RFC 9113 6.5.2
constexpr size_t kFieldOverhead = 32;          // RFC 7541 4.1
constexpr size_t kBombFactor = 16;

// From how many bytes on a block is rewritten without Huffman coding, and up to how many then.
constexpr size_t kRewriteMin = 256;
constexpr size_t kRewriteRoom = size_t{16} * 1024;

// So many fields are handed to nghttp2 at once; blocks may be written in parts.
constexpr size_t kGroup = 64;

// nghttp2 takes what it only reads as pointers to what it might change.
uint8_t* bytes_of(std::string_view text) {
  return reinterpret_cast<uint8_t*>(const_cast<char*>(text.data()));
}

std::string_view text_of(const uint8_t* bytes, size_t size) {
  return {reinterpret_cast<const char*>(bytes), size};
}

struct Group {
  size_t size;
  nghttp2_nv fields[kGroup];

  // The first kGroup of `from`, or all.
  explicit Group(std::span<const HeaderField> from) : size(std::min(from.size(), kGroup)) {
    for (size_t i = 0; i < size; ++i) {
      fields[i] = {.name = bytes_of(from[i].name),
                   .value = bytes_of(from[i].value),
                   .namelen = from[i].name.size(),
                   .valuelen = from[i].value.size(),
                   .flags = static_cast<uint8_t>(from[i].sensitive ? NGHTTP2_NV_FLAG_NO_INDEX
                                                                   : NGHTTP2_NV_FLAG_NONE)};
    }
  }
};

}  // namespace

Inflater::Inflater(uint32_t table_bytes) : table_bytes_(table_bytes) {
  RW_CHECK(nghttp2_hd_inflate_new2(&inflater_, blocks_.mem()) == 0);
  // A larger table may be used at once by a peer that has already read our SETTINGS.
  if (table_bytes > kDefaultTableBytes) {
    RW_CHECK(nghttp2_hd_inflate_change_table_size(inflater_, table_bytes) == 0);
  }
}

Inflater::~Inflater() {
  nghttp2_hd_inflate_del(inflater_);
}

void Inflater::on_settings_ack() {
  if (failed_ || table_bytes_ >= kDefaultTableBytes) return;
  RW_CHECK(nghttp2_hd_inflate_change_table_size(inflater_, table_bytes_) == 0);
}

bool Inflater::decode(std::string_view block, size_t decoded_max, FieldSink& sink) {
  if (failed_) return false;
  failed_ = true;  // taken back at the end
  char room[kRewriteRoom];
  if (block.size() >= kRewriteMin) {
    // If it cannot be rewritten, nghttp2 says what is wrong, or decodes it in its own way.
    const std::string_view plain = block_without_huffman(block, room);
    if (!plain.empty()) block = plain;
  }
  const uint8_t* at = bytes_of(block);
  size_t left = block.size();
  size_t decoded = 0;
  bool wanted = true;
  for (;;) {
    nghttp2_nv field;
    int flags = 0;
    const ssize_t taken = nghttp2_hd_inflate_hd2(inflater_, &field, &flags, at, left, 1);
    if (taken < 0) return false;
    at += taken;
    left -= static_cast<size_t>(taken);
    if ((flags & NGHTTP2_HD_INFLATE_FINAL) != 0) break;
    if ((flags & NGHTTP2_HD_INFLATE_EMIT) == 0) return false;  // Does not happen; no endless loop.
    const bool fitted = decoded <= decoded_max;
    decoded += field.namelen + field.valuelen + kFieldOverhead;
    if (decoded > decoded_max) {
      if (fitted) sink.on_cut();
      wanted = false;
      if (decoded / kBombFactor > decoded_max) {
        too_big_ = true;
        return false;
      }
    }
    if (!wanted) continue;
    wanted = sink.on_field({.name = text_of(field.name, field.namelen),
                            .value = text_of(field.value, field.valuelen),
                            .sensitive = (field.flags & NGHTTP2_NV_FLAG_NO_INDEX) != 0});
  }
  failed_ = nghttp2_hd_inflate_end_headers(inflater_) != 0;
  return !failed_;
}

Deflater::Deflater(uint32_t table_bytes) : own_max_(table_bytes) {
  RW_CHECK(nghttp2_hd_deflate_new2(&deflater_, own_max_, blocks_.mem()) == 0);
}

Deflater::~Deflater() {
  nghttp2_hd_deflate_del(deflater_);
}

void Deflater::limit_table(uint32_t bytes) {
  RW_CHECK(nghttp2_hd_deflate_change_table_size(deflater_, std::min(bytes, own_max_)) == 0);
}

size_t Deflater::encode(std::span<const HeaderField> fields, std::span<char> room) {
  RW_CHECK(!fields.empty());
  size_t bound = 0;
  for (size_t from = 0; from < fields.size(); from += kGroup) {
    const Group group(fields.subspan(from));
    bound += nghttp2_hd_deflate_bound(deflater_, group.fields, group.size);
  }
  if (bound > room.size()) return 0;
  size_t used = 0;
  for (size_t from = 0; from < fields.size(); from += kGroup) {
    const Group group(fields.subspan(from));
    const ssize_t written =
        nghttp2_hd_deflate_hd(deflater_, reinterpret_cast<uint8_t*>(room.data()) + used,
                              room.size() - used, group.fields, group.size);
    RW_CHECK(written > 0);  // It fits, and memory does not run out.
    used += static_cast<size_t>(written);
  }
  return used;
}

}  // namespace ringway::h2
