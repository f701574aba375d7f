#!/usr/bin/env python3
"""tests/e2e/run.py BINARY [NAME...] - runs the end-to-end tests (all files, or those whose file name contains a NAME).

Two files run at once, each in a process of its own; those that load the whole machine run alone, at the end. Each test
is one line; the last line says 'N passed, N failed'."""
import concurrent.futures
import faulthandler
import os
import pathlib
import re
import subprocess
import sys
import unittest

HERE = pathlib.Path(__file__).resolve().parent
ALONE = {"test_scale", "test_reuse_limits", "test_reuse_borrow", "test_tls_load"}


class Result(unittest.TextTestResult):
    def startTest(self, test):
        faulthandler.dump_traceback_later(90, exit=True)  # A hang ends the run and shows where.
        super().startTest(test)

    def stopTest(self, test):
        faulthandler.cancel_dump_traceback_later()
        super().stopTest(test)


def run_file(stem: str) -> int:
    suite = unittest.defaultTestLoader.loadTestsFromName(stem)
    result = unittest.TextTestRunner(resultclass=Result, verbosity=2).run(suite)
    failed = len(result.failures) + len(result.errors)
    print(f"{result.testsRun - failed} passed, {failed} failed")
    return 0 if failed == 0 else 1


def run_apart(path: pathlib.Path) -> tuple[int, int]:
    """Runs one file; prints what it says when it is done. Returns how many passed and failed."""
    done = subprocess.run([sys.executable, __file__, sys.argv[1], f"={path.stem}"], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    print(done.stdout, end="", flush=True)
    counts = re.findall(r"^(\d+) passed, (\d+) failed$", done.stdout, re.M)
    if not counts:  # It ended by itself: a hang, a crash.
        print(f"FAILED: {path.name} ended with {done.returncode}")
        return 0, 1
    return int(counts[-1][0]), int(counts[-1][1])


def main() -> int:
    os.environ["RINGWAY"] = str(pathlib.Path(sys.argv[1]).resolve())
    sys.path.insert(0, str(HERE))
    names = sys.argv[2:]
    if names and names[0].startswith("="):
        return run_file(names[0][1:])
    paths = [path for path in sorted(HERE.glob("test_*.py")) if not names or any(name in path.name for name in names)]
    alone = [path for path in paths if path.stem in ALONE]
    passed = failed = 0
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        results = list(pool.map(run_apart, [path for path in paths if path not in alone]))
    results += [run_apart(path) for path in alone]
    for good, bad in results:
        passed += good
        failed += bad
    print(f"{passed} passed, {failed} failed")
    return 0 if failed == 0 and passed > 0 else 1


if __name__ == "__main__":
    sys.exit(main())
