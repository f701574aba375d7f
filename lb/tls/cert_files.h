// lb/tls/cert_files.h - the file system as certificates are read from it: a seam for tests.
//
// Affinity: control thread, or a tool; blocks on the file system.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/pem.h"

namespace ringway {

inline constexpr size_t kCertFileBytesMax = 1U << 20U;

// Tells versions of a file apart. All zero: there is no such file.
struct FileStamp {
  uint64_t device = 0;
  uint64_t inode = 0;
  int64_t size = 0;
  int64_t modified_ns = 0;
  int64_t changed_ns = 0;
  bool operator==(const FileStamp&) const = default;
  [[nodiscard]] bool exists() const { return inode != 0; }
};

class CertFiles {
 public:
  virtual ~CertFiles() = default;
  // The whole file. Returns 0 or an errno; EFBIG beyond kCertFileBytesMax.
  [[nodiscard]] virtual int read(const std::string& path, SecretBytes& out) = 0;
  // Follows symbolic links. All zero if it cannot be looked at for any reason.
  [[nodiscard]] virtual FileStamp stamp(const std::string& path) = 0;
  // The names in a directory, unsorted, without "." and "..". Returns 0 or an errno.
  [[nodiscard]] virtual int list(const std::string& directory, std::vector<std::string>& names) = 0;
};

class DiskCertFiles final : public CertFiles {
 public:
  [[nodiscard]] int read(const std::string& path, SecretBytes& out) override;
  [[nodiscard]] FileStamp stamp(const std::string& path) override;
  [[nodiscard]] int list(const std::string& directory, std::vector<std::string>& names) override;
};

}  // namespace ringway
