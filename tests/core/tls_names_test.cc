// tests/core/tls_names_test.cc
#include "core/tls_names.h"

#include <doctest/doctest.h>

#include <memory>
#include <string>
#include <vector>

using namespace ringway;

namespace {

using Certificate = std::shared_ptr<const TlsCertificate>;

// The table reads names, type and time only.
Certificate certificate(std::vector<std::string> names, TlsKeyType type = TlsKeyType::kEcdsaP256,
                        int64_t not_after_s = 1000) {
  auto made = std::make_shared<TlsCertificate>();
  made->names = std::move(names);
  made->key_type = type;
  made->not_after_s = not_after_s;
  return made;
}

const TlsCertificate* ecdsa(const TlsChoice& choice) {
  return choice.of(TlsKeyType::kEcdsaP256);
}

}  // namespace

// RFC 9525 6.3: the wildcard is the whole left-most label and stands for exactly one.
TEST_CASE("TlsNames: exact and wildcard names -> the rules of RFC 9525") {
  const Certificate exact = certificate({"www.a.b"});
  const Certificate wild = certificate({"*.a.b"});
  const TlsNames names({exact, wild});
  CHECK(ecdsa(names.find("www.a.b")) == exact.get());
  CHECK(ecdsa(names.find("x.a.b")) == wild.get());
  CHECK(ecdsa(names.find("longer-than-one.a.b")) == wild.get());
  CHECK(names.find("a.b").empty());
  CHECK(names.find("x.y.a.b").empty());
  CHECK(names.find(".a.b").empty());
  CHECK(names.find("*.a.b").empty());
  CHECK(names.find("xa.b").empty());
  CHECK(names.find("").empty());
  CHECK(names.find(".").empty());
}

// RFC 4343: names are compared without regard to case; the final dot is the root's.
TEST_CASE("TlsNames: any case, a final dot -> found; two dots -> not") {
  const TlsNames names({certificate({"www.a.b", "*.c.d"})});
  CHECK_FALSE(names.find("WWW.A.b").empty());
  CHECK_FALSE(names.find("www.a.b.").empty());
  CHECK_FALSE(names.find("X.C.D.").empty());
  CHECK(names.find("www.a.b..").empty());
}

TEST_CASE("TlsNames: longest names, and longer ones -> found, and not") {
  const std::string longest = std::string(251, 'x') + ".y";
  const TlsNames names({certificate({longest, "*.y"})});
  CHECK_FALSE(names.find(longest).empty());
  CHECK_FALSE(names.find(longest + ".").empty());
  CHECK(names.find("z" + longest).empty());
  CHECK(names.find(std::string(100'000, 'z')).empty());
}

TEST_CASE("TlsNames: RSA and ECDSA for one name -> one of each type") {
  const Certificate rsa = certificate({"a.b"}, TlsKeyType::kRsa);
  const Certificate ec = certificate({"a.b", "other.b"});
  const TlsNames names({rsa, ec});
  const TlsChoice choice = names.find("a.b");
  CHECK(choice.of(TlsKeyType::kRsa) == rsa.get());
  CHECK(ecdsa(choice) == ec.get());
  CHECK(choice.of(TlsKeyType::kEd25519) == nullptr);
  CHECK(names.find("other.b").of(TlsKeyType::kRsa) == nullptr);
}

TEST_CASE("TlsNames: two of a name and type -> the longer valid one, then the earlier") {
  const Certificate short_one = certificate({"a.b"}, TlsKeyType::kRsa, 100);
  const Certificate long_one = certificate({"a.b"}, TlsKeyType::kRsa, 200);
  const Certificate equal = certificate({"a.b"}, TlsKeyType::kRsa, 200);
  CHECK(TlsNames({short_one, long_one, equal}).find("a.b").of(TlsKeyType::kRsa) == long_one.get());
  CHECK(TlsNames({equal, long_one, short_one}).find("a.b").of(TlsKeyType::kRsa) == equal.get());
}

TEST_CASE("TlsNames: no server name -> the first certificate, and the others of its first name") {
  const Certificate first = certificate({"a.b", "c.d"}, TlsKeyType::kRsa, 100);
  const Certificate fresher = certificate({"a.b"}, TlsKeyType::kRsa, 200);
  const Certificate ec = certificate({"a.b"});
  const Certificate unrelated = certificate({"x.y"}, TlsKeyType::kEd25519);
  const TlsNames names({first, fresher, ec, unrelated});
  CHECK(names.fallback().of(TlsKeyType::kRsa) == first.get());
  CHECK(ecdsa(names.fallback()) == ec.get());
  CHECK(names.fallback().of(TlsKeyType::kEd25519) == nullptr);

  const Certificate nameless = certificate({});
  CHECK(ecdsa(TlsNames({nameless}).fallback()) == nameless.get());
  CHECK(TlsNames({}).fallback().empty());
  CHECK(TlsNames({}).find("a.b").empty());
}

TEST_CASE("TlsNames: 50,000 certificates with 3 names -> each finds its own, nobody else's") {
  std::vector<Certificate> all;
  for (int i = 0; i < 50'000; ++i) {
    const std::string name = "tenant" + std::to_string(i) + ".example.test";
    all.push_back(certificate({name, "www." + name, "*.api." + name}));
  }
  const TlsNames names(all);
  CHECK(names.num_names() == 150'000);
  // 40 bytes of an entry and its slots, some 30 of text, 16 of a third of a pointer.
  CHECK(names.memory_bytes() < 150'000 * 100);
  bool right = true;
  for (int i = 0; i < 50'000; ++i) {
    const std::string name = "tenant" + std::to_string(i) + ".example.test";
    right = right && ecdsa(names.find(name)) == all[static_cast<size_t>(i)].get() &&
            ecdsa(names.find("www." + name)) == all[static_cast<size_t>(i)].get() &&
            ecdsa(names.find("x.api." + name)) == all[static_cast<size_t>(i)].get() &&
            names.find("x." + name).empty();
  }
  CHECK(right);
}
