// tests/pool/pool_access.h - reaches what only the pool itself may call, so that tests can show
// that misuse stops the process. An explicit instantiation may name private members.
#pragma once

#include "pool/server_pool.h"

namespace ringway {

using MoveTo = void (ServerPool::*)(PooledConn&, Place);
using Own = void (*)(SessionEntry&, PooledConn&);
using UnOwn = void (*)(PooledConn&);
using EntryOf = SessionEntry* PooledConn::*;

MoveTo move_to_of(ServerPool&);
Own own_of(SessionStore&);
UnOwn un_own_of(SessionStore&);
EntryOf entry_of(PooledConn&);

template <MoveTo kMember>
struct ReachMoveTo {
  friend MoveTo move_to_of(ServerPool&) { return kMember; }
};
template <Own kMember>
struct ReachOwn {
  friend Own own_of(SessionStore&) { return kMember; }
};
template <UnOwn kMember>
struct ReachUnOwn {
  friend UnOwn un_own_of(SessionStore&) { return kMember; }
};
template <EntryOf kMember>
struct ReachEntry {
  friend EntryOf entry_of(PooledConn&) { return kMember; }
};
template struct ReachMoveTo<&ServerPool::move_to>;
template struct ReachOwn<&SessionStore::own>;
template struct ReachUnOwn<&SessionStore::un_own>;
template struct ReachEntry<&PooledConn::entry_>;

}  // namespace ringway
