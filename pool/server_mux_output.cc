// pool/server_mux_output.cc - what goes out to servers, and the end of a shard's turn.
#include <errno.h>

#include <algorithm>
#include <cstring>

#include "core/base/check.h"
#include "pool/server_mux.h"
#include "pool/server_slot.h"

namespace ringway {

// --- what goes out ---

void ServerMux::note_dirty() {
  if (dirty_) return;
  dirty_ = true;
  context_.muxes->dirty_.push_back(this);
}

// The frames are not in order any more: the connection ends with this turn.
void ServerMux::note_broken() {
  broken_ = true;
  note_dirty();
}

void ServerMux::put(std::string_view head, std::string_view payload) {
  if (broken_ || conn_ == nullptr) return;
  append(head);
  append(payload);
  note_dirty();
}

void ServerMux::append(std::string_view bytes) {
  while (!bytes.empty() && !broken_) {
    Chunk* chunk = turn_count_ == 0 ? nullptr : turn_[turn_count_ - 1];
    if (chunk == nullptr || chunk->end == Chunk::kBytes) {
      if (turn_count_ == kTurnChunks) send_gathered();
      chunk = broken_ ? nullptr : context_.stream.chunks.take();
      if (chunk == nullptr) return note_broken();
      turn_[turn_count_++] = chunk;
    }
    const size_t part = std::min<size_t>(bytes.size(), Chunk::kBytes - chunk->end);
    memcpy(chunk->bytes + chunk->end, bytes.data(), part);
    chunk->end += static_cast<uint32_t>(part);
    put_bytes_ += part;
    turn_bytes_ += part;
    bytes.remove_prefix(part);
  }
}

void ServerMux::send_gathered() {
  std::array<iovec, kTurnChunks> pieces{};
  for (size_t i = 0; i < turn_count_; ++i) {
    pieces[i] = {.iov_base = turn_[i]->bytes, .iov_len = turn_[i]->end};
  }
  if (turn_count_ > 0 && !broken_) {
    const bool written = conn_->write(std::span(pieces).first(turn_count_));
    // A call that the kernel refused has sent nothing. Out of memory, a part may be out already.
    const bool nothing = !written && conn_->error() != ENOBUFS && conn_->stream_.tls() == nullptr;
    if (!nothing) {
      conn_->slot().stats().bytes_sent.add(turn_bytes_);
      turn_bytes_ = 0;
    }
    if (!written) note_broken();
  }
  while (turn_count_ > 0) context_.stream.chunks.give_back(turn_[--turn_count_]);
}

// One that is told may end others; so the list is looked at anew.
void ServerMux::tell_settings() {
  const auto waits = [](const ServerStream& stream) { return stream.awaits_settings_; };
  settings_news_ = false;
  for (auto at = std::ranges::find_if(all_, waits); at != all_.end();
       at = std::ranges::find_if(all_, waits)) {
    at->awaits_settings_ = false;
    at->user_->on_stream_settings();
  }
}

// May close the connection.
void ServerMux::flush() {
  dirty_ = false;
  if (conn_ == nullptr) return;
  if (settings_news_) tell_settings();
  if (conn_ == nullptr) return;
  conn_->slot().serve_waiters(*conn_);
  if (conn_ == nullptr) return;
  send_gathered();
  if (broken_) {
    const int error = conn_->error();
    return connection_lost(error == 0 ? ENOBUFS : error, "the connection broke while sending");
  }
  // The server is still read, since it may wait for that; but it must read, too.
  if (conn_->queued() > kQueuedMax) return connection_lost(ENOBUFS, "the server does not read");
}

bool ServerMux::output_blocked() const {
  return broken_ || conn_ == nullptr || session_.dead() || conn_->above_high_water();
}

void ServerMux::keep(ServerStream& stream, std::string_view bytes) {
  const iovec piece{.iov_base = const_cast<char*>(bytes.data()), .iov_len = bytes.size()};
  if (!stream.out_.append(context_.stream.chunks, {&piece, 1}, 0)) return note_broken();
  if (!stream.StreamHook<StreamQueueTag>::is_linked()) waiting_.push_back(stream);
}

// Streams take turns, a frame each. One whose window is closed is passed by.
ServerStream* ServerMux::next_waiting() {
  for (ServerStream& stream : waiting_) {
    if (stream.out_.empty() || session_.sendable(stream) > 0) return &stream;
  }
  return nullptr;
}

void ServerMux::pump() {
  if (pumping_) return;
  pumping_ = true;
  while (!waiting_.empty() && !output_blocked()) {
    ServerStream* stream = next_waiting();
    if (stream == nullptr || !pump_stream(*stream)) break;
  }
  pumping_ = false;
}

bool ServerMux::pump_stream(ServerStream& stream) {
  std::array<iovec, 1> piece{};
  size_t sent = 0;
  if (!stream.out_.empty()) {
    if (stream.out_.peek(piece) == 0) return false;
    const std::string_view bytes(static_cast<const char*>(piece[0].iov_base), piece[0].iov_len);
    const bool last =
        stream.end_waits_ && stream.trailers_.empty() && bytes.size() == stream.out_.bytes();
    sent = session_.send_data(stream, bytes, last);
    stream.out_.consume(context_.stream.chunks, sent);
    if (last && sent == bytes.size()) stream.end_waits_ = false;
  }
  if (stream.out_.empty() && stream.end_waits_) {
    stream.end_waits_ = false;
    session_.send_end(stream, stream.trailers_);
    sent = 1;
  }
  stream.StreamHook<StreamQueueTag>::unlink();
  if (!stream.out_.empty()) waiting_.push_back(stream);
  if (stream.out_.bytes() <= ServerStream::kLowWaterBytes) stream.user_->on_stream_drained();
  return sent > 0;
}

// --- what the connections of a shard share ---

ServerMuxes::~ServerMuxes() {
  RW_CHECK(lost_.empty() && scattered_.empty());
}

void ServerMuxes::prepare(uint32_t head_bytes, uint32_t fields) {
  if (!scratches_.empty() && head_bytes <= head_bytes_ && fields <= fields_) return;
  head_bytes_ = std::max(head_bytes, head_bytes_);
  fields_ = std::max(fields, fields_);
  scratches_.push_back(std::make_unique<h2::SessionScratch>(head_bytes_, fields_));
}

// What users do when they are told may give further work; what is left after some rounds waits for
// the next turn.
void ServerMuxes::flush() {
  for (int round = 0; round < kRoundsPerTurn && pending(); ++round) {
    tell_lost();
    tell_scattered();
    flushing_.swap(dirty_);
    for (ServerMux* mux : flushing_) mux->flush();
    flushing_.clear();
  }
}

void ServerMuxes::tell_lost() {
  StreamList now;
  now.swap(lost_);
  while (!now.empty()) {
    ServerStream& stream = now.front();
    now.pop_front();
    StreamUser& user = *stream.user_;
    if (!stream.lost_) {  // The response is complete; see ServerMux::lose().
      user.on_stream_drained();
      continue;
    }
    stream.user_ = nullptr;
    dead_streams_.push_back(&stream);
    user.on_stream_lost(stream.unseen_, stream.lost_code_, stream.cause_);
  }
}

void ServerMuxes::tell_scattered() {
  // In place, so that one who leaves meanwhile is found; those that come anew have their round.
  for (size_t left = scattered_.size(); left > 0 && !scattered_.empty(); --left) {
    JoinWaiter& waiter = scattered_.front();
    scattered_.pop_front();
    waiter.slot.retake(waiter);
  }
}

void ServerMuxes::reclaim() {
  for (ServerStream* stream : dead_streams_) {
    --stream->mux_.memory_;
    streams_.give_back(stream);
  }
  dead_streams_.clear();
  std::erase_if(dead_muxes_, [this](ServerMux* mux) {
    if (mux->memory_ > 0) return false;  // One of its users is to be told.
    if (mux->dirty_) std::erase(dirty_, mux);
    muxes_.give_back(mux);
    return true;
  });
}

}  // namespace ringway
