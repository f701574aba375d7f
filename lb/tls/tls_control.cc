// lb/tls/tls_control.cc
#include "lb/tls/tls_control.h"

#include <time.h>

#include <utility>

#include "core/base/check.h"
#include "lb/tls/cert_check.h"

namespace ringway {
namespace {

int64_t wall_s() {
  return time(nullptr);
}

std::string line_of(const config::Diagnostic& diagnostic) {
  const config::Position& at = diagnostic.position;
  return at.file + ":" + std::to_string(at.line) + ":" + std::to_string(at.column) + ": " +
         diagnostic.message;
}

}  // namespace

TlsControl::TlsControl(Timers& timers, CertFiles& files, TlsHost& host)
    : timers_(timers),
      files_(files),
      host_(host),
      store_(files, *this),
      trusts_(files, *this),
      timer_(*this) {}

TlsControl::~TlsControl() {
  timers_.cancel(timer_);
}

// What changes while it is read, or before it is in force, is seen as changed by the first look.
std::vector<TlsControl::Keys> TlsControl::look_before_reading(const config::Config& config) {
  std::vector<Keys> all;
  all.reserve(config.tls_profiles.size());
  for (const config::TlsProfile& profile : config.tls_profiles) {
    Keys keys;
    keys.own = profile.tickets.enabled && profile.tickets.keys.empty();
    if (profile.tickets.enabled && !keys.own) keys.stamp = files_.stamp(profile.tickets.keys.path);
    if (!profile.ech.empty()) keys.ech = files_.stamp(profile.ech.path);
    all.push_back(keys);
  }
  return all;
}

// Since when the keys are in use that read_tls_materials() takes over for a profile, or makes.
int64_t TlsControl::own_made_at(const std::string& profile, int64_t now_ms) const {
  for (size_t i = 0; i < keys_.size(); ++i) {
    if (keys_[i].own && config_->tls_profiles[i].name == profile) return keys_[i].made_at_ms;
  }
  return now_ms;
}

void TlsControl::begin(const config::Config& config) {
  abandon();
  prepared_keys_ = look_before_reading(config);
  load_ = std::make_unique<CertLoad>(files_, cert_spec_of(config), &store_.sources(), wall_s());
}

bool TlsControl::load(uint32_t certificates_max) {
  RW_CHECK(load_ != nullptr);
  return load_->step(certificates_max);
}

void TlsControl::abandon() {
  load_.reset();
  prepared_.reset();
  prepared_keys_.clear();
}

bool TlsControl::prepare(const config::Config& config, std::string& error) {
  RW_CHECK(load_ != nullptr && load_->done());
  error.clear();
  const auto add = [&](const std::string& line) { error += (error.empty() ? "" : "\n") + line; };
  for (const CertProblem& problem : load_->problems()) {
    if (!problem.warning) add(line_of(diagnose(config, problem)));
  }
  for (const config::Diagnostic& diagnostic : check_other_tls_files(config, files_)) {
    add(line_of(diagnostic));
  }
  if (!error.empty() || !load_->usable()) {
    if (error.empty()) error = "a TLS profile has no certificate";
    return false;
  }
  std::vector<std::shared_ptr<const TlsNames>> names;
  for (uint32_t i = 0; i < config.tls_profiles.size(); ++i) names.push_back(load_->names_of(i));
  prepared_ = std::make_shared<TlsMaterials>();
  return read_tls_materials(config, files_, names, {config_, materials_.get()}, *prepared_, error);
}

std::shared_ptr<const TlsMaterials> TlsControl::commit(const config::Config& config) {
  RW_CHECK(load_ != nullptr && prepared_ != nullptr);
  const int64_t now = host_.tls_now_ms();
  store_.adopt(std::move(*load_), now);
  load_.reset();
  // Keys that stay go on ageing: reloads must not put off their rotation.
  for (size_t i = 0; i < prepared_keys_.size(); ++i) {
    prepared_keys_[i].made_at_ms = own_made_at(config.tls_profiles[i].name, now);
  }
  keys_ = std::move(prepared_keys_);
  prepared_keys_.clear();
  config_ = &config;
  materials_ = std::move(prepared_);
  prepared_.reset();
  trusts_.start(config, *materials_);
  timers_.cancel(timer_);
  timers_.set(timer_, now + kPollMs);
  return materials_;
}

TlsMaterials& TlsControl::changed() {
  if (next_ == nullptr) next_ = std::make_shared<TlsMaterials>(*materials_);
  return *next_;
}

void TlsControl::on_certificates(uint32_t profile, const std::shared_ptr<const TlsNames>& names) {
  changed().profiles[profile].names = names;
}

void TlsControl::on_certificate_line(LogLevel level, const std::string& line) {
  host_.tls_line(level, line);
}

void TlsControl::on_client_trust(uint32_t profile,
                                 const std::shared_ptr<const TlsTrustText>& text) {
  changed().profiles[profile].client_trust = text;
}

void TlsControl::on_server_trust(uint32_t upstream,
                                 const std::shared_ptr<const TlsTrustText>& text) {
  changed().upstreams[upstream].trust = text;
}

void TlsControl::on_trust_line(LogLevel level, const std::string& line) {
  host_.tls_line(level, line);
}

void TlsControl::read_keys_again(size_t profile) {
  const config::TlsProfile& config = config_->tls_profiles[profile];
  std::string error;
  auto keys = read_ticket_keys(config.tickets.keys.path, files_, error);
  if (keys == nullptr) {
    return host_.tls_line(LogLevel::kWarning, "ticket keys stay as they are: " + error);
  }
  changed().profiles[profile].keys = std::move(keys);
  host_.tls_line(LogLevel::kInfo, "ticket keys read again: " + config.tickets.keys.path);
}

void TlsControl::look_at_ech(size_t profile) {
  const std::string& path = config_->tls_profiles[profile].ech.path;
  const FileStamp stamp = files_.stamp(path);
  if (stamp == keys_[profile].ech || !stamp.exists()) return;
  keys_[profile].ech = stamp;
  std::string error;
  auto read = read_ech_keys(path, files_, error);
  if (read == nullptr) {
    return host_.tls_line(LogLevel::kWarning, "keys of ECH stay as they are: " + error);
  }
  changed().profiles[profile].ech = std::move(read);
  host_.tls_line(LogLevel::kInfo, "keys of ECH read again: " + path);
}

void TlsControl::look_at_keys(int64_t now_ms) {
  for (size_t i = 0; i < keys_.size(); ++i) {
    if (!config_->tls_profiles[i].ech.empty()) look_at_ech(i);
    const config::TlsTickets& tickets = config_->tls_profiles[i].tickets;
    if (keys_[i].own && now_ms >= keys_[i].made_at_ms + tickets.rotate) {
      keys_[i].made_at_ms = now_ms;
      // Tickets are good until the second rotation after they were given.
      changed().profiles[i].keys = materials_->profiles[i].keys->rotated(1);
      host_.tls_line(LogLevel::kInfo,
                     "ticket keys rotated: profile " + config_->tls_profiles[i].name);
    }
    if (!tickets.enabled || tickets.keys.empty()) continue;
    const FileStamp stamp = files_.stamp(tickets.keys.path);
    if (stamp == keys_[i].stamp || !stamp.exists()) continue;
    keys_[i].stamp = stamp;
    read_keys_again(i);
  }
}

void TlsControl::on_timer(Timer& timer) {
  const int64_t now = host_.tls_now_ms();
  if (load_ == nullptr) store_.poll(now, wall_s());
  if (now >= keys_at_ms_) {
    keys_at_ms_ = now + kKeysEveryMs;
    look_at_keys(now);
    trusts_.poll();
  }
  if (next_ != nullptr) {
    materials_ = std::exchange(next_, nullptr);
    host_.publish_tls(materials_);
  }
  timers_.set(timer, now + kPollMs);
}

}  // namespace ringway
