// lb/config/files.h - reading configuration files and the files that they include.
//
// Affinity:  control thread or a tool; blocks on the file system.
// Bounds:    kTextBytesMax per file, kFilesMax files, kIncludeDepthMax levels of include.
#pragma once

#include <string>

#include "lb/config/node.h"
#include "lb/config/report.h"

namespace ringway::config {

inline constexpr uint32_t kFilesMax = 1000;
inline constexpr uint32_t kIncludeDepthMax = 4;

// Reads a regular file, pipe or device of at most `bytes_max`. Returns 0 or an errno (EFBIG).
[[nodiscard]] int read_whole_file(const std::string& path, size_t bytes_max, std::string& out);

// "Permission denied (as uid 1000)".
[[nodiscard]] std::string read_error_text(int error);

// Reads `path` and what it includes, and joins them into `root`: included files stand where their
// `include` stands, before the rest of the file. False if anything could not be read or parsed;
// `root` then holds the rest.
[[nodiscard]] bool read_files(Report& report, const std::string& path, Node& root);

// The same for a text without a file; includes are errors.
[[nodiscard]] bool read_text(Report& report, const std::string& text, const std::string& name,
                             Node& root);

}  // namespace ringway::config
