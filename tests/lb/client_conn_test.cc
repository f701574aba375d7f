// tests/lb/client_conn_test.cc - heads, pipelines, deadlines and ends of HTTP/1 clients.
#include "lb/client_conn.h"

#include "tests/lb/one_worker.h"

using namespace ringway;

TEST_CASE("ClientConn: pipelined requests -> answered in order on one connection") {
  OneWorker world({answers("one")});
  const std::string got = world.ask(kGet + kGet + kGet);
  CHECK(count_of(got, "HTTP/1.1 200 OK") == 3);
  CHECK(got.ends_with("one"));
  CHECK(world.requests[0] == 3);
  CHECK(world.listener().active.get() == 1);
}

TEST_CASE("ClientConn: a head byte by byte -> the same answer as at once") {
  OneWorker world({answers("one")});
  std::vector<std::string> bytes;
  for (const char c : kGet) bytes.emplace_back(1, c);
  SimConnection& slow = world.client(bytes);
  world.run(200);
  CHECK(slow.received() == world.ask(kGet));
}

TEST_CASE("ClientConn: a malformed head -> 400, and the connection ends") {
  OneWorker world({answers("one")});
  SimConnection& client = world.client({"GET / HTTP/1.1\r\nHost: a\r\nBad Name: x\r\n\r\n" + kGet});
  world.run(100);
  CHECK(client.received().starts_with("HTTP/1.1 400"));
  CHECK(count_of(client.received(), "HTTP/1.1") == 1);
  CHECK(client.ended());
  CHECK(world.requests[0] == 0);
  CHECK(world.listener().rejected_heads.get() == 1);
}

TEST_CASE("ClientConn: deadlines -> 408 for half a head, a silent end between requests") {
  OneWorker world({answers("one")}, "",
                  "timeouts = { request_headers = \"100ms\", keep_alive = \"300ms\" }");
  SimConnection& half = world.client({"GET / HT"});
  SimConnection& silent = world.client({});
  SimConnection& kept = world.client({kGet});
  world.run(200);
  CHECK(half.received().starts_with("HTTP/1.1 408"));
  CHECK(silent.received() == "");
  CHECK(silent.ended());
  CHECK(!kept.ended());
  world.run(300);
  CHECK(kept.ended());
  CHECK(count_of(kept.received(), "HTTP/1.1") == 1);
  CHECK(world.listener().timeouts.get() == 2);
}

TEST_CASE("ClientConn: limits -> 431, 414 and 413") {
  OneWorker world(
      {answers("one")}, "",
      "limits = { header_bytes = \"2KiB\", uri_bytes = \"1KiB\", body_bytes = \"10B\" }");
  CHECK(world.ask("GET / HTTP/1.1\r\nHost: a\r\nX: " + std::string(3000, 'x') + "\r\n\r\n")
            .starts_with("HTTP/1.1 431"));
  CHECK(world.ask("GET /" + std::string(1500, 'x') + " HTTP/1.1\r\nHost: a\r\n\r\n")
            .starts_with("HTTP/1.1 414"));
  CHECK(world.ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\n")
            .starts_with("HTTP/1.1 413"));
  CHECK(world.requests[0] == 0);
}

TEST_CASE("ClientConn: drain -> the idle close, the busy are told that it is their last") {
  bool let_go = false;
  OneWorker world({[&](SimConnection& connection, std::string_view bytes) -> size_t {
    return let_go ? answers("late")(connection, bytes) : 0;
  }});
  SimConnection& busy = world.client({kGet});
  world.run(50);
  world.worker.drain();
  world.run(50);
  CHECK(!busy.ended());
  let_go = true;
  SimConnection& none = world.client({kGet});
  world.run(50);
  CHECK(none.received() == "");
  CHECK(!world.worker.quiet());
}
