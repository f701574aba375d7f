// lb/l4_session.cc
#include "lb/l4_session.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include "core/base/check.h"

namespace ringway {

// One client and its server. Each side's `waiting` holds what is still to be written TO that side.
class L4Session final : public SocketOwner {
 public:
  explicit L4Session(L4Listener& listener) : listener_(listener), client_(*this), server_(*this) {}

  void start(int client_fd) {
    listener_.io_.adopt(client_.socket, client_fd);
    connect_next();
  }
  // Ends both sockets. The session is freed by the later of the two on_closed().
  void close() {
    closing_ = true;
    listener_.io_.close(client_.socket);
    listener_.io_.close(server_.socket);
  }

  void on_connected(Socket& /*socket*/, int error) override {
    if (error != 0) {
      listener_.io_.close(server_.socket);  // on_closed() goes on with the next server.
      return;
    }
    connected_ = true;
    listener_.io_.set_receiving(client_.socket, true);
    listener_.io_.set_receiving(server_.socket, true);
  }

  void on_receive(Socket& socket, std::span<const std::byte> bytes) override {
    Side& to = peer_of(socket);
    listener_.counters_.bytes += bytes.size();
    size_t sent = 0;
    if (to.waiting.empty()) {
      const iovec piece{const_cast<std::byte*>(bytes.data()), bytes.size()};
      const ssize_t result = listener_.io_.send(to.socket, {&piece, 1});
      if (result < 0) return close();
      sent = static_cast<size_t>(result);
    }
    if (sent == bytes.size()) return;
    to.waiting.insert(to.waiting.end(), bytes.begin() + static_cast<ptrdiff_t>(sent), bytes.end());
    listener_.io_.set_receiving(socket, false);  // Back-pressure: the sender's window fills.
    listener_.io_.want_writable(to.socket);
  }

  void on_receive_end(Socket& socket, int error) override {
    if (error != 0) return close();
    Side& to = peer_of(socket);
    to.fin_after = true;
    if (to.waiting.empty()) send_fin(to);
  }

  void on_writable(Socket& socket) override {
    Side& to = side_of(socket);
    const iovec piece{to.waiting.data(), to.waiting.size()};
    const ssize_t sent = listener_.io_.send(to.socket, {&piece, 1});
    if (sent < 0) return close();
    to.waiting.erase(to.waiting.begin(), to.waiting.begin() + sent);
    if (!to.waiting.empty()) return listener_.io_.want_writable(to.socket);
    to.waiting.shrink_to_fit();
    if (to.fin_after) return send_fin(to);
    listener_.io_.set_receiving(peer_of(socket).socket, true);
  }

  void on_closed(Socket& socket) override {
    if (&socket == &server_.socket && !connected_ && client_.socket.open() && !closing_) {
      return connect_next();
    }
    finish_if_closed();
  }

 private:
  struct Side {
    explicit Side(SocketOwner& owner) : socket(owner) {}
    Socket socket;
    std::vector<std::byte> waiting;
    bool fin_after = false;
    bool fin_sent = false;
  };

  Side& side_of(Socket& socket) { return &socket == &client_.socket ? client_ : server_; }
  Side& peer_of(Socket& socket) { return &socket == &client_.socket ? server_ : client_; }

  void connect_next() {
    while (tried_ < listener_.servers_.size()) {
      ++tried_;
      const ServerAddress& server =
          listener_.servers_[listener_.next_server_++ % listener_.servers_.size()];
      const auto* address = reinterpret_cast<const sockaddr*>(&server.storage);
      if (listener_.io_.connect(server_.socket, address, server.length) == 0) return;
    }
    ++listener_.counters_.refused;
    closing_ = true;
    listener_.io_.close(client_.socket);
  }

  void send_fin(Side& to) {
    to.fin_sent = true;
    listener_.io_.shutdown_send(to.socket);
    if (client_.fin_sent && server_.fin_sent) close();
  }

  void finish_if_closed() {
    if (client_.socket.open() || server_.socket.open()) return;
    listener_.sessions_.erase(this);  // Frees *this.
  }

  L4Listener& listener_;
  Side client_;
  Side server_;
  size_t tried_ = 0;
  bool connected_ = false;
  bool closing_ = false;
};

L4Listener::L4Listener(Io& io, int fd, std::vector<ServerAddress> servers)
    : io_(io), servers_(std::move(servers)) {
  RW_CHECK(!servers_.empty());
  io_.listen(fd, *this);
}

L4Listener::~L4Listener() {
  RW_CHECK(sessions_.empty());
}

void L4Listener::on_accepted(int fd, const PeerAddress& /*peer*/) {
  ++counters_.accepted;
  auto session = std::make_unique<L4Session>(*this);
  L4Session& started = *session;
  sessions_.emplace(&started, std::move(session));
  started.start(fd);
}

void L4Listener::close_all() {
  std::vector<L4Session*> all;
  for (const auto& [session, owned] : sessions_) all.push_back(session);
  for (L4Session* session : all) session->close();
}

}  // namespace ringway
