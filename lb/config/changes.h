// lb/config/changes.h - what a reload changes, in words.
//
// Affinity: control thread, or a tool; pure. Bounds: kNamesMax names of each kind.
#pragma once

#include <string>

#include "lb/config/config.h"

namespace ringway::config {

// "added listener extra; removed route old; changed upstreams app, api; changed [metrics]". Empty:
// both say the same. Objects are told apart by their names; where they stand in the file does not
// count, but for the order of the routes. A default timeout counts for every listener and upstream.
// Complexity: n log n in the number of objects.
[[nodiscard]] std::string changes(const Config& before, const Config& after);

}  // namespace ringway::config
