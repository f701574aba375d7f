// lb/tls/cert_store.h - the certificates in use: watches their files and puts good changes in
// force.
//
// Affinity:  control thread. Ownership: owns the sources; hands out tables by shared_ptr, so shards
//            keep an old one as long as they need.
// Bounds:    one poll() reads kCertLoadsPerPoll certificates, some 6 ms, and looks at the share of
//            the files that is due: each once per cert_round_ms(), some 6 us for a certificate.
// Why:       stat results instead of inotify: they work on NFS, through symbolic links and over any
//            way to replace a file. What changed is read and checked first, and serves only then.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/log.h"
#include "lb/tls/cert_load.h"

namespace ringway {

// Directories, and all files of one that has changed, are looked at within this time.
inline constexpr int64_t kCertRoundMs = 1000;
// Files are looked at no faster otherwise, so that very many cost no more than 8 % of the thread.
inline constexpr int64_t kCertLooksPerSecond = 12'500;
// How long it takes to look at the files of all certificates while no directory changes.
[[nodiscard]] constexpr int64_t cert_round_ms(size_t certificates) {
  const int64_t least_ms = static_cast<int64_t>(certificates) * 1000 / kCertLooksPerSecond;
  return least_ms > kCertRoundMs ? least_ms : kCertRoundMs;
}
// A change that is no good is looked at again after this time: another file may be on its way.
inline constexpr int64_t kCertRetryMs = 300;
inline constexpr int64_t kCertPublishMs = 100;  // changes are gathered for so long
inline constexpr uint32_t kCertLoadsPerPoll = 50;

class CertStoreEvents {
 public:
  // The table of `profile` (an index of the specification) has changed. From poll() only.
  virtual void on_certificates(uint32_t profile, const std::shared_ptr<const TlsNames>& names) = 0;
  // One line for the process log. From adopt() and poll().
  virtual void on_certificate_line(LogLevel level, const std::string& line) = 0;

 protected:
  ~CertStoreEvents() = default;
};

// For the gauge: a certificate in use and when it ends.
struct CertExpiry {
  std::string_view source;  // the name in the configuration
  std::string_view file;
  std::string_view name;  // the first of the certificate, or ""
  int64_t not_after_s = 0;
};

class CertStore {
 public:
  CertStore(CertFiles& files, CertStoreEvents& events);

  // Puts what `load` has loaded in force and logs its warnings. on_certificates() is not called:
  // the caller takes all tables from names().
  // REQUIRES: load.usable().
  void adopt(CertLoad load, int64_t now_ms);
  // What a new CertLoad compares with.
  [[nodiscard]] const std::vector<CertSourceState>& sources() const { return sources_; }
  [[nodiscard]] const std::shared_ptr<const TlsNames>& names(uint32_t profile) const {
    return names_[profile];
  }

  // Looks at the files that are due. Call it every 10 to 100 ms; `now_ms` is of a clock that never
  // goes back, `now_s` Unix time. A replaced certificate is in force within kCertRoundMs +
  // kCertPublishMs and one more call, if no more than kCertLoadsPerPoll change at a time; files of
  // more than kCertLooksPerSecond certificates that are overwritten in place take cert_round_ms().
  void poll(int64_t now_ms, int64_t now_s);

  // Changes on disk that were no good, since the start. A broken file counts once.
  [[nodiscard]] uint64_t reload_failures() const { return reload_failures_; }
  [[nodiscard]] uint64_t reloads() const { return reloads_; }  // certificates replaced or added
  // Valid until the next adopt() or poll().
  [[nodiscard]] std::vector<CertExpiry> expiries() const;

 private:
  // True if some directory has changed.
  [[nodiscard]] bool look_at_directories(int64_t now_ms);
  void list_again(CertSourceState& source, int64_t now_ms);
  void say_odd(CertSourceState& source, std::vector<std::string> odd);
  void start_round(int64_t now_ms, bool hasten);
  // Both stop when this poll() has read enough.
  void look_at_hurried(int64_t now_ms);
  void look_at_due(int64_t now_ms);
  void look_at(CertSourceState& source, CertPair& pair, int64_t now_ms);
  void take(CertSourceState& source, CertPair& pair,
            std::shared_ptr<const TlsCertificate> certificate);
  void fail(CertSourceState& source, CertPair& pair, const std::string& why);
  void publish(int64_t now_ms);
  void say(LogLevel level, const std::string& line) { events_.on_certificate_line(level, line); }

  // One certificate that a round looks at. Pairs are added and removed between rounds only.
  struct Item {
    uint32_t source = 0;
    uint32_t pair = 0;
  };

  CertFiles& files_;
  CertStoreEvents& events_;
  CertSpec spec_;
  std::vector<CertSourceState> sources_;
  std::vector<std::shared_ptr<const TlsNames>> names_;  // by profile
  std::vector<Item> round_;
  size_t next_ = 0;  // of round_
  int64_t round_began_ms_ = 0;
  int64_t round_ms_ = kCertRoundMs;  // how long this one takes
  int64_t directories_ms_ = 0;       // when they were looked at
  bool hurried_ = false;             // some pair has hurry_ms
  bool changed_ = false;             // a source has
  std::vector<uint8_t> emptied_;     // by profile: said that its last certificate stays
  int64_t published_ms_ = 0;
  int64_t now_s_ = 0;
  uint32_t loads_ = 0;  // of this poll()
  uint64_t reload_failures_ = 0;
  uint64_t reloads_ = 0;
};

}  // namespace ringway
