"""What ``netslim`` alone, ``netslim --help`` and ``netslim --settings`` say."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import yaml

START = """netslim trains a network with a penalty on its BatchNorm scales, removes channels, fine-tunes it and reports.

  netslim -m experiment=lab4_digits     the pruning lab on handwritten digits, some four minutes
  netslim lambda=1e-3 ratio=0.5         one training, one cut, with the settings of conf/
  netslim -m lambda=0,1e-3 ratio=0.5,0.9    every combination
  netslim --help                        what else there is
"""

HELP = """\
netslim trains a network with an L1 penalty on its BatchNorm scales γ, removes the channels whose
γ became small, fine-tunes the smaller network, and writes a report (Network Slimming, Liu et al.,
ICCV 2017).

  netslim SETTING=VALUE ...        one job: one λ, one ratio, one seed
  netslim -m SETTING=A,B,C ...     a sweep: every combination of the values is a job

With -m a setting may have several values, with commas and no spaces. Jobs share the trainings that
they have in common. Without -m an experiment that is a sweep needs one value of what it sweeps.

The settings that matter:

  lambda   λ, the strength of the penalty: 0 is none; more makes channels sparse and costs accuracy;
           auto finds it in the training, for the ratio.
  ratio    The share of the channels to remove, from 0 to under 1.
  net      The network: a file of conf/net, such as vgg19; torchvision with net.name=NAME; your own.
  data     The images: a file of conf/data, such as cifar10; image_folder with data.root=FOLDER.
  epochs   How long the network is trained; finetune.epochs, as many, is for the smaller network.
  seed     Of initialisation, order and augmentation; several give mean and standard deviation.

Examples:

  netslim -m experiment=lab4_digits                the pruning lab on handwritten digits: 4 minutes
  netslim lambda=1e-3 ratio=0.5 epochs=60          one training, one cut, one fine-tuning
  netslim -m seed=0,1,2 experiment=lab4_digits     the lab three times, with ± in its report
  netslim -m lambda=0,1e-4,1e-3 ratio=0.5,0.7 net=resnet18 data=cifar10
  netslim net=torchvision net.name=resnet34 data=image_folder data.root=FOLDER

The report is outputs/NAME/report/index.html. A command that was stopped goes on when given again.

  netslim --settings       all settings, with their defaults and what they mean
  netslim --dry-run ...    what a command would do: its jobs, what is finished, disk and time
  netslim --cfg job ...    the settings that a command means
  debug=true               two batches per epoch, to see whether all of it runs
  quiet=true               only the result, warnings and errors
  netslim --version        see also netslim-report --help and netslim-export --help
"""


def settings(conf: Path) -> str:
    """All settings with the comments of their files: config.yaml, and of each group the file that is the default."""
    return "\n".join(_parts(conf)) + "\n"


def _parts(conf: Path) -> Iterator[str]:
    text = (conf / "config.yaml").read_text()
    own = text[text.index("outputs:") : text.index("\nhydra:")]
    yield f"# Given as KEY=VALUE. conf/config.yaml:\n\n{own.rstrip()}"
    for group, default in _defaults(yaml.safe_load(text)["defaults"]).items():
        names = sorted(path.stem for path in (conf / group).glob("*.yaml"))
        yield f"\n# {group}: {', '.join(names)}"
        for name in default:
            yield f"# conf/{group}/{name}.yaml, given as {group}.KEY=VALUE:\n"
            yield (conf / group / f"{name}.yaml").read_text().rstrip()


def _defaults(entries: list[object]) -> dict[str, list[str]]:
    """The files of each group that are chosen by default.

    >>> _defaults([{"net": "vgg"}, {"logger": ["csv", "none"]}, "_self_", {"experiment": None}])
    {'net': ['vgg'], 'logger': ['csv', 'none'], 'experiment': []}
    """
    found = {}
    for entry in entries:
        for group, chosen in entry.items() if isinstance(entry, dict) else ():
            found[group] = [chosen] if isinstance(chosen, str) else chosen or []
    return found
