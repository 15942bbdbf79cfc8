"""A process ends as it should while a renewal's thread works: the exit code is its own, and it does not wait long."""

from __future__ import annotations

import subprocess
import sys

import torch

from fastproto.assignment import in_background
from fastproto.support.cancellation import check_stop

# Python warns of a fork beside threads, which is what this is about
PYTHON = [sys.executable, "-W", "ignore::DeprecationWarning", "-c"]
HEAD = """
import copy, os, pickle, sys, torch
from torch.nn.functional import normalize
from fastproto import PrototypeHead

head = PrototypeHead(3000, 64, prototypes=normalize(torch.randn(3000, 64), dim=1))
head.class_means.copy_(torch.randn(3000, 64))
"""
# pending while the head is copied, pickled and the process forked; the child ends by itself
PENDING = """
renewal = head.begin_renewal(aligned=True)
for twin in (copy.deepcopy(head), pickle.loads(pickle.dumps(head))):
    assert torch.equal(twin.assignment, head.assignment)
child = os.fork()
if child == 0:
    sys.exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
print("renewal pending:", not renewal.done())
sys.exit(5)
"""
# one has ended, one waits for a lock that nobody opens but looks whether it should stop, one is pending
ENDED = """
from fastproto.assignment import in_background
from fastproto.support.cancellation import check_stop
import threading

def wait():
    while not threading.Event().wait(0.01):
        check_stop()

in_background(wait, torch.device("cpu"))
small = PrototypeHead(200, 64, prototypes=head.prototypes[:200])
small.finish_renewal(small.begin_renewal())
head.begin_renewal()
raise ZeroDivisionError
"""


def test_exit_codes_with_pending_and_ended_renewals() -> None:
    running = [subprocess.Popen([*PYTHON, HEAD + code], stdout=-1, stderr=-1, text=True) for code in (PENDING, ENDED)]
    pending, ended = ((process.communicate(timeout=120), process.returncode) for process in running)
    assert pending == (("renewal pending: True\n", ""), 5)
    assert ended[1] == 1 and ended[0][1].strip().endswith("\nZeroDivisionError"), ended


def test_nobody_is_asked_to_stop_while_the_process_lives() -> None:
    check_stop()
    assert in_background(check_stop, torch.device("cpu")).result() is None
