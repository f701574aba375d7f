// lb/config/references.cc - ${env:NAME} and ${file:/path} in strings.
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <string>

#include "lb/config/files.h"
#include "lb/config/node.h"
#include "lb/config/report.h"

namespace ringway::config {
namespace {

constexpr size_t kSecretBytesMax = 64U << 10U;

// Where `reference` stands within the string `node`, or the whole string where escapes hide it.
Span find_span(const Report& report, const Node& node, std::string_view reference) {
  const std::string_view line = report.line(node.span.file, node.span.line);
  const size_t at = line.find(reference);
  if (at == std::string_view::npos) return node.span;
  const uint32_t column = count_characters(line.substr(0, at)) + 1;
  if (column < node.span.column) return node.span;
  return {node.span.file, node.span.line, column, count_characters(reference)};
}

bool valid_variable(std::string_view name) {
  if (name.empty() || (name[0] >= '0' && name[0] <= '9')) return false;
  for (const char c : name) {
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
    if (!letter && (c < '0' || c > '9')) return false;
  }
  return true;
}

// Both return false after reporting what is wrong.
bool append_variable(Report& report, const Span& span, std::string_view body, std::string& out) {
  const size_t split = body.find(":-");
  const std::string name(body.substr(0, split));
  if (!valid_variable(name)) {
    report.error("E0312", span, "`" + name + "` is no name of an environment variable");
    return false;
  }
  // NOLINTNEXTLINE(concurrency-mt-unsafe): nothing here ever changes the environment.
  const char* value = getenv(name.c_str());
  if (value != nullptr && (*value != '\0' || split == std::string_view::npos)) {
    out += value;
    return true;
  }
  if (split != std::string_view::npos) {
    out += body.substr(split + 2);
    return true;
  }
  report.error("E0312", span, "environment variable `" + name + "` is not set",
               "write ${env:" + name + ":-default} if it may be absent");
  return false;
}

bool append_secret(Report& report, const Span& span, std::string_view body, std::string& out) {
  const std::string path(body);
  if (!path.starts_with('/')) {
    report.error("E0313", span, "${file:...} needs an absolute path");
    return false;
  }
  std::string text;
  const int error = read_whole_file(path, kSecretBytesMax, text);
  if (error != 0) {
    report.error("E0313", span, "cannot read " + path + ": " + read_error_text(error));
    return false;
  }
  if (text.ends_with('\n')) text.pop_back();  // what an editor or `echo` adds
  out += text;
  return true;
}

void replace_in(Report& report, Node& node) {
  std::string out;
  const std::string_view text = node.text;
  size_t done = 0;
  for (size_t at = text.find("${"); at != std::string_view::npos; at = text.find("${", done)) {
    if (at > done && text[at - 1] == '$') {  // $${ stands for ${
      out.append(text.substr(done, at - 1 - done)).append("${");
      done = at + 2;
      continue;
    }
    out.append(text.substr(done, at - done));
    const size_t close = text.find('}', at);
    const std::string_view whole = text.substr(at, close - at + (close != text.npos ? 1 : 0));
    const Span span = find_span(report, node, whole);
    bool good = false;
    if (whole.starts_with("${env:") && whole.ends_with('}')) {
      good = append_variable(report, span, whole.substr(6, whole.size() - 7), out);
    } else if (whole.starts_with("${file:") && whole.ends_with('}')) {
      good = append_secret(report, span, whole.substr(7, whole.size() - 8), out);
    } else {
      report.error("E0312", span,
                   "a reference is ${env:NAME}, ${env:NAME:-default} or ${file:/path}",
                   "write $${ for a plain ${");
    }
    if (!good) node.unresolved = true;
    done = at + whole.size();
  }
  if (done == 0) return;
  out.append(text.substr(done));
  node.text = std::move(out);
}

}  // namespace

// Recursion: the depth of the tree is bounded (node.h).
void replace_references(Report& report, Node& root) {
  if (root.kind == Node::Kind::kString) replace_in(report, root);
  for (Node& child : root.children) replace_references(report, child);
}

}  // namespace ringway::config
