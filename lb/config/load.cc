// lb/config/load.cc - the order of things: files, schema, names, checks.
#include "lb/config/load.h"

#include <algorithm>

#include "lb/config/files.h"
#include "lb/config/resolve.h"
#include "lb/config/schema.h"
#include "lb/router.h"

namespace ringway::config {
namespace {

uint32_t count(const std::vector<Diagnostic>& diagnostics, Severity severity) {
  return static_cast<uint32_t>(
      std::count_if(diagnostics.begin(), diagnostics.end(),
                    [severity](const Diagnostic& d) { return d.severity == severity; }));
}

// Warns of routes that an earlier one leaves nothing to. Only a valid draft has sound indices.
void warn_shadowed(Reader& reader) {
  if (reader.report.failed()) return;
  for (const Router::Shadowed& late : Router::find_shadowed(reader.draft.config)) {
    report_shadowed(reader, late.route, late.by);
  }
}

// Reads the tree into a Config. `complete`: every file was read.
LoadResult finish(Report& report, const Node& root, bool complete) {
  LoadResult result;
  result.files = report.files();
  Draft draft;
  Reader reader{report, root, draft};
  // Of a file that is not TOML nothing is known, and nothing should be said.
  if (complete || !root.children.empty()) {
    read_section(reader, root_section(), root, "", &draft);
    resolve(reader, complete);
    check(reader, complete);
    warn_shadowed(reader);
  }
  if (complete && !report.failed()) {
    result.config = std::make_unique<const Config>(std::move(draft.config));
  }
  result.diagnostics = report.take();
  return result;
}

}  // namespace

uint32_t LoadResult::errors() const {
  return count(diagnostics, Severity::kError);
}

uint32_t LoadResult::warnings() const {
  return count(diagnostics, Severity::kWarning);
}

bool Match::empty() const {
  return host.empty() && path.empty() && path_prefix.empty() && path_regex.empty() &&
         method.empty() && headers.empty() && client_certificate == 0;
}

LoadResult load_file(const std::string& path) {
  Report report;
  Node root;
  const bool complete = read_files(report, path, root);
  return finish(report, root, complete);
}

LoadResult load_text(const std::string& text, const std::string& name) {
  Report report;
  Node root;
  const bool complete = read_text(report, text, name, root);
  return finish(report, root, complete);
}

}  // namespace ringway::config
