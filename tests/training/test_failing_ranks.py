"""Real jobs in which a rank fails, does not come or was started for another job."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.training.test_distributed import DDP, MODULE, SHORT, alive, free_port, run


def two_nodes(scenario: str, folder: Path, second: tuple[str, ...] = ()) -> tuple[list[int], list[str]]:
    """Two processes by hand, in a job that goes wrong: exit codes and output.

    second: what starts the second one.
    """
    script, port = str(Path(__file__).with_name("ddp_failures.py")), str(free_port())
    nodes = [
        subprocess.Popen(
            [*(second if rank else ()), sys.executable, script, str(rank), port, scenario],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=folder,
        )
        for rank in (0, 1)
    ]  # fmt: skip
    printed = [node.communicate(timeout=300)[0] for node in nodes]
    return [node.returncode for node in nodes], printed


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scenario", "codes", "said"),
    [
        ("raises", [2, 2], "rank 1 failed: bad image"),
        ("raises_before_a_nested_call", [2, 2], "rank 1 failed: bad image"),
        ("breaks", [1, 1], "rank 1 failed: KeyError: 'key'"),
        ("is_killed", [1, -9], "rank 1 failed: its process was killed or ended early"),
        ("exits", [3, 3], "rank 1 failed: exit with code 3"),
        ("leaves", [1, 3], "rank 1 failed: its process was killed or ended early"),
        ("gets_sigterm", [143, 143], "stopped by SIGTERM; the same command goes on from the last whole epoch"),
    ],
)
def test_one_rank_ends_both_within_a_minute(scenario, codes, said, tmp_path):
    ended, printed = two_nodes(scenario, tmp_path)
    seconds = time.time() - float(re.search(r"from here on: (\S+)", printed[1])[1])
    assert ended == codes, printed
    assert f"netslim: {said}" in printed[0]
    assert f"told: {said}" in printed[0].splitlines()[-1]  # what a sweep's summary says of the job
    assert seconds < 60
    if codes == [2, 2]:
        assert printed[1].splitlines()[-2] == f"netslim: {said}"  # its own error, at once
    if scenario == "breaks":
        assert 'distributed.on_all_ranks(lambda: {}["key"]' in printed[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scenario", "said"),
    [
        ("settings", "the processes of this job differ: seed is 0 on rank 0 ({0}) and 1 on rank 1 ({0}); start"),
        ("folder", "the processes of this job differ: the folder is {1}/out0 on rank 0 ({0}) and {1}/out1 on rank 1"),
        (
            "data",
            "the processes of this job differ: the content of data.root is 0 on rank 0 ({0}) and 1 on rank 1 ({0})",
        ),
    ],
)
def test_nodes_that_were_started_differently_are_refused(scenario, said, tmp_path):
    codes, printed = two_nodes(scenario, tmp_path)
    assert codes == [1, 1]
    for lines in printed:
        assert said.format(os.uname().nodename, tmp_path) in lines.splitlines()[-1]
    assert not list(tmp_path.glob("out[01]"))  # nothing was written


OWN_MOUNTS = ("unshare", "--mount", "sh", "-c", 'mount -t tmpfs tmpfs "$PWD" && cd "$PWD" && exec "$@"', "sh")


def can_mount() -> bool:
    return shutil.which("unshare") is not None and subprocess.run(["unshare", "--mount", "true"]).returncode == 0


@pytest.mark.slow
@pytest.mark.skipif(not can_mount(), reason="mounts need root")
def test_a_node_that_does_not_see_the_folder_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setenv("NETSLIM_NODE_TIMEOUT", "20")
    codes, printed = two_nodes("folder_unseen", tmp_path, OWN_MOUNTS)
    assert codes == [1, 1]
    said = f"rank 1 on {os.uname().nodename} does not see {tmp_path}/out, where rank 0 writes; given up after 20 s"
    assert all(said in lines for lines in printed), printed
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.slow
def test_a_failing_rank_reaches_the_summary_of_the_sweep(tmp_path):
    (tmp_path / "bad.py").write_text(BAD)
    printed = run(
        *[sys.executable, *MODULE, "-m", *DDP, "trainer.devices=2", *SHORT, f"outputs={tmp_path}"],
        *["net._target_=bad.net", "~net.layers", "~net.in_channels"],
        code=1,
        PYTHONPATH=os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]),
    )
    summary = printed[printed.index("1 of 1 jobs did not finish") :].splitlines()
    assert summary[1] == "  rank 1 failed: bad image on rank 1"
    assert not list(tmp_path.glob("*/*/record.json"))


BAD = """
import os
from netslim.nets import VGG

class Bad(VGG):
    steps = 0

    def forward(self, x):
        self.steps += self.training
        if self.steps > 30 and os.environ.get("LOCAL_RANK") == "1":
            raise ValueError("bad image on rank 1")
        return super().forward(x)

def net(num_classes):
    return Bad([8, "M", 8], in_channels=1, num_classes=num_classes)
"""


@pytest.mark.slow
def test_rank_1_ends_with_rank_0_also_before_they_have_met(tmp_path):
    command = [sys.executable, *MODULE, *DDP, "trainer.devices=2", *SHORT, f"outputs={tmp_path}"]
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not (children := Path(f"/proc/{first.pid}/task/{first.pid}/children").read_text().split()):
        assert first.poll() is None
        time.sleep(0.05)
    time.sleep(1)
    first.kill()
    first.wait()
    end = time.monotonic() + 60
    while any(alive(int(child)) for child in children):
        assert time.monotonic() < end
        time.sleep(0.2)
