// core/tls_failure.h - turns what BoringSSL says after a failed call into a TlsFailure.
#pragma once

#include "core/tls_facts.h"

namespace ringway {

class TlsSession;

// Of the thread's error queue; right after the call. `handshake`: it was part of one.
[[nodiscard]] TlsFailure tls_failure(const TlsSession& session, bool handshake);

}  // namespace ringway
