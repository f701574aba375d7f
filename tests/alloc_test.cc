// tests/alloc_test.cc - counts heap allocations per request in the steady state: there must be
// none.
//
// A program of its own, since it replaces operator new for everything in it (alloc_counter.h). One
// thread runs the balancer, its origin and its clients on a real engine; clients are plain
// descriptors.
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/engines.h"
#include "core/tls_names.h"
#include "lb/config/load.h"
#include "lb/worker.h"
#include "proto/http1_write.h"
#include "proto/http2_frame.h"
#include "proto/http2_head.h"
#include "tests/alloc_counter.h"
#include "tests/support/h2_answers.h"
#include "tests/support/hpack.h"
#include "tools/demo_origin.h"

namespace {

using namespace ringway;

constexpr int kClients = 16;
constexpr int kWarmUp = 200;    // requests of each client before counting
constexpr int kCounted = 1000;  // and while counting

ServerAddress bound(int fd) {
  ServerAddress address;
  address.length = sizeof address.storage;
  getsockname(fd, reinterpret_cast<sockaddr*>(&address.storage), &address.length);
  return address;
}

int listen_any() {
  ServerAddress any;
  if (!parse_address("127.0.0.1:0", any)) abort();
  const int fd = open_listener(any);
  if (fd < 0) abort();
  return fd;
}

// A server: answers each request, told by so many blank lines, with `answer`; or sends back what
// comes if that is empty.
class PlainServer final : public AcceptOwner {
 public:
  PlainServer(Io& io, int fd, std::string answer, uint32_t blank_lines)
      : io_(io), fd_(fd), answer_(std::move(answer)), blank_lines_(blank_lines) {
    io_.listen(fd_, *this);
  }
  void stop() {
    io_.unlisten(fd_);
    for (const auto& served : served_) {
      if (served->socket.open()) io_.close(served->socket);
    }
  }
  void on_accepted(int fd, const PeerAddress& /*peer*/) override {
    const Uncounted peer;
    served_.push_back(std::make_unique<Served>(*this));
    io_.adopt(served_.back()->socket, fd);
    io_.set_receiving(served_.back()->socket, true);
  }

 private:
  struct Served final : SocketOwner {
    explicit Served(PlainServer& from) : server(from), socket(*this) {}
    void send(std::string_view text) {
      const iovec piece{const_cast<char*>(text.data()), text.size()};
      if (server.io_.send(socket, {&piece, 1}) != static_cast<ssize_t>(text.size())) abort();
    }
    void on_connected(Socket& /*socket*/, int /*error*/) override {}
    void on_receive(Socket& /*socket*/, std::span<const std::byte> bytes) override {
      const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
      if (server.answer_.empty()) return send(text);
      for (const char c : text) {
        matched = c == "\r\n\r\n"[matched] ? matched + 1 : (c == '\r' ? 1 : 0);
        if (matched < 4) continue;
        matched = 0;
        if (++blank_lines % server.blank_lines_ == 0) send(server.answer_);
      }
    }
    void on_receive_end(Socket& /*socket*/, int /*error*/) override { server.io_.close(socket); }
    void on_writable(Socket& /*socket*/) override {}
    void on_closed(Socket& /*socket*/) override {}
    PlainServer& server;
    Socket socket;
    size_t matched = 0;
    uint32_t blank_lines = 0;
  };
  Io& io_;
  int fd_;
  const std::string answer_;
  const uint32_t blank_lines_;
  std::vector<std::unique_ptr<Served>> served_;  // those that have ended too
};

// What is sent again and again, and what comes back.
struct Load {
  const char* name;
  std::string request;
  std::string answer;           // the server's; empty: it sends back what comes
  std::string_view begin;       // of what the client gets
  std::string_view end;         // and its end
  std::string_view protocol{};  // lines of the listener and the upstream
  uint32_t blank_lines = 1;     // in the request
  bool reconnects = false;      // a connection for each
  int warm_up = 100;
  int counted = 400;
};

struct PlainClient {
  int fd = -1;
  size_t length = 0;
  std::array<char, 16 * 1024> got;
  bool done = false;

  [[nodiscard]] bool connect_to(const ServerAddress& address) {
    fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    return connect(fd, address.get(), address.length) == 0;
  }
  [[nodiscard]] bool ask(std::string_view request) {
    length = 0;
    done = false;
    return write(fd, request.data(), request.size()) == static_cast<ssize_t>(request.size());
  }
  // Takes what came. False: it is not what was asked for.
  [[nodiscard]] bool read_on(const Load& load) {
    const ssize_t count = recv(fd, got.data() + length, got.size() - length, MSG_DONTWAIT);
    if (count == 0) return false;
    if (count > 0) length += static_cast<size_t>(count);
    const std::string_view text(got.data(), length);
    done = text.starts_with(load.begin) && text.ends_with(load.end);
    return length < got.size();
  }
};

using PlainClients = std::array<PlainClient, kClients>;

// Each client sends one request and reads its whole answer, all of them at the same time.
bool exchange_all(Io& io, Worker& worker, PlainClients& clients, const Load& load) {
  for (PlainClient& client : clients) {
    if (!client.ask(load.request)) return false;
  }
  int left = kClients;
  for (int turn = 0; left > 0 && turn < 1'000'000; ++turn) {
    io.run_once(0);
    worker.after_turn();
    for (PlainClient& client : clients) {
      if (client.done) continue;
      if (!client.read_on(load)) return false;
      if (client.done) --left;
    }
  }
  return left == 0;
}

// As exchange_all(), with connections that are made before and closed after it, on either side.
bool exchange_all_anew(Io& io, Worker& worker, PlainClients& clients, const Load& load,
                       const ServerAddress& front, const ShardLoad& of_shard) {
  for (PlainClient& client : clients) {
    if (!client.connect_to(front)) return false;
  }
  if (!exchange_all(io, worker, clients, load)) return false;
  for (PlainClient& client : clients) close(client.fd);
  for (int turn = 0; of_shard.clients.load() > 0 && turn < 1'000'000; ++turn) {
    io.run_once(0);
    worker.after_turn();
  }
  return of_shard.clients.load() == 0;
}

int run(const EngineOptions& options, const Load& load) {
  EngineResult engine = make_engine(options);
  Io& io = *engine.io;
  const int server_fd = listen_any();
  const int front_fd = listen_any();
  PlainServer server(io, server_fd, load.answer, load.blank_lines);
  config::LoadResult loaded = config::load_text(
      "version = 1\n[listeners.web]\nbind = \"127.0.0.1:1\"\n" + std::string(load.protocol) +
          "[[routes]]\nname = \"all\"\nupstream = \"o\"\n[upstreams.o]\n" +
          std::string(load.protocol) + "servers = [{ address = \"" + bound(server_fd).text() +
          "\" }]\n",
      "test");
  if (loaded.config == nullptr) {
    fputs(config::render(loaded, false).c_str(), stderr);
    return 1;
  }
  std::array<ShardLoad, 1> loads;
  uint64_t allocations = 0;
  bool good = true;
  {
    Worker worker(io, {.loads = loads, .clients_max = 1000});
    const ListenFd listen{.id = 1, .listener = 0, .fd = front_fd};
    worker.apply(Snapshot::build(std::move(loaded.config), nullptr, 1), {&listen, 1}, nullptr);
    const auto clients = std::make_unique<PlainClients>();
    const ServerAddress front = bound(front_fd);
    for (PlainClient& client : *clients) {
      good = good && (load.reconnects || client.connect_to(front));
    }
    const auto many = [&](int count) {
      for (int i = 0; i < count && good; ++i) {
        good = load.reconnects ? exchange_all_anew(io, worker, *clients, load, front, loads[0])
                               : exchange_all(io, worker, *clients, load);
      }
    };
    many(load.warm_up);
    const uint64_t before = g_allocations.load();
    many(load.counted);
    allocations = g_allocations.load() - before;
    for (const PlainClient& client : *clients) {
      if (!load.reconnects) close(client.fd);
    }
    worker.stop();
    for (int i = 0; i < 100'000 && !worker.finished(); ++i) {
      io.run_once(1);
      worker.after_turn();
    }
    server.stop();
    for (int i = 0; i < 100; ++i) io.run_once(1);
  }
  close(server_fd);
  printf("%s: %s, %d times, %llu allocations%s\n", io.name(), load.name, kClients * load.counted,
         static_cast<unsigned long long>(allocations), good ? "" : ", FAILED");
  return good && allocations == 0 ? 0 : 1;
}

// Every kind of exchange that must do without the heap.
std::vector<Load> loads() {
  constexpr std::string_view kOk = "HTTP/1.1 200 ";
  constexpr std::string_view kEnd = "Hello from Ringway\n";
  const std::string hello =
      "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 19\r\n\r\nHello from "
      "Ringway\n";
  const std::string chunked =
      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nHello \r\nd\r\nfrom "
      "Ringway\n\r\n0\r\n\r\n";
  const std::string small = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
  std::string large = "GET /a/path?with=query HTTP/1.1\r\nHost: localhost\r\n";
  for (int i = 0; i < 40; ++i) {
    large += "X-Header-" + std::to_string(i) + ": " + std::string(120, 'v') + "\r\n";
  }
  large += "\r\n";
  const std::string post = "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10000\r\n\r\n" +
                           std::string(10'000, 'b');
  const std::string post_chunked =
      "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n3e8\r\n" +
      std::string(1000, 'b') + "\r\n0\r\n\r\n";
  constexpr std::string_view kTcp = "protocol = \"tcp\"\n";
  return {
      {.name = "small request", .request = small, .answer = hello, .begin = kOk, .end = kEnd},
      {.name = "40 headers", .request = large, .answer = hello, .begin = kOk, .end = kEnd},
      {.name = "10 KB of body", .request = post, .answer = hello, .begin = kOk, .end = kEnd},
      {.name = "chunked body",
       .request = post_chunked,
       .answer = hello,
       .begin = kOk,
       .end = kEnd,
       .blank_lines = 2},
      {.name = "chunked answer",
       .request = small,
       .answer = chunked,
       .begin = kOk,
       .end = "\r\n0\r\n\r\n"},
      {.name = "layer 4, 10 KB echo",
       .request = std::string(9'999, 'e') + "\n",
       .answer = "",
       .begin = "eee",
       .end = "\n",
       .protocol = kTcp},
      {.name = "small request on a new connection",
       .request = small,
       .answer = hello,
       .begin = kOk,
       .end = kEnd,
       .reconnects = true},
      {.name = "layer 4, new connection",
       .request = "echo\n",
       .answer = "",
       .begin = "echo",
       .end = "\n",
       .protocol = kTcp,
       .reconnects = true},
  };
}

// An origin that speaks HTTP/2.
class H2Origin final : public AcceptOwner {
 public:
  H2Origin(Io& io, int fd) : io_(io), fd_(fd) { io_.listen(fd_, *this); }
  void stop() {
    io_.unlisten(fd_);
    for (const auto& served : served_) {
      if (served->socket.open()) io_.close(served->socket);
    }
  }
  [[nodiscard]] size_t requests() const {
    size_t sum = 0;
    for (const auto& served : served_) sum += served->answers.streams.size();
    return sum;
  }
  void on_accepted(int fd, const PeerAddress& /*peer*/) override {
    const Uncounted peer;
    served_.push_back(std::make_unique<Served>(io_));
    io_.adopt(served_.back()->socket, fd);
    io_.set_receiving(served_.back()->socket, true);
  }

 private:
  struct Served final : SocketOwner {
    explicit Served(Io& from) : io(from), socket(*this) {}
    void on_connected(Socket& /*socket*/, int /*error*/) override {}
    void on_receive(Socket& /*socket*/, std::span<const std::byte> bytes) override {
      const Uncounted peer;
      answers.feed({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
      const iovec piece{.iov_base = answers.sent.data(), .iov_len = answers.sent.size()};
      if (io.send(socket, {&piece, 1}) != static_cast<ssize_t>(piece.iov_len)) abort();
      answers.sent.clear();
      answers.said.clear();
    }
    void on_receive_end(Socket& /*socket*/, int /*error*/) override { io.close(socket); }
    void on_writable(Socket& /*socket*/) override {}
    void on_closed(Socket& /*socket*/) override {}
    Io& io;
    Socket socket;
    h2::Answers answers;
  };
  Io& io_;
  int fd_;
  std::vector<std::unique_ptr<Served>> served_;
};

// One client connection's end of HTTP/2: the same head each time, but for a field that goes into
// the dynamic table, and so pushes older ones out.
struct H2Caller {
  int fd = -1;
  uint32_t stream = 1;
  std::string got{};

  [[nodiscard]] bool write_all(std::string_view bytes) const {
    return write(fd, bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size());
  }
  [[nodiscard]] bool begin() const {
    char settings[h2::kFrameHeaderBytes];
    h2::write_frame_header({.type = static_cast<uint8_t>(h2::FrameType::kSettings)}, settings);
    return write_all(std::string(h2::kPreface) + std::string(settings, sizeof settings));
  }
  [[nodiscard]] bool ask() const {
    char value[16];
    snprintf(value, sizeof value, "%08u", stream);
    const std::string block = std::string("\x82\x86\x84") +  // GET, http, /
                              h2::hpack_literal(":authority", "localhost") +
                              h2::hpack_literal("user-agent", "alloc_test") +
                              h2::hpack_literal("x-request-id", value, h2::kWithIndexing);
    char head[h2::kFrameHeaderBytes];
    h2::write_frame_header({.length = static_cast<uint32_t>(block.size()),
                            .type = static_cast<uint8_t>(h2::FrameType::kHeaders),
                            .flags = h2::flag::kEndHeaders | h2::flag::kEndStream,
                            .stream = stream},
                           head);
    return write_all(std::string(head, sizeof head) + block);
  }
  // Takes what came. True: the answer to the last request has ended.
  [[nodiscard]] bool answered(std::string& body) {
    char room[4096];
    const ssize_t count = recv(fd, room, sizeof room, MSG_DONTWAIT);
    if (count > 0) got.append(room, static_cast<size_t>(count));
    while (got.size() >= h2::kFrameHeaderBytes) {
      const h2::FrameHeader frame = h2::read_frame_header(got.data());
      if (got.size() < h2::kFrameHeaderBytes + frame.length) return false;
      const bool is_data = frame.type == static_cast<uint8_t>(h2::FrameType::kData);
      if (is_data) body += got.substr(h2::kFrameHeaderBytes, frame.length);
      got.erase(0, h2::kFrameHeaderBytes + frame.length);
      if (frame.stream != stream || !frame.has(h2::flag::kEndStream)) continue;
      stream += 2;
      return true;
    }
    return false;
  }
};

bool exchange_all_h2(Io& io, Worker& worker, std::vector<H2Caller>& callers,
                     std::string_view wanted) {
  std::vector<std::string> bodies;
  std::vector<bool> done;
  {
    const Uncounted peer;
    bodies.resize(callers.size());
    done.resize(callers.size());
    for (const H2Caller& caller : callers) {
      if (!caller.ask()) return false;
    }
  }
  size_t left = callers.size();
  for (int turn = 0; left > 0 && turn < 1'000'000; ++turn) {
    io.run_once(0);
    worker.after_turn();
    const Uncounted peer;
    for (size_t i = 0; i < callers.size(); ++i) {
      if (done[i] || !callers[i].answered(bodies[i])) continue;
      if (bodies[i] != wanted) return false;
      done[i] = true;
      --left;
    }
  }
  const Uncounted peer;
  bodies.clear();
  return left == 0;
}

// Whole requests of HTTP/2 clients, to a server of either version.
int run_h2(const EngineOptions& options, bool h2_server) {
  EngineResult engine = make_engine(options);
  Io& io = *engine.io;
  const int origin_fd = listen_any();
  const int front_fd = listen_any();
  std::unique_ptr<DemoOrigin> plain;
  std::unique_ptr<H2Origin> multiplexed;
  if (h2_server) {
    multiplexed = std::make_unique<H2Origin>(io, origin_fd);
  } else {
    plain = std::make_unique<DemoOrigin>(io, origin_fd);
  }
  config::LoadResult loaded = config::load_text(
      "version = 1\n[listeners.web]\nbind = \"127.0.0.1:1\"\n[[routes]]\nname = \"all\"\n"
      "upstream = \"o\"\n[upstreams.o]\nservers = [{ address = \"" +
          bound(origin_fd).text() + "\" }]\n" + (h2_server ? "http_versions = [\"h2\"]\n" : ""),
      "test");
  if (loaded.config == nullptr) return 1;
  std::array<ShardLoad, 1> loads;
  uint64_t allocations = 0;
  bool good = true;
  {
    Worker worker(io, {.loads = loads, .clients_max = 1000});
    const ListenFd listen{.id = 1, .listener = 0, .fd = front_fd};
    worker.apply(Snapshot::build(std::move(loaded.config), nullptr, 1), {&listen, 1}, nullptr);
    std::vector<H2Caller> callers(kClients);
    const ServerAddress front = bound(front_fd);
    for (H2Caller& caller : callers) {
      caller.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
      good = good && connect(caller.fd, front.get(), front.length) == 0 && caller.begin();
    }
    const std::string_view wanted = h2_server ? "hi" : "Hello from Ringway\n";
    const auto many = [&](int count) {
      for (int i = 0; i < count && good; ++i) good = exchange_all_h2(io, worker, callers, wanted);
    };
    many(kWarmUp);
    const uint64_t before = g_allocations.load();
    many(kCounted);
    allocations = g_allocations.load() - before;
    good = good && (!h2_server || multiplexed->requests() == kClients * (kWarmUp + kCounted));
    for (const H2Caller& caller : callers) close(caller.fd);
    worker.stop();
    if (plain != nullptr) plain->close_all();
    if (multiplexed != nullptr) multiplexed->stop();
    for (int i = 0; i < 100'000 && !worker.finished(); ++i) {
      io.run_once(0);
      worker.after_turn();
    }
    for (int i = 0; i < 100; ++i) io.run_once(1);
  }
  close(origin_fd);
  printf("%s: %d HTTP/2 requests to a server of HTTP/%d, %llu allocations%s\n", io.name(),
         kClients * kCounted, h2_server ? 2 : 1, static_cast<unsigned long long>(allocations),
         good ? "" : ", FAILED");
  return good && allocations == 0 ? 0 : 1;
}

// A handshake looks its server name up: exact, by wildcard, unknown, and none at all.
int look_up_names() {
  auto certificate = std::make_shared<TlsCertificate>();
  certificate->names = {"www.example.test", "*.example.test"};
  const TlsNames names({std::move(certificate)});
  const uint64_t before = g_allocations.load();
  size_t found = names.fallback().empty() ? 0 : 1;
  for (const char* name : {"WWW.Example.Test.", "a-rather-long-name.example.test", "none.test"}) {
    found += names.find(name).empty() ? 0 : 1;
  }
  const uint64_t allocations = g_allocations.load() - before;
  printf("server names: %zu found, %llu allocations\n", found,
         static_cast<unsigned long long>(allocations));
  return found == 3 && allocations == 0 ? 0 : 1;
}

// HTTP/2 requests: block to head, and the head that goes to a server to a block. What nghttp2 takes
// from malloc(3) counts.
int convert_h2_heads() {
  h2::Deflater client(4096);
  h2::Inflater inflater(4096);
  h2::Deflater deflater(4096);
  h2::HeadBuilder builder(16 * 1024, 64);
  http1::HeadParser parser(64);
  std::array<char, 4096> block;
  std::array<char, 4096> text;
  std::array<char, 4096> names;
  std::array<h2::HeaderField, 64> fields;
  const auto total = [&] {
    return g_allocations.load() + client.mallocs() + inflater.mallocs() + deflater.mallocs();
  };
  uint64_t before = 0;
  bool good = true;
  for (int i = 0; i < 2 * kCounted && good; ++i) {
    if (i == kCounted) before = total();
    std::array<char, 16> path_room;
    const int length = snprintf(path_room.data(), path_room.size(), "/%08d", i);
    const std::string_view path(path_room.data(), static_cast<size_t>(length));
    const h2::HeaderField request[] = {{.name = ":method", .value = "GET"},
                                       {.name = ":scheme", .value = "https"},
                                       {.name = ":authority", .value = "localhost"},
                                       {.name = ":path", .value = path},
                                       {.name = "user-agent", .value = "alloc_test"},
                                       {.name = "x-request-id", .value = path},
                                       {.name = "cookie", .value = "a-rather-long-name=value"},
                                       {.name = "cookie", .value = "b=c"}};
    const size_t size = client.encode(request, block);
    builder.start_request({});
    parser.start_request({});
    http1::Out out(text);
    good = inflater.decode({block.data(), size}, 16 * 1024, builder) &&
           builder.finish() == h2::BlockError::kNone &&
           parser.take_built(builder.built(), false) == http1::HeadError::kNone &&
           http1::write_request_head(parser.head(), {}, out);
    const h2::BlockRoom room{.fields = fields, .names = names};
    const size_t number = h2::fields_of_request(out.written(), "https", false, room);
    good = good && number == 7 && deflater.encode({fields.data(), number}, block) > 0;
  }
  const uint64_t allocations = total() - before;
  printf("HTTP/2 heads: %d, %llu allocations%s\n", kCounted,
         static_cast<unsigned long long>(allocations), good ? "" : ", FAILED");
  return good && allocations == 0 ? 0 : 1;
}

}  // namespace

int main() {
  int failed = look_up_names() + convert_h2_heads();
  const EngineOptions all[] = {
      {.kind = EngineKind::kAuto},
      {.kind = EngineKind::kAuto, .receive = ReceiveMode::kMultishot},
      {.kind = EngineKind::kEpoll},
  };
  const std::vector<Load> every = loads();
  for (const EngineOptions& options : all) {
    for (const Load& load : every) failed += run(options, load);
    failed += run_h2(options, false);
    failed += run_h2(options, true);
  }
  return failed == 0 ? 0 : 1;
}
