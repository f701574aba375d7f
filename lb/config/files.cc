// lb/config/files.cc
#include "lb/config/files.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

namespace ringway::config {
namespace {

// One file on its way into the root.
struct Loaded {
  std::string path;
  uint32_t depth = 0;
};

// Tables that files may share: their members are the objects that must not be defined twice.
bool is_shared(std::string_view key) {
  return key == "listeners" || key == "upstreams" || key == "defaults" || key == "logs";
}

class Loader {
 public:
  Loader(Report& report, Node& root) : report_(report), root_(root) {}

  // Recursion is bounded by kIncludeDepthMax. `included_at`: the pattern that named the file.
  bool load(const Loaded& file, const Span* included_at) {
    std::string text;
    const int error = read_whole_file(file.path, kTextBytesMax, text);
    if (error != 0) {
      const Span span = included_at != nullptr ? *included_at : Span{add(file.path, {}), 0, 0, 1};
      report_.error("E0001", span, "cannot read " + file.path + ": " + read_error_text(error));
      return false;
    }
    Node document;
    if (!parse_text(report_, add(file.path, std::move(text)), document)) return false;
    return merge(document, &file);
  }

  bool load_unnamed(const std::string& text, const std::string& name) {
    Node document;
    if (!parse_text(report_, add(name, text), document)) return false;
    return merge(document, nullptr);
  }

 private:
  uint32_t add(const std::string& name, std::string text) {
    return report_.add_source(name, std::move(text));
  }

  // `file` is null for a text.
  bool merge(Node& document, const Loaded* file) {
    bool good = true;
    if (root_.span.line == 0) root_.span = document.span;  // of the first file
    replace_references(report_, document);
    if (const Node* include = document.find("include"); include != nullptr) {
      good = follow(*include, file);
    }
    for (Node& child : document.children) {
      if (child.key == "include") continue;
      Node* known = find(root_, child.key);
      if (known == nullptr || known->kind != child.kind) {
        // If both are there, one of them has the wrong type: reported.
        root_.children.push_back(std::move(child));
      } else if (child.key == "routes") {
        std::move(child.children.begin(), child.children.end(),
                  std::back_inserter(known->children));
      } else if (child.key == "tls") {
        merge_groups(*known, child);
      } else if (is_shared(child.key)) {
        merge_members(*known, child, child.key);
      } else if (child.key != "version") {
        twice(*known, child, "[" + child.key + "]");
      }
    }
    return good;
  }

  // [tls] holds tables of objects.
  void merge_groups(Node& known, Node& more) {
    for (Node& group : more.children) {
      Node* first = find(known, group.key);
      const bool tables =
          first != nullptr && first->kind == Node::Kind::kTable && group.kind == Node::Kind::kTable;
      if (tables) {
        merge_members(*first, group, more.key + "." + group.key);
      } else {
        known.children.push_back(std::move(group));  // a wrong type is reported later
      }
    }
  }

  // `path`: that of both tables.
  void merge_members(Node& known, Node& more, const std::string& path) {
    for (Node& member : more.children) {
      const Node* first = known.find(member.key);
      if (first == nullptr) {
        known.children.push_back(std::move(member));
      } else {
        twice(*first, member, "[" + path + "." + member.key + "]");
      }
    }
  }

  void twice(const Node& first, const Node& second, const std::string& what) {
    report_
        .error("E0107", second.defined_at(), what + " is defined a second time",
               "one object, one place")
        .notes.push_back("it is already defined at " + report_.place(first.defined_at()));
  }

  static Node* find(Node& table, std::string_view key) {
    for (Node& child : table.children) {
      if (child.key == key) return &child;
    }
    return nullptr;
  }

  bool follow(const Node& include, const Loaded* file) {
    const bool list = include.kind == Node::Kind::kArray;
    if (!list && include.kind != Node::Kind::kString) {
      report_.error("E0301", include.span, "`include` must be a string or an array of strings");
      return false;
    }
    if (file == nullptr) {
      report_.error("E0003", include.span, "`include` works in files only");
      return false;
    }
    bool good = true;
    if (!list) return follow_pattern(include, *file);
    for (const Node& item : include.children) {
      if (item.kind == Node::Kind::kString) {
        good = follow_pattern(item, *file) && good;
      } else {
        report_.error("E0301", item.span, "`include` must be a string or an array of strings");
        good = false;
      }
    }
    return good;
  }

  bool follow_pattern(const Node& pattern, const Loaded& file) {
    if (file.depth + 1 > kIncludeDepthMax) {
      report_.error("E0003", pattern.span,
                    "includes are nested more than " + std::to_string(kIncludeDepthMax) + " deep");
      return false;
    }
    std::string full = pattern.text;
    if (!full.starts_with('/')) {
      const size_t slash = file.path.rfind('/');
      if (slash != std::string::npos) full = file.path.substr(0, slash + 1) + full;
    }
    const bool wild = full.find_first_of("*?[") != std::string::npos;
    std::vector<std::string> paths = wild ? expand(full) : std::vector<std::string>{full};
    if (paths.empty()) {
      report_.warning("W0405", pattern.span, "no file matches \"" + pattern.text + "\"");
    }
    bool good = true;
    for (std::string& path : paths) good = follow_path(path, pattern, file) && good;
    return good;
  }

  bool follow_path(const std::string& path, const Node& pattern, const Loaded& file) {
    if (report_.files() >= kFilesMax) {
      report_.error("E0003", pattern.span,
                    "more than " + std::to_string(kFilesMax) + " files are included");
      return false;
    }
    for (uint32_t i = 0; i < report_.files(); ++i) {
      if (report_.name(i) != path) continue;
      report_.error("E0003", pattern.span, path + " is included a second time");
      return false;
    }
    return load(Loaded{path, file.depth + 1}, &pattern.span);
  }

  static std::vector<std::string> expand(const std::string& pattern) {
    glob_t found{};
    std::vector<std::string> paths;
    // NOLINTNEXTLINE(concurrency-mt-unsafe): configurations are loaded on one thread.
    if (glob(pattern.c_str(), GLOB_NOSORT, nullptr, &found) == 0) {
      paths.assign(found.gl_pathv, found.gl_pathv + found.gl_pathc);
    }
    globfree(&found);
    std::sort(paths.begin(), paths.end());  // by bytes, whatever the locale
    return paths;
  }

  Report& report_;
  Node& root_;
};

}  // namespace

int read_whole_file(const std::string& path, size_t bytes_max, std::string& out) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return errno;
  int error = 0;
  char buffer[16 * 1024];
  for (;;) {
    const ssize_t got = read(fd, buffer, sizeof buffer);
    if (got == 0) break;
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) error = errno;
    if (got > 0 && out.size() + static_cast<size_t>(got) > bytes_max) error = EFBIG;
    if (error != 0) break;
    out.append(buffer, static_cast<size_t>(got));
  }
  close(fd);
  return error;
}

std::string read_error_text(int error) {
  char buffer[128];
  return std::string(strerror_r(error, buffer, sizeof buffer)) + " (as uid " +
         std::to_string(geteuid()) + ")";
}

bool read_files(Report& report, const std::string& path, Node& root) {
  return Loader(report, root).load(Loaded{path, 0}, nullptr);
}

bool read_text(Report& report, const std::string& text, const std::string& name, Node& root) {
  return Loader(report, root).load_unnamed(text, name);
}

}  // namespace ringway::config
