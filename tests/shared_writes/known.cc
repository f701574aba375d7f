// tests/shared_writes/known.cc - two shards by name that share what the recorder has to find.
//
// Waits for a line on standard input; then the threads take turns, kTurns each, and it waits for
// another line, so that the test can look at it meanwhile. Prints the addresses of what they touch.
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include <atomic>
#include <string>
#include <thread>

namespace {

constexpr int kTurns = 1000;

// Each on a line of its own.
struct alignas(64) Apart {
  std::atomic<long> value{0};
};

Apart g_turn;                   // read by both, written by both
Apart g_own[2];                 // each written by one thread
Apart g_read;                   // written by shard 0, read by shard 1
alignas(64) char g_copied[64];  // memcpy(3) of both goes here

void run(int shard) {
  pthread_setname_np(pthread_self(), ("shard-" + std::to_string(shard)).c_str());
  char text[64] = "x";
  for (int i = 0; i < kTurns; ++i) {
    while (g_turn.value.load() % 2 != shard) {
    }
    g_own[shard].value.store(i);
    if (shard == 0) {
      g_read.value.store(i);
    } else if (g_read.value.load() != i) {
      puts("wrong");
    }
    text[1] = static_cast<char>(i);
    memcpy(g_copied, text, static_cast<size_t>(48 + i % 2));
    g_turn.value.fetch_add(1);
  }
}

}  // namespace

int main() {
  printf("turn %p own %p read %p copied %p\n", static_cast<void*>(&g_turn),
         static_cast<void*>(&g_own[0]), static_cast<void*>(&g_read), static_cast<void*>(g_copied));
  fflush(stdout);
  char line[16];
  if (fgets(line, sizeof line, stdin) == nullptr) return 1;
  std::thread first(run, 0);
  std::thread second(run, 1);
  first.join();
  second.join();
  puts(g_copied[1] == 'y' ? "wrong" : "done");
  fflush(stdout);
  return fgets(line, sizeof line, stdin) == nullptr ? 1 : 0;
}
