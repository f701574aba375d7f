// lb/tls/trust_watch.h - authorities and revocation lists in use: their files are read again when
// they change.
//
// Affinity:  control thread. Ownership: owns copies of paths; texts are shared with the shards.
// Bounds:    one poll() looks at all files once, some 3 us each, and reads those that have changed.
// Why:       a revocation list is replaced every few hours, and a reload for it would be a chore
// that
//            is forgotten. What changed is checked first; one that is no good leaves the old in
//            force.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/log.h"
#include "lb/config/config.h"
#include "lb/tls/cert_files.h"
#include "lb/tls/tls_materials.h"

namespace ringway {

class TrustEvents {
 public:
  // Other authorities or lists for the clients of a profile, for the servers of an upstream
  // (indices of the configuration). From poll() only.
  virtual void on_client_trust(uint32_t profile,
                               const std::shared_ptr<const TlsTrustText>& text) = 0;
  virtual void on_server_trust(uint32_t upstream,
                               const std::shared_ptr<const TlsTrustText>& text) = 0;
  virtual void on_trust_line(LogLevel level, const std::string& line) = 0;

 protected:
  ~TrustEvents() = default;
};

class TrustWatch {
 public:
  TrustWatch(CertFiles& files, TrustEvents& events) : files_(files), events_(events) {}

  // Watches what `config` names from now on; `materials` are what was read of it.
  void start(const config::Config& config, const TlsMaterials& materials);
  // Once in a second, say: a change is in force with the call that sees it. A bad one is looked at
  // again by the next call, since it may be half written, before it is told and counted.
  void poll();

  // Changes that were put in force, and those that were no good, since the start.
  [[nodiscard]] uint64_t reloads() const { return reloads_; }
  [[nodiscard]] uint64_t failures() const { return failures_; }

 private:
  struct Entry {
    bool of_clients = false;
    uint32_t index = 0;  // of the profile, or the upstream
    config::FilePath ca;
    config::FilePath crl;  // empty: none
    std::shared_ptr<const TlsTrustText> text;
    std::array<FileStamp, 2> stamps{};  // when last read
    bool again = false;                 // to be read once more, whatever the stamps say
    bool reported = false;              // that it is no good
  };

  void look_at(Entry& entry);
  void take(Entry& entry, TlsTrustText text);
  // Empty: both files are good, and `out` has them.
  [[nodiscard]] std::string read(const Entry& entry, TlsTrustText& out);

  CertFiles& files_;
  TrustEvents& events_;
  std::vector<Entry> entries_;
  uint64_t reloads_ = 0;
  uint64_t failures_ = 0;
};

}  // namespace ringway
