"""The oracles of reuse_support.py find what they are for: each sees a small wrong, and passes the same without it."""
import contextlib
import unittest
from unittest import mock

import reuse_support
from reporting_origin import ReportingOrigin, body_of
from reuse_support import ReuseCase
from support import wait_until


class Oracles(unittest.TestCase):
    def setUp(self):
        """A case whose visitors go to the origin itself: the test plays the balancer."""
        self.origin = ReportingOrigin("s0")
        self.addCleanup(self.origin.stop)
        self.case = ReuseCase()
        self.case.setUp()
        self.case.origins.append(self.origin)
        self.case.port = self.origin.port
        self.visitor = self.case.visitor("a")
        self.addCleanup(self.visitor.leave)

    def judge(self):
        self.case.judge_sharing()
        self.case.judge_answers()

    @contextlib.contextmanager
    def fails(self, oracle: str):
        with self.assertRaises(AssertionError) as caught:
            yield
        self.assertIn(oracle, str(caught.exception))

    def test_foreign_bytes_in_a_body(self):
        self.visitor.ask("?size=1000")
        wrong = lambda token, size: body_of(token, size)[:-1] + b"?"  # noqa: E731
        with mock.patch("reporting_origin.body_of", wrong), self.fails("?"):
            self.visitor.ask("?size=1000")

    def test_another_upstream_on_one_connection(self):
        self.visitor.ask(fields="X-Upstream: one\r\n")
        self.judge()
        self.visitor.ask(fields="X-Upstream: two\r\n")
        with self.fails("(b)"):
            self.judge()

    def test_another_client_on_a_private_upstream(self):
        self.visitor.ask(fields="X-Upstream: own\r\n")
        self.visitor.tag = "b"
        self.visitor.ask(fields="X-Upstream: own\r\n")
        self.judge()  # Sharing is not wrong by itself.
        self.case.never.add("own")
        with self.fails("(c)"):
            self.judge()

    def test_another_client_behind_a_login(self):
        self.visitor.ask()
        self.visitor.tag = "b"
        self.visitor.ask("ntlm")
        self.visitor.ask()
        self.judge()
        self.visitor.tag = "a"
        self.visitor.ask()
        with self.fails("(c)"):
            self.judge()

    def test_two_requests_at_once_on_one_connection(self):
        self.visitor.begin("slow?ms=100")
        self.visitor.begin()
        self.visitor.end()
        self.visitor.end()
        with self.fails("(d)"):
            self.judge()

    def test_an_answer_under_another_ordinal_connection_or_twice(self):
        first, second = self.visitor.ask(), self.visitor.ask()
        self.judge()
        for field, value in (("req", 3), ("conn", "other"), ("server", "s1")):
            with mock.patch.object(second, field, value), self.fails("(d)"):
                self.judge()
        self.case.answers[:] = [second, first]
        with self.fails("(d)"):
            self.judge()
        self.case.answers[:] = [first, second, first]
        with self.fails("(d)"):
            self.judge()

    def metrics(self, **wrong) -> dict:
        """What a sound balancer would say after two requests on one idle connection, and what is wrong with it."""
        labels = 'upstream="app",server="s0"'
        values = {"idle_safe": 1, "busy": 0, "closing": 0, "fresh": 1, "safe": 1, "idle_timeout": 0, "connect": 0, "lent": 0,
                  "idle_times": 1, "tries": 2, "answered": 2} | wrong
        families = {("ringway_server_connections", "state"): ("idle_safe", "busy", "closing"),
                    ("ringway_server_reuse_total", "how"): ("fresh", "safe"),
                    ("ringway_server_closes_total", "reason"): ("idle_timeout", "connect", "lent")}
        return {f'{family}{{{labels},{label}="{value}"}}': float(values[value])
                for (family, label), names in families.items() for value in names} | {
                    f"ringway_server_idle_at_reuse_seconds_count{{{labels}}}": float(values["idle_times"]),
                    'ringway_upstream_retries_total{upstream="app"}': float(values["tries"]),
                    'ringway_upstream_retry_outcomes_total{upstream="app",outcome="answered"}': float(values["answered"])}

    def test_counters_that_differ(self):
        self.visitor.ask()
        self.visitor.ask()
        self.case.admin = 0
        quick = lambda condition: wait_until(condition, 0.01)  # noqa: E731
        with mock.patch("reuse_support.wait_until", quick):
            for right in ({}, {"connect": 5}, {"lent": 5}):
                with mock.patch("reuse_support.metrics", lambda port: self.metrics(**right)):
                    self.case.judge_counters()
            for wrong in ({"idle_safe": 0}, {"idle_safe": 2}, {"busy": 1}, {"closing": 1}, {"fresh": 2}, {"safe": 0},
                          {"idle_timeout": 1}, {"idle_times": 0}, {"answered": 1}):
                with self.subTest(wrong=wrong), mock.patch("reuse_support.metrics", lambda port: self.metrics(**wrong)):
                    with self.fails("(e)"):
                        self.case.judge_counters()
        self.assertIs(reuse_support.wait_until, wait_until)
