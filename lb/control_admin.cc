// lb/control_admin.cc - the part of Control that serves the admin API.
#include <string.h>
#include <time.h>

#include <algorithm>
#include <utility>

#include "core/base/utc.h"
#include "lb/control.h"

namespace ringway {

AdminHost::Status Control::status() {
  return {.file = path_,
          .reloads_ok = reloads_ok_,
          .reloads_failed = reloads_failed_,
          .uptime_us = io_->now_us() - started_us_,
          .reloading = reload_is_due(),
          .draining = phase_ != Phase::kServing};
}

uint64_t Control::post_controls() {
  post_to_all({.kind = static_cast<uint32_t>(Mail::kControls)});
  return ++controls_posted_;
}

void Control::audit(const std::string& text) {
  if (own_log_ == nullptr) return;
  // Names come from the configuration and may hold anything; a line stays a line.
  std::string line = text;
  std::replace_if(
      line.begin(), line.end(), [](char c) { return static_cast<uint8_t>(c) < 0x20; }, '?');
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  const UtcText when(now.tv_sec * 1'000'000 + now.tv_nsec / 1000);
  const std::string_view pieces[] = {when.view(), " audit ", line};
  own_log_->write(pieces);
}

bool Control::prepare_admin(const config::Admin& config, std::unique_ptr<AdminSocket>& opened,
                            std::string& error) {
  if (config.socket.empty()) return true;
  if (admin_ != nullptr && admin_->path() == config.socket && admin_->present()) return true;
  opened = AdminSocket::open(config, error);
  return opened != nullptr;
}

void Control::commit_admin(const config::Admin& config, std::unique_ptr<AdminSocket> opened) {
  if (opened == nullptr) {
    if (config.socket.empty()) return retire_admin();
    const int failed = admin_->set_mode(config.mode);
    if (failed == 0) return;
    return say(LogLevel::kError, "admin.socket_mode cannot be set on " + config.socket + ": " +
                                     strerrordesc_np(failed));
  }
  retire_admin();
  admin_ = std::move(opened);
  admin_->start(*io_, *timers_, *api_);
  say(LogLevel::kInfo, "admin socket " + admin_->path());
}

void Control::retire_admin() {
  if (admin_ == nullptr) return;
  admin_->finish();
  old_admin_.push_back(std::move(admin_));
}

void Control::forget_old_admin() {
  std::erase_if(old_admin_, [this](const auto& socket) {
    if (!socket->quiet()) return false;
    api_->forget(socket->server());
    return true;
  });
}

void Control::report_overruled(const Snapshot& before,
                               const std::vector<ServerOverrides>& overrides) {
  size_t at = 0;
  for (size_t i = 0; i < before.servers.size(); ++i) {
    for (size_t j = 0; j < before.servers[i].size(); ++j) {
      const ServerOverrides now = before.servers[i][j]->controls.overrides();
      const ServerOverrides& was = overrides[at++];
      if (now == was) continue;
      audit("configuration " + std::to_string(current_->number) + ": server " +
            before.config->upstreams[i].name + "/" + before.config->upstreams[i].servers[j].name +
            ": it changes what was set at run time and overrules it");
    }
  }
}

}  // namespace ringway
