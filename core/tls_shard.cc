// core/tls_shard.cc
#include "core/tls_shard.h"

#include <openssl/bio.h>

#include <algorithm>
#include <cstring>

#include "core/base/check.h"
#include "core/stream.h"
#include "core/tls_session.h"

namespace ringway {
namespace {

// BoringSSL asks for the time without saying for whom.
// NOLINTNEXTLINE(cppcoreguidelines-avoid-non-const-global-variables)
constinit thread_local int64_t wall_clock_s = 0;

}  // namespace

struct TlsShard::Bio {
  static int read(BIO* bio, char* out, int length) {
    auto* shard = static_cast<TlsShard*>(BIO_get_data(bio));
    BIO_clear_retry_flags(bio);
    if (shard->input_.empty()) {
      BIO_set_retry_read(bio);
      return -1;
    }
    const size_t count = std::min(shard->input_.size(), static_cast<size_t>(length));
    std::memcpy(out, shard->input_.data(), count);
    shard->input_ = shard->input_.subspan(count);
    return static_cast<int>(count);
  }

  static int write(BIO* bio, const char* bytes, int length) {
    auto* shard = static_cast<TlsShard*>(BIO_get_data(bio));
    RW_CHECK(shard->writer_ != nullptr && shard->writer_ == shard->current_);
    const auto count = static_cast<size_t>(length);
    if (count > kScratchBytes - shard->scratch_size_) shard->writer_->send_scratch();
    if (count > kScratchBytes) {  // Only a huge flight of certificates.
      shard->writer_->send_now({reinterpret_cast<const std::byte*>(bytes), count});
      return length;
    }
    std::memcpy(shard->scratch_.get() + shard->scratch_size_, bytes, count);
    shard->scratch_size_ += count;
    return length;
  }

  static long control(BIO* /*bio*/, int command, long /*number*/, void* /*pointer*/) {  // NOLINT
    return command == BIO_CTRL_FLUSH ? 1 : 0;
  }
};

TlsShard::TlsShard(const TlsShardOptions& options, int64_t now_us)
    : sessions_(options.sessions_max),
      records_per_key_(options.records_per_key),
      gate_(options.gate, now_us),
      method_(BIO_meth_new(BIO_TYPE_SOURCE_SINK, "ringway")),
      plain_(std::make_unique_for_overwrite<std::byte[]>(kPlainBytes)),
      staging_(std::make_unique_for_overwrite<std::byte[]>(kRecordBytes)),
      scratch_(std::make_unique_for_overwrite<std::byte[]>(kScratchBytes)) {
  RW_CHECK(method_ != nullptr);
  BIO_meth_set_read(method_, Bio::read);
  BIO_meth_set_write(method_, Bio::write);
  BIO_meth_set_ctrl(method_, Bio::control);
  bio_ = BIO_new(method_);
  RW_CHECK(bio_ != nullptr);
  BIO_set_data(bio_, this);
  BIO_set_init(bio_, 1);
}

TlsShard::~TlsShard() {
  RW_CHECK(sessions_.in_use() == 0 && ready_.empty());
  BIO_free(bio_);
  BIO_meth_free(method_);
}

void TlsShard::set_wall_seconds(int64_t seconds) {
  wall_clock_s = seconds;
}

int64_t TlsShard::wall_seconds() {
  return wall_clock_s;
}

void TlsShard::enter(TlsSession& session) {
  current_ = &session;
  if (writer_ != nullptr && writer_ != &session) writer_->send_scratch();
  writer_ = &session;
}

void TlsShard::add_clear(std::string_view bytes) {
  RW_CHECK(writer_ == current_ && scratch_size_ == 0 && bytes.size() <= kScratchBytes);
  std::copy(bytes.begin(), bytes.end(), reinterpret_cast<char*>(scratch_.get()));
  scratch_size_ = bytes.size();
}

void TlsShard::make_ready(TlsSession& session) {
  if (!session.is_linked()) ready_.push_back(session);
}

void TlsShard::run(int64_t now_us) {
  gate_.begin_turn();
  int64_t waited_us = 0;
  while (TlsWaiter* waiter = gate_.next(now_us, waited_us)) {
    handshake_wait_.record(static_cast<uint64_t>(waited_us));
    static_cast<TlsSession*>(waiter)->on_admitted();
  }
  // Those that become ready meanwhile wait for the next turn.
  Ready now;
  now.swap(ready_);
  for (int i = 0; i < kReadyPerTurn && !now.empty(); ++i) {
    auto& session = static_cast<TlsSession&>(now.front());
    now.pop_front();
    session.continue_input();
  }
  ready_.splice(ready_.begin(), now);
}

int TlsShard::next_in_ms(int64_t now_us) const {
  return ready_.empty() ? gate_.next_in_ms(now_us) : 0;
}

}  // namespace ringway
