// tests/lb/l4_session_test.cc - bytes both ways, ends and cuts of TCP sessions.
#include "lb/l4_session.h"

#include "tests/lb/one_worker.h"

using namespace ringway;

namespace {

// Sends back what comes.
size_t echo(SimConnection& connection, std::string_view bytes) {
  connection.send(bytes);
  return bytes.size();
}

}  // namespace

TEST_CASE("L4Session: bytes both ways, and the client's end is passed on") {
  OneWorker world({echo}, "", "", true);
  SimConnection& client = world.client({"abc", "def"});
  world.run(50);
  CHECK(client.received() == "abcdef");
  client.finish();
  world.run(50);
  CHECK(client.ended_cleanly());
  CHECK(world.listener().active.get() == 0);
  CHECK(world.server(0).pool.closed[static_cast<size_t>(CloseReason::kLayer4)].get() == 1);
}

TEST_CASE("L4Session: a reset of one side -> the other is reset as well") {
  OneWorker world({[](SimConnection& connection, std::string_view bytes) -> size_t {
                    connection.abort();
                    return bytes.size();
                  }},
                  "", "", true);
  SimConnection& client = world.client({"abc"});
  world.run(50);
  CHECK(client.ended());
  CHECK(client.end_error() != 0);
}

TEST_CASE("L4Session: idle for too long -> cut, so that nobody takes it for an end") {
  OneWorker world({echo}, "timeouts = { tunnel_idle = \"200ms\" }", "", true);
  SimConnection& client = world.client({"abc"});
  world.run(100);
  CHECK(!client.ended());
  world.run(300);
  CHECK(client.ended());
  CHECK(client.end_error() != 0);
}

TEST_CASE("L4Session: a server that cannot be reached -> the next one") {
  OneWorker world({echo, echo}, "", "", true);
  world.stop_server(0);
  CHECK(world.ask("abc") == "abc");
  CHECK(world.requests[0] == 0);
  CHECK(world.upstream().retries.get() == 1);
}
