"""`run` and `plan` with real worker processes, and what a user does with the store afterwards."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from llmrepair.pipeline.executors.base import Job
from llmrepair.pipeline.executors.local import LocalExecutor
from llmrepair.stages.workers import answer
from tests.conftest import CommandLine

PLAN = """
[defaults]
samples = 16
budget = 8192
tuning_samples = 60
lengths = [4, 6]
learning_rates = [0.01]
limit = 20

[grid]
compressions = ["rtn", "magnitude"]
recoveries = ["none", { recovery = "lora", rank = 2 }]
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the plan and its finished runs; tests that change something work on a copy."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "study.toml").write_text(PLAN)
    done = process(folder, "run", "study.toml", "--json")
    (folder / "answer.json").write_text(done.stdout)
    (folder / "said.txt").write_text(done.stderr)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(finished, tmp_path / "copy", symlinks=True)
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy"


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-c", "from llmrepair.cli.main import main; main()", *arguments]


def process(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), cwd=folder, capture_output=True, text=True, check=False)


def test_a_plan_runs_each_stage_once(finished: Path) -> None:
    answer = json.loads((finished / "answer.json").read_text())
    assert (answer["name"], answer["done"], answer["failed"]) == ("study", 2 + 2 + 4, 0)
    assert [stage["outcome"] for stage in answer["stages"]] == ["done"] * 8
    evaluated = [stage for stage in answer["stages"] if stage["stage"] == "evaluate"]
    assert all(stage["metrics"]["tasks"]["lab_qa"]["exact_match"]["n"] == 20 for stage in evaluated)
    said = (finished / "said.txt").read_text()
    assert said.count("lab rtn 3 bits ...") == 1


def test_results_are_linked_under_the_name_of_the_plan(finished: Path) -> None:
    links = {path.name: path for path in (finished / "runs" / "named" / "study").iterdir()}
    assert len(links) == 8
    (link,) = [path for name, path in links.items() if name.startswith("evaluate-lab-magnitude-50-lora-on-lab-qa-")]
    assert json.loads((link / "key.json").read_text())["config"]["recovery"] == "lora"


def test_labels_of_two_seeds_are_told_apart(folder: Path, llmrepair: CommandLine) -> None:
    (folder / "study.toml").write_text(PLAN + "seeds = [0, 1]\n")
    stages = llmrepair("plan", "study.toml", "--json").json["stages"]
    labels = [(stage["stage"], stage["label"]) for stage in stages]
    assert len(set(labels)) == len(labels)


def test_the_log_of_each_stage_is_in_its_artifact(finished: Path) -> None:
    (log, _) = sorted((finished / "runs" / "tune-lora").glob("*/log.txt"))
    assert "tuning LoRA 8/8  loss" in log.read_text()
    assert not list((finished / "runs" / ".work").iterdir())


def test_a_second_run_is_cached(folder: Path, llmrepair: CommandLine) -> None:
    answer = llmrepair("run", "study.toml", "--json")
    assert answer.json["cached"] == 8
    assert answer.json["seconds"] < 5
    assert llmrepair("plan", "study.toml", "--json").json["to_do"] == 0


def test_plan_says_what_would_run_and_why(folder: Path, llmrepair: CommandLine) -> None:
    (folder / "study.toml").write_text(PLAN.replace('"rtn"', '{ method = "rtn", bits = 4 }'))
    stages = {stage["label"]: stage for stage in llmrepair("plan", "study.toml", "--json").json["stages"]}
    assert stages["lab magnitude 50%"]["status"] == "cached"
    assert stages["lab rtn 4 bits"] | {"key": ""} == {
        "stage": "compress",
        "key": "",
        "label": "lab rtn 4 bits",
        "inputs": [],
        "status": "to do",
        "why": ["`bits` 3 -> 4"],
    }
    assert stages["lab rtn 4 bits: LoRA on lab_qa"]["why"] == ["`bits` 3 -> 4 (compress)"]
    text = llmrepair("run", "study.toml", "--dry-run").out
    assert "`bits` 3 -> 4 (compress)" in text
    assert "8 stages, 4 to do" in text
    assert len(list((folder / "runs" / "compress").iterdir())) == 2


def test_another_model_takes_the_place_of_the_plans(folder: Path, llmrepair: CommandLine) -> None:
    stages = llmrepair("plan", "study.toml", "--model", "lab-opt", "--json").json["stages"]
    assert len(stages) == 8
    assert all(stage["label"].startswith("lab-opt ") for stage in stages)
    answer = llmrepair("run", "study.toml", "--model", "nobody/nothing", "--dry-run")
    assert answer.code == 2
    assert answer.err.startswith("error: --model: model `nobody/nothing` is neither a local path")


def test_a_dry_run_estimates_what_is_missing(folder: Path, llmrepair: CommandLine) -> None:
    (folder / "study.toml").write_text(PLAN.replace('"rtn"', '{ method = "rtn", bits = 4 }'))
    stages = llmrepair("run", "study.toml", "--dry-run", "--json").json["stages"]
    assert all(("needs" in stage) == (stage["status"] == "to do") for stage in stages)
    (compress,) = [stage for stage in stages if stage["label"] == "lab rtn 4 bits"]
    assert compress["needs"]["host"] > compress["needs"]["disk"] > 0
    assert not compress["needs"]["is_rough"]
    table = llmrepair("run", "study.toml", "--dry-run").out
    assert re.search(r"lab rtn 4 bits +to do +[\d.]+ [MG]B ", table)
    assert re.search(r"lab rtn 4 bits: LoRA on lab_qa +to do +~[\d.]+ GB ", table)
    assert "memory" not in llmrepair("plan", "study.toml").out


def test_plan_names_an_input_file_that_changed(folder: Path, llmrepair: CommandLine, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("Oslo Rome Paris. " * 400)
    quick = ["--method", "wanda", "--samples", 8, "--seq-len", 16, "--calibration", text]
    assert llmrepair("compress", *quick).code == 0
    text.write_text("Rome Oslo Paris. " * 400)
    (folder / "study.toml").write_text(f'[[include]]\nmethod = "wanda"\nsamples = 8\nseq_len = 16\ncalibration = "{text}"\n')
    (compress, _) = llmrepair("plan", "study.toml", "--json").json["stages"]
    assert compress["why"] == ["input `file` of calibration changed"]


def test_a_failed_stage_stops_only_what_depends_on_it(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished / "runs" / "compress", tmp_path / "runs" / "compress")
    (tmp_path / "study.toml").write_text(PLAN.replace("0.01", "1e30").replace(', "magnitude"', ""))
    done = process(tmp_path, "run", "study.toml", "--jobs", "2")
    assert done.returncode == 1
    table = [line.split("  ") for line in done.stdout.splitlines()]
    outcomes = {line[0]: [cell.strip() for cell in line if cell.strip()] for line in table if len(line) > 3}
    assert "failed" in outcomes["tune-lora"]
    assert done.stdout.count(" not run ") == 1
    assert "1 failed, 1 not run" in done.stdout
    assert "hint: give smaller ones with --learning-rates" in done.stderr
    assert "Traceback" not in done.stderr
    assert len(list((tmp_path / "runs" / "evaluate").iterdir())) == 1


def running_workers(folder: Path) -> list[int]:
    """Processes that work in `folder` and were forked by the one that forks workers."""
    forking, parents = set(), {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if b"multiprocessing.forkserver" in (path / "cmdline").read_bytes() and (path / "cwd").readlink() == folder:
                forking.add(int(path.name))
                parents[int(path.name)] = int((path / "stat").read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):  # it has just ended
            continue
    return [each for each, parent in parents.items() if parent in forking]


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="reads /proc")
def test_an_interrupted_run_takes_its_workers_along_and_goes_on_later(folder: Path) -> None:
    for evaluated in sorted((folder / "runs" / "evaluate").iterdir())[:2]:
        shutil.rmtree(evaluated)
    listening = ["env", "--default-signal=INT"]  # what was started in the background may not
    run = subprocess.Popen([*listening, *command("run", "study.toml")], cwd=folder, stderr=subprocess.PIPE, text=True)
    while not running_workers(folder):
        time.sleep(0.05)
    run.send_signal(signal.SIGINT)
    _, said = run.communicate(timeout=60)
    assert run.returncode == 130
    assert "interrupted; what is finished is kept" in said
    assert "Warning" not in said
    assert running_workers(folder) == []
    done = process(folder, "run", "study.toml", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["cached"] >= 6


def test_code_that_changes_while_a_plan_runs_is_told(folder: Path) -> None:
    name = "compress/0123456789abcdef"
    request = {"name": name, "stage": "compress", "options": {"method": "rtn"}}
    request |= {"runs": str(folder / "runs"), "folder": str(folder), "log": "log"}
    executor = LocalExecutor(answer, 1)
    executor.start(Job(name, request, folder / "log", False, 0))
    while not (ended := executor.wait()):
        continue
    assert ended[0].code == 1
    assert "has changed since the plan was read" in json.loads(ended[0].output)["errors"][0]["message"]


def test_what_only_a_look_at_the_model_can_tell_is_told_with_line_and_key(folder: Path, llmrepair: CommandLine) -> None:
    (folder / "study.toml").write_text(
        '[grid]\ncompressions = [\n"rtn", {group_size = 24},\n{method = "wanda", seq_len = 999}]\ntasks = ["lab_qa"]\n'
        '[[include]]\nmethod = "none"\ntasks = "hellaswag"\ntasks_data = "."\n'
    )
    answer = llmrepair("run", "study.toml", "--dry-run")
    assert answer.code == 2
    assert "error: study.toml:9: `include[0].tasks_data`: `.` holds no hellaswag.jsonl" in answer.err
    (folder / "hellaswag.jsonl").touch()
    answer = llmrepair("run", "study.toml", "--dry-run")
    assert answer.code == 2
    assert "error: study.toml:3: `grid.compressions[1].group_size`: a group size of 24 does not divide" in answer.err
    assert "error: study.toml:4: `grid.compressions[2].seq_len`: rows of 999 tokens are longer" in answer.err


def test_a_damaged_record_is_told_in_a_sentence(folder: Path, llmrepair: CommandLine) -> None:
    (record, *_) = (folder / "runs" / "evaluate").glob("*/record.json")
    record.write_text("{")
    for command, code in ((["ls"], 0), (["show", record.parent.name], 1)):
        answer = llmrepair(*command)
        assert answer.code == code
        assert f"`evaluate/{record.parent.name}` is damaged" in answer.err
        assert "llmrepair verify" in answer.err
    assert "is damaged" in llmrepair("report").err
    assert llmrepair("verify").code == 1
    assert llmrepair("ls").code == 0


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["plan", "nowhere.toml"], "`nowhere.toml` cannot be read"),
        (["run", "study.toml", "--jobs", 0], "--jobs"),
        (["run", "study.toml", "--executor", "slurm"], "`slurm` is no value of --executor"),
        (["run", "study.toml", "--device", "gpu"], "--device"),
        (["run", "other.toml", "--executor", "ray", "--ray-address", "127.0.0.1:9"], "no Ray cluster answers"),
        (["run", "remote.toml"], "wants to run code that comes with a model"),
        (["gc", "--older-than", "3x"], "`3x` is no value of --older-than"),
        (["gc", "--down-to", "much"], "`much` is no value of --down-to"),
        (["rm", "zz"], "no artifact has a key that starts with `zz`"),
        (["rm", "named/nothing"], "no named run `nothing`"),
        (["rm", "../study.toml"], "no artifact"),
        (["why", "compress/"], "start of 2 keys"),
        (["verify", "zz"], "no artifact"),
    ],
)
def test_a_wrong_request(folder: Path, llmrepair: CommandLine, arguments: list[Any], message: str) -> None:
    (folder / "remote.toml").write_text("[[include]]\nmethod = 'none'\ntrust_remote_code = true\nlimit = 2\n")
    (folder / "other.toml").write_text("[[include]]\nmethod = 'none'\nlimit = 3\n")
    before = sorted(folder.rglob("*"))
    answer = llmrepair(*arguments)
    assert answer.code == 2
    assert message in answer.err
    assert "hint: " in answer.err
    assert "Traceback" not in answer.err
    assert [path for path in sorted(folder.rglob("*")) if ".locks" not in path.parts and ".cache" not in path.parts] == [
        path for path in before if ".locks" not in path.parts and ".cache" not in path.parts
    ]


def test_ls_filters(folder: Path, llmrepair: CommandLine) -> None:
    def listed(*arguments: object) -> int:
        return len(llmrepair("ls", "--json", *arguments).json["artifacts"])

    assert listed() == 8
    assert listed("--stage", "evaluate") == 4
    assert listed("--method", "rtn") == 4
    assert listed("--method", "rtn", "--stage", "compress") == 1
    assert listed("--model", "lab-opt") == 0
    assert "8 artifacts, " in llmrepair("ls").out


def test_show_has_parents_children_and_the_command(folder: Path, llmrepair: CommandLine) -> None:
    (tune,) = llmrepair("ls", "--json", "--stage", "tune-lora", "--method", "rtn").json["artifacts"]
    shown = llmrepair("show", tune["key"][:8], "--json").json
    (compress,) = llmrepair("ls", "--json", "--stage", "compress", "--method", "rtn").json["artifacts"]
    assert shown["parents"] == {"compressed": f"compress/{compress['key']}"}
    assert [child.partition("/")[0] for child in shown["children"]] == ["evaluate"]
    text = llmrepair("show", tune["key"]).out
    again = next(line for line in text.splitlines() if line.startswith("llmrepair "))
    assert again == (
        "llmrepair tune-lora --method rtn --samples 16 --tuning-samples 60 --budget 8192 --learning-rates 0.01 --rank 2"
    )
    assert llmrepair(*again.split()[1:], "--json").json["cached"]


def test_why(folder: Path, llmrepair: CommandLine) -> None:
    rtn, magnitude = (
        llmrepair("ls", "--json", "--stage", "compress", "--method", method).json["artifacts"][0]["key"]
        for method in ("rtn", "magnitude")
    )
    found = llmrepair("why", rtn, magnitude, "--json").json["differences"]
    assert found[0] == "`method` magnitude -> rtn"
    assert llmrepair("why", rtn, "--json").json["compared_with"] == f"compress/{magnitude}"
    assert "- `method` magnitude -> rtn" in llmrepair("why", rtn).out
    assert "not in the keys" not in llmrepair("why", rtn).out
    file = folder / "runs" / "compress" / rtn / "record.json"
    record = json.loads(file.read_text())
    machine = record["machine"] | {"threads": record["machine"]["threads"] + 1}
    file.write_text(json.dumps(record | {"machine": machine}))
    changed = f"`threads` {machine['threads'] - 1} -> {machine['threads']}"
    assert llmrepair("why", rtn, "--json").json["beside_the_keys"] == [changed]
    assert f"\nnot in the keys, and may change last digits: {changed}\n" in llmrepair("why", rtn).out


def test_rm_with_and_without_children(folder: Path, llmrepair: CommandLine) -> None:
    keys = {
        m: llmrepair("ls", "--json", "--stage", "compress", "--method", m).json["artifacts"][0]["key"]
        for m in ("rtn", "magnitude")
    }
    refused = llmrepair("rm", keys["rtn"])
    assert refused.code == 2
    assert f"error: the named run `study` leads to `compress/{keys['rtn']}`" in refused.err
    assert "rm named/study" in refused.err
    removed = llmrepair("rm", keys["rtn"], "--force", "--json").json
    assert (len(removed["removed"]), len(removed["children_left"])) == (1, 3)
    assert len(llmrepair("rm", keys["magnitude"], "--with-children", "--force", "--json").json["removed"]) == 4
    assert len(llmrepair("ls", "--json").json["artifacts"]) == 3
    assert "3 artifacts that were made from it stay" not in llmrepair("ls").out


@pytest.mark.parametrize("stage, missed", [("compress", ["no repair", "LoRA"]), ("tune-lora", ["LoRA"])])
def test_what_was_removed_is_named_by_the_report_and_made_again(
    folder: Path, llmrepair: CommandLine, stage: str, missed: list[str]
) -> None:
    before = llmrepair("report", "--json").json["metrics"]
    (removed,) = llmrepair("ls", "--json", "--stage", stage, "--method", "rtn").json["artifacts"]
    made_again = next(line for line in llmrepair("show", removed["key"]).out.splitlines() if line.startswith("llmrepair "))
    llmrepair("rm", removed["key"], "--force")
    said = llmrepair("report", "--html", "report.html")
    notes = [line for line in said.err.splitlines() if line.startswith("note: ")]
    assert [f"{len(missed)} left out, for `{stage}/{removed['key']}` is gone" in note for note in notes] == [True]
    found = notes[0].removeprefix("note: ")
    assert [f"lab rtn 3 bits: {repair} on lab_qa)" in found for repair in missed] == [True] * len(missed)
    assert f"- {found}" in said.out
    assert f"<li>{found}" in (folder / "report.html").read_text()
    for command in (["plan"], ["run", "--dry-run"]):
        stages = llmrepair(*command, "study.toml", "--json").json["stages"]
        assert [each["key"] for each in stages if each["status"] == "to do"] == [removed["key"]]
    assert llmrepair(*made_again.split()[1:]).code == 0
    assert llmrepair("report", "--json").json["metrics"] == before


def test_gc_says_first_what_it_would_free(folder: Path, llmrepair: CommandLine) -> None:
    assert llmrepair("gc", "--json").json["items"] == []
    llmrepair("rm", "named/study")
    said = llmrepair("gc")
    assert "would free" in said.out
    assert "--yes" in said.out
    assert len(llmrepair("ls", "--json").json["artifacts"]) == 8
    freed = llmrepair("gc", "--yes", "--json").json
    assert (freed["freed"], len(freed["items"])) == (True, 8)
    assert llmrepair("ls", "--json").json["artifacts"] == []


def test_verify_puts_damage_aside_and_the_next_run_mends_it(folder: Path, llmrepair: CommandLine) -> None:
    assert llmrepair("verify", "--json").json == {"checked": 8, "damaged": {}, "made_from_damaged": []}
    (path,) = [
        path for path in (folder / "runs" / "compress").glob("*/checkpoint/model.safetensors") if path.stat().st_size < 300_000
    ]
    content = path.read_bytes()
    path.write_bytes(content[:1000] + bytes([content[1000] ^ 1]) + content[1001:])
    name = path.parents[1].relative_to(folder / "runs").as_posix()
    answer = llmrepair("verify", "--json")
    assert answer.code == 1
    assert answer.json["damaged"] == {name: "checkpoint/model.safetensors is not what was written"}
    assert len(answer.json["made_from_damaged"]) == 3
    assert llmrepair("verify").code == 0
    assert llmrepair("plan", "study.toml", "--json").json["to_do"] == 1
    stages = {f"{stage['stage']}/{stage['key']}": stage for stage in llmrepair("plan", "study.toml", "--json").json["stages"]}
    assert stages[name]["why"] == ["it was damaged and put aside"]


ENVIRONMENTS = {  # of each, whether the code is elsewhere too
    "one order of sets": ({"PYTHONHASHSEED": "0"}, False),
    "another order": ({"PYTHONHASHSEED": "1", "LC_ALL": "C", "TZ": "Asia/Tokyo"}, True),
    "another home": ({"PYTHONUTF8": "1", "LC_ALL": "C.UTF-8", "OMP_NUM_THREADS": "7", "HOME": "/nowhere"}, True),
}


def test_keys_are_the_same_in_any_process_place_and_locale(folder: Path, tmp_path: Path) -> None:
    root, elsewhere = Path(__file__).resolve().parents[2], tmp_path / "elsewhere"
    shutil.copytree(root / "api", elsewhere / "llmrepair")
    for package in ("cli", "pipeline", "stages", "models", "lab"):
        shutil.copytree(root / package, elsewhere / "llmrepair" / package)
    asked = ["plan", "study.toml", "--json", "--runs", str(tmp_path / "none")]
    answers = []
    for environment, is_elsewhere in ENVIRONMENTS.values():
        place = {"PYTHONPATH": str(elsewhere) if is_elsewhere else ""}
        done = subprocess.run(
            command(*asked), env={**os.environ, **environment, **place}, capture_output=True, text=True, check=True
        )
        answers.append(done.stdout)
    assert len({tuple(stage["key"] for stage in json.loads(answer)["stages"]) for answer in answers}) == 1
