// lb/proxy_gate.cc
#include "lb/proxy_gate.h"

#include <netinet/in.h>
#include <string.h>

#include <algorithm>

#include "core/base/check.h"

namespace ringway {
namespace {

using proxy::Status;
using proxy::Tlv;

bool is_trusted(const config::ProxyProtocol& config, const PeerAddress& peer) {
  if (peer.family == PeerAddress::Family::kNone) return config.from_unix;
  return std::any_of(config.from.begin(), config.from.end(),
                     [&](const Network& network) { return network.contains(peer); });
}

ProxyError error_of(proxy::Error error) {
  switch (error) {
    case proxy::Error::kNone: break;
    case proxy::Error::kMalformed: return ProxyError::kMalformed;
    case proxy::Error::kTooLong: return ProxyError::kTooLong;
    case proxy::Error::kUnsupported: return ProxyError::kUnsupported;
    case proxy::Error::kChecksum: return ProxyError::kChecksum;
  }
  RW_CHECK(false);
  return ProxyError::kMalformed;
}

ProxyVerdict refuse(ProxyError error) {
  return {.kind = ProxyVerdict::Kind::kRefused, .error = error};
}

PeerAddress address_of(const proxy::Endpoint& end, proxy::Family family) {
  if (family == proxy::Family::kIPv4) {
    sockaddr_in v4{};
    v4.sin_family = AF_INET;
    v4.sin_port = htons(end.port);
    memcpy(&v4.sin_addr, end.ip.data(), sizeof v4.sin_addr);
    return PeerAddress::from(reinterpret_cast<const sockaddr&>(v4));
  }
  if (family == proxy::Family::kIPv6) {
    sockaddr_in6 v6{};
    v6.sin6_family = AF_INET6;
    v6.sin6_port = htons(end.port);
    memcpy(&v6.sin6_addr, end.ip.data(), sizeof v6.sin6_addr);
    // From here on a mapped address is the IPv4 one, for lists of networks above all.
    return PeerAddress::from(reinterpret_cast<const sockaddr&>(v6));
  }
  return {};
}

// `mapped`: the other end has an IPv6 address, so both are written as such.
proxy::Endpoint endpoint_of(const PeerAddress& address, bool mapped) {
  proxy::Endpoint end{.ip = address.ip, .port = address.port};
  if (!mapped || address.family == PeerAddress::Family::kIPv6) return end;
  end.ip = {};
  end.ip[10] = end.ip[11] = 0xff;
  std::copy(address.ip.begin(), address.ip.begin() + 4, end.ip.begin() + 12);
  return end;
}

}  // namespace

ClientOrigin::~ClientOrigin() {
  if (room_ != nullptr) rooms_.give_back(room_);
}

void ClientOrigin::keep_tlvs(std::string_view tlvs) {
  RW_CHECK(room_ == nullptr);
  keep_first(tlvs, [](Tlv type) {
    return type == Tlv::kAlpn || type == Tlv::kAuthority || type == Tlv::kUniqueId ||
           type == Tlv::kSsl;
  });
  keep_first(tlvs, [](Tlv type) { return type == Tlv::kNetns; });
  custom_at_ = carried_bytes_;
  keep_first(tlvs, proxy::is_custom);
}

// The first of each type that is `wanted`.
void ClientOrigin::keep_first(std::string_view tlvs, bool (*wanted)(Tlv)) {
  proxy::TlvReader reader(tlvs);
  Tlv type{};
  std::string_view value;
  while (reader.next(type, value)) {
    if (!wanted(type) || value.empty() || !proxy::find_tlv(carried_tlvs(), type).empty()) continue;
    if (append(type, value, TlvRoom::kCarriedBytes)) carried_bytes_ = room_->length;
  }
}

bool ClientOrigin::append(Tlv type, std::string_view value, size_t end_max) {
  constexpr size_t kHead = 3;
  if (room_ == nullptr) room_ = rooms_.take();
  if (room_ == nullptr || kHead + value.size() > end_max - room_->length) return false;
  char* const at = room_->bytes.data() + room_->length;
  at[0] = static_cast<char>(type);
  at[1] = static_cast<char>(value.size() >> 8);
  at[2] = static_cast<char>(value.size());
  memcpy(at + kHead, value.data(), value.size());
  room_->length += kHead + value.size();
  return true;
}

bool ClientOrigin::add(Tlv type, std::string_view value) {
  return append(type, value, TlvRoom::kBytes);
}

bool ClientOrigin::set(Tlv type, std::string_view value) {
  forget(type);
  return add(type, value);
}

void ClientOrigin::forget(Tlv type) {
  constexpr size_t kHead = 3;
  const auto own = [this] { return part(carried_bytes_, room_->length); };
  if (room_ == nullptr) return;
  for (std::string_view old; proxy::has_tlv(own(), type, old);) {
    char* const at = room_->bytes.data() + (old.data() - room_->bytes.data()) - kHead;
    const char* const behind = old.data() + old.size();
    const char* const end = room_->bytes.data() + room_->length;
    memmove(at, behind, static_cast<size_t>(end - behind));
    room_->length -= kHead + old.size();
  }
}

std::string_view ClientOrigin::find(Tlv type) const {
  if (room_ == nullptr) return {};
  std::string_view value;
  if (proxy::has_tlv(part(carried_bytes_, room_->length), type, value)) return value;
  const bool of_tls = type == Tlv::kAlpn || type == Tlv::kAuthority || type == Tlv::kSsl;
  return of_tls && tls_kept ? std::string_view() : proxy::find_tlv(carried_tlvs(), type);
}

ProxyVerdict judge_proxy_header(const config::ProxyProtocol& config, const PeerAddress& peer,
                                std::string_view bytes, ProxyInput input) {
  if (config.accept == config::ProxyAccept::kOff) return {.kind = ProxyVerdict::Kind::kNone};
  const bool required = config.accept == config::ProxyAccept::kRequired;
  const bool trusted = is_trusted(config, peer);
  if (required && !trusted) return refuse(ProxyError::kUntrusted);
  const proxy::Parsed parsed = proxy::parse(bytes, config.header_bytes);
  const bool is_header =
      parsed.begun || parsed.status == Status::kDone || parsed.status == Status::kError;
  if (is_header && !trusted) return refuse(ProxyError::kUntrusted);
  switch (parsed.status) {
    case Status::kDone: return {.kind = ProxyVerdict::Kind::kHeader, .header = parsed.header};
    case Status::kError: return refuse(error_of(parsed.error));
    case Status::kAbsent:
      if (required) return refuse(ProxyError::kMissing);
      return {.kind = ProxyVerdict::Kind::kNone};
    case Status::kNeedMore: break;
  }
  switch (input) {
    case ProxyInput::kBytes: break;
    case ProxyInput::kEnd:
      if (required && bytes.empty()) break;
      if (required || is_header) return refuse(ProxyError::kTruncated);
      return {.kind = ProxyVerdict::Kind::kNone};
    case ProxyInput::kLate:
      if (required || !bytes.empty()) return refuse(ProxyError::kTimeout);
      return {.kind = ProxyVerdict::Kind::kNone};
  }
  return {.kind = ProxyVerdict::Kind::kWait};
}

PeerAddress carried_client(const proxy::Header& header, const PeerAddress& real) {
  if (header.local || header.family == proxy::Family::kUnspecified) return real;
  return address_of(header.source, header.family);
}

PeerAddress carried_destination(const proxy::Header& header, const PeerAddress& real) {
  if (header.local || header.family == proxy::Family::kUnspecified) return real;
  return address_of(header.destination, header.family);
}

std::string_view write_proxy_header(config::ProxySend version, const config::ProxyTlvs& tlvs,
                                    const PeerAddress& client, const ClientOrigin& origin,
                                    std::span<char, ClientOrigin::kHeaderBytes> out) {
  RW_CHECK(version != config::ProxySend::kOff);
  proxy::Plan plan;
  const PeerAddress& to = origin.destination;
  constexpr auto kNone = PeerAddress::Family::kNone;
  if (client.family != kNone && to.family != kNone) {
    const bool v6 =
        client.family == PeerAddress::Family::kIPv6 || to.family == PeerAddress::Family::kIPv6;
    plan.family = v6 ? proxy::Family::kIPv6 : proxy::Family::kIPv4;
    plan.source = endpoint_of(client, v6);
    plan.destination = endpoint_of(to, v6);
  }
  std::string_view written;
  if (version == config::ProxySend::kV1) {
    written = proxy::write_v1(plan, out);
  } else {
    if (tlvs.alpn) plan.alpn = origin.find(Tlv::kAlpn);
    if (tlvs.authority) plan.authority = origin.find(Tlv::kAuthority);
    if (tlvs.unique_id) plan.unique_id = origin.find(Tlv::kUniqueId);
    if (tlvs.ssl) plan.ssl = origin.find(Tlv::kSsl);
    if (tlvs.netns) plan.netns = origin.find(Tlv::kNetns);
    if (tlvs.custom) plan.custom = origin.custom_tlvs();
    plan.checksum = tlvs.crc32c;
    written = proxy::write_v2(plan, out);
  }
  RW_CHECK(!written.empty());  // All TLVs together fit into a ClientOrigin.
  return written;
}

bool is_own_header(config::ProxySend version, const config::ProxyTlvs& tlvs,
                   const PeerAddress& client, const ClientOrigin& origin) {
  if (version == config::ProxySend::kV2 && tlvs.unique_id) return true;
  constexpr auto kNone = PeerAddress::Family::kNone;
  // Without addresses it says the same of all clients.
  return client.family != kNone && origin.destination.family != kNone && !origin.carried;
}

std::string_view write_own_proxy_header(config::ProxySend version, std::span<char> out) {
  switch (version) {
    case config::ProxySend::kOff: return {};
    case config::ProxySend::kV1: return proxy::write_v1({.local = true}, out);
    case config::ProxySend::kV2: return proxy::write_v2({.local = true}, out);
  }
  return {};
}

}  // namespace ringway
