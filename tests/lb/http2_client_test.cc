// tests/lb/http2_client_test.cc - answers that wait for an HTTP/2 client: who goes first, and when
// one is given up. Frames by hand, in virtual time.
#include "lb/http2_client.h"

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "tests/lb/one_worker.h"

using namespace ringway;

namespace {

using h2::FrameType;
using h2::Setting;

std::string number(uint32_t value) {
  char text[4];
  h2::write32(text, value);
  return {text, sizeof text};
}

std::string frame(FrameType type, uint8_t flags, uint32_t stream, std::string_view payload = {}) {
  char head[h2::kFrameHeaderBytes];
  h2::write_frame_header({.length = static_cast<uint32_t>(payload.size()),
                          .type = static_cast<uint8_t>(type),
                          .flags = flags,
                          .stream = stream},
                         head);
  return std::string(head, sizeof head) + std::string(payload);
}

std::string initial_window(uint32_t bytes) {
  const char id[] = {0, static_cast<char>(Setting::kInitialWindowSize)};
  return frame(FrameType::kSettings, 0, 0, std::string(id, sizeof id) + number(bytes));
}

std::string hello(uint32_t window) {
  return std::string(h2::kPreface) + initial_window(window);
}

std::string window_update(uint32_t stream, uint32_t more) {
  return frame(FrameType::kWindowUpdate, 0, stream, number(more));
}

// GET of "/" at "a".
std::string get(uint32_t stream, const std::string& priority = "") {
  std::string block = "\x82\x86\x84\x01\x01";
  block += 'a';
  if (!priority.empty()) {
    block +=
        std::string("\x00\x08", 2) + "priority" + static_cast<char>(priority.size()) + priority;
  }
  return frame(FrameType::kHeaders, h2::flag::kEndHeaders | h2::flag::kEndStream, stream, block);
}

std::string priority_update(uint32_t stream, const std::string& value) {
  return frame(FrameType::kPriorityUpdate, 0, 0, number(stream) + value);
}

struct Seen {
  std::vector<uint32_t> data;   // the streams of DATA frames, in order; each run once
  std::vector<uint32_t> whole;  // that have ended
  std::vector<uint32_t> resets;
};

Seen seen(const SimConnection& client) {
  Seen result;
  std::string_view rest = client.received();
  while (rest.size() >= h2::kFrameHeaderBytes) {
    const h2::FrameHeader header = h2::read_frame_header(rest.data());
    const auto type = static_cast<FrameType>(header.type);
    if (type == FrameType::kData && header.length > 0 &&
        (result.data.empty() || result.data.back() != header.stream)) {
      result.data.push_back(header.stream);
    }
    if (type == FrameType::kData && header.has(h2::flag::kEndStream)) {
      result.whole.push_back(header.stream);
    }
    if (type == FrameType::kRstStream) result.resets.push_back(header.stream);
    rest.remove_prefix(std::min<size_t>(rest.size(), h2::kFrameHeaderBytes + header.length));
  }
  return result;
}

using Streams = std::vector<uint32_t>;

const std::string kIdle = "timeouts.client_idle = '1s'";

// What is sent of three answers of 20,000 bytes, all of which wait when the windows open.
Streams order(const std::string& requests, const std::string& updates = "") {
  OneWorker world({answers(std::string(20'000, 'x'))});
  SimConnection& client = world.client({hello(0), requests});
  world.run(100);
  CHECK(seen(client).data.empty());
  client.send(updates + initial_window(30'000));
  world.run(100);
  const Seen result = seen(client);
  CHECK(result.whole.size() == 3);
  CHECK(result.resets.empty());
  return result.data;
}

}  // namespace

TEST_CASE("Http2Client: an answer that is taken byte by byte -> cut after client_idle") {
  OneWorker world({answers(std::string(20'000, 'x'))}, "", kIdle);
  SimConnection& client = world.client({hello(0), get(1)});
  world.run(100);
  for (int i = 0; i < 30; ++i) {
    client.send(window_update(1, 1));
    world.run(100);
  }
  CHECK(seen(client).resets == Streams{1});
  CHECK(world.listener().http2_stalls.get() == 1);
  CHECK(world.listener().timeouts.get() == 1);
  CHECK(world.listener().active_requests.get() == 0);
}

TEST_CASE("Http2Client: a slow reader that takes 1 KiB in each client_idle -> all of the answer") {
  OneWorker world({answers(std::string(20'000, 'x'))}, "", kIdle);
  SimConnection& client = world.client({hello(0), get(1)});
  world.run(100);
  for (int i = 0; i < 25 && seen(client).whole.empty(); ++i) {
    world.run(800);
    client.send(window_update(1, 300) + window_update(1, 724));
  }
  world.run(100);
  CHECK(seen(client).whole == Streams{1});
  CHECK(seen(client).resets.empty());
  CHECK(world.listener().http2_stalls.get() == 0);
}

// Goal: a stream is not given up since others go before it, as long as those get on.
TEST_CASE(
    "Http2Client: answers behind others of a slow connection -> wait longer than client_idle") {
  OneWorker world({answers(std::string(100'000, 'x'))}, "", kIdle);
  SimConnection& client = world.client({hello(1'000'000), get(1) + get(3) + get(5)});
  for (int i = 0; i < 100 && seen(client).whole.size() < 3; ++i) {
    world.run(500);
    client.send(window_update(0, 4096));
  }
  CHECK(seen(client).whole == Streams{1, 3, 5});
  CHECK(seen(client).resets.empty());
}

TEST_CASE("Http2Client: the window of a connection that dribbles -> all its answers are cut") {
  OneWorker world({answers(std::string(100'000, 'x'))}, "", kIdle);
  SimConnection& client = world.client({hello(1'000'000), get(1) + get(3) + get(5)});
  for (int i = 0; i < 30; ++i) {
    world.run(100);
    client.send(window_update(0, 10));
  }
  CHECK(seen(client).whole.empty());
  CHECK(seen(client).resets.size() == 3);
  CHECK(world.listener().http2_stalls.get() == 3);
}

TEST_CASE("Http2Client: answers of one urgency -> one after the other, in order (RFC 9218 10)") {
  CHECK(order(get(1) + get(3) + get(5)) == Streams{1, 3, 5});
}

TEST_CASE("Http2Client: urgencies -> the most urgent first") {
  CHECK(order(get(1, "u=5") + get(3, "u=1") + get(5)) == Streams{3, 5, 1});
  CHECK(order(get(1, "u=7") + get(3, "u=6") + get(5, "u=0")) == Streams{5, 3, 1});
}

TEST_CASE("Http2Client: incremental answers -> take turns, behind what is more urgent") {
  const Streams turns = order(get(1, "i") + get(3, "i") + get(5, "u=2"));
  CHECK(turns[0] == 5);
  CHECK(turns.size() > 3);
}

TEST_CASE("Http2Client: PRIORITY_UPDATE -> replaces what the request said (RFC 9218 7.1)") {
  const std::string requests = get(1) + get(3) + get(5, "u=1");
  CHECK(order(requests, priority_update(3, "u=0")) == Streams{3, 5, 1});
  CHECK(order(requests, priority_update(5, "")) == Streams{1, 3, 5});  // The default again.
  CHECK(order(requests, priority_update(3, "u=9, x=\"u=0\"") + priority_update(7, "u=0")) ==
        Streams{5, 1, 3});
  const Streams turns = order(requests, priority_update(1, "i") + priority_update(3, "i"));
  CHECK(turns[0] == 5);
  CHECK(turns.size() > 3);
}
