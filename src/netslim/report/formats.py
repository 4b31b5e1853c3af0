"""How numbers are written in the report: λ, ratios, accuracies, counts, durations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal

from netslim.experiment.records import Test
from netslim.report.results import MeanStd

NONE = "–"


def strength(value: float) -> str:
    """λ in scientific notation with its shortest exact digits, and plain 0.

    >>> strength(0.0001), strength(2.5e-05), strength(0.0)
    ('1e-4', '2.5e-5', '0')
    """
    return f"{Decimal(repr(float(value))).normalize():e}" if value else "0"


def label(value: float) -> str:
    """λ with its value, as in a legend.

    >>> label(1e-5)
    'λ = 1e-5'
    """
    return f"λ = {strength(value)}"


def ratio(value: float) -> str:
    """A prune ratio in percent, no more digits than it has.

    >>> ratio(0.5), ratio(0.905)
    ('50 %', '90.5 %')
    """
    return f"{100 * value:.8g} %"


def test_line(test: Test) -> str:
    """The line of the lab.

    >>> test_line(Test(correct=1000, total=10000))
    'Test set: Accuracy: 1000/10000 (10.0%)'
    """
    return f"Test set: Accuracy: {test.correct}/{test.total} ({100 * test.score:.1f}%)"


def percent(value: MeanStd | None, digits: int = 2) -> str:
    """Mean in percent, with ± the sample standard deviation when there are several seeds.

    >>> percent(MeanStd(0.935, 0.0012, 3)), percent(MeanStd(0.935, None, 1))
    ('93.50 ± 0.12', '93.50')
    """
    if value is None:
        return NONE
    text = f"{100 * value.mean:.{digits}f}"
    return text if value.std is None else f"{text} ± {100 * value.std:.{digits}f}"


def points(value: float) -> str:
    """A difference of two shares in percentage points, signed, with a true minus.

    >>> points(-0.0123), points(0.001)
    ('−1.23', '+0.10')
    """
    return f"{100 * value:+.2f}".replace("-", "−")


def count(value: float) -> str:
    """A count with thin spaces between the thousands.

    >>> count(20035018).replace(chr(0x202F), "_")
    '20_035_018'
    """
    return f"{round(value):,}".replace(",", "\u202f")


def seeds_note(ns: Iterable[int]) -> str:
    """The sentence on what n the numbers of a table or figure stand for.

    >>> seeds_note([3, 3])
    'Mean ± sample standard deviation over n = 3 seeds.'
    """
    low, high = min(found := set(ns)), max(found)
    if high == 1:
        return "One run each (n = 1): the spread between runs is not known."
    if low == 1:
        return f"Mean ± sample standard deviation over up to n = {high} seeds; no ± where n = 1."
    return f"Mean ± sample standard deviation over n = {low}{f' to {high}' if high > low else ''} seeds."


def by_lambda(values: Mapping[float, MeanStd]) -> str:
    """Shares of several λ in one sentence.

    >>> by_lambda({0.0: MeanStd(0.931, None, 1), 1e-4: MeanStd(0.928, None, 1)})
    '93.10 % for λ = 0 and 92.80 % for λ = 1e-4'
    """
    return listing([f"{percent(value)} % for {label(strength)}" for strength, value in values.items()])


def duration(seconds: float) -> str:
    """Wall-clock time for reading.

    >>> duration(3.14159), duration(75), duration(4000)
    ('3.1 s', '1 min 15 s', '1 h 7 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min"


def listing(words: Sequence[str]) -> str:
    """Words as a list in a sentence.

    >>> listing(["a", "b", "c"]), listing(["a"])
    ('a, b and c', 'a')
    """
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1]))) if words else ""
