// lb/pch/pch.hh - library headers that lb is full of, parsed once instead of once per file. A file
// includes what it uses all the same: tools/lint reads each without this (-Db_pch=false).
#include <openssl/ssl.h>
#include <re2/re2.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <boost/intrusive/list.hpp>
#include <boost/intrusive/set.hpp>
#include <charconv>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>
