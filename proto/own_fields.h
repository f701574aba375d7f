// proto/own_fields.h - fields that only the balancer may say to servers: who a client has proved to
// be.
//
// Affinity:  pure functions and values; any thread. Views are the caller's.
// Why:       servers believe these fields, so a client must not be able to send them, nor anything
//            that a server may take for one of them: CGI, WSGI and others read `x-a-b`, `X_A_B` and
//            `x.a.b` as the same.
#pragma once

#include <array>
#include <cstddef>
#include <span>
#include <string>
#include <string_view>

namespace ringway::http1 {

// `name` in lower case, with '-' for whatever is neither letter nor digit.
[[nodiscard]] std::string fold_name(std::string_view name);
// `name` folds to one of `folded`.
[[nodiscard]] bool is_own_name(std::string_view name, std::span<const std::string> folded);

// What a head to a server says in place of the client. Names are valid ones; a value with CR, LF or
// NUL refuses the head.
class OwnFields {
 public:
  static constexpr size_t kMax = 8;
  struct Field {
    std::string_view name;
    std::string_view value;
  };

  // Empties the list. Fields of the client whose names fold to one of `removed`, or to that of a
  // field which is added, are left out.
  void start(std::span<const std::string> removed) {
    removed_ = removed;
    count_ = 0;
  }
  // REQUIRES: fewer than kMax were added.
  void add(std::string_view name, std::string_view value) { fields_.at(count_++) = {name, value}; }

  // The client's field of this name is left out.
  [[nodiscard]] bool removes(std::string_view name) const;
  [[nodiscard]] std::span<const Field> fields() const { return std::span(fields_).first(count_); }

 private:
  std::span<const std::string> removed_;
  std::array<Field, kMax> fields_;
  size_t count_ = 0;
};

}  // namespace ringway::http1
