"""Data-parallel jobs: real processes, real rendezvous on loopback. Oracle: the run that is started in another way."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from netslim.data import digits
from netslim.files import read_tensors
from netslim.nets import VGG

DDP = ["trainer=ddp", "trainer.accelerator=cpu"]
SHORT = ["data.batch_size=32", "epochs=2", "finetune.epochs=1", "lambda=1e-3", "ratio=0.3"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]
MODULE = ["-m", "netslim"]


def run(*command: str, code: int = 0, **environment: str) -> str:
    settings = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "timeout": 300}
    done = subprocess.run(command, **settings, env={**os.environ, **environment})
    assert done.returncode == code, done.stdout
    return done.stdout


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def content(sweep: Path) -> dict[str, object]:
    """Everything that counts, by file: tensors and records, without where and when they were made."""
    found: dict[str, object] = {}
    for path in sorted(sweep.glob("*_*/*")):
        if path.suffix == ".pt":
            found[str(path.relative_to(sweep))] = read_tensors(path)
        if path.name == "record.json":
            record = json.loads(path.read_text())
            found[str(path.relative_to(sweep))] = {k: v for k, v in record.items() if k not in ("run", "command")}
    return found


def equal(one: object, other: object) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(value, other[key]) for key, value in one.items())
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


WATCH = """
import os, sys
def note(event, given):
    if event == "open" and not isinstance(given[0], int) and given[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        print(os.environ.get("LOCAL_RANK", "0"), os.fsdecode(given[0]), file=log, flush=True)
log = open(os.environ["WATCH_LOG"], "a")
sys.addaudithook(note)
"""


@pytest.fixture(scope="module")
def two_devices(tmp_path_factory) -> Path:
    """`netslim trainer=ddp trainer.devices=2`: the second process is started by the first. Writes are noted."""
    outputs, watch = tmp_path_factory.mktemp("two_devices"), tmp_path_factory.mktemp("watch")
    (watch / "sitecustomize.py").write_text(WATCH)
    printed = run(
        *[sys.executable, *MODULE, *DDP, "trainer.devices=2", *SHORT, f"outputs={outputs}"],
        WATCH_LOG=str(outputs / "writes.log"),
        PYTHONPATH=os.pathsep.join([str(watch), *filter(None, [os.environ.get("PYTHONPATH")])]),
    )
    assert printed.count("Test set: Accuracy") == 2, printed  # once for each training: rank 1 is silent
    return outputs / "vgg_digits_digits"


@pytest.mark.slow
def test_only_rank_0_writes(two_devices):
    stages = sorted(path.name.split("_")[0] for path in two_devices.iterdir() if "seed" in path.name)
    assert stages == ["finetune", "job", "slim", "train"]
    writes = [line.split(" ", 1) for line in (two_devices.parent / "writes.log").read_text().splitlines()]
    written = {rank: {Path(path).name for r, path in writes if r == rank and "seed" in path} for rank in "01"}
    assert written["1"] == {"train_ddp_process_1.log"}
    assert any(name.startswith(".weights.pt.") for name in written["0"])
    writers = {path.name.split(".")[-2] for path in two_devices.glob("*/events.out.*")}  # ....<host>.<pid>.<n>
    assert len(writers) == 1
    assert not list(two_devices.rglob("last.ckpt"))
    (log,) = two_devices.glob("logs/*/train_ddp_process_1.log")
    assert log.read_text() == ""


@pytest.mark.slow
def test_the_records_hold_for_the_weights(two_devices):
    images = digits()
    (folder,) = two_devices.glob("train_*")
    record = json.loads((folder / "record.json").read_text())
    dense = VGG([16, 16, "M", 32, 32, "M", 64, 64], in_channels=1)
    dense.load_state_dict(read_tensors(folder / "weights.pt"))
    with torch.no_grad():
        answers = dense.eval()((images.test.float() / 255 - 0.305) / 0.375).argmax(1)
    assert record["test"]["correct"] == int((answers == images.test_labels).sum())
    assert record["test"]["total"] == len(images.test)  # each image once, on one rank
    assert "2 processes" in record["run"]["hardware"]
    steps = 21  # 1,290 training images in batches of 2 x 32
    assert record["budget"] == pytest.approx(1e-3 * steps * (0.1 + 0.001) / (1 - 0.9))


@pytest.mark.slow
def test_two_nodes_of_torchrun_equal_two_devices(two_devices, tmp_path):
    rendezvous = ["--nnodes=2", "--nproc-per-node=1", "--master-addr=127.0.0.1", f"--master-port={free_port()}"]
    job = [*MODULE, *DDP, "trainer.devices=1", "trainer.num_nodes=2", *SHORT, f"outputs={tmp_path}"]
    nodes = [
        subprocess.Popen(
            [*TORCHRUN, *rendezvous, f"--node-rank={node}", *job],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for node in (0, 1)
    ]  # fmt: skip
    printed = [node.communicate(timeout=300)[0] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], printed
    assert equal(content(two_devices), content(tmp_path / "vgg_digits_digits"))


@pytest.mark.slow
def test_sigterm_stops_both_and_the_sweep_ends_with_the_same_bits(two_devices, tmp_path):
    command = [sys.executable, *MODULE, "-m", *DDP, "trainer.devices=2", *SHORT, f"outputs={tmp_path}"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    while not list(tmp_path.glob("*/train_*/last.ckpt")):
        assert process.poll() is None
        time.sleep(0.005)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.terminate()
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, printed
    assert "stopped by SIGTERM" in printed
    assert children
    assert not any(alive(int(child)) for child in children)
    run(*command)
    assert equal(content(two_devices), content(tmp_path / "vgg_digits_digits"))


@pytest.mark.slow
def test_ctrl_c_ends_both(tmp_path):
    command = [sys.executable, *MODULE, *DDP, "trainer.devices=2", *SHORT, "epochs=99", f"outputs={tmp_path}"]
    first = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    while not list(tmp_path.glob("*/train_*/last.ckpt")):
        assert first.poll() is None
        time.sleep(0.05)
    children = Path(f"/proc/{first.pid}/task/{first.pid}/children").read_text().split()
    os.killpg(first.pid, signal.SIGINT)
    printed, _ = first.communicate(timeout=60)
    assert first.returncode == 128 + signal.SIGINT, printed
    assert "Traceback" not in printed
    assert children
    end = time.monotonic() + 60  # the other rank notices by itself, also where the signal has found it in the middle
    while any(alive(int(child)) for child in children):
        assert time.monotonic() < end
        time.sleep(0.1)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.slow
def test_what_one_rank_learns_from_the_other():
    script = str(Path(__file__).with_name("ddp_ranks.py"))
    printed = run(*TORCHRUN, "--nproc-per-node=2", f"--master-port={free_port()}", script)
    lines = dict(line.split(": ", 1) for line in printed.splitlines() if line[:3] in ("0: ", "1: "))
    same = "{'told by': 0} | ValueError(no) | own %d | OSError([Errno 28] No space left on device: 'x.pt')"
    assert lines["0"] == f"{same % 0} | RuntimeError(Awkward: a b) | True"
    assert lines["1"] == f"{same % 1} | RuntimeError(Awkward: a b) | False"


REFUSED = {
    ("trainer.devices=2", "trainer.strategy=ddp_spawn"): "use that, or one device per job",
    ("trainer.devices=1", "trainer.strategy=ddp_spawn"): "use that, or one device per job",
    ("trainer.devices=2", "trainer.strategy=ddp_fork"): "use that, or one device per job",
}


@pytest.mark.slow
@pytest.mark.parametrize("settings", REFUSED, ids=" ".join)
def test_what_would_hang_is_refused(settings, tmp_path):
    printed = run(sys.executable, *MODULE, "trainer.accelerator=cpu", *settings, *SHORT, f"outputs={tmp_path}", code=2)
    assert REFUSED[settings] in printed.splitlines()[-1]
    assert not list(tmp_path.glob("*/train_*"))


@pytest.mark.slow
def test_processes_without_a_data_parallel_trainer_are_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(os.environ, "WORLD_SIZE", "2")
    monkeypatch.setitem(os.environ, "RANK", "0")
    printed = run(sys.executable, *MODULE, "trainer.accelerator=cpu", *SHORT, f"outputs={tmp_path}", code=2)
    assert "2 processes were started for a training on one device; add trainer=ddp" in printed.splitlines()[-1]
