// tests/lb/exchange_test.cc - what becomes of a request when servers misbehave.
#include "lb/exchange.h"

#include "tests/lb/one_worker.h"

using namespace ringway;

namespace {

const std::string kPost = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc";

// Takes a request and says `bytes`, then perhaps ends.
ServerScript says(std::string bytes, bool end) {
  return
      [bytes = std::move(bytes), end](SimConnection& connection, std::string_view head) -> size_t {
        if (head.find("\r\n\r\n") == std::string_view::npos) return 0;
        if (!bytes.empty()) connection.send(bytes);
        if (end) connection.close_after_send();
        return head.size();
      };
}

}  // namespace

TEST_CASE("Exchange: no answer, half an answer, nonsense -> 502 and no reuse") {
  for (const std::string& bytes : {std::string(), std::string("HTTP/1.1 20"),
                                   std::string("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n"
                                               "Content-Length: 2\r\n\r\nxx"),
                                   std::string("nonsense\r\n\r\n")}) {
    OneWorker world({says(bytes, true)});
    CHECK(world.ask(kGet).starts_with("HTTP/1.1 502"));
    CHECK(world.upstream().bad_responses.get() == 1);
    CHECK(world.server(0).pool.parked.get() == 0);
  }
}

TEST_CASE("Exchange: silence -> 504; in the middle of a body -> the client sees the cut") {
  OneWorker world({says("", false)}, "timeouts = { response_headers = \"200ms\" }");
  CHECK(world.ask(kGet, 400).starts_with("HTTP/1.1 504"));
  OneWorker other({says("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", false)},
                  "timeouts = { server_idle = \"200ms\" }");
  SimConnection& client = other.client({kGet});
  other.run(400);
  CHECK(client.received().ends_with("abc"));
  CHECK(client.ended());
  CHECK(client.end_error() != 0);
}

TEST_CASE("Exchange: a server that cannot be reached -> the next one; none -> 503") {
  OneWorker world({answers("a"), answers("b")});
  world.stop_server(0);
  CHECK(world.ask(kGet).ends_with("b"));
  CHECK(world.upstream().retries.get() == 1);
  world.stop_server(1);
  world.run(100);
  CHECK(world.ask(kGet).starts_with("HTTP/1.1 503"));
}

TEST_CASE("Exchange: a reused connection that is dead -> a GET is repeated, a POST is not") {
  // Every second request of a connection meets its end.
  const auto every_second = [](SimConnection& connection, std::string_view bytes) -> size_t {
    if (bytes.find("\r\n\r\n") == std::string_view::npos) return 0;
    if (count_of(connection.received(), " HTTP/1.1\r\n") > 1) {
      connection.abort();
    } else {
      connection.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    }
    return bytes.size();
  };
  OneWorker world({every_second});
  SimConnection& client = world.client({kGet, kGet, kGet, kPost});
  world.run(200);
  CHECK(count_of(client.received(), "HTTP/1.1 200 OK") == 3);
  CHECK(count_of(client.received(), "HTTP/1.1 502") == 1);
  CHECK(world.server(0).stale.get() == 2);
}

TEST_CASE("Exchange: an answer before the end of the body -> passed on, the connection closes") {
  OneWorker world({[](SimConnection& connection, std::string_view bytes) -> size_t {
    if (bytes.find("\r\n\r\n") == std::string_view::npos) return 0;
    connection.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n");
    return bytes.size();
  }});
  SimConnection& client =
      world.client({"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nabc"});
  world.run(100);
  CHECK(client.received().starts_with("HTTP/1.1 403"));
  CHECK(count_of(client.received(), "Connection: close") == 1);
  CHECK(world.server(0).pool.parked.get() == 0);
}

TEST_CASE("Exchange: a login on the connection -> it stays this client's own") {
  OneWorker world({[](SimConnection& connection, std::string_view bytes) -> size_t {
                    if (bytes.find("\r\n\r\n") == std::string_view::npos) return 0;
                    connection.send(
                        "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: NTLM\r\n"
                        "Content-Length: 0\r\n\r\n");
                    return bytes.size();
                  }},
                  "pool = { reuse = \"always\" }");
  SimConnection& first = world.client({kGet, kGet});
  world.run(100);
  CHECK(count_of(first.received(), "401") == 2);
  CHECK(world.server(0).connects.get() == 1);
  CHECK(world.server(0).pool.handed[static_cast<size_t>(How::kSession)].get() == 1);
  CHECK(world.ask(kGet).starts_with("HTTP/1.1 401"));
  CHECK(world.server(0).connects.get() == 2);
  first.close();
  world.run(50);
  CHECK(world.server(0).pool.closed[static_cast<size_t>(CloseReason::kSessionEnd)].get() == 1);
}

TEST_CASE("Exchange: reuse never with a key of the request -> kept apart by it") {
  OneWorker world({answers("x")}, "pool = { reuse = \"never\", key = [\"request.host\"] }");
  const std::string other = "GET / HTTP/1.1\r\nHost: b\r\n\r\n";
  SimConnection& client = world.client({kGet, other, kGet, other});
  world.run(100);
  CHECK(count_of(client.received(), "HTTP/1.1 200") == 4);
  CHECK(world.server(0).connects.get() == 2);
}
