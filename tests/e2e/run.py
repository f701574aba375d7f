#!/usr/bin/env python3
"""tests/e2e/run.py BINARY [NAME...] - runs the end-to-end tests (all files, or those whose name contains a NAME).

Each test is one line; the last line says 'N passed, N failed'."""
import faulthandler
import os
import pathlib
import sys
import unittest

HERE = pathlib.Path(__file__).resolve().parent


class Result(unittest.TextTestResult):
    def startTest(self, test):
        faulthandler.dump_traceback_later(90, exit=True)  # A hang ends the run and shows where.
        super().startTest(test)

    def stopTest(self, test):
        faulthandler.cancel_dump_traceback_later()
        super().stopTest(test)


def main() -> int:
    os.environ["RINGWAY"] = str(pathlib.Path(sys.argv[1]).resolve())
    sys.path.insert(0, str(HERE))
    names = sys.argv[2:]
    suite = unittest.TestSuite()
    for path in sorted(HERE.glob("test_*.py")):
        if not names or any(name in path.stem for name in names):
            suite.addTests(unittest.defaultTestLoader.loadTestsFromName(path.stem))
    result = unittest.TextTestRunner(resultclass=Result, verbosity=2).run(suite)
    failed = len(result.failures) + len(result.errors)
    print(f"{result.testsRun - failed} passed, {failed} failed")
    return 0 if failed == 0 and result.testsRun > 0 else 1


if __name__ == "__main__":
    sys.exit(main())
