// lb/health/health.cc
#include "lb/health/health.h"

#include <algorithm>
#include <deque>

#include "core/base/check.h"
#include "core/base/hash.h"
#include "lb/health/check.h"

namespace ringway {

struct HealthChecker::Impl final : WatchedOwner {
  // Checks in flight at once; the others wait their turn.
  static constexpr size_t kInFlightMax = 256;

  Impl(Io& from_io, Timers& from_timers, HealthEvents& from_events)
      : io(from_io), timers(from_timers), events(from_events) {}

  bool may_start(Watched& watched) override {
    if (in_flight >= kInFlightMax) {
      waiting.push_back(&watched);
      return false;
    }
    ++in_flight;
    return true;
  }

  void on_check_over() override {
    RW_CHECK(in_flight > 0);
    --in_flight;
    if (waiting.empty()) return;
    Watched* next = waiting.front();
    waiting.pop_front();
    ++in_flight;
    next->start();
  }

  void retire(std::unique_ptr<Watched> watched) {
    waiting.erase(std::remove(waiting.begin(), waiting.end(), watched.get()), waiting.end());
    watched->stop();
    leaving.push_back(std::move(watched));
  }

  void sweep() {
    std::erase_if(leaving, [](const auto& watched) { return watched->quiet(); });
  }

  Io& io;
  Timers& timers;
  HealthEvents& events;
  std::vector<std::unique_ptr<Watched>> watched;
  std::vector<std::unique_ptr<Watched>> leaving;  // stopped, their sockets not closed yet
  std::deque<Watched*> waiting;
  size_t in_flight = 0;
};

HealthChecker::HealthChecker(Io& io, Timers& timers, HealthEvents& events)
    : impl_(std::make_unique<Impl>(io, timers, events)) {}

HealthChecker::~HealthChecker() {
  impl_->sweep();
  RW_CHECK(impl_->leaving.empty() && impl_->watched.empty());
}

void HealthChecker::set_targets(std::vector<CheckTarget> targets) {
  Impl& impl = *impl_;
  impl.sweep();
  std::vector<std::unique_ptr<Watched>> old = std::move(impl.watched);
  impl.watched.clear();
  for (CheckTarget& target : targets) {
    const auto same = std::find_if(old.begin(), old.end(), [&](const auto& watched) {
      if (watched == nullptr) return false;
      const CheckTarget& known = watched->target();
      return known.id == target.id && known.address == target.address &&
             known.health == target.health && known.state == target.state;
    });
    if (same != old.end()) {
      impl.watched.push_back(std::move(*same));
      continue;
    }
    // The first checks of many servers are spread over one interval, the same way each time.
    const auto spread = static_cast<uint64_t>(
        std::max<int64_t>(std::min(target.health.interval, target.health.fast_interval), 1));
    const auto delay = static_cast<int64_t>(hash_bytes(target.id, HashKey{}) % spread);
    impl.watched.push_back(
        std::make_unique<Watched>(impl.io, impl.timers, impl.events, impl, std::move(target)));
    impl.watched.back()->schedule(delay);
  }
  for (auto& watched : old) {
    if (watched != nullptr) impl.retire(std::move(watched));
  }
}

void HealthChecker::stop() {
  for (auto& watched : impl_->watched) impl_->retire(std::move(watched));
  impl_->watched.clear();
}

bool HealthChecker::idle() const {
  impl_->sweep();
  return impl_->watched.empty() && impl_->leaving.empty();
}

}  // namespace ringway
