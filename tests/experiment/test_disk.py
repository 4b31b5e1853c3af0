"""What happens to a disk at night: full, read-only, shared by two users, damaged files. Real ones."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import torch

from netslim.experiment.paths import load_jobs

JOB = ["epochs=2", "finetune.epochs=1", "lambda=1e-3", "ratio=0.5"]


def netslim(outputs: Path, *more: str, code: int = 0) -> str:
    """Run one small job; gives the last line of what it printed."""
    command = [sys.executable, "-m", "netslim", *JOB, *more, f"outputs={outputs}"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300)
    assert done.returncode == code, done.stdout
    return done.stdout.splitlines()[-1]


@pytest.fixture
def disk(tmp_path) -> Iterator[Path]:
    """A file system of 400 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "netslim-test", folder], capture_output=True)
    if mount.returncode:
        pytest.skip("mounting a file system needs root")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.slow
def test_a_full_and_a_read_only_disk_are_named_and_the_job_goes_on(disk, tmp_path):
    last = netslim(disk / "outputs", code=2)
    assert last.startswith("netslim: error: [Errno 28] No space left on device; ")
    assert "run the command again" in last
    assert "last.ckpt" in last
    assert not list(disk.rglob(".last.ckpt.*"))  # no scraps on a full disk

    subprocess.run(["mount", "-o", "remount,size=20m", disk], check=True)
    assert netslim(disk / "outputs").startswith("TensorBoard")
    netslim(tmp_path / "roomy")
    (one,), (other,) = (load_jobs(path / "vgg_digits_digits") for path in (disk / "outputs", tmp_path / "roomy"))
    for stage in ("train", "slim", "finetune"):
        first, second = (msgspec.structs.replace(getattr(job, stage), run=None) for job in (one, other))
        assert first == second

    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    assert "Read-only file system" in netslim(disk / "outputs", "seed=1", code=2)


OTHER_USER = """
import os, sys
from pathlib import Path
from netslim.experiment.records import StageRecord
from netslim.experiment.stage import Stage, finish
os.umask(0o002)
os.setgroups([]); os.setgid(int(sys.argv[2])); os.setuid(65534)
try:
    stage = Stage("train", (), {}, lambda folder, done: StageRecord(ratio=0.2), {"seed": int(sys.argv[3])})
    print(finish(Path(sys.argv[1]), stage, {}).record.ratio)
except (ValueError, OSError) as error:
    print(type(error).__name__, error)
"""


@pytest.mark.slow
@pytest.mark.skipif(os.getuid() != 0, reason="becoming another user needs root")
def test_two_users_share_the_stages_if_the_folder_is_their_groups(tmp_path):
    from netslim.experiment.records import StageRecord
    from netslim.experiment.stage import Stage, finish

    def mine(ratio: float, seed: int) -> None:
        finish(sweep, Stage("train", (), {}, lambda folder, done: StageRecord(ratio=ratio), {"seed": seed}), {})

    def other_user(group: int, seed: int) -> str:
        command = [sys.executable, "-c", OTHER_USER, str(sweep), str(group), str(seed)]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    for folder in [tmp_path, *tmp_path.parents[:3]]:
        folder.chmod(0o755)
    sweep, group, mask = tmp_path / "sweep", 54321, os.umask(0o002)
    try:
        sweep.mkdir()
        os.chown(sweep, 0, group)
        sweep.chmod(0o2775)  # new folders belong to the group as well
        mine(0.1, seed=0)
    finally:
        os.umask(mask)
    assert other_user(group, seed=0) == "0.1"  # what one did, the other uses
    assert other_user(group, seed=1) == "0.2"
    mine(0.3, seed=1)
    assert other_user(65534, seed=2).startswith("PermissionError [Errno 13] Permission denied")


def damaged(tmp_path: Path, file: str, content: bytes) -> str:
    """The error after ``file`` of an unfinished job was replaced."""
    (victim,) = (tmp_path / "vgg_digits_digits").glob(file)
    victim.write_bytes(content)
    return netslim(tmp_path, code=2)


@pytest.mark.slow
def test_damaged_and_foreign_files_are_named_with_the_remedy(tmp_path):
    netslim(tmp_path)
    sweep = tmp_path / "vgg_digits_digits"
    for record in [*sweep.glob("finetune_*/record.json"), *sweep.glob("job_*/record.json")]:
        record.unlink()
    whole = next(sweep.glob("slim_*/slim.pt")).read_bytes()
    last = damaged(tmp_path, "slim_*/slim.pt", whole[: len(whole) // 2])
    assert "slim.pt cannot be read" in last
    assert f"remove the folder {next(sweep.glob('slim_*'))} and run the command again" in last
    next(sweep.glob("slim_*/slim.pt")).write_bytes(whole)

    (stage,) = sweep.glob("finetune_*")
    (stage / "last.ckpt").write_bytes(b"PK\x03\x04 half a checkpoint")
    assert "last.ckpt cannot be read" in netslim(tmp_path, code=2)
    torch.save({"weights": torch.zeros(2)}, stage / "last.ckpt")
    assert "last.ckpt is no checkpoint of a training" in netslim(tmp_path, code=2)
    torch.save(torch.nn.Linear(1, 1), stage / "last.ckpt")  # unpickling it could run anything
    assert "holds more than tensors" in netslim(tmp_path, code=2)
    (stage / "last.ckpt").unlink()
    assert netslim(tmp_path).startswith("TensorBoard")
