"""The report of whole sweeps. Oracle: the records themselves, read and counted here a second time."""

from __future__ import annotations

import json
import re
import shutil
import statistics
from collections.abc import Callable
from pathlib import Path

import pytest

from netslim import report
from netslim.experiment import paths
from netslim.report.__main__ import main

Make = Callable[..., Path]


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_the_folder_has_the_promised_files(sweep: Path) -> None:
    found = {str(path.relative_to(sweep / "report")) for path in (sweep / "report").rglob("*") if path.is_file()}
    assert found == {
        "index.html", "report.md", "results.csv", "epochs.csv", "scales.csv", "summary.tex",
        "figures/cost.png", "figures/method.png",
        "figures/sparsity-training-accuracy.png", "figures/fine-tuning-accuracy.png", "figures/kept-channels.png",
        "figures/scaling-factors.png", "figures/test-accuracy-ratio-50.png", "figures/test-accuracy-ratio-90.png",
    }  # fmt: skip
    for name in re.findall(r"\]\((figures/[^)]*)\)", (sweep / "report" / "report.md").read_text()):
        assert (sweep / "report" / name).exists()


@pytest.mark.parametrize("file", ["index.html", "report.md"])
def test_the_lines_of_the_lab_for_every_lambda_ratio_and_stage(sweep: Path, file: str) -> None:
    lines = (sweep / "report" / file).read_text().splitlines()
    for job in paths.load_jobs(sweep):
        tests = [job.slim.dense, job.slim.small, job.slim.recalibrated, job.finetune]
        correct = [record.test.correct for record in tests]
        expected = [f"Test set: Accuracy: {c}/10000 ({round(c / 100, 1)}%)" for c in correct]
        name = {0.0: "λ = 0", 1e-5: "λ = 1e-5", 1e-4: "λ = 1e-4"}[job.strength]
        starts = [i for i, line in enumerate(lines) if line.removeprefix('<pre tabindex="0">') == name]
        blocks = [[line.removesuffix("</pre>")[23:] for line in lines[i + 1 : i + 5]] for i in starts]
        assert expected in blocks


def test_two_builds_are_equal_to_the_byte(sweep: Path) -> None:
    files = [path for path in (sweep / "report").rglob("*") if path.is_file()]
    before = {path: path.read_bytes() for path in files}
    assert report.build(sweep) == sweep / "report" / "index.html"
    assert {path: path.read_bytes() for path in files} == before


def test_the_csv_knows_no_time_and_no_machine(make_sweep: Make) -> None:
    small = {"lambdas": (0.0,), "ratios": (0.5,), "epochs": 3}
    first, second = make_sweep("a", **small), make_sweep("b", **small)
    for path in second.glob("*_*/record.json"):
        if not path.parent.name.startswith("job_"):
            run = {
                "started": "2031-01-01T00:00:00+00:00",
                "seconds": 1e6,
                "command": "other",
                "versions": {},
                "hardware": "x",
            }
            edit(path, run=run)
    report.build(first)
    report.build(second)
    one, other = ((folder / "report" / "results.csv").read_bytes() for folder in (first, second))
    assert one == other
    assert (first / "report" / "index.html").read_bytes() != (second / "report" / "index.html").read_bytes()


def test_several_seeds_are_mean_and_sample_standard_deviation_with_n(seeds: Path) -> None:
    text = (seeds / "report" / "report.md").read_text()
    correct = [job.finetune.test.correct / 100 for job in paths.load_jobs(seeds) if job.strength == 0.0]
    assert len(correct) == 3
    cell = f"{statistics.mean(correct):.2f} ± {statistics.stdev(correct):.2f}"
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| 50 % | 0 |")]
    assert rows[0][2] == "3"  # the table of every stage; n stands there, and once in words
    assert rows[0][6] == cell
    assert f"| {cell} |" in text.split("Every stage as a table")[0]
    assert "Mean ± sample standard deviation over n = 2 to 3 seeds." in text
    assert text.count("Test set: Accuracy: ") == 4 * (3 + 2)
    assert "λ = 0.0001" not in text
    assert "λ = 1e-4, seed 1" in text


def test_one_seed_says_so_and_shows_no_spread(sweep: Path) -> None:
    text = (sweep / "report" / "report.md").read_text()
    assert "(n = 1)" in text
    assert "±" not in text


def test_an_unfinished_job_is_named_with_its_command(seeds: Path) -> None:
    text = (seeds / "report" / "report.md").read_text()
    assert "5 of 6 jobs finished" in text
    assert "```text\nnetslim experiment=synthetic lambda=0.0001 ratio=0.5 seed=2\n```" in text


def test_the_caption_says_which_accuracy_is_drawn(sweep: Path, make_sweep: Make) -> None:
    assert "Accuracy on the validation split" in (sweep / "report" / "report.md").read_text()
    other = make_sweep(lambdas=(0.0,), ratios=(0.5,), epochs=3, validation=False, finetune=False)
    report.build(other)
    text = (other / "report" / "report.md").read_text()
    assert "there is no validation split" in text
    assert "Left out: this sweep was run without fine-tuning." in text
    assert text.count("after fine-tuning    not run") == 1
    assert not (other / "report" / "figures" / "fine-tuning-accuracy.png").exists()


def test_three_ratios_are_drawn_over_the_ratio_as_in_figure_5_of_the_paper(make_sweep: Make, sweep: Path) -> None:
    folder = make_sweep(lambdas=(0.0, 1e-4), ratios=(0.3, 0.5, 0.9), seeds=(0, 1), epochs=3)
    text = report.build(folder).with_name("report.md").read_text()
    assert "a panel for after pruning, after recalibration and after fine-tuning, a line per λ" in text
    assert (folder / "report" / "figures" / "test-accuracy-over-ratios.png").stat().st_size > 10_000
    assert not (sweep / "report" / "figures" / "test-accuracy-over-ratios.png").exists()


def test_shares_and_budget_of_every_lambda_are_told(sweep: Path) -> None:
    text = (sweep / "report" / "report.md").read_text()
    for job in paths.load_jobs(sweep)[::2]:
        values = [abs(v) for layer in job.train.scales.values() for v in layer]
        share = 100 * len([v for v in values if v < 0.01]) / len(values)
        assert f"{share:.2f} % are under 1e-2" in text
    assert "| 1e-4 | 6.6 |" in text
    assert "| 1e-5 | 0.66 |" in text
    assert "SYNTHETIC numbers, no real run" in text


def test_two_networks_are_reported_side_by_side_and_never_mixed(make_sweep: Make) -> None:
    folder = make_sweep(lambdas=(0.0,), ratios=(0.5,), seeds=(0, 1), epochs=3)
    for path in folder.glob("train_*seed=1*/record.json"):
        edit(path, network="<other>")
    text = report.build(folder).with_name("report.md").read_text()
    assert text.count("## Sparsity Training Accuracy over Epochs (") == 2
    assert "±" not in text
    assert len(list((folder / "report" / "figures").glob("*.png"))) == 2 * 5 + 2  # cost and method are of both


@pytest.mark.slow
def test_figures_of_an_earlier_report_do_not_stay(make_sweep: Make) -> None:
    folder = make_sweep(lambdas=(0.0, 1e-4), ratios=(0.5,), epochs=3)
    report.build(folder)
    (folder / "report" / "figures" / "scales-lambda-1e-4.png").write_bytes(b"of an earlier version")
    report.build(folder, formats=["pdf"])
    assert not (folder / "report" / "figures" / "scales-lambda-1e-4.png").exists()
    assert (folder / "report" / "figures" / "cost.pdf").exists()
    report.build(folder)
    assert not (folder / "report" / "figures" / "cost.pdf").exists()


def test_a_training_that_diverged_is_reported(make_sweep: Make) -> None:
    folder = make_sweep(lambdas=(0.0,), ratios=(0.5,), epochs=3)
    (scales,) = folder.glob("train_*/scales.json")
    scales.write_text(json.dumps({name: [float("nan")] * len(v) for name, v in json.loads(scales.read_text()).items()}))
    assert "Training diverged: no γ is a number." in report.build(folder).with_name("report.md").read_text()


def test_a_training_without_recorded_scales_leaves_its_section_out(make_sweep: Make) -> None:
    folder = make_sweep(lambdas=(0.0, 1e-4), ratios=(0.5,), epochs=3)
    for path in folder.glob("train_lambda=0_*/scales.json"):
        path.write_text("{}")
    text = report.build(folder).with_name("report.md").read_text()
    assert text.count("Left out: no scaling factors are recorded for this training.") == 1
    assert (folder / "report" / "figures" / "scaling-factors.png").exists()


def test_no_finished_job_is_an_error_that_names_the_next_command(make_sweep: Make, tmp_path: Path) -> None:
    folder = make_sweep(lambdas=(0.0,), ratios=(0.5,), epochs=3)
    for path in folder.glob("job_*"):
        shutil.rmtree(path)
    with pytest.raises(
        ValueError, match=r"no job has finished yet; run: netslim experiment=synthetic lambda=0 ratio=0\.5"
    ):
        report.build(folder)
    with pytest.raises(ValueError, match="give the folder of a sweep"):
        report.build(tmp_path)


def test_a_damaged_record_is_named(make_sweep: Make) -> None:
    folder = make_sweep(lambdas=(0.0,), ratios=(0.5,), epochs=3)
    (path,) = folder.glob("slim_*/record.json")
    path.write_text(path.read_text()[:100])
    with pytest.raises(ValueError, match=r"slim_.*record\.json"):
        report.build(folder)


def test_the_command_prints_the_page_or_one_line_of_error(
    sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(sweep)]) == 0
    assert capsys.readouterr().out == f"{sweep / 'report' / 'index.html'}\n"
    assert main([str(tmp_path / "missing")]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert (
        err == f"netslim-report: {tmp_path / 'missing'}: no such folder; give the folder of a sweep, outputs/<name>\n"
    )


def test_figures_for_print_have_the_width_that_was_asked_for(
    make_sweep: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_sweep(lambdas=(0.0,), ratios=(0.5,), epochs=2)
    assert main([str(folder), "--format", "pdf,svg", "--width", "3.5"]) == 0
    drawn = folder / "report" / "figures"
    names = {path.stem for path in drawn.glob("*.png")}
    assert {path.stem for path in drawn.glob("*.pdf")} == {path.stem for path in drawn.glob("*.svg")} == names
    for path in drawn.glob("*.pdf"):
        assert b"/MediaBox [ 0 0 252 " in path.read_bytes()  # 3.5 inches of 72 points
        assert 'width="252pt"' in path.with_suffix(".svg").read_text()
        assert "var(" not in path.with_suffix(".svg").read_text()
    assert main([str(folder), "--format", "gif"]) == 2
    assert main([str(folder), "--width", "0.1", "--format", "pdf"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "netslim-report: no figures in format 'gif'; give some of pdf,png,svg",
        "netslim-report: figures cannot be 0.1 inches wide; give 2 to 20, such as 3.35 for a column",
    ]


def test_several_folders_are_one_page_and_never_averaged(make_sweep: Make, capsys: pytest.CaptureFixture[str]) -> None:
    small = {"lambdas": (0.0,), "ratios": (0.5,), "epochs": 2}
    first, second = make_sweep("a", **small), make_sweep("b", **small)
    assert main([str(first), str(second)]) == 0
    page = first.with_name("a+b") / "report" / "index.html"
    assert capsys.readouterr().out == f"{page}\n"
    text = page.with_name("report.md").read_text()
    assert "all 2 jobs finished" in text
    assert text.count("| a | ") == text.count("| b | ") == 2  # in the table of results, and in that of every stage
    assert "## Test Accuracy with Prune Ratio 50 % (a)" in text
    assert "±" not in text


def test_a_stage_that_jobs_share_is_read_once(make_sweep: Make) -> None:
    first, second = paths.load_jobs(make_sweep(lambdas=(0.0,), ratios=(0.5, 0.9), epochs=1))
    assert first.train is second.train
    assert first.slim is not second.slim


@pytest.mark.slow
def test_seventy_two_jobs_fit_in_three_megabytes(make_sweep: Make) -> None:
    folder = make_sweep(
        lambdas=(0.0, 1e-5, 2e-5, 5e-5, 1e-4, 2e-4), ratios=(0.3, 0.5, 0.7, 0.9), seeds=(0, 1, 2), epochs=160
    )
    assert report.build(folder).stat().st_size <= 3_000_000


def test_the_authors_lambda_of_the_same_budget_stands_beside_each(sweep: Path, make_sweep: Make) -> None:
    text = (sweep / "report" / "report.md").read_text()
    assert "| 1e-5 | 0.66 | 1e-5 |" in text
    assert "the lab’s λ = 1e-5 is λ = 1e-5 here and λ = 1e-4 is λ = 1e-4 here" in text
    assert "too small" not in text
    small = make_sweep("small", lambdas=(0.0, 1e-6), ratios=(0.5,), epochs=2)
    text = report.build(small).with_name("report.md").read_text()
    assert "λ = 1e-6 is too small to make channels sparse: its budget of 0.066 cannot bring a γ from 0.5 to 0." in text
