// tests/core/tls_interop_test.cc - our TLS against another implementation: openssl(1), both roles.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "tests/core/real_tls_world.h"

namespace ringway {
namespace {

// openssl(1) with arguments; what it prints goes to a file, its input stays open.
class OpenSsl {
 public:
  OpenSsl(const std::filesystem::path& folder, std::vector<std::string> arguments)
      : output_(folder / "output") {
    int in[2];
    REQUIRE(pipe2(in, O_CLOEXEC) == 0);
    const int out = open(output_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    REQUIRE(out >= 0);
    arguments.insert(arguments.begin(), "openssl");
    std::vector<char*> pointers;
    for (std::string& argument : arguments) pointers.push_back(argument.data());
    pointers.push_back(nullptr);
    pid_ = fork();
    if (pid_ == 0) {
      dup2(in[0], 0);
      dup2(out, 1);
      dup2(out, 2);
      execvp("openssl", pointers.data());
      _exit(127);
    }
    ::close(in[0]);
    ::close(out);
    input_ = in[1];
  }
  ~OpenSsl() {
    if (input_ >= 0) ::close(input_);
    if (pid_ > 0) {
      kill(pid_, SIGKILL);
      waitpid(pid_, nullptr, 0);
    }
  }
  void say(const std::string& text) { REQUIRE(write(input_, text.data(), text.size()) > 0); }
  void hang_up() {
    ::close(input_);
    input_ = -1;
  }
  bool ended() {
    if (pid_ > 0 && waitpid(pid_, &status_, WNOHANG) == pid_) pid_ = -1;
    return pid_ < 0;
  }
  [[nodiscard]] std::string output() const {
    std::stringstream text;
    text << std::ifstream(output_).rdbuf();
    return text.str();
  }
  [[nodiscard]] bool printed(std::string_view text) const {
    return output().find(text) != std::string::npos;
  }

 private:
  std::filesystem::path output_;
  pid_t pid_ = -1;
  int input_ = -1;
  int status_ = 0;
};

struct Folder {
  Folder() {
    std::string name = (std::filesystem::temp_directory_path() / "ringway-tls-XXXXXX").string();
    REQUIRE(mkdtemp(name.data()) != nullptr);
    path = name;
  }
  ~Folder() { std::filesystem::remove_all(path); }
  std::string write(const char* name, const std::string& text) const {
    std::ofstream(path / name) << text;
    return (path / name).string();
  }
  std::filesystem::path path;
};

TEST_CASE("Tls: openssl s_client -> verifies us, speaks, resumes at another shard") {
  for (const char* version : {"-tls1_2", "-tls1_3"}) {
    CAPTURE(version);
    EpollEngine io(0);
    RealTlsWorld world(io);
    world.server_options.alpn = {"http/1.1"};
    const Folder folder;
    const std::string ca = folder.write("ca.pem", world.keys.authority.cert_pem);
    const std::string session = (folder.path / "session").string();
    for (const char* how : {"-sess_out", "-sess_in"}) {
      OpenSsl client(folder.path,
                     {"s_client", version, "-connect", world.address_text(), "-servername",
                      "example.test", "-verify_hostname", "example.test", "-verify_return_error",
                      "-CAfile", ca, "-alpn", "http/1.1", how, session});
      world.accepted.clear();
      REQUIRE(world.run([&] { return !world.accepted.empty(); }));
      TlsEnd& server = world.peer_of_last();
      REQUIRE(world.run([&] { return server.secured == 1; }));
      client.say("hello\n");
      REQUIRE(world.run([&] { return server.text == "hello\n"; }));
      CHECK(server.alpn == "http/1.1");
      REQUIRE(server.send("from ringway\n"));
      REQUIRE(world.run([&] { return client.printed("from ringway"); }));
      server.stream.shutdown_send();
      REQUIRE(world.run([&] { return client.ended(); }));
      CHECK(client.printed("Verification: OK"));
      const bool again = std::string_view(how) == "-sess_in";
      CHECK(server.resumed == again);
      CHECK(client.printed(again ? "Reused, TLSv1" : "New, TLSv1"));
      world.close_all();
      world.server = nullptr;
    }
  }
}

TEST_CASE("Tls: a client renegotiates (TLS 1.2) -> refused, tls_renegotiation") {
  EpollEngine io(0);
  RealTlsWorld world(io);
  const Folder folder;
  OpenSsl client(folder.path, {"s_client", "-tls1_2", "-connect", world.address_text()});
  REQUIRE(world.run([&] { return !world.accepted.empty(); }));
  TlsEnd& server = world.peer_of_last();
  REQUIRE(world.run([&] { return server.secured == 1; }));
  client.say("R\n");  // s_client: "renegotiate".
  REQUIRE(world.run([&] { return server.ends == 1; }));
  CHECK(server.end == kTlsFailed);
  CHECK(server.cause == "tls_renegotiation");
}

TEST_CASE("Tls: openssl s_server -> we verify it, show our certificate, speak, resume") {
  for (const char* version : {"-tls1_2", "-tls1_3"}) {
    CAPTURE(version);
    EpollEngine io(0);
    RealTlsWorld world(io);
    const Folder folder;
    const std::string ca = folder.write("ca.pem", world.keys.authority.cert_pem);
    const std::string pair =
        folder.write("pair.pem", world.keys.server.cert_pem + world.keys.server.key_pem);
    const test::MadeCertificate alice = test::make_certificate(
        {.common_name = "alice", .issuer = &world.keys.authority, .client = true});
    world.client_options.certificate = to_tls(alice);
    // A port that was free a moment ago.
    const int reserved = listen_any();
    world.address = bound(reserved);
    ::close(reserved);
    OpenSsl server(folder.path,
                   {"s_server", version, "-accept", world.address_text(), "-cert", pair, "-Verify",
                    "1", "-CAfile", ca, "-verify_return_error", "-rev"});
    REQUIRE(world.run([&] { return server.printed("ACCEPT"); }));
    TlsTicket ticket;
    for (int i = 0; i < 2; ++i) {
      TlsEnd& client = world.dial({.server_name = "example.test", .ticket = &ticket});
      REQUIRE(world.run([&] { return client.decided(); }));
      REQUIRE(client.connected == 0);
      CHECK(client.resumed == (i == 1));
      CHECK(client.verdict == TlsVerdict::kOk);
      REQUIRE(client.send("drawer\n"));
      REQUIRE(world.run([&] { return client.text == "reward\n"; }));
      if (i == 0) {
        REQUIRE(world.run([&] { return !client.tickets.empty(); }));
        ticket = std::move(client.tickets.back());
      }
      client.stream.close();
      REQUIRE(world.run([&] { return client.closed == 1; }));
    }
    CHECK(server.printed("CN = alice"));
  }
}

}  // namespace
}  // namespace ringway
