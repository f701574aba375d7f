// tools/ringctl_client.h - one request to the admin socket of a running ringway.
//
// Affinity: blocks; for programs of one thread.
#pragma once

#include <cstdint>
#include <string>

namespace ringway {

struct AdminReply {
  int status = 0;
  std::string body;
};

struct AdminRequest {
  std::string method = "GET";
  std::string target;  // path and query, percent-encoded
  std::string body;    // JSON, or empty
  int64_t patience_s = 60;
};

// Sends `request` to the socket at `path` and reads the whole reply. False with `error`: nobody
// listens there, may not be asked, or does not answer.
[[nodiscard]] bool ask_admin(const std::string& path, const AdminRequest& request,
                             AdminReply& reply, std::string& error);

// For a path segment or a value of the query.
[[nodiscard]] std::string percent_encode(const std::string& text);

}  // namespace ringway
