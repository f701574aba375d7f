// tests/core/log_test.cc
#include "core/log.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <string>
#include <thread>
#include <vector>

using namespace ringway;

namespace {

struct TempDir {
  TempDir() { REQUIRE(mkdtemp(path) != nullptr); }
  ~TempDir() {
    for (const char* name : {"log", "old", "fifo"}) unlink(file(name).c_str());
    rmdir(path);
  }
  std::string file(const char* name) const { return std::string(path) + "/" + name; }
  char path[64] = "/tmp/ringway-log-XXXXXX";
};

std::string read_all(int fd) {
  std::string text;
  char buffer[65536];
  for (ssize_t n; (n = read(fd, buffer, sizeof buffer)) > 0;) {
    text.append(buffer, static_cast<size_t>(n));
  }
  return text;
}

std::string read_file(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return "";
  std::string text = read_all(fd);
  close(fd);
  return text;
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  for (size_t at = 0; at < text.size();) {
    const size_t end = text.find('\n', at);
    REQUIRE(end != std::string::npos);
    lines.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return lines;
}

std::unique_ptr<LogWriter> open_log(const std::string& output) {
  std::string error;
  std::unique_ptr<LogWriter> writer = LogWriter::open(output, error);
  CAPTURE(error);
  REQUIRE(writer != nullptr);
  return writer;
}

template <typename Done>
bool wait_until(Done done) {
  const auto give_up = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  while (!done()) {
    if (std::chrono::steady_clock::now() > give_up) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return true;
}

}  // namespace

TEST_CASE("LogWriter: unusable output -> error that names it") {
  std::string error;
  for (const char* bad : {"", "file:", "syslog", "/tmp/x", "file:/nonexistent/directory/log"}) {
    CAPTURE(bad);
    error.clear();
    CHECK(LogWriter::open(bad, error) == nullptr);
    CHECK_FALSE(error.empty());
  }
  CHECK(error == "/nonexistent/directory/log: No such file or directory");
}

TEST_CASE("LogWriter: destroyed -> everything queued is written, lines whole and in order") {
  TempDir dir;
  {
    const auto writer = open_log("file:" + dir.file("log"));
    LogRing& ring = writer->add_ring(4096);
    CHECK(ring.write("first"));
    const std::string_view pieces[] = {"sec", "", "ond"};
    CHECK(ring.write(pieces));
    CHECK(ring.write(""));
    CHECK(ring.write("a\nb\n"));
    CHECK(ring.lines() == 4);
    CHECK(ring.dropped() == 0);
  }
  CHECK(read_file(dir.file("log")) == "first\nsecond\n\na b \n");
  {
    const auto writer = open_log("file:" + dir.file("log"));  // Appends.
    CHECK(writer->add_ring(4096).write("later"));
  }
  CHECK(read_file(dir.file("log")) == "first\nsecond\n\na b \nlater\n");
}

TEST_CASE("LogRing: line larger than the ring -> dropped, line that just fits -> written") {
  TempDir dir;
  const std::string exact(255, 'x');
  {
    const auto writer = open_log("file:" + dir.file("log"));
    LogRing& ring = writer->add_ring(256);
    CHECK_FALSE(ring.write(exact + "x"));
    CHECK(ring.dropped() == 1);
    CHECK(ring.write(exact));
    CHECK(ring.lines() == 1);
  }
  CHECK(read_file(dir.file("log")) == exact + "\n");
}

// Goal: no byte is lost or mixed when several producers wrap their rings many times.
TEST_CASE("LogWriter: three producers, small rings -> every taken line once, in order") {
  constexpr int kProducers = 3;
  constexpr int kEach = 5000;
  TempDir dir;
  std::vector<std::thread> producers;
  {
    const auto writer = open_log("file:" + dir.file("log"));
    for (int p = 0; p < kProducers; ++p) {
      producers.emplace_back([&ring = writer->add_ring(16384), p] {
        for (int i = 0; i < kEach; ++i) {
          const std::string head = std::to_string(p) + " " + std::to_string(i) + " ";
          const std::string body(static_cast<size_t>(i * 7 % 200), static_cast<char>('a' + i % 26));
          const std::string_view pieces[] = {head, body};
          while (!ring.write(pieces)) std::this_thread::yield();
        }
      });
    }
    for (std::thread& producer : producers) producer.join();
    CHECK(writer->write_errors() == 0);
  }
  int next[kProducers] = {};
  bool intact = true;
  for (const std::string& line : lines_of(read_file(dir.file("log")))) {
    const int p = line[0] - '0';
    REQUIRE((p >= 0 && p < kProducers));
    const int i = next[p]++;
    const std::string want =
        std::to_string(p) + " " + std::to_string(i) + " " +
        std::string(static_cast<size_t>(i * 7 % 200), static_cast<char>('a' + i % 26));
    intact = intact && line == want;
  }
  CHECK(intact);
  for (const int count : next) CHECK(count == kEach);
}

TEST_CASE("LogWriter: file renamed and reopened -> later lines go to the new file") {
  TempDir dir;
  {
    const auto writer = open_log("file:" + dir.file("log"));
    LogRing& ring = writer->add_ring(4096);
    CHECK(ring.write("before"));
    CHECK(wait_until([&] { return read_file(dir.file("log")) == "before\n"; }));
    REQUIRE(rename(dir.file("log").c_str(), dir.file("old").c_str()) == 0);
    CHECK(ring.write("still old"));
    CHECK(wait_until([&] { return read_file(dir.file("old")) == "before\nstill old\n"; }));
    writer->reopen();
    CHECK(wait_until([&] { return access(dir.file("log").c_str(), F_OK) == 0; }));
    CHECK(ring.write("new"));
  }
  CHECK(read_file(dir.file("old")) == "before\nstill old\n");
  CHECK(read_file(dir.file("log")) == "new\n");
}

TEST_CASE("LogWriter: full disk -> lines counted as lost, rings go on") {
  const auto writer = open_log("file:/dev/full");
  LogRing& ring = writer->add_ring(256);
  for (uint64_t i = 1; i <= 5; ++i) {
    CHECK(ring.write("one"));
    CHECK(ring.write("two"));
    CHECK(wait_until([&] { return writer->write_errors() == 2 * i; }));
  }
  CHECK(ring.dropped() == 0);
}

// Goal: a reader that stops reading costs lines, not time. Method: a pipe nobody reads for a while.
TEST_CASE("LogWriter: output stalls -> producer never blocks, whole lines when it goes on") {
  TempDir dir;
  REQUIRE(mkfifo(dir.file("fifo").c_str(), 0600) == 0);
  const int reader = open(dir.file("fifo").c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  REQUIRE(reader >= 0);
  std::string text;
  uint64_t taken = 0;
  {
    const auto writer = open_log("file:" + dir.file("fifo"));
    LogRing& ring = writer->add_ring(4096);
    const std::string line(100, 'x');
    CHECK(wait_until([&] {
      ring.write(line);
      return ring.dropped() > 100;
    }));
    taken = ring.lines();
    CHECK(wait_until([&] {
      text += read_all(reader);
      return text.size() == taken * (line.size() + 1);
    }));
    CHECK(ring.write("end"));
  }
  text += read_all(reader);
  CHECK(text.ends_with("x\nend\n"));
  CHECK(lines_of(text).size() == taken + 1);
  close(reader);
}

TEST_CASE("LogWriter: output stalls for good -> destructor gives up") {
  TempDir dir;
  REQUIRE(mkfifo(dir.file("fifo").c_str(), 0600) == 0);
  const int reader = open(dir.file("fifo").c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  {
    const auto writer = open_log("file:" + dir.file("fifo"));
    LogRing& ring = writer->add_ring(1 << 20);
    const std::string line(1000, 'x');
    for (int i = 0; i < 1000; ++i) ring.write(line);
  }
  close(reader);
}

TEST_CASE("LogWriter: reader of the pipe goes away -> lines lost and counted, no signal") {
  TempDir dir;
  REQUIRE(mkfifo(dir.file("fifo").c_str(), 0600) == 0);
  const int reader = open(dir.file("fifo").c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  const auto writer = open_log("file:" + dir.file("fifo"));
  close(reader);
  LogRing& ring = writer->add_ring(4096);
  CHECK(ring.write("lost"));
  CHECK(wait_until([&] { return writer->write_errors() == 1; }));
}

// Goal: what was cut off never runs into the next line. Method: the reader of a full pipe goes away
// while a line is half written; the next reader still finds what the pipe holds.
TEST_CASE("LogWriter: output fails inside a line -> next line starts on its own") {
  TempDir dir;
  REQUIRE(mkfifo(dir.file("fifo").c_str(), 0600) == 0);
  int reader = open(dir.file("fifo").c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  std::string text;
  const std::string line(100'000, 'x');
  {
    const auto writer = open_log("file:" + dir.file("fifo"));
    LogRing& ring = writer->add_ring(1 << 18);
    CHECK(ring.write(line));
    CHECK(wait_until([&] {
      char byte = 0;
      return read(reader, &byte, 1) == 1;
    }));
    close(reader);
    CHECK(wait_until([&] { return writer->write_errors() == 1; }));
    reader = open(dir.file("fifo").c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    text = read_all(reader);
    CHECK(ring.write("whole"));
  }
  text += read_all(reader);
  close(reader);
  const std::vector<std::string> lines = lines_of(text);
  REQUIRE(lines.size() == 2);
  CHECK(lines[0].size() < line.size());
  CHECK(lines[1] == "whole");
}

// Goal: standard output as a pipe (containers) and as a socket (journald).
TEST_CASE("LogWriter: stdout is a pipe or a socket -> lines arrive, its mode is left alone") {
  for (const bool is_socket : {false, true}) {
    CAPTURE(is_socket);
    int ends[2];
    if (is_socket) {
      REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
    } else {
      REQUIRE(pipe2(ends, O_CLOEXEC) == 0);
    }
    fflush(stdout);
    const int saved = dup(STDOUT_FILENO);
    REQUIRE(dup2(ends[1], STDOUT_FILENO) == STDOUT_FILENO);
    std::string error;
    uint64_t lost = 0;
    {
      const auto writer = LogWriter::open("stdout", error);
      LogRing& ring = writer->add_ring(4096);
      ring.write("to standard output");
      writer->reopen();
      ring.write("and on");
      lost = ring.dropped();
    }
    const int mode = fcntl(STDOUT_FILENO, F_GETFL);
    dup2(saved, STDOUT_FILENO);
    close(saved);
    close(ends[1]);
    CHECK((mode & O_NONBLOCK) == 0);
    CHECK(lost == 0);
    CHECK(read_all(ends[0]) == "to standard output\nand on\n");
    close(ends[0]);
  }
}
