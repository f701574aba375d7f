// tests/fuzz/driver.cc - runs a fuzz target without libFuzzer: the corpus, then mutations of it.
//
// Usage: fuzz_<name> [-runs=N] [-seed=S] FILE_OR_FOLDER...
// Prints the seed. A run that fails is repeated by its seed; the input in use is written to
// fuzz_<pid>.input before each run when -keep is given.
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace {

constexpr size_t kInputMax = 4096;

struct Options {
  uint64_t runs = 20000;
  uint64_t seed = 0;
  bool keep = false;
  std::vector<std::string> paths;
};

Options parse_options(int argc, char** argv) {
  Options options;
  options.seed = std::random_device()();
  for (int i = 1; i < argc; ++i) {
    if (strncmp(argv[i], "-runs=", 6) == 0) {
      options.runs = strtoull(argv[i] + 6, nullptr, 10);
    } else if (strncmp(argv[i], "-seed=", 6) == 0) {
      options.seed = strtoull(argv[i] + 6, nullptr, 10);
    } else if (strcmp(argv[i], "-keep") == 0) {
      options.keep = true;
    } else {
      options.paths.emplace_back(argv[i]);
    }
  }
  return options;
}

std::string read_file(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

std::vector<std::string> read_corpus(const std::vector<std::string>& paths) {
  std::vector<std::string> corpus;
  for (const std::string& path : paths) {
    if (!std::filesystem::is_directory(path)) {
      corpus.push_back(read_file(path));
      continue;
    }
    std::vector<std::filesystem::path> files;
    for (const auto& entry : std::filesystem::directory_iterator(path)) {
      files.push_back(entry.path());
    }
    std::sort(files.begin(), files.end());  // the same seed is the same run everywhere
    for (const auto& file : files) corpus.push_back(read_file(file));
  }
  if (corpus.empty()) corpus.emplace_back();
  return corpus;
}

// One small change: a byte set, dropped, doubled or inserted, or a piece of another input spliced
// in.
void mutate(std::string& input, const std::vector<std::string>& corpus, std::mt19937_64& random) {
  static constexpr char kInteresting[] = "\r\n\0 \t:,;0159afx\x0b\x7f\x80\xff/*?#[]@-+\"";
  const size_t at = input.empty() ? 0 : random() % input.size();
  const char byte = random() % 2 == 0 ? kInteresting[random() % sizeof kInteresting]
                                      : static_cast<char>(random());
  switch (random() % 6) {
    case 0:
      if (!input.empty()) input[at] = byte;
      break;
    case 1:
      if (!input.empty()) input.erase(at, 1 + random() % 4);
      break;
    case 2: input.insert(at, 1, byte); break;
    case 3:
      if (!input.empty()) input.insert(at, input.substr(at, 1 + random() % 16));
      break;
    case 4: {
      const std::string& other = corpus[random() % corpus.size()];
      if (!other.empty()) input.insert(at, other.substr(random() % other.size(), random() % 64));
      break;
    }
    case 5:
      if (!input.empty()) input[at] = static_cast<char>(input[at] ^ (1 << random() % 8));
      break;
  }
  if (input.size() > kInputMax) input.resize(kInputMax);
}

void run_one(const std::string& input, const Options& options) {
  if (options.keep) {
    const std::string name = "fuzz_" + std::to_string(getpid()) + ".input";
    std::ofstream(name, std::ios::binary) << input;
  }
  // An exact-size copy: a read beyond the end is seen by ASan.
  const std::vector<uint8_t> copy(input.begin(), input.end());
  LLVMFuzzerTestOneInput(copy.data(), copy.size());
}

}  // namespace

int main(int argc, char** argv) {
  const Options options = parse_options(argc, argv);
  const std::vector<std::string> corpus = read_corpus(options.paths);
  std::printf("seed %llu, %zu inputs, %llu runs\n", static_cast<unsigned long long>(options.seed),
              corpus.size(), static_cast<unsigned long long>(options.runs));
  std::fflush(stdout);
  for (const std::string& input : corpus) run_one(input, options);
  std::mt19937_64 random(options.seed);
  for (uint64_t run = 0; run < options.runs; ++run) {
    std::string input = corpus[random() % corpus.size()];
    for (uint64_t changes = 1 + random() % 8; changes > 0; --changes) {
      mutate(input, corpus, random);
    }
    run_one(input, options);
  }
  std::puts("done");
  return 0;
}
