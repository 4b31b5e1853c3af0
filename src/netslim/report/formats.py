"""How numbers are written in the report: λ, ratios, accuracies, counts, durations."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from netslim.experiment.measurements import AUTO
from netslim.experiment.records import Metric, Test
from netslim.report.intervals import Share, wilson
from netslim.report.results import MeanStd

NONE = "–"
Show = Callable[[Any], str]  # how one value is written


def strength(value: float) -> str:
    """λ in scientific notation with its shortest exact digits, plain 0, and "auto" where the training found it.

    >>> strength(0.0001), strength(2.5e-05), strength(0.0)
    ('1e-4', '2.5e-5', '0')
    """
    if not value:
        return "0"
    if value == AUTO:
        return "auto"
    return f"{Decimal(repr(float(value))).normalize():e}".replace("e+0", "")


def label(value: float) -> str:
    """λ with its value, as in a legend.

    >>> label(1e-5)
    'λ = 1e-5'
    """
    return f"λ = {strength(value)}"


def ratio(value: float, of: str = "channels") -> str:
    """A prune ratio in percent, no more digits than it has; with what it is a share of where that is not the channels.

    >>> ratio(0.5), ratio(0.905), ratio(0.5, of="MACs")
    ('50 %', '90.5 %', '50 % of MACs')
    """
    return f"{100 * value:.8g} %" + (f" of {of}" if of != "channels" else "")


@dataclass(frozen=True)
class Unit:
    """How the values of a metric are written: shares in percent with two digits, others in the metric's own format."""

    name: str
    format: str = ".1%"

    @property
    def percent(self) -> bool:
        return self.format.endswith("%")

    @property
    def scale(self) -> float:
        """What a value is multiplied with for a figure."""
        return 100.0 if self.percent else 1.0

    @property
    def axis(self) -> str:
        return f"{self.name}, %" if self.percent else self.name

    def number(self, value: float) -> str:
        """Without a unit, as in a table.

        >>> Unit("accuracy").number(0.935), Unit("error", ".3f").number(0.0651)
        ('93.50', '0.065')
        """
        return f"{100 * value:.2f}" if self.percent else f"{value:{self.format}}"

    def text(self, value: float) -> str:
        """As in a sentence: 93.50 %."""
        return f"{self.number(value)} %" if self.percent else self.number(value)

    def size(self, value: float) -> str:
        """A difference without its sign: 1.20 points."""
        return f"{self.number(value)} points" if self.percent else self.number(value)

    def change(self, value: float) -> str:
        """A difference with its sign, a true minus.

        >>> Unit("accuracy").change(-0.0123), Unit("accuracy").change(0.001)
        ('−1.23', '+0.10')
        """
        return f"{'−' if value < 0 else '+'}{self.number(abs(value))}"

    def cell(self, value: MeanStd | None) -> str:
        """Mean, with ± the sample standard deviation when there are several seeds.

        >>> Unit("accuracy").cell(MeanStd(0.935, 0.0012, 3)), Unit("accuracy").cell(None)
        ('93.50 ± 0.12', '–')
        """
        if value is None:
            return NONE
        text = self.number(value.mean)
        return text if value.std is None else f"{text} ± {self.number(value.std)}"

    def by_lambda(self, values: Mapping[float, MeanStd]) -> str:
        """Values of several λ in one sentence.

        >>> Unit("accuracy").by_lambda({0.0: MeanStd(0.931, None, 1), 1e-4: MeanStd(0.928, None, 1)})
        '93.10 % for λ = 0 and 92.80 % for λ = 1e-4'
        """
        sign = " %" if self.percent else ""
        return few([f"{self.cell(value)}{sign} for {label(strength)}" for strength, value in values.items()])


def unit(metric: Metric) -> Unit:
    return Unit(metric.name.replace("_", " "), metric.format)


def lab_line(test: Test, metric: Metric) -> str:
    """The line of the lab; of a metric that counts no images, its value.

    >>> lab_line(Test(correct=1000, total=10000), Metric())
    'Test set: Accuracy: 1000/10000 (10.0%)'
    >>> lab_line(Test(value=0.5), Metric("mean IoU", format=".3f"))
    'Test set: mean IoU: 0.500'
    """
    name = "Accuracy" if metric.name == "accuracy" else metric.name
    if test.correct is None or test.total is None:
        return f"Test set: {name}: {test.score:{metric.format}}"
    return f"Test set: {name}: {test.correct}/{test.total} ({test.score:{metric.format}})"


def percent(value: MeanStd | None, digits: int = 2) -> str:
    """Mean in percent, with ± the sample standard deviation when there are several seeds.

    >>> percent(MeanStd(0.935, 0.0012, 3)), percent(MeanStd(0.935, None, 1))
    ('93.50 ± 0.12', '93.50')
    """
    if value is None:
        return NONE
    text = f"{100 * value.mean:.{digits}f}"
    return text if value.std is None else f"{text} ± {100 * value.std:.{digits}f}"


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


def short(value: float) -> str:
    """A large number for an axis or a table.

    >>> short(20035018), short(300000), short(750)
    ('20 M', '300 k', '750')
    """
    for size, letter in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g} {letter}"
    return f"{value:.3g}"


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


def few(words: Sequence[str]) -> str:
    """Words as a list; of more than eight, of many λ, the ends.

    >>> few([str(number) for number in range(9)])
    '0 to 8'
    """
    return listing(words) if len(words) <= 8 else f"{words[0]} to {words[-1]}"


def distinct(values: Iterable[str]) -> list[str]:
    """Every value once, in the order of its first appearance."""
    return list(dict.fromkeys(values))


def times(dense: float, small: float) -> str:
    """How many times smaller.

    >>> times(72666, 12581)
    '5.8 ×'
    """
    return f"{dense / small:.1f} ×" if small else NONE


def interval(share: Share | None) -> str:
    """The 95 % interval of a share, in percent.

    >>> interval(Share(9350, 10000))
    '93.0–94.0'
    """
    return "–".join(f"{100 * bound:.1f}" for bound in wilson(share)) if share else NONE
