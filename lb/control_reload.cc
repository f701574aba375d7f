// lb/control_reload.cc - the part of Control that reloads, over as many turns as it takes.
#include <time.h>

#include <utility>

#include "lb/config/changes.h"
#include "lb/control.h"

namespace ringway {
namespace {

// Certificates are loaded for so long in each turn, and between looks at the clock so many.
constexpr int64_t kSliceUs = 5'000;
constexpr uint32_t kCertificatesPerLook = 8;

int64_t monotonic_us() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1'000'000 + now.tv_nsec / 1000;
}

}  // namespace

void Control::report_immutable(const config::Config& next) {
  const config::Config& now = *current_->config;
  const auto say_fixed = [&](const char* key) {
    std::string text(key);
    text += " changed: it takes effect at the next start";
    say(LogLevel::kWarning, text);
  };
  if (now.process.shards != next.process.shards) say_fixed("process.shards");
  if (now.process.cpus != next.process.cpus) say_fixed("process.cpus");
  if (now.process.max_connections != next.process.max_connections) {
    say_fixed("process.max_connections");
  }
  if (now.engine.kind != next.engine.kind || now.engine.entries != next.engine.entries ||
      now.engine.spin_us != next.engine.spin_us || now.engine.receive != next.engine.receive) {
    say_fixed("[engine]");
  }
  if (now.process_log.output != next.process_log.output) say_fixed("logs.process.output");
}

// The file is read at the next step, so that whoever asks while one is loading gets another one.
uint64_t Control::ask_reload() {
  reload_wanted_ = true;
  return reloads_begun_ + 1;
}

void Control::step_reload() {
  if (!reload_is_due()) return;
  if (loading_ == nullptr && !begin_reload()) return;
  if (phase_ != Phase::kServing) return end_reload({.error = "this process is draining"});
  const int64_t until_us = monotonic_us() + kSliceUs;
  while (!tls_->load(kCertificatesPerLook)) {
    if (monotonic_us() >= until_us) return;
  }
  finish_reload();
}

// Reads the file. False: the reload has ended already.
bool Control::begin_reload() {
  reload_wanted_ = false;
  ++reloads_begun_;
  const auto refuse = [this](const Reloaded& outcome) {
    end_reload(outcome);
    return false;
  };
  if (path_.empty()) return refuse({.error = "this process was started without a file"});
  if (phase_ != Phase::kServing) return refuse({.error = "this process is draining"});
  config::LoadResult loaded = config::load_file(path_);
  if (loaded.config == nullptr) {
    ++reloads_failed_;
    const std::string text = config::render(loaded, false);
    say(LogLevel::kError, "reload failed, the configuration in force stays:");
    say_lines(LogLevel::kError, text);
    return refuse({.error = "the configuration is not valid",
                   .text = text,
                   .diagnostics = config::render_json(loaded)});
  }
  loading_ = std::move(loaded.config);
  tls_->begin(*loading_);
  return true;
}

// All of its certificates are there: puts the configuration in force, in this turn.
void Control::finish_reload() {
  report_immutable(*loading_);
  const std::string changed = config::changes(*current_->config, *loading_);
  std::string error;
  if (!apply(std::move(loading_), error)) {
    ++reloads_failed_;
    say(LogLevel::kError, "reload failed, the configuration in force stays: " + error);
    return end_reload({.error = error});
  }
  ++reloads_ok_;
  say(LogLevel::kInfo, "reloaded: configuration " + std::to_string(current_->number) + ": " +
                           (changed.empty() ? "nothing changed" : changed));
  end_reload({.good = true});
}

void Control::end_reload(const Reloaded& outcome) {
  loading_.reset();
  tls_->abandon();
  api_->reloaded(reloads_begun_, outcome);
}

}  // namespace ringway
