// lb/config/resolve.h - what the schema alone cannot say: names, and keys that exclude each other.
//
// Affinity: one thread. Both report what is wrong and leave the draft usable for further checks.
#pragma once

#include "lb/config/schema.h"

namespace ringway::config {

// Resolves names to indices and fills what follows from other keys. `complete` is false if a file
// could not be read: names that are not found may then be there, and are not reported.
void resolve(Reader& reader, bool complete);

// Checks every object by itself and all of them together; changes nothing. Runs after resolve().
void check(Reader& reader, bool complete);

// The parts of both that are about TLS; they call these themselves.
void resolve_tls(Reader& reader, bool complete);
void check_tls(Reader& reader, bool complete);

// Warns (W0410) that the route with index `route` never matches since the one with index `by` takes
// all it would take.
void report_shadowed(Reader& reader, uint32_t route, uint32_t by);

}  // namespace ringway::config
