// lb/config/sections.h - the sections that make up the schema; each file of tables defines some.
#pragma once

#include "lb/config/schema.h"

namespace ringway::config {

extern const Section kListenerSection;
extern const Section kListenerProxySection;
extern const Section kListenerPrereadSection;
extern const Section kListenerHttp2Section;
extern const Section kListenerCertificateSection;
extern const Section kListenerLimitsSection;
extern const Section kListenerTimeoutsSection;
extern const Section kRouteSection;
extern const Section kMatchSection;
extern const Section kRedirectSection;
extern const Section kRespondSection;
extern const Section kRejectSection;
extern const Section kRewriteSection;
extern const Section kRequestEditsSection;
extern const Section kResponseEditsSection;
extern const Section kRouteTimeoutsSection;
extern const Section kUpstreamSection;
extern const Section kBalanceSection;
extern const Section kServerSection;
extern const Section kServerSocketSection;
extern const Section kPoolSection;
extern const Section kQueueSection;
extern const Section kHealthSection;
extern const Section kExpectSection;
extern const Section kHealthTlsSection;
extern const Section kRetrySection;
extern const Section kUpstreamTimeoutsSection;
extern const Section kTlsSection;
extern const Section kTlsProfileSection;
extern const Section kTlsTicketsSection;
extern const Section kTlsClientAuthSection;
extern const Section kTlsCertificatesSection;
extern const Section kUpstreamTlsSection;
extern const Section kUpstreamTlsCertificateSection;

}  // namespace ringway::config
