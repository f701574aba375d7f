// lb/tls/tls_control.h - certificates, keys and authorities over the life of the process.
//
// Affinity:  control thread. Ownership: owned by Control.
// Bounds:    looks at files every kPollMs, for some 10 ms at most; see lb/tls/cert_store.h. The
//            certificates of a new configuration are loaded by as many as the caller asks for.
// Why:       certificates, authorities and revocation lists are replaced and ticket keys rotated
//            without a reload; the shards get them as new TlsMaterials for the same configuration.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/log.h"
#include "core/timers.h"
#include "lb/tls/cert_store.h"
#include "lb/tls/tls_materials.h"
#include "lb/tls/trust_watch.h"

namespace ringway {

class TlsHost {
 public:
  // For all shards: other certificates, ticket keys or authorities for the configuration in force.
  virtual void publish_tls(const std::shared_ptr<const TlsMaterials>& materials) = 0;
  virtual void tls_line(LogLevel level, const std::string& line) = 0;
  [[nodiscard]] virtual int64_t tls_now_ms() = 0;  // a clock that never goes back

 protected:
  ~TlsHost() = default;
};

class TlsControl final : public CertStoreEvents, public TrustEvents, public TimerOwner {
 public:
  TlsControl(Timers& timers, CertFiles& files, TlsHost& host);
  ~TlsControl();

  // A configuration is put in force in four steps. begin() looks at what `config` names for TLS;
  // load() then reads up to `certificates_max` certificates, some 100 us for each that changed, and
  // returns true when all are read. Meanwhile those in use are not looked at, so that what is
  // loaded is never older than what serves; what changed after it was read is seen after commit().
  void begin(const config::Config& config);
  [[nodiscard]] bool load(uint32_t certificates_max);
  // Judges what was loaded and reads the other files. False with `error`, a line for each thing
  // that is wrong; nothing has changed then.
  // REQUIRES: begin(config), and load() returned true.
  [[nodiscard]] bool prepare(const config::Config& config, std::string& error);
  // Puts what was prepared in force and returns it; `config` lives until the next commit().
  // REQUIRES: prepare(config) was the last call and returned true.
  std::shared_ptr<const TlsMaterials> commit(const config::Config& config);
  // Forgets what was begun and not committed; nothing, if nothing was.
  void abandon();
  // What is in force; null before the first commit().
  [[nodiscard]] const std::shared_ptr<const TlsMaterials>& materials() const { return materials_; }
  [[nodiscard]] const CertStore& store() const { return store_; }
  [[nodiscard]] const TrustWatch& trusts() const { return trusts_; }

  void on_certificates(uint32_t profile, const std::shared_ptr<const TlsNames>& names) override;
  void on_certificate_line(LogLevel level, const std::string& line) override;
  void on_client_trust(uint32_t profile, const std::shared_ptr<const TlsTrustText>& text) override;
  void on_server_trust(uint32_t upstream, const std::shared_ptr<const TlsTrustText>& text) override;
  void on_trust_line(LogLevel level, const std::string& line) override;
  void on_timer(Timer& timer) override;

 private:
  static constexpr int64_t kPollMs = 50;
  static constexpr int64_t kKeysEveryMs = 1'000;

  // Per profile.
  struct Keys {
    bool own = false;        // made by this process, which rotates them
    int64_t made_at_ms = 0;  // when the current one of those was
    FileStamp stamp;         // of the tickets' file, if there is one, before it was read
    FileStamp ech;           // likewise
  };

  [[nodiscard]] std::vector<Keys> look_before_reading(const config::Config& config);
  [[nodiscard]] int64_t own_made_at(const std::string& profile, int64_t now_ms) const;
  void look_at_keys(int64_t now_ms);
  void read_keys_again(size_t profile);
  void look_at_ech(size_t profile);
  TlsMaterials& changed();

  Timers& timers_;
  CertFiles& files_;
  TlsHost& host_;
  CertStore store_;
  TrustWatch trusts_;
  Timer timer_;
  const config::Config* config_ = nullptr;
  std::shared_ptr<const TlsMaterials> materials_;
  std::shared_ptr<TlsMaterials> next_;  // to be published at the end of this turn, or null
  std::unique_ptr<CertLoad> load_;      // begun, or null
  std::shared_ptr<TlsMaterials> prepared_;
  std::vector<Keys> prepared_keys_;
  std::vector<Keys> keys_;
  int64_t keys_at_ms_ = 0;
};

}  // namespace ringway
