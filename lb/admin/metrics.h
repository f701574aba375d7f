// lb/admin/metrics.h - writes metrics in Prometheus' text format, version 0.0.4.
//
// Affinity:  one thread, the control thread; a writer lives for one scrape.
// Source:    prometheus.io "Exposition formats".
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/histogram.h"

namespace ringway {

enum class MetricType : uint8_t { kCounter, kGauge, kHistogram };

struct MetricLabel {
  std::string_view name;   // [a-zA-Z_][a-zA-Z0-9_]*
  std::string_view value;  // any text; escaped when written
};
using MetricLabels = std::span<const MetricLabel>;

class MetricsWriter {
 public:
  static constexpr std::string_view kContentType = "text/plain; version=0.0.4; charset=utf-8";

  // Begins a family: all samples until the next one belong to it. `name` is a valid metric name
  // that was not begun before (the format wants each family in one piece); `help` is one sentence.
  void family(std::string_view name, std::string_view help, MetricType type);

  // A counter or gauge. REQUIRES: a family that is no histogram.
  void sample(MetricLabels labels, uint64_t value);
  void sample(MetricLabels labels, double value);

  // A latency in seconds: _bucket for each bound, _sum and _count. REQUIRES: a histogram family.
  // `labels` must not contain "le".
  void histogram(MetricLabels labels, const LatencySnapshot& latency);

  // The text so far; the writer is empty afterwards.
  [[nodiscard]] std::string take();

 private:
  void begin_sample(std::string_view suffix, MetricLabels labels, std::string_view le);
  void put_escaped(std::string_view text, bool quotes);
  void put_number(uint64_t value);
  void put_number(double value);

  std::string text_;
  std::string name_;                // of the current family
  std::vector<std::string> names_;  // of all families
  MetricType type_ = MetricType::kCounter;
};

}  // namespace ringway
