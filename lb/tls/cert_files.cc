// lb/tls/cert_files.cc
#include "lb/tls/cert_files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <utility>

namespace ringway {
namespace {

int64_t to_ns(const timespec& time) {
  return time.tv_sec * 1'000'000'000 + time.tv_nsec;
}

}  // namespace

int DiskCertFiles::read(const std::string& path, SecretBytes& out) {
  // Non-blocking, so that a FIFO of that name does not stop the thread.
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return errno;
  struct stat status {};
  int error = fstat(fd, &status) != 0 ? errno : 0;
  if (error == 0 && S_ISDIR(status.st_mode)) error = EISDIR;
  if (error == 0 && !S_ISREG(status.st_mode)) error = EINVAL;
  if (error == 0 && static_cast<uint64_t>(status.st_size) > kCertFileBytesMax) error = EFBIG;
  SecretBytes bytes(error == 0 ? static_cast<size_t>(status.st_size) : 0);
  size_t done = 0;
  while (error == 0 && done < bytes.size()) {
    const ssize_t got = ::read(fd, bytes.data() + done, bytes.size() - done);
    if (got == 0) break;  // it shrank meanwhile
    if (got > 0) done += static_cast<size_t>(got);
    if (got < 0 && errno != EINTR) error = errno;
  }
  ::close(fd);
  if (error != 0) return error;
  bytes.shrink(done);
  out = std::move(bytes);
  return 0;
}

FileStamp DiskCertFiles::stamp(const std::string& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) return {};
  return {.device = status.st_dev,
          .inode = status.st_ino,
          .size = status.st_size,
          .modified_ns = to_ns(status.st_mtim),
          .changed_ns = to_ns(status.st_ctim)};
}

int DiskCertFiles::list(const std::string& directory, std::vector<std::string>& names) {
  DIR* open = opendir(directory.c_str());
  if (open == nullptr) return errno;
  for (;;) {
    errno = 0;
    // NOLINTNEXTLINE(concurrency-mt-unsafe): nobody else has this stream.
    const dirent* entry = readdir(open);
    if (entry == nullptr) break;
    const std::string name = entry->d_name;
    if (name != "." && name != "..") names.push_back(name);
  }
  const int error = errno;
  closedir(open);
  return error;
}

}  // namespace ringway
