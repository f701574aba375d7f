// bench/certificate_bench.cc - what many certificates cost: loading, the table of names, look-ups.
//
// Usage: bench/certificate_bench; it writes its certificates below /tmp and removes them.
// Budget: a look-up is made once per handshake (some 100 us of CPU), so 200 ns is nothing. Loading
// is linear: twice as many pairs, twice the time.
#include <benchmark/benchmark.h>
#include <openssl/evp.h>
#include <stdlib.h>

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
  explicit PairsOnDisk(int64_t count) {
    char name[] = "/tmp/ringway-bench-XXXXXX";
    RW_CHECK(mkdtemp(name) != nullptr);
    path_ = name;
    for (int64_t i = 0; i < count; ++i) {
      const std::string host = "tenant" + std::to_string(i) + ".example.test";
      const MadeCertificate made = make_certificate({.names = {host, "www." + host}});
      std::ofstream(path_ + "/" + host + ".pem") << made.cert_pem;
      std::ofstream(path_ + "/" + host + ".key") << made.key_pem;
    }
  }
  ~PairsOnDisk() { std::filesystem::remove_all(path_); }
  PairsOnDisk(const PairsOnDisk&) = delete;
  PairsOnDisk& operator=(const PairsOnDisk&) = delete;
  [[nodiscard]] CertSpec spec() const {
    CertSource source;
    source.kind = CertSource::Kind::kDirectory;
    source.directory = path_;
    return {.sources = {source}, .profiles = {{.name = "p", .sources = {0}}}};
  }

 private:
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
