// lb/tls/client_facts.h - what is known of a client's TLS, or said of it by a PROXY header, for the
// access log and for servers.
//
// Affinity:  one shard. Views point into the session and live as long as it.
#pragma once

#include "lb/access_log.h"
#include "lb/proxy_gate.h"

namespace ringway {

class TlsSession;

// Fills in what the client's PROXY header said. `origin` null: there was none, nothing changes. To
// be called before the next one.
void log_client_origin(const ClientOrigin* origin, AccessRecord& record);
// Fills the TLS fields of `record`. `tls` null: the client speaks in clear, nothing changes.
void log_client_tls(const TlsSession* tls, AccessRecord& record);
// Puts ALPN, AUTHORITY and SSL of the client's TLS into `origin`, in place of what its PROXY header
// said of a connection in front of this one. TLVs that find no room are left out.
void keep_tls_tlvs(const TlsSession& tls, ClientOrigin& origin);

}  // namespace ringway
