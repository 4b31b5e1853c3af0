"""One table: which error ends ``netslim`` with which exit code, and the line that is said of it.

    0    all jobs finished                   2    a mistake in the command, or a file or machine that does not serve
    1    a job of a sweep did not finish     130  Ctrl-C       143  SIGTERM       141  nobody reads what it says

An error that is not in the table is netslim's own fault: it keeps its traceback. Types are told by name, so that a
command that fails before it computes anything does not import torch and Lightning to find out whose error it is.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

from netslim.launch import mistakes, settings

FAILED, MISTAKE = 1, 2
INTERRUPTED, TERMINATED = 128 + signal.SIGINT, 128 + signal.SIGTERM

UNREAD = 141  # 128 + SIGPIPE, as of netslim --help | head

GO_ON = "the same command goes on from the last whole epoch"


class Answer(NamedTuple):
    """How the command ends: its exit code, and a line for stderr ("" for none)."""

    code: int
    line: str = ""


class Stopped(SystemExit):
    """SIGTERM reached the process of a sweep."""


def in_one_line(error: BaseException) -> str:
    """The message of an error and of what caused it, on one line; what one repeats of another is said once."""
    chain = [error]
    while chain[-1].__cause__ is not None:
        chain.append(chain[-1].__cause__)
    words = dict.fromkeys(" ".join(str(link).split()) for link in chain)
    said = [text for text in words if not any(text in other for other in words if other != text)]
    return " ".join(said) or type(error).__name__


def _unreadable(error: Any) -> str:
    return f"cannot read {error.override!r}; settings are given as key=value"


def _no_such_choice(error: Any) -> str:
    if error.missing_cfg_file is None or not error.options:
        return in_one_line(error)
    group, _, choice = error.missing_cfg_file.rpartition("/")
    return mistakes.no_such_choice(group, choice, error.options)


def _not_composed(error: BaseException) -> str:
    cause: Any = error.__cause__
    if type(cause).__name__ in ("ConfigAttributeError", "ConfigKeyError") and cause.full_key:
        return settings.unknown(cause.full_key, cause.parent_node._get_root())
    return line(cause) if cause is not None and not str(error) else in_one_line(error)


def _no_value(error: Any) -> str:
    return f"{error.full_key} has no value; give {error.full_key}=…"


def _unread(_: BaseException) -> str:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains when it closes it
    return ""


ANSWERS: dict[str, tuple[int, Callable[[Any], str]]] = {
    "builtins.KeyboardInterrupt": (INTERRUPTED, lambda _: f"interrupted; {GO_ON}"),
    "lightning.pytorch.utilities.exceptions.SIGTERMException": (TERMINATED, lambda _: f"stopped by SIGTERM; {GO_ON}"),
    "netslim.launch.errors.Stopped": (TERMINATED, lambda _: f"stopped by SIGTERM; {GO_ON}"),
    "builtins.BrokenPipeError": (UNREAD, _unread),
    # The summary of the sweep says which job, and why.
    "netslim.launch.job_process.JobFailed": (FAILED, lambda _: ""),
    "concurrent.futures.process.BrokenProcessPool": (FAILED, lambda _: ""),
    # What the user can fix.
    "hydra.errors.OverrideParseException": (MISTAKE, _unreadable),
    "hydra.errors.MissingConfigException": (MISTAKE, _no_such_choice),
    "hydra.errors.ConfigCompositionException": (MISTAKE, _not_composed),
    "hydra.errors.HydraException": (MISTAKE, in_one_line),
    "omegaconf.errors.MissingMandatoryValue": (MISTAKE, _no_value),
    "omegaconf.errors.OmegaConfBaseException": (MISTAKE, in_one_line),
    "lightning.fabric.utilities.exceptions.MisconfigurationException": (MISTAKE, in_one_line),
    "builtins.ValueError": (MISTAKE, in_one_line),
    "builtins.OSError": (MISTAKE, in_one_line),  # no such file, no permission, no space: the message names it
    "builtins.FloatingPointError": (MISTAKE, in_one_line),
    "builtins.ModuleNotFoundError": (MISTAKE, in_one_line),  # a package that the user has not installed
}


def answer(error: BaseException) -> Answer | None:
    """How the command ends with this error; None for an error of netslim's own."""
    for kind in type(error).__mro__:
        if (known := ANSWERS.get(f"{kind.__module__}.{kind.__qualname__}")) is not None:
            return Answer(known[0], known[1](error))
    return None


def line(error: BaseException) -> str:
    """What is said of an error; of one that is not in the table, its own words."""
    known = answer(error)
    return known.line if known is not None else in_one_line(error)


def attempt(work: Callable[[], object]) -> Answer:
    """Call ``work``; how the command would end by what it raises, with code 0 where it raises nothing.

    Raises:
        BaseException: an error that is not in the table; any mistake, where NETSLIM_TRACEBACK is set.
    """
    try:
        work()
    except BaseException as raised:
        known = answer(_origin(raised))
        if known is None or (known.code == MISTAKE and "NETSLIM_TRACEBACK" in os.environ):
            raise
        return known
    return Answer(0)


def mistake(error: BaseException) -> str | None:
    """The line for an error that the user can fix; None for any other, and where NETSLIM_TRACEBACK is set."""
    known = answer(error)
    fixable = known is not None and known.code == MISTAKE and "NETSLIM_TRACEBACK" not in os.environ
    return known.line if known is not None and fixable else None


def leave(ending: Answer) -> NoReturn:
    """Say the line and end the process."""
    if ending.line:
        prefix = "netslim: error:" if ending.code == MISTAKE else "netslim:"
        print(prefix, ending.line, file=sys.stderr)
    sys.exit(ending.code)


def _origin(raised: BaseException) -> BaseException:
    """What Hydra (an error of a callback becomes a warning) or Lightning (Ctrl-C becomes an exit) has covered."""
    covered = raised.__context__
    if isinstance(raised, UserWarning) and covered is not None:
        return covered
    if isinstance(raised, SystemExit) and isinstance(covered, KeyboardInterrupt):
        return covered
    return raised
