// lb/worker_tls.cc - a worker's TLS follows the configuration, and files that change without it.
#include "lb/worker.h"

namespace ringway {

void Worker::log_lines(const std::vector<std::string>& lines) {
  for (const std::string& line : lines) {
    const std::string_view pieces[] = {line};
    log_event(pieces);
  }
}

void Worker::apply_tls() {
  static const TlsMaterials none;
  const Snapshot& snapshot = *current_->snapshot;
  const TlsMaterials& materials = snapshot.tls != nullptr ? *snapshot.tls : none;
  log_lines(tls_.apply(*snapshot.config, materials));
}

void Worker::refresh_tls(const TlsMaterials& materials) {
  log_lines(tls_.update(materials));
}

}  // namespace ringway
