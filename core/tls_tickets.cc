// core/tls_tickets.cc
#include "core/tls_tickets.h"

#include <openssl/mem.h>
#include <openssl/rand.h>

#include <algorithm>
#include <cstring>

#include "core/base/check.h"

namespace ringway {
namespace {

constexpr size_t kLongFile = 80;
constexpr size_t kShortFile = 48;

bool parse(std::string_view file, TlsTicketKey& key) {
  const auto copy = [&file](size_t at, size_t length, uint8_t* to) {
    std::memcpy(to, file.data() + at, length);
  };
  if (file.size() == kLongFile) {
    copy(0, 16, key.name.data());
    copy(16, 32, key.mac_key.data());
    copy(48, 32, key.cipher_key.data());
    return true;
  }
  if (file.size() != kShortFile) return false;
  key.bits = 128;
  copy(0, 16, key.name.data());
  copy(16, 16, key.cipher_key.data());
  copy(32, 16, key.mac_key.data());
  return true;
}

TlsTicketKey make_random() {
  TlsTicketKey key;
  RAND_bytes(key.name.data(), key.name.size());
  RAND_bytes(key.cipher_key.data(), key.cipher_key.size());
  RAND_bytes(key.mac_key.data(), key.mac_key.size());
  return key;
}

}  // namespace

TlsTicketKey::~TlsTicketKey() {
  OPENSSL_cleanse(cipher_key.data(), cipher_key.size());
  OPENSSL_cleanse(mac_key.data(), mac_key.size());
}

std::shared_ptr<const TlsTicketKeys> TlsTicketKeys::of_files(
    std::span<const std::string_view> files) {
  if (files.empty() || files.size() > kKeysMax) return nullptr;
  auto made = std::make_shared<TlsTicketKeys>();
  made->keys_.reserve(files.size());
  for (const std::string_view file : files) {
    TlsTicketKey key;
    if (!parse(file, key) || made->find(key.name) != nullptr) return nullptr;
    made->keys_.push_back(key);
  }
  return made;
}

std::shared_ptr<const TlsTicketKeys> TlsTicketKeys::random() {
  auto made = std::make_shared<TlsTicketKeys>();
  made->keys_.push_back(make_random());
  return made;
}

std::shared_ptr<const TlsTicketKeys> TlsTicketKeys::rotated(size_t keep) const {
  RW_CHECK(keep < kKeysMax);
  auto made = std::make_shared<TlsTicketKeys>();
  made->keys_.reserve(keep + 1);
  made->keys_.push_back(make_random());
  const size_t kept = std::min(keep, keys_.size());
  made->keys_.insert(made->keys_.end(), keys_.begin(),
                     keys_.begin() + static_cast<ptrdiff_t>(kept));
  return made;
}

const TlsTicketKey* TlsTicketKeys::find(std::span<const uint8_t, 16> name) const {
  for (const TlsTicketKey& key : keys_) {
    if (std::equal(name.begin(), name.end(), key.name.begin())) return &key;
  }
  return nullptr;
}

}  // namespace ringway
