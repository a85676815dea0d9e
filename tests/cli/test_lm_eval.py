"""`ropewalk lm-eval` as a user meets it: own task files on a tiny model, nothing downloaded."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness_tasks import GENERATE, RECORDS, broken, records, write_tasks, write_yaml
from ropewalk import ScalingFactors, apply, load_pretrained
from ropewalk.cli import run

ROOT = Path(__file__).parents[2]
COMMAND = "import sys; from ropewalk.cli import main; main(sys.argv[1:])"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What datasets keeps goes into a folder of the test's own."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def factors(tmp_path: Path) -> Path:
    ScalingFactors([0.6, 1.5, 1.3, 0.8]).save(tmp_path / "factors.json")
    return tmp_path / "factors.json"


def lm_eval(model: Path, tasks: str | Path, *arguments: object) -> int:
    words = ["lm-eval", "--model", model, "--tasks", tasks, "--dtype", "float32", *arguments]
    return run([str(word) for word in words])


def test_the_table_has_every_result_and_closes_with_a_sentence(
    tiny_path: Path, factors: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    files = write_tasks(tmp_path)
    figures, samples = tmp_path / "out.json", tmp_path / "samples.jsonl"
    assert lm_eval(tiny_path, ",".join(files), "--factors", factors, "--json", figures, "--samples", samples) == 0
    said = capsys.readouterr()
    document = json.loads(figures.read_text())
    assert max(map(len, said.out.splitlines())) <= 80
    assert " ".join(said.out.split()).endswith(document["verdict"])
    assert [row["task"] for row in document["results"]] == (
        ["own_choice"] * 3 + ["own_answer"] + ["own_text"] * 3 + ["own_cloze"] * 2
    )
    for row in document["results"]:
        difference = row["difference"]["value"]
        assert f"{difference:+{'.4f' if abs(difference) < 1000 else '.4g'}}" in said.out
    assert {"vanilla", "factors"} <= document["results"][0].keys()
    assert document["factors"]["digest"] == ScalingFactors.load(factors).digest
    assert document["settings"]["max_length"] == 512
    assert "Vanilla: 144 prompts" in said.err
    check_samples(samples, document)


def check_samples(file: Path, document: dict[str, Any]) -> None:
    """Their means are the figures; both arms have the same questions."""
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert len(lines) == 2 * 4 * RECORDS
    for row in document["results"]:
        if row["metric"] not in ("acc", "acc_norm", "exact_match"):
            continue
        for arm in ("vanilla", "factors"):
            scores = [
                line["scores"][row["metric"]] for line in lines if line["arm"] == arm and line["task"] == row["task"]
            ]
            assert sum(scores) / RECORDS == pytest.approx(row[arm]["value"])
    asked = [[line["arguments"] for line in lines if line["arm"] == arm] for arm in ("vanilla", "factors")]
    assert asked[0] == asked[1]
    assert lines[0]["doc"] == records()[0]


def test_json_on_standard_output_is_all_that_is_there(
    tiny_path: Path, factors: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (file,) = write_tasks(tmp_path, "choice")
    assert lm_eval(tiny_path, file, "--factors", factors, "--limit", 3, "--json", "-", "--quiet") == 0
    said = capfd.readouterr()
    assert json.loads(said.out)["tasks"]["own_choice"]["records"] == 3
    assert said.err == ""


def test_factors_of_one_differ_nowhere(tiny_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ScalingFactors.uniform(1.0, 4).save(tmp_path / "ones.json")
    files = write_tasks(tmp_path)
    assert lm_eval(tiny_path, ",".join(files), "--factors", tmp_path / "ones.json", "--limit", 5) == 0
    said = capsys.readouterr().out
    assert "No result differs between the arms." in said
    assert set(re.findall(r"[+-]\d\.\d{3,}", said)) == {"+0.0000", "+0.000"}


def test_factors_that_the_checkpoint_carries_are_taken(
    tiny_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, tokenizer = load_pretrained(tiny_path, dtype="float32", device="cpu")
    scaled = ScalingFactors([0.6, 1.5, 1.3, 0.8])
    apply(model, scaled)
    model.save_pretrained(tmp_path / "carries")
    tokenizer.save_pretrained(tmp_path / "carries")
    (file,) = write_tasks(tmp_path, "text")
    for source, more in ((tmp_path / "carries", ()), (tiny_path, ("--factors", tmp_path / "same.json"))):
        scaled.save(tmp_path / "same.json")
        assert lm_eval(source, file, "--limit", 3, "--json", tmp_path / f"{source.name}.json", *more) == 0
    first, second = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("carries", tiny_path.name))
    assert first["results"] == second["results"]
    assert first["results"][0]["difference"]["value"] != 0


def test_a_dry_run_says_what_would_be_asked(
    tiny_path: Path, factors: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = write_tasks(tmp_path)
    before = sorted(tmp_path.iterdir())
    assert lm_eval(tiny_path, ",".join(files), "--factors", factors, "--dry-run", "--samples", tmp_path / "s") == 0
    said = capsys.readouterr().out
    assert re.search(r"own_choice +24 +72 +\d+ +\d+ +0", said)
    assert "Nothing was scored or written." in said
    assert [path for path in sorted(tmp_path.iterdir()) if path.name != "cache"] == before


def test_what_is_cut_off_is_said_before_and_after(
    tiny_path: Path, factors: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = write_tasks(tmp_path, "cloze", "text")
    figures = tmp_path / "out.json"
    words = ("--factors", factors, "--max-length", 25, "--json", figures)
    assert lm_eval(tiny_path, ",".join(files), *words) == 0
    said = capsys.readouterr()
    document = json.loads(figures.read_text())
    cut = document["tasks"]["own_cloze"]["cut"]
    assert cut > 0
    sentence = f"Warning: own_cloze: {cut} of {RECORDS} prompts are longer than the 25 tokens that the model takes"
    assert sentence in said.err
    assert sentence in " ".join(said.out.split())
    assert "texts are scored in windows of 25 tokens" in said.err


def test_code_of_the_users_own_is_named(
    tiny_path: Path, factors: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tasks(tmp_path, "answer")
    (tmp_path / "mine.py").write_text("print('loud')\ndef f(docs):\n    print('louder')\n    return docs\n")
    file = write_yaml(tmp_path, "own.yaml", f"{GENERATE}process_docs: !function mine.f\n")
    assert lm_eval(tiny_path, file, "--factors", factors, "--limit", 2, "--json", "-") == 0
    said = capsys.readouterr()
    assert f"The tasks run Python code of yours: {tmp_path / 'mine.py'}" in said.err
    assert json.loads(said.out)["tasks"]["own_answer"]["records"] == 2


def test_examples_that_a_task_does_without_are_said(
    tiny_path: Path, factors: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tasks(tmp_path, "answer")
    file = write_yaml(tmp_path, "own.yaml", f"{GENERATE}num_fewshot: 0\n")
    assert lm_eval(tiny_path, file, "--factors", factors, "--limit", 2, "--num-fewshot", 2) == 0
    said = capsys.readouterr().out
    assert "own_answer: asks without examples whatever --num-fewshot says" in said
    assert "n = 2, more is better" in said


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "no factors: give --factors FILE"),
        (("--factors", "none.json"), "none.json: no such file"),
        (("--factors", "FACTORS", "--limit", "0"), "--limit 0"),
        (("--factors", "FACTORS", "--num-fewshot", "-1"), "--num-fewshot -1"),
        (("--factors", "FACTORS", "--batch-size", "many"), "--batch-size many"),
        (("--factors", "FACTORS", "--batch-size", "0"), "--batch-size 0"),
        (("--factors", "FACTORS", "--max-length", "1"), "--max-length 1"),
        (("--factors", "FACTORS", "--metadata", "[1]"), "--metadata: expected a JSON object"),
        (("--factors", "FACTORS", "--metadata", "{"), "--metadata: not JSON"),
        (("--factors", "FACTORS", "--max-length", "5"), "task own_answer, record 0: asks for 6 new tokens"),
        (("--factors", "OTHER"), "7"),
    ],
)
def test_a_mistake_gets_one_line(
    arguments: tuple[str, ...],
    says: str,
    tiny_path: Path,
    factors: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (file,) = write_tasks(tmp_path, "answer")
    ScalingFactors.uniform(1.1, 7).save(tmp_path / "other.json")
    names = {"FACTORS": str(factors), "OTHER": str(tmp_path / "other.json")}
    assert lm_eval(tiny_path, file, *[names.get(word, word) for word in arguments]) == 2
    *_, line = capsys.readouterr().err.splitlines()
    assert line.startswith("ropewalk: ")
    assert says in line


def test_a_tokenizer_without_chat_template_is_said(
    tiny_path: Path, factors: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = shutil.copytree(tiny_path, tmp_path / "model")
    (model / "chat_template.jinja").unlink()
    (file,) = write_tasks(tmp_path, "answer")
    assert lm_eval(model, file, "--factors", factors, "--apply-chat-template") == 2
    assert "this model's tokenizer has no chat template" in capsys.readouterr().err


def in_a_process(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", f"{code}; {COMMAND}", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_without_lm_eval_one_line_says_what_to_install(tiny_path: Path, factors: Path) -> None:
    hidden = "import sys; sys.modules['lm_eval'] = None"
    done = in_a_process(hidden, "lm-eval", "--model", tiny_path, "--factors", factors, "--tasks", "x")
    assert done.returncode == 2
    assert done.stderr == "ropewalk: lm-eval is not installed: pip install ropewalk[lm-eval]\n"


def test_help_needs_neither_lm_eval_nor_torch() -> None:
    hidden = "import sys; sys.modules |= {'lm_eval': None, 'torch': None, 'datasets': None}"
    done = in_a_process(hidden, "lm-eval", "--help")
    assert done.returncode == 0, done.stderr
    assert "--apply-chat-template" in done.stdout


def test_ctrl_c_ends_it_cleanly(tiny_path: Path, factors: Path, tmp_path: Path) -> None:
    write_tasks(tmp_path, "answer")
    file = write_yaml(tmp_path, "long.yaml", broken(GENERATE, "max_gen_toks: 6", "max_gen_toks: 400"))
    words = ["lm-eval", "--model", tiny_path, "--factors", factors, "--tasks", file, "--batch-size", "1"]
    command = [sys.executable, "-c", COMMAND, *map(str, words), "--json", "-"]
    environment = {**os.environ, "HF_DATASETS_CACHE": str(tmp_path / "cache")}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("Vanilla"):
                process.send_signal(signal.SIGINT)
                break
        out, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert errors.splitlines() == ["ropewalk: stopped"]
    assert out == ""


@pytest.mark.slow
def test_names_that_lm_eval_knows(
    tiny_path: Path, factors: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own list is read; what it names needs data of the hub's, which no test asks."""
    for tasks, says in (
        ("arc_esy", "did you mean 'arc_easy'"),
        ("humaneval", "--confirm-run-unsafe-code"),
        ("arc_easy", "its data is not on this machine"),
    ):
        assert lm_eval(tiny_path, tasks, "--factors", factors) == 2
        *_, line = capsys.readouterr().err.splitlines()
        assert says in line


@pytest.mark.slow
def test_the_demo_model_with_found_factors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Real words: the texts are likelier than chance in both arms, and the sentence says what the rows say."""
    files = write_tasks(tmp_path)
    factors, figures = ROOT / "examples" / "smollm2-kv10.json", tmp_path / "out.json"
    arguments = ["lm-eval", "--model", "demo", "--factors", str(factors), "--tasks", ",".join(files)]
    assert run([*arguments, "--json", str(figures)]) == 0
    document = json.loads(figures.read_text())
    rows = {(row["task"], row["metric"]): row for row in document["results"]}
    bits = rows["own_text", "bits_per_byte"]
    assert 0 < bits["vanilla"]["value"] < 4
    assert 0 < bits["factors"]["value"] < 4
    assert bits["difference"]["value"] != 0
    assert document["verdict"] in " ".join(capsys.readouterr().out.split())
    assert document["provenance"]["versions"]["transformers"]
