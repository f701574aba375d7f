// tests/lb/tls/fake_files.h - a file system in memory, for tests of what watches and reads files.
#pragma once

#include <errno.h>

#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "lb/tls/cert_files.h"
#include "tests/support/make_certificate.h"

namespace ringway::test {

class FakeCertFiles final : public CertFiles {
 public:
  // Writes a file, as a rename over it would: it has another inode then.
  void put(const std::string& path, std::string text) {
    ++clock_;
    File& file = files_[path];
    file = {.text = std::move(text), .inode = clock_, .time = clock_};
    touch_directory(path);
  }
  // Writes into the file that is there; the directory does not notice.
  void overwrite(const std::string& path, std::string text) {
    File& file = files_.at(path);
    file.text = std::move(text);
    file.time = ++clock_;
  }
  // The same so soon after the last change that the time and size are no different.
  void overwrite_unseen(const std::string& path, std::string text) {
    files_.at(path).text = std::move(text);
  }
  void remove(const std::string& path) {
    files_.erase(path);
    ++clock_;
    touch_directory(path);
  }
  // Reading `path` fails from now on; 0: it does no more. Counts as a change, as chmod(2) does.
  void deny(const std::string& path, int error) {
    files_[path].error = error;
    files_[path].time = ++clock_;
  }
  void put_pair(const std::string& stem, const MadeCertificate& made) {
    put(stem + ".pem", made.cert_pem);
    put(stem + ".key", made.key_pem);
  }

  int read(const std::string& path, SecretBytes& out) override {
    ++reads;
    const auto found = files_.find(path);
    if (found == files_.end()) return ENOENT;
    if (found->second.error != 0) return found->second.error;
    out = SecretBytes(found->second.text);
    if (after_read) after_read(path);
    return 0;
  }
  FileStamp stamp(const std::string& path) override {
    const auto directory = directories_.find(path);
    if (directory != directories_.end()) {
      return {.device = 1, .inode = 1, .modified_ns = static_cast<int64_t>(directory->second)};
    }
    const auto found = files_.find(path);
    if (found == files_.end()) return {};
    const File& file = found->second;
    return {.device = 1,
            .inode = file.inode,
            .size = static_cast<int64_t>(file.text.size()),
            .modified_ns = static_cast<int64_t>(file.time),
            .changed_ns = static_cast<int64_t>(file.time)};
  }
  int list(const std::string& directory, std::vector<std::string>& names) override {
    ++lists;
    if (!directories_.contains(directory)) return ENOENT;
    for (const auto& [path, file] : files_) {
      if (path.starts_with(directory + "/")) names.push_back(path.substr(directory.size() + 1));
    }
    return 0;
  }

  int reads = 0;
  int lists = 0;
  // What happens to files the moment after one was read.
  std::function<void(const std::string& path)> after_read;

 private:
  struct File {
    std::string text;
    uint64_t inode = 1;
    uint64_t time = 0;
    int error = 0;
  };
  void touch_directory(const std::string& path) {
    directories_[path.substr(0, path.rfind('/'))] = clock_;
  }

  std::map<std::string, File> files_;
  std::map<std::string, uint64_t> directories_;
  uint64_t clock_ = 0;
};

}  // namespace ringway::test
