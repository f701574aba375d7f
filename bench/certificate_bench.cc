// bench/certificate_bench.cc - what many certificates cost: loading, the table of names, look-ups.
//
// Usage: bench/certificate_bench; it writes its certificates below /tmp and removes them.
// Budget: a look-up is made once per handshake (some 100 us of CPU), so 200 ns is nothing. Loading
// is linear: twice as many pairs, twice the time.
#include <benchmark/benchmark.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <time.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "core/base/check.h"
#include "core/tls_names.h"
#include "lb/tls/cert_store.h"
#include "tests/support/make_certificate.h"

using namespace ringway;
using namespace ringway::test;

namespace {

// `count` ECDSA pairs in one directory; removed at the end.
class PairsOnDisk {
 public:
  explicit PairsOnDisk(int64_t count) : count_(count) {
    char name[] = "/tmp/ringway-bench-XXXXXX";
    RW_CHECK(mkdtemp(name) != nullptr);
    path_ = name;
    for (int64_t i = 0; i < count; ++i) write(i);
  }
  ~PairsOnDisk() { std::filesystem::remove_all(path_); }
  PairsOnDisk(const PairsOnDisk&) = delete;
  PairsOnDisk& operator=(const PairsOnDisk&) = delete;
  // Other times for the same bytes.
  void touch() const {
    for (const auto& entry : std::filesystem::directory_iterator(path_)) {
      std::filesystem::last_write_time(entry, std::filesystem::file_time_type::clock::now());
    }
  }
  // The same files with other certificates, by rename.
  void replace() const {
    for (int64_t i = 0; i < count_; ++i) write(i);
  }
  [[nodiscard]] CertSpec spec() const {
    CertSource source;
    source.kind = CertSource::Kind::kDirectory;
    source.directory = path_;
    return {.sources = {source}, .profiles = {{.name = "p", .sources = {0}}}};
  }

 private:
  void write(int64_t number) const {
    const std::string host = "tenant" + std::to_string(number) + ".example.test";
    const MadeCertificate made = make_certificate({.names = {host, "www." + host}});
    const auto put = [&](const std::string& name, const std::string& text) {
      const std::string hidden = path_ + "/." + name;
      std::ofstream(hidden) << text;
      std::filesystem::rename(hidden, path_ + "/" + name);
    };
    put(host + ".pem", made.cert_pem);
    put(host + ".key", made.key_pem);
  }

  int64_t count_;
  std::string path_;
};

struct Silent final : CertStoreEvents {
  void on_certificates(uint32_t /*profile*/,
                       const std::shared_ptr<const TlsNames>& /*names*/) override {}
  void on_certificate_line(LogLevel /*level*/, const std::string& /*line*/) override {}
};

// Names only: what the table reads.
std::vector<std::shared_ptr<const TlsCertificate>> named(int64_t count) {
  std::vector<std::shared_ptr<const TlsCertificate>> all;
  for (int64_t i = 0; i < count; ++i) {
    const std::string host = "tenant" + std::to_string(i) + ".example.test";
    auto made = std::make_shared<TlsCertificate>();
    made->names = {host, "*." + host};
    made->key_type = TlsKeyType::kEcdsaP256;
    all.push_back(std::move(made));
  }
  return all;
}

// Resident memory of this process.
int64_t resident_bytes() {
  int64_t total = 0;
  int64_t resident = 0;
  std::ifstream("/proc/self/statm") >> total >> resident;
  return resident * 4096;
}

void bm_load(benchmark::State& state) {
  const PairsOnDisk disk(state.range(0));
  DiskCertFiles files;
  int64_t bytes = 0;
  for (auto _ : state) {
    const int64_t before = resident_bytes();
    CertLoad load(files, disk.spec(), nullptr, 0);
    RW_CHECK(load.step(1'000'000));
    RW_CHECK(load.num_certificates() == state.range(0));
    bytes = std::max(bytes, resident_bytes() - before);
  }
  state.counters["bytes_each"] = static_cast<double>(bytes / state.range(0));
  state.SetItemsProcessed(state.iterations() * state.range(0));
}
BENCHMARK(bm_load)->Arg(50'000)->Unit(benchmark::kMillisecond)->Iterations(1);
BENCHMARK(bm_load)->Arg(10'000)->Arg(1'000)->Unit(benchmark::kMillisecond)->Iterations(1);

// A reload with nothing changed on disk.
void bm_load_again(benchmark::State& state) {
  const PairsOnDisk disk(state.range(0));
  DiskCertFiles files;
  CertLoad first(files, disk.spec(), nullptr, 0);
  RW_CHECK(first.step(1'000'000));
  const std::vector<CertSourceState> before = first.take_sources();
  for (auto _ : state) {
    CertLoad load(files, disk.spec(), &before, 0);
    RW_CHECK(load.step(1'000'000));
    RW_CHECK(load.num_reused() == state.range(0));
  }
}
BENCHMARK(bm_load_again)->Arg(10'000)->Unit(benchmark::kMillisecond)->Iterations(5);

// CPU time of this thread.
double cpu_ms() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) * 1e3 + static_cast<double>(now.tv_nsec) / 1e6;
}

// Runs `work` and remembers in `longest` if nothing took longer.
template <typename Work>
void timed(double& longest, Work work) {
  const double began = cpu_ms();
  work();
  longest = std::max(longest, cpu_ms() - began);
}

// A reload with everything changed, as the control thread makes it: the parts that it cannot cut.
void bm_reload_parts(benchmark::State& state) {
  const PairsOnDisk disk(state.range(0));
  DiskCertFiles files;
  Silent silent;
  CertStore store(files, silent);
  CertLoad first(files, disk.spec(), nullptr, INT32_MAX);
  RW_CHECK(first.step(UINT32_MAX));
  store.adopt(std::move(first), 0);
  disk.touch();
  double begin_ms = 0;
  double step_ms = 0;
  double end_ms = 0;
  for (auto _ : state) {
    std::unique_ptr<CertLoad> load;
    timed(begin_ms, [&] {
      load = std::make_unique<CertLoad>(files, disk.spec(), &store.sources(), INT32_MAX);
    });
    bool done = false;
    while (!done) timed(step_ms, [&] { done = load->step(8); });
    RW_CHECK(load->num_reused() == 0);
    timed(end_ms, [&] {
      benchmark::DoNotOptimize(load->names_of(0));
      store.adopt(std::move(*load), 0);
    });
  }
  state.counters["begin_ms"] = begin_ms;
  state.counters["step_ms"] = step_ms;
  state.counters["end_ms"] = end_ms;
}
BENCHMARK(bm_reload_parts)->Arg(10'000)->Unit(benchmark::kMillisecond)->Iterations(1);

// Watching while all certificates change: the longest poll(), which is what others wait for.
void bm_watch_all_changed(benchmark::State& state) {
  const PairsOnDisk disk(state.range(0));
  DiskCertFiles files;
  Silent silent;
  CertStore store(files, silent);
  CertLoad load(files, disk.spec(), nullptr, INT32_MAX);
  RW_CHECK(load.step(UINT32_MAX));
  store.adopt(std::move(load), 0);
  int64_t now_ms = 0;
  for (int i = 0; i < 100; ++i) store.poll(now_ms += 50, INT32_MAX);
  disk.replace();
  double longest_ms = 0;
  for (auto _ : state) {
    while (store.reloads() < static_cast<uint64_t>(state.range(0))) {
      timed(longest_ms, [&] { store.poll(now_ms += 50, INT32_MAX); });
    }
  }
  state.counters["longest_ms"] = longest_ms;
  state.counters["seconds"] = static_cast<double>(now_ms - 5'000) / 1e3;
}
BENCHMARK(bm_watch_all_changed)->Arg(10'000)->Unit(benchmark::kMillisecond)->Iterations(1);

// One second of watching.
void bm_watch_round(benchmark::State& state) {
  const PairsOnDisk disk(state.range(0));
  DiskCertFiles files;
  Silent silent;
  CertStore store(files, silent);
  CertLoad load(files, disk.spec(), nullptr, INT32_MAX);
  RW_CHECK(load.step(1'000'000));
  store.adopt(std::move(load), 0);
  int64_t now_ms = 0;
  for (auto _ : state) {
    for (int i = 0; i < 50; ++i) store.poll(now_ms += 20, INT32_MAX);
  }
  RW_CHECK(store.reloads() == 0);
}
BENCHMARK(bm_watch_round)->Arg(10'000)->Unit(benchmark::kMillisecond)->Iterations(5);

void bm_names_build(benchmark::State& state) {
  const auto all = named(state.range(0));
  size_t bytes = 0;
  for (auto _ : state) {
    const TlsNames names(all);
    bytes = names.memory_bytes();
    benchmark::DoNotOptimize(names.num_names());
  }
  state.counters["bytes"] = static_cast<double>(bytes);
}
BENCHMARK(bm_names_build)->Arg(10'000)->Arg(50'000)->Unit(benchmark::kMillisecond);

void bm_names_find(benchmark::State& state) {
  const TlsNames names(named(state.range(0)));
  std::vector<std::string> asked;
  for (int64_t i = 0; i < state.range(0); ++i) {
    asked.push_back((i % 2 == 0 ? "" : "x.") +
                    names.certificates()[static_cast<size_t>(i)]->names[0]);
  }
  size_t i = 0;
  for (auto _ : state) {
    benchmark::DoNotOptimize(names.find(asked[i]));
    i = (i + 7919) % asked.size();
  }
}
BENCHMARK(bm_names_find)->Arg(100)->Arg(10'000)->Arg(50'000);

}  // namespace

BENCHMARK_MAIN();
