// core/tls_names.cc
#include "core/tls_names.h"

#include <utility>

#include "core/base/check.h"
#include "core/base/hash.h"

namespace ringway {
namespace {

constexpr size_t kNameMax = 253;  // RFC 1035 3.1, without the final dot

}  // namespace

bool TlsChoice::empty() const {
  for (const TlsCertificate* certificate : by_type) {
    if (certificate != nullptr) return false;
  }
  return true;
}

TlsNames::TlsNames(std::vector<std::shared_ptr<const TlsCertificate>> certificates)
    : certificates_(std::move(certificates)) {
  size_t names = 0;
  for (const auto& certificate : certificates_) names += certificate->names.size();
  entries_.reserve(names);
  slots_.resize(16);
  while (slots_.size() < 2 * names) slots_.resize(2 * slots_.size());
  for (uint32_t i = 0; i < certificates_.size(); ++i) {
    RW_CHECK(certificates_[i] != nullptr);
    for (const std::string& name : certificates_[i]->names) add(name, i);
  }
  if (certificates_.empty()) return;
  const TlsCertificate& first = *certificates_.front();
  if (!first.names.empty()) fallback_ = find(first.names.front());
  fallback_.by_type[static_cast<size_t>(first.key_type)] = &first;
}

void TlsNames::add(std::string_view name, uint32_t certificate) {
  if (name.empty() || name.size() > kNameMax) return;
  const size_t slot = slot_of(name);
  if (slots_[slot] == 0) {
    RW_CHECK(2 * entries_.size() < slots_.size());
    RW_CHECK(texts_.size() < UINT32_MAX - kNameMax);
    entries_.push_back({.text_at = static_cast<uint32_t>(texts_.size()),
                        .text_len = static_cast<uint8_t>(name.size())});
    texts_ += name;
    slots_[slot] = static_cast<uint32_t>(entries_.size());
  }
  Entry& entry = entries_[slots_[slot] - 1];
  uint32_t& holder = entry.certificate[static_cast<size_t>(certificates_[certificate]->key_type)];
  const bool longer = holder == 0 || certificates_[certificate]->not_after_s >
                                         certificates_[holder - 1]->not_after_s;
  if (longer) holder = certificate + 1;
}

std::string_view TlsNames::text_of(const Entry& entry) const {
  return std::string_view(texts_).substr(entry.text_at, entry.text_len);
}

// The slot that `name` is in, or the free one where it would be. The names are the operator's own,
// so the hash needs no secret key.
size_t TlsNames::slot_of(std::string_view name) const {
  size_t slot = hash_bytes(name, HashKey{}) & (slots_.size() - 1);
  while (slots_[slot] != 0 && text_of(entries_[slots_[slot] - 1]) != name) {
    slot = (slot + 1) & (slots_.size() - 1);
  }
  return slot;
}

const TlsNames::Entry* TlsNames::find_entry(std::string_view name) const {
  const uint32_t found = slots_[slot_of(name)];
  return found == 0 ? nullptr : &entries_[found - 1];
}

TlsChoice TlsNames::choice_of(const Entry& entry) const {
  TlsChoice choice;
  for (size_t type = 0; type < kTlsKeyTypes; ++type) {
    const uint32_t index = entry.certificate[type];
    if (index != 0) choice.by_type[type] = certificates_[index - 1].get();
  }
  return choice;
}

TlsChoice TlsNames::find(std::string_view name) const {
  if (name.ends_with('.')) name.remove_suffix(1);
  // No client can ask for a wildcard itself.
  if (name.empty() || name.size() > kNameMax || name.front() == '*') return {};
  char lower[kNameMax];
  for (size_t i = 0; i < name.size(); ++i) {
    const char c = name[i];
    lower[i] = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  }
  const Entry* entry = find_entry({lower, name.size()});
  if (entry != nullptr) return choice_of(*entry);
  // "x.a.b" -> "*.a.b": the star takes the place of the last character before the dot.
  const size_t dot = std::string_view(lower, name.size()).find('.');
  if (dot == std::string_view::npos || dot == 0) return {};
  lower[dot - 1] = '*';
  entry = find_entry({lower + dot - 1, name.size() - dot + 1});
  return entry == nullptr ? TlsChoice{} : choice_of(*entry);
}

size_t TlsNames::memory_bytes() const {
  return entries_.capacity() * sizeof(Entry) + texts_.capacity() +
         slots_.capacity() * sizeof(uint32_t) + certificates_.capacity() * sizeof certificates_[0];
}

}  // namespace ringway
