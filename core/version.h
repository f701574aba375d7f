// core/version.h - the version of Ringway, as the programs print it and the API says it.
#pragma once

namespace ringway {

inline constexpr const char* kVersion = "0.1.0";

}  // namespace ringway
