// lb/admin/metrics.cc
#include "lb/admin/metrics.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <utility>

#include "core/base/check.h"

namespace ringway {
namespace {

// LatencyHistogram::kBoundsUs in seconds, as written.
constexpr std::array<std::string_view, LatencyHistogram::kBuckets> kBounds = {
    "0.0001", "0.00025", "0.0005", "0.001", "0.0025", "0.005", "0.01", "0.025", "0.05",
    "0.1",    "0.25",    "0.5",    "1",     "2.5",    "5",     "10",   "+Inf"};

bool valid_name(std::string_view name, bool colon) {
  if (name.empty() || (name[0] >= '0' && name[0] <= '9')) return false;
  return std::all_of(name.begin(), name.end(), [colon](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           (c == ':' && colon);
  });
}

}  // namespace

void MetricsWriter::family(std::string_view name, std::string_view help, MetricType type) {
  RW_CHECK(valid_name(name, true));
  RW_CHECK(std::find(names_.begin(), names_.end(), name) == names_.end());
  name_ = name;
  names_.push_back(name_);
  type_ = type;
  text_.append("# HELP ").append(name).append(" ");
  put_escaped(help, false);
  text_.append("\n# TYPE ").append(name);
  switch (type) {
    case MetricType::kCounter: text_ += " counter\n"; break;
    case MetricType::kGauge: text_ += " gauge\n"; break;
    case MetricType::kHistogram: text_ += " histogram\n"; break;
  }
}

void MetricsWriter::sample(MetricLabels labels, uint64_t value) {
  RW_CHECK(type_ != MetricType::kHistogram);
  begin_sample("", labels, "");
  put_number(value);
  text_ += '\n';
}

void MetricsWriter::sample(MetricLabels labels, double value) {
  RW_CHECK(type_ != MetricType::kHistogram);
  begin_sample("", labels, "");
  put_number(value);
  text_ += '\n';
}

void MetricsWriter::histogram(MetricLabels labels, const LatencySnapshot& latency) {
  RW_CHECK(type_ == MetricType::kHistogram);
  uint64_t so_far = 0;
  for (size_t i = 0; i < kBounds.size(); ++i) {
    so_far += latency.buckets[i];
    begin_sample("_bucket", labels, kBounds[i]);
    put_number(so_far);
    text_ += '\n';
  }
  begin_sample("_sum", labels, "");
  put_number(static_cast<double>(latency.sum_us) / 1e6);
  text_ += '\n';
  begin_sample("_count", labels, "");
  put_number(so_far);
  text_ += '\n';
}

std::string MetricsWriter::take() {
  name_.clear();
  names_.clear();
  return std::exchange(text_, {});
}

// "name_suffix{label="value",...,le="bound"} ", without le if that is empty.
void MetricsWriter::begin_sample(std::string_view suffix, MetricLabels labels,
                                 std::string_view le) {
  RW_CHECK(!name_.empty());
  text_.append(name_).append(suffix);
  char before = '{';
  for (const MetricLabel& label : labels) {
    RW_CHECK(valid_name(label.name, false) && label.name != "le");
    text_ += std::exchange(before, ',');
    text_.append(label.name).append("=\"");
    put_escaped(label.value, true);
    text_ += '"';
  }
  if (!le.empty()) {
    text_ += std::exchange(before, ',');
    text_.append("le=\"").append(le).append("\"");
  }
  text_ += before == '{' ? " " : "} ";
}

void MetricsWriter::put_escaped(std::string_view text, bool quotes) {
  for (const char c : text) {
    if (c == '\n') {
      text_ += "\\n";
    } else if (c == '\\' || (c == '"' && quotes)) {
      text_ += '\\';
      text_ += c;
    } else {
      text_ += c;
    }
  }
}

void MetricsWriter::put_number(uint64_t value) {
  char digits[20];
  text_.append(digits, std::to_chars(digits, digits + sizeof digits, value).ptr);
}

void MetricsWriter::put_number(double value) {
  if (std::isnan(value)) {
    text_ += "NaN";
  } else if (std::isinf(value)) {
    text_ += value > 0 ? "+Inf" : "-Inf";
  } else {
    char digits[32];
    text_.append(digits, std::to_chars(digits, digits + sizeof digits, value).ptr);
  }
}

}  // namespace ringway
