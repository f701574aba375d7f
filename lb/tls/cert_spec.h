// lb/tls/cert_spec.h - where certificates come from and which profile uses them: plain values.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace ringway {

// One entry of [tls.certificates].
struct CertSource {
  enum class Kind : uint8_t {
    kPair,      // `cert` and `key`
    kCombined,  // both in `cert`
    kDirectory  // NAME.pem or NAME.crt with NAME.key, or NAME.pem with both, in `directory`
  };
  std::string name{};
  Kind kind = Kind::kPair;
  std::string cert{};
  std::string key{};
  std::string directory{};
  bool watch = true;  // look for changes while serving
  bool operator==(const CertSource&) const = default;
};

struct CertProfile {
  std::string name{};
  std::vector<uint32_t> sources;  // indices, in the order of the configuration; never empty
};

struct CertSpec {
  std::vector<CertSource> sources;
  std::vector<CertProfile> profiles;
};

}  // namespace ringway
