#!/usr/bin/env python3
"""tests/pool/mutate.py - does the pool's model find the bugs that such pools had?

Each mutant is pool/ with one such bug put in; pool_model_tests is built with it and
must fail, reported with its seed, within a minute. Run by hand: python3 tests/pool/mutate.py
[NAME...]. $CXX is the compiler with its options. Prints a table; fails if a mutant survives.
With --texts nothing is built: only whether each bug still finds its place in pool/ (a test does).
"""
import os
import pathlib
import shlex
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
TLS = pathlib.Path('/usr/lib') / f'{os.uname().machine}-linux-gnu' / 'android'
FLAGS = '-std=c++20 -O1 -fno-rtti -fno-exceptions -pthread -isystem /usr/include/android'.split()
SECONDS = 60
POOL = ['budget', 'conn_key', 'server_pool', 'server_pool_groups', 'server_pool_places', 'session_store']
TESTS = ['pool_model', 'pool_model_ends', 'pool_model_test', 'pool_world', 'pool_world_events']

P = 'server_pool.cc'
G = 'server_pool_groups.cc'
L = 'server_pool_places.cc'
S = 'session_store.cc'
H = 'server_pool.h'
# name, what it is, [(file, text, text instead)]
MUTANTS = [
    ('count-kept', 'a place is not counted down', [
        (L, '    --counts_[static_cast<size_t>(from)];\n', '')]),
    ('group-idle-kept', 'a group counts one that has left as idle', [
        (L, '      --group->idle_;\n', '')]),
    ('closing-parked', 'a closing connection is parked again', [
        (L, '/* kClosing */ bit(Place::kNew)};',
         '/* kClosing */ bit(Place::kNew) | bit(Place::kIdleSafe) | bit(Place::kIdleUnproven)};'),
        (P, '    return refuse(conn, CloseReason::kUnneeded);\n',
         '    refuse(conn, CloseReason::kUnneeded);\n')]),
    ('hash-only', 'keys with equal hashes are equal', [
        (G, 'if (found->bytes() == key->bytes) return &*found;', 'return &*found;')]),
    ('lru-kept', 'a used one stays in the LRU', [
        (L, '      lru_.erase(lru_.iterator_to(conn));\n', '')]),
    ('private-parked', 'a private one is parked for all', [
        (P, 'return conn.private_ ? keep_private(conn, now_ms) : park(conn, now_ms);',
         'return park(conn, now_ms);'),
        (L, 'RW_CHECK(!conn.private_ && !conn.close_after_ && conn.streams_ == 0);', ''),
        (L, '/* kSessionBusy */ bit(Place::kSessionIdle)',
         '/* kSessionBusy */ bit(Place::kIdleSafe) | bit(Place::kIdleUnproven)')]),
    ('entry-kept', 'un-owning leaves the empty entry', [
        (P, '    SessionStore::release(*entry);\n', '')]),
    ('owner-kept', 'a closed one still names its session', [
        (P, '    conn.entry_ = nullptr;\n    SessionStore::release', '    SessionStore::release')]),
    ('goaway-ignored', 'requests are given to a connection after GOAWAY', [
        (P, '  conn.close_after_ = true;\n  conn.capacity_ = 0;\n'
            '  if (conn.place_ == Place::kBusy || conn.place_ == Place::kAvailable) {\n'
            '    move_to(conn, Place::kDraining);\n  }\n', '  conn.close_after_ = true;\n')]),
    ('capacity-late', 'a full connection stays available', [
        (P, '  --conn.capacity_;\n', '')]),
    ('retire-partial', 'maintenance leaves unproven ones idle', [
        (P, 'while (!lru_.empty()) close(lru_.back(), reason);',
         'while (!lru_.empty() && lru_.back().proven_) close(lru_.back(), reason);')]),
    ('retired-parked', 'a connection is kept during maintenance', [
        (P, '  } else if (retired_) {\n    reason = retired_reason_;\n', '')]),
    ('transit-retired', 'a connection is lent during maintenance', [
        (P, '.usable = !retired_ && !conn.close_after_', '.usable = !conn.close_after_')]),
    ('proven-early', 'proven by the first request', [
        (P, 'if (conn.finished_ >= 2 ', 'if (conn.finished_ >= 1 ')]),
    ('wrong-list', 'proven ones are filed as unproven', [
        (P, 'conn.proven_ ? Place::kIdleSafe : Place::kIdleUnproven',
         'conn.proven_ ? Place::kIdleUnproven : Place::kIdleSafe')]),
    ('first-ignored', 'first requests take what later ones may', [
        (P, 'case ReuseMode::kSafe: return rules.first ? Usable::kNone : Usable::kAny;',
         'case ReuseMode::kSafe: return Usable::kAny;')]),
    ('aggressive-unproven', 'aggressive takes unproven ones', [
        (P, 'rules.first ? Usable::kProven : Usable::kAny', 'Usable::kAny')]),
    ('auto-any', 'auto takes requests that cannot be repeated', [
        (P, 'rules.first && !rules.repeatable ? Usable::kNone : Usable::kAny', 'Usable::kAny')]),
    ('never-available', 'never shares a multiplexed connection', [
        (H, 'return limits_.mode != ReuseMode::kNever && limits_.mode != ReuseMode::kSafe;',
         'return limits_.mode != ReuseMode::kSafe;')]),
    ('safe-shares', 'safe puts a request on a connection that another client is using', [
        (H, 'return limits_.mode != ReuseMode::kNever && limits_.mode != ReuseMode::kSafe;',
         'return limits_.mode != ReuseMode::kNever;')]),
    ('held-any-key', 'one that the session holds is used for another key', [
        (P, 'it->group_ == &group && it->capacity_ > 0', 'it->capacity_ > 0')]),
    ('held-full', 'a full one that the session has in use gets another request', [
        (P, 'it->group_ == &group && it->capacity_ > 0', 'it->group_ == &group')]),
    ('held-or-private', 'a private one in use is taken for one that is held', [
        (P, 'it->place_ == place && it->group_', 'it->group_')]),
    ('own-shares', 'who must be alone gets one that others use', [
        (P, 'shares_in_use() && !rules.own', 'shares_in_use()')]),
    ('private-fixed-room', 'a private one keeps the room that it had', [
        (P, 'const bool kept = in_session(conn.place_);', 'const bool kept = conn.place_ == Place::kHeld;')]),
    ('private-never-full', 'an idle private one without room is kept', [
        (P, 'is_idle(conn.place_) || conn.place_ == Place::kSessionIdle) {\n    conn.capacity_ = free;',
         'is_idle(conn.place_)) {\n    conn.capacity_ = free;')]),
    ('unkept-has-room', 'a private one that no session could keep gets another request', [
        (P, '    conn.capacity_ = 0;\n    return false;', '    return false;')]),
    ('held-retired', 'one that a session holds gets requests during maintenance', [
        (P, 'limits_.mode != ReuseMode::kSafe || retired_ || store.empty()',
         'limits_.mode != ReuseMode::kSafe || store.empty()'),
        (P, '    for (PooledConn& conn : entry.conns_) conn.capacity_ = 0;\n', '')]),
    ('held-uncounted', 'one that a session holds does not count as used', [
        (P, 'count(Place::kHeld) + ', '')]),
    ('held-evicts', 'holding one gives up a private one', [
        (P, 'entry == nullptr && room', 'entry == nullptr')]),
    ('tops-mixed', 'a tree that grows leaves groups where nobody looks', [
        (G, 'idle_tree(group.hash()).push_back(group);', 'idle_trees_[0].push_back(group);')]),
    ('never-keeps', 'switching reuse off leaves idle ones', [
        (P, 'while (!lru_.empty()) close(lru_.back(), CloseReason::kReuseOff);', '')]),
    ('single-use-shared', 'a single-use key finds others', [
        (G, '  if (key->single_use) return nullptr;  // Even if its bytes are those of others.\n', '')]),
    ('private-any-key', "a session's own connection is used for another key", [
        (P, 'if (it->group_ == &group) return &*it;', 'if (it->group_ != nullptr) return &*it;')]),
    ('private-two-users', 'a login makes a connection of two users private', [
        (P, 'conn.streams_ > 1 || conn.place_', 'conn.place_')]),
    ('purge-rounds-down', 'the last idle one lives for ever', [
        (P, '(have - keep + 1) / 2', '(have - keep) / 2')]),
    ('purge-floor', 'the purge goes below the floor', [
        (P, 'std::max(limits_.idle_floor, need_ > in_use ? need_ - in_use : 0)',
         'need_ > in_use ? need_ - in_use : 0')]),
    ('purge-newest', 'the purge takes the warm ones', [
        (P, 'close(lru_.back(), CloseReason::kUnneeded)',
         'close(lru_.front(), CloseReason::kUnneeded)')]),
    ('peak-forgotten', 'the peak is not recorded', [
        (L, '  peak_used_ = std::max(peak_used_, used());\n', '')]),
    ('session-idle-limit', "one too many idle for a session", [
        (P, 'entry.idle_ >= entry.store_.limits()', 'entry.idle_ > entry.store_.limits()')]),
    ('session-target-limit', 'one target too many for a session', [
        (S, 'count_ >= limits_.targets', 'count_ > limits_.targets')]),
    ('session-evicts-newest', 'the newest target makes room', [
        (S, 'for (auto it = entries_.rbegin(); it != entries_.rend(); ++it)',
         'for (auto it = entries_.begin(); it != entries_.end(); ++it)')]),
    ('requests-limit', 'one request too many for a connection', [
        (P, '} else if (conn.requests_ >= conn.requests_max_) {',
         '} else if (conn.requests_ > conn.requests_max_) {')]),
    ('hint-ignored', "the server's max is ignored", [
        (P, 'std::min(conn.requests_max_, conn.requests_ + notes.hint_max)', 'conn.requests_max_')]),
    ('idle-unit-leaks', 'the unit of an idle one is not given back', [
        (L, '      idle_asked_ ? idle_share_->release_asked() : idle_share_->release();\n', '')]),
    ('suspects-young', 'a dead one takes younger ones with it', [
        (P, ' || other.idle_since_ms_ > conn.idle_since_ms_', '')]),
    ('idle-since-kept', 'parking does not note the time', [
        (P, '  conn.idle_since_ms_ = now_ms;\n  stats_.parked.add();\n', '  stats_.parked.add();\n')]),
    ('learns-anything', 'any two closes teach a timeout', [
        (P, ' && gap * 10 <= age', '')]),
    ('group-freed-early', 'a group goes before its last connection', [
        (G, '  if (group->connections_ > 0 || group->pinned_) return;',
         '  if (group->connections_ > 1 || group->pinned_) return;')]),
    ('group-limit-any', 'a key with several connections makes room', [
        (G, ' || it->group_->connections_ != 1) continue;', ') continue;')]),
    ('not-clean-kept', 'a cut exchange leaves its connection idle', [
        (P, '  if (!notes.clean) {\n    reason = CloseReason::kError;\n  } else if (!notes.server_keeps)',
         '  if (!notes.server_keeps)')]),
]


def compiler():
    return shlex.split(os.environ.get('CXX', 'g++'))


def run(command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(done.stderr or f'failed: {command}')


def compile_one(source, target, include):
    run(compiler() + FLAGS + ['-I', str(include), '-I', str(ROOT), '-c', str(source), '-o',
                              str(target)])


def build_base(work):
    for name in POOL:
        compile_one(ROOT / 'pool' / f'{name}.cc', work / f'pool_{name}.o', ROOT)
    compile_one(ROOT / 'core/tls_facts.cc', work / 'core.o', ROOT)
    for name in TESTS:
        compile_one(ROOT / 'tests/pool' / f'{name}.cc', work / f'test_{name}.o', ROOT)


def lost_texts():
    """What the bugs replace must be there, once."""
    return [f'{mutant}: {file}: {old!r}' for mutant, _, edits in MUTANTS for file, old, _ in edits
            if (ROOT / 'pool' / file).read_text().count(old) != 1]


def mutate(work, edits):
    """A copy of pool/ with the edits; returns the names to compile again."""
    tree = work / 'tree'
    shutil.rmtree(tree, ignore_errors=True)
    shutil.copytree(ROOT / 'pool', tree / 'pool')
    touched = set()
    for name, old, new in edits:
        path = tree / 'pool' / name
        text = path.read_text()
        if text.count(old) != 1:
            sys.exit(f'{name}: found {text.count(old)} times, not once:\n{old}')
        path.write_text(text.replace(old, new))
        touched |= {name[:-3]} if name.endswith('.cc') else {n for n in POOL if n != 'budget'}
    return touched


def link(work, changed):
    objects = [work / f'{"mutant" if name in changed else "pool"}_{name}.o' for name in POOL]
    objects += [work / f'test_{name}.o' for name in TESTS] + [work / 'core.o']
    run(compiler() + FLAGS + [str(o) for o in objects] +
        ['-o', str(work / 'tests'), f'-L{TLS}', '-lssl', '-lcrypto', f'-Wl,-rpath,{TLS}'])


def verdict(work):
    """How the program ended: (found, its words, seconds)."""
    start = time.monotonic()
    environment = dict(os.environ, RINGWAY_POOL_NO_SHRINK='1', RINGWAY_POOL_OPS='3000000')
    try:
        done = subprocess.run([str(work / 'tests')], capture_output=True, text=True,
                              timeout=SECONDS, env=environment)
    except subprocess.TimeoutExpired:
        return False, 'ran for a minute', SECONDS
    seconds = time.monotonic() - start
    seed = [line for line in done.stdout.splitlines() if line.startswith('FAILED: ')]
    said = done.stderr.strip().splitlines()
    if done.returncode == 0 or not seed:
        return False, 'survived', seconds
    words = said[0].split('check failed: ')[-1] if said else 'no words'
    return True, f'{words}; {seed[0].removeprefix("FAILED: RINGWAY_POOL_")}', seconds


def main():
    if lost := lost_texts():
        sys.exit('not found, or not once:\n' + '\n'.join(lost))
    wanted = set(sys.argv[1:])
    if '--texts' in wanted:
        return 0
    survivors = []
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        build_base(work)
        link(work, set())
        if verdict(work)[1] != 'survived' and not wanted:
            sys.exit('the pool fails without a mutation')
        print('| mutant | bug | found by | s |\n|---|---|---|---|')
        for name, what, edits in MUTANTS:
            if wanted and name not in wanted:
                continue
            changed = mutate(work, edits)
            for source in changed:
                compile_one(work / 'tree/pool' / f'{source}.cc', work / f'mutant_{source}.o',
                            work / 'tree')
            link(work, changed)
            found, words, seconds = verdict(work)
            if not found:
                survivors.append(name)
            print(f'| {name} | {what} | {words} | {seconds:.1f} |', flush=True)
    print(f'{len(survivors)} survived: {survivors}')
    return 1 if survivors else 0


if __name__ == '__main__':
    sys.exit(main())
