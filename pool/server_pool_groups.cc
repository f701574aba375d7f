// pool/server_pool_groups.cc - the groups of a pool's connections: found by their keys, made with
// the first connection of a key, gone with the last.
#include <utility>

#include "pool/server_pool.h"

namespace ringway {

KeyGroup* ServerPool::find_group(const ConnKey* key) const {
  if (key == nullptr) return fixed_;
  if (key->single_use) return nullptr;  // Even if its bytes are those of others.
  IdleTree& tree = idle_tree(key->hash);
  auto found = tree.lower_bound(key->hash, ByKey());
  for (; found != tree.end() && found->hash() == key->hash; ++found) {
    if (found->bytes() == key->bytes) return &*found;
  }
  return nullptr;
}

// So that a look-up takes a step or two. Groups move in their order, each to the end of its tree.
void ServerPool::grow_tree() {
  constexpr uint32_t kTopsMax = 1U << 16;
  if (group_count_ < size_t{2} * tops_ || tops_ >= kTopsMax) return;
  const uint32_t old_tops = std::exchange(tops_, tops_ * 4);
  top_shift_ -= 2;
  const std::unique_ptr<IdleTree[]> old =
      std::exchange(idle_trees_, std::make_unique<IdleTree[]>(tops_));
  for (size_t i = 0; i < old_tops; ++i) {
    while (!old[i].empty()) {
      KeyGroup& group = *old[i].begin();
      old[i].erase(old[i].begin());
      idle_tree(group.hash()).push_back(group);
    }
  }
}

KeyGroup* ServerPool::ensure_group(const ConnKey* key) {
  if (KeyGroup* known = find_group(key)) return known;
  if (key->single_use) return nullptr;
  // Clients choose some keys, so their number is bounded: the one used longest ago makes room.
  if (group_count_ >= limits_.groups_max) {
    const size_t before = group_count_;
    for (auto it = lru_.rbegin(); it != lru_.rend(); ++it) {
      if (it->group_->pinned_ || it->group_->connections_ != 1) continue;
      close(*it, CloseReason::kGroupLimit);
      break;
    }
    if (group_count_ == before) return nullptr;
  }
  KeyGroup* group = memory_.groups.take(*key);
  if (group == nullptr) return nullptr;
  idle_tree(group->hash()).insert(*group);
  ++group_count_;
  stats_.groups.add();
  grow_tree();
  return group;
}

void ServerPool::leave_group(PooledConn& conn) {
  KeyGroup* group = conn.group_;
  if (group == nullptr) return;
  conn.group_ = nullptr;
  --group->connections_;
  if (group->connections_ > 0 || group->pinned_) return;
  IdleTree& tree = idle_tree(group->hash());
  tree.erase(tree.iterator_to(*group));
  --group_count_;
  stats_.groups.sub();
  memory_.groups.give_back(group);
}

}  // namespace ringway
