"""lm-eval on both arms, held against lm-eval itself on a plain model and on one that is scaled by hand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from harness_tasks import CHOICE, GENERATE, QUESTIONS, RECORDS, broken, records, write_tasks, write_yaml
from ropewalk import ScalingFactors, apply, load_pretrained, remove, stats
from ropewalk.errors import DataError, FactorsError, RopewalkError
from ropewalk.patch import factors_of

FACTORS = ScalingFactors([0.6, 1.5, 1.3, 0.8])
BATCH = 5


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What datasets keeps goes into a folder of the test's own."""
    import datasets

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("datasets"))
        yield


@pytest.fixture(scope="module")
def network(tiny_path: Path) -> tuple[Any, Any]:
    """A checkpoint of this module's own."""
    return load_pretrained(tiny_path, dtype="float32", device="cpu")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return write_tasks(tmp_path_factory.mktemp("tasks"))


def arms_of(network: tuple[Any, Any], specs: list[str], *, max_length: int | None = None, **settings: Any) -> Any:
    from ropewalk.harness.loading import load_tasks
    from ropewalk.harness.model import CountedLM
    from ropewalk.harness.running import Arms, Settings
    from ropewalk.harness.tasks import find_tasks

    loaded = load_tasks(find_tasks(specs))
    lm = CountedLM(*network, batch_size=BATCH, max_length=max_length)
    return Arms(network[0], lm, loaded, Settings(**settings))


@pytest.fixture(scope="module")
def both(network: tuple[Any, Any], files: list[str]) -> Any:
    """(arms, results of vanilla, results of the factors) of all task files."""
    arms = arms_of(network, files)
    arms.plan()
    return arms, arms.score(None), arms.score(FACTORS)


@pytest.fixture(scope="module")
def rows(both: Any) -> list[dict[str, Any]]:
    from ropewalk.harness.paired import compare

    return compare(both[1], both[2], both[0].loaded)


def plainly(network: tuple[Any, Any], specs: list[str], **more: Any) -> Any:
    """lm-eval alone on the model as it is now."""
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    lm = HFLM(pretrained=network[0], tokenizer=network[1], batch_size=BATCH)
    manager = TaskManager(include_defaults=False)
    return simple_evaluate(model=lm, tasks=specs, task_manager=manager, bootstrap_iters=0, **more)


def same(ours: Any, theirs: Any, *, within: float = 0.0) -> None:
    """Every value and every answer of every record is lm-eval's."""
    assert ours["results"].keys() == theirs["results"].keys()
    for task, values in theirs["results"].items():
        numbers = {key: value for key, value in values.items() if isinstance(value, float)}
        assert numbers
        for key, value in numbers.items():
            assert ours["results"][task][key] == pytest.approx(value, rel=within, abs=within), (task, key)
        for mine, other in zip(ours["samples"][task], theirs["samples"][task], strict=True):
            if not within:
                assert mine["resps"] == other["resps"]
            assert mine["arguments"] == other["arguments"]


def test_vanilla_is_lm_eval_alone(both: Any, network: tuple[Any, Any], files: list[str]) -> None:
    same(both[1], plainly(network, files))


def test_factors_are_lm_eval_on_a_patched_model(both: Any, network: tuple[Any, Any], files: list[str]) -> None:
    apply(network[0], FACTORS)
    try:
        same(both[2], plainly(network, files))
    finally:
        remove(network[0])


def test_factors_are_lm_eval_on_a_model_scaled_by_hand(both: Any, network: tuple[Any, Any], files: list[str]) -> None:
    """The positions of every layer are divided by its factor in a few lines that know nothing of ropewalk."""
    model = network[0]
    inverse = model.model.rotary_emb.inv_freq.double()

    def hook(layer: Any, inputs: Any, named: dict[str, Any], factor: float) -> Any:
        angles = named["position_ids"][..., None].double() / factor * inverse
        both = torch.cat([angles, angles], dim=-1)
        return inputs, {**named, "position_embeddings": (both.cos().float(), both.sin().float())}

    handles = [
        layer.register_forward_pre_hook(
            lambda layer, inputs, named, factor=factor: hook(layer, inputs, named, factor), with_kwargs=True
        )
        for layer, factor in zip(model.model.layers, FACTORS.values, strict=True)
    ]
    try:
        same(both[2], plainly(network, files), within=1e-4)
    finally:
        for handle in handles:
            handle.remove()


def test_the_arms_do_differ(both: Any) -> None:
    assert both[1]["results"]["own_text"] != both[2]["results"]["own_text"]
    assert both[1]["samples"]["own_answer"] != both[2]["samples"]["own_answer"]


def test_factors_of_one_change_nothing_at_all(network: tuple[Any, Any], files: list[str]) -> None:
    from ropewalk.harness.paired import compare
    from ropewalk.harness.verdict import verdict_sentence

    arms = arms_of(network, files, limit=4)
    arms.plan()
    found = compare(arms.score(None), arms.score(ScalingFactors.uniform(1.0, 4)), arms.loaded)
    assert len(found) == 9
    assert {row["difference"]["value"] for row in found} == {0.0}
    assert {row["difference"]["p"] for row in found} == {1.0}
    assert verdict_sentence(found) == "No result differs between the arms."


@pytest.mark.parametrize("carried", [None, FACTORS])
def test_the_model_is_as_it_was(network: tuple[Any, Any], tmp_path: Path, carried: ScalingFactors | None) -> None:
    model, tokenizer = network
    prompt = torch.arange(3, 40)[None]
    if carried is not None:
        apply(model, carried)
    try:
        before, padding = model(prompt).logits, tokenizer.pad_token
        weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        arms = arms_of(network, write_tasks(tmp_path, "cloze"), limit=3)
        arms.plan()
        arms.score(None)
        arms.score(ScalingFactors.uniform(1.2, 4))
        assert torch.equal(model(prompt).logits, before)
        assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())
        assert factors_of(model) == carried
        assert tokenizer.pad_token == padding
        assert hasattr(model.config, "rope_layer_factors") == (carried is not None)
    finally:
        remove(model)


def test_the_model_is_as_it_was_when_it_is_stopped(network: tuple[Any, Any], tmp_path: Path) -> None:
    arms = arms_of(network, write_tasks(tmp_path, "cloze"), limit=3)
    arms.plan()

    def stop(prompts: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        arms.score(FACTORS, on_progress=stop)
    assert factors_of(network[0]) is None


def test_every_row_has_a_paired_interval(rows: list[dict[str, Any]]) -> None:
    tests = {(row["task"], row["metric"]): row["difference"]["test"] for row in rows}
    assert tests == {
        ("own_choice", "acc"): "McNemar",
        ("own_choice", "acc_norm"): "McNemar",
        ("own_choice", "brier_score"): "bootstrap",
        ("own_answer", "exact_match"): "McNemar",
        ("own_text", "word_perplexity"): "bootstrap",
        ("own_text", "byte_perplexity"): "bootstrap",
        ("own_text", "bits_per_byte"): "bootstrap",
        ("own_cloze", "perplexity"): "bootstrap",
        ("own_cloze", "acc"): "McNemar",
    }
    for row in rows:
        assert row["records"] == RECORDS
        for part in ("vanilla", "factors", "difference"):
            block = row[part]
            assert block["low"] - 1e-12 <= block["value"] <= block["high"] + 1e-12, (row["task"], row["metric"])
        assert row["difference"]["value"] == row["factors"]["value"] - row["vanilla"]["value"]
        assert 0 < row["difference"]["p"] <= row["difference"]["p_holm"] <= 1
        assert row["higher_is_better"] == (row["metric"] in ("acc", "acc_norm", "exact_match"))


def test_verdicts_and_perplexities_are_tested_as_they_should(both: Any, rows: list[dict[str, Any]]) -> None:
    by_name = {(row["task"], row["metric"]): row for row in rows}
    first, second = (np.array([sample["acc"] for sample in arm["samples"]["own_choice"]]) == 1 for arm in both[1:])
    accuracy = by_name["own_choice", "acc"]
    assert accuracy["difference"]["p"] == stats.mcnemar(first, second)
    assert (accuracy["vanilla"]["low"], accuracy["vanilla"]["high"]) == stats.wilson(float(first.sum()), RECORDS)
    texts = [np.array([sample["word_perplexity"] for sample in arm["samples"]["own_text"]]) for arm in both[1:]]
    words = by_name["own_text", "word_perplexity"]
    for arm, values in zip(("vanilla", "factors"), texts, strict=True):
        expected = np.exp(-values[:, 0].sum() / values[:, 1].sum())
        assert words[arm]["value"] == pytest.approx(expected)
    gains = [
        np.exp(-np.delete(texts[1], leave, 0)[:, 0].sum() / np.delete(texts[1], leave, 0)[:, 1].sum())
        - np.exp(-np.delete(texts[0], leave, 0)[:, 0].sum() / np.delete(texts[0], leave, 0)[:, 1].sum())
        for leave in range(RECORDS)
    ]
    jackknife = np.sqrt((RECORDS - 1) * np.var(gains))  # its error by another road
    width = words["difference"]["high"] - words["difference"]["low"]
    assert width == pytest.approx(2 * 2.07 * jackknife, rel=0.35)


def test_progress_counts_every_prompt_of_the_plan(network: tuple[Any, Any], files: list[str]) -> None:
    arms = arms_of(network, files, max_length=20)
    plans, seen = arms.plan(), []
    arms.score(None, on_progress=seen.append)
    assert sum(seen) == sum(plan.prompts for plan in plans.values())
    assert plans["own_choice"].prompts == 3 * RECORDS
    assert plans["own_text"].texts_split > 0


def test_prompts_that_lose_their_beginning_are_counted(network: tuple[Any, Any], tmp_path: Path) -> None:
    """The tokenizer has about a token a letter, so the expected number comes from the tokenizer alone."""
    limit, tokenizer = 30, network[1]
    arms = arms_of(network, write_tasks(tmp_path, "cloze", "answer"), max_length=limit)
    plans = arms.plan()
    whole = [len(tokenizer.encode(f"{one['question']} {one['answer']}")) for one in records()]
    questions = [len(tokenizer.encode(one["question"])) for one in records()]
    assert plans["own_cloze"].cut == sum(tokens > limit + 1 for tokens in whole) > 0
    assert plans["own_answer"].cut == sum(tokens + 6 > limit for tokens in questions) > 0
    assert plans["own_cloze"].longest == limit + 1


def test_seconds_are_estimated_from_the_real_model(network: tuple[Any, Any], files: list[str]) -> None:
    arms = arms_of(network, files, limit=2)
    assert arms.seconds(arms.plan()) > 0


def test_automatic_batches_are_the_same_in_both_arms(network: tuple[Any, Any], files: list[str]) -> None:
    from ropewalk.harness.loading import load_tasks
    from ropewalk.harness.model import CPU_TOKENS, CountedLM
    from ropewalk.harness.running import Arms, Settings
    from ropewalk.harness.tasks import find_tasks

    lm = CountedLM(*network)
    arms = Arms(network[0], lm, load_tasks(find_tasks(files)), Settings())
    arms.plan()
    first = arms.score(None)
    found = list(lm._found)
    assert found
    assert all(1 <= size <= CPU_TOKENS for size in found)
    again = arms.score(None)
    assert lm._found == found
    assert first["results"] == again["results"]


def test_batches_of_a_gpu_are_tried_at_the_longest_request(network: tuple[Any, Any]) -> None:
    """Its way of trying runs anywhere; memory that is too small is only met on a GPU."""
    from ropewalk.harness.model import LARGEST_BATCH, CountedLM

    lm = CountedLM(*network)
    lm.longest = 20
    seen: list[int] = []
    handle = network[0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape[1]))
    try:
        assert lm._tried(None, 0) == LARGEST_BATCH
    finally:
        handle.remove()
    assert set(seen) == {20}
    assert lm.max_length == 512


def test_few_shot_examples_and_chat_templates_are_lm_evals(network: tuple[Any, Any], files: list[str]) -> None:
    choice = [file for file in files if "choice" in file]
    arms = arms_of(network, choice, limit=4, num_fewshot=2, chat_template=True)
    assert arms.plan()["own_choice"].shots == 2
    theirs = plainly(network, choice, limit=4, num_fewshot=2, apply_chat_template=True)
    same(arms.score(None), theirs)


def test_metrics_of_the_whole_corpus_are_computed_anew(
    network: tuple[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ropewalk.harness import paired

    monkeypatch.setattr(paired, "CORPUS_RESAMPLES", 200)
    write_tasks(tmp_path, "choice")
    text = CHOICE + "  - {metric: mcc, aggregation: matthews_corrcoef, higher_is_better: true}\n"
    arms = arms_of(network, [str(write_yaml(tmp_path, "own.yaml", text))])
    arms.plan()
    vanilla, factors = arms.score(None), arms.score(FACTORS)
    (mcc,) = [one for one in paired.compare(vanilla, factors, arms.loaded) if one["metric"] == "mcc"]
    assert mcc["vanilla"]["value"] == vanilla["results"]["own_choice"]["mcc,none"]
    assert mcc["difference"]["low"] <= mcc["difference"]["value"] <= mcc["difference"]["high"]
    assert mcc["vanilla"]["low"] < mcc["vanilla"]["value"] < mcc["vanilla"]["high"]
    assert 0 < mcc["difference"]["p"] <= 1
    (mcc,) = [one for one in paired.compare(vanilla, vanilla, arms.loaded) if one["metric"] == "mcc"]
    assert [mcc["difference"][key] for key in ("value", "low", "high", "p")] == [0, 0, 0, 1]


def test_the_corpus_bootstrap_agrees_with_the_one_for_means() -> None:
    """A mean that is not known as one goes the long way round."""
    from ropewalk.harness import paired

    generator = np.random.default_rng(3)
    first = generator.normal(size=40)
    second = first + generator.normal(0.2, 0.5, size=40)
    difference = {"value": float(second.mean() - first.mean())}
    empty = {"vanilla": {}, "factors": {}, "difference": difference}
    long_way = paired._corpus(empty, list(first), list(second), lambda values: sum(values) / len(values))
    known = stats.paired_bootstrap(first[:, None], second[:, None], lambda means: means[..., 0])
    spread = known.high - known.low
    assert long_way["difference"]["low"] == pytest.approx(known.low, abs=0.15 * spread)
    assert long_way["difference"]["high"] == pytest.approx(known.high, abs=0.15 * spread)
    assert long_way["difference"]["p"] == pytest.approx(known.p_value, abs=0.03)


# Groups ---------------------------------------------------------------------------------------------------------------

GROUP = """
group: own_group
task: [own_choice, own_other]
aggregate_metric_list:
  - {metric: acc, aggregation: mean, weight_by_size: WEIGHTED}
"""


@pytest.mark.parametrize("weighted", [True, False])
def test_a_group_has_one_number_with_an_interval(network: tuple[Any, Any], tmp_path: Path, weighted: bool) -> None:
    from ropewalk.harness.paired import compare

    write_tasks(tmp_path, "choice")
    other = CHOICE.replace("own_choice", "own_other") + "process_docs: !function few.first\n"
    write_yaml(tmp_path, "other.yaml", other)
    (tmp_path / "few.py").write_text("def first(docs):\n    return docs.select(range(10))\n")
    write_yaml(tmp_path, "group.yaml", GROUP.replace("WEIGHTED", str(weighted).lower()))
    arms = arms_of(network, [str(tmp_path)])
    assert arms.loaded.roots == ("own_group",)
    arms.plan()
    vanilla, factors = arms.score(None), arms.score(FACTORS)
    found = compare(vanilla, factors, arms.loaded)
    (row,) = [row for row in found if row["kind"] == "group"]
    assert row["records"] == RECORDS + 10
    assert row["vanilla"]["value"] == vanilla["groups"]["own_group"]["acc,none"]
    assert row["difference"]["low"] <= row["difference"]["value"] <= row["difference"]["high"]
    assert row["difference"]["test"] == ("McNemar" if weighted else "bootstrap")
    assert [one["task"] for one in found if one["asked"]] == ["own_group"]


NESTED = """
group: own_nested
task:
  - group: inner
    task:
      - {task: own_choice, num_fewshot: 0}
  - {task: own_answer, unsafe_code: true}
"""


def test_members_of_groups_are_checked_with_the_settings_of_the_group(network: tuple[Any, Any], tmp_path: Path) -> None:
    from ropewalk.harness.loading import load_tasks
    from ropewalk.harness.tasks import find_tasks

    write_tasks(tmp_path, "choice", "answer")
    write_yaml(tmp_path, "nested.yaml", NESTED)
    with pytest.raises(RopewalkError, match="task own_answer: runs code that the model writes"):
        find_tasks([str(tmp_path)])
    loaded = load_tasks(find_tasks([str(tmp_path)], unsafe_code=True))
    assert set(loaded.tasks) == {"own_choice", "own_answer"}
    assert loaded.roots == ("own_nested",)


RULER = f"""
task: own_ruler
{QUESTIONS}
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
generation_kwargs: {{until: ["q"], max_gen_toks: 6}}
process_results: !function lengths.score
metric_list:
  - metric: "4096"
    aggregation: !function lm_eval.tasks.ruler.common_utils.aggregate_metrics
    higher_is_better: true
  - metric: "512"
    aggregation: !function lm_eval.tasks.ruler.common_utils.aggregate_metrics
    higher_is_better: true
"""


def test_records_that_rulers_metrics_leave_out_are_left_out(network: tuple[Any, Any], tmp_path: Path) -> None:
    from ropewalk.harness.paired import compare

    write_tasks(tmp_path, "choice")
    file = write_yaml(tmp_path, "ruler.yaml", RULER)
    (tmp_path / "lengths.py").write_text(
        "def score(doc, results):\n"
        "    is_long = len(doc['question']) > 18\n"
        "    return {'4096': -1.0, '512': float('e' in results[0]) if is_long else -1.0}\n"
    )
    arms = arms_of(network, [str(file)])
    arms.plan()
    vanilla = arms.score(None)
    (row,) = compare(vanilla, arms.score(FACTORS), arms.loaded)
    assert row["metric"] == "512"
    assert 0 < row["records"] == sum(len(one["question"]) > 18 for one in records()) < RECORDS
    assert row["vanilla"]["value"] == vanilla["results"]["own_ruler"]["512,none"]


def test_tasks_that_ask_other_questions_each_time_are_refused(network: tuple[Any, Any], tmp_path: Path) -> None:
    from ropewalk.harness.paired import compare

    write_tasks(tmp_path, "answer")
    text = GENERATE.replace('doc_to_text: "{{question}}"', "doc_to_text: !function moving.ask")
    (tmp_path / "moving.py").write_text(
        "import itertools\nCOUNT = itertools.count()\ndef ask(doc):\n    return str(next(COUNT))\n"
    )
    arms = arms_of(network, [str(write_yaml(tmp_path, "moving.yaml", text))], limit=2)
    with pytest.raises(DataError, match="asks other questions each time"):
        compare(arms.score(None), arms.score(FACTORS), arms.loaded)


# What is refused ------------------------------------------------------------------------------------------------------


MISTAKES = [
    ("task: [", r"own.yaml: not YAML \(line 2"),
    ("- a\n- b\n", "own.yaml: can't be read as a task"),
    ("include: nowhere.yaml\n", "own.yaml: includes .*nowhere.yaml, which is not there"),
    ("output_type: generate_until\n", "own.yaml: names no task"),
    ("task: own\noutput_type: generate_until\n", "task own: names no data"),
    (broken(GENERATE, "test_split: test", ""), "task own_answer: names no split"),
    (broken(GENERATE, "test_split: test", "test_split: tst"), "'tst' is not in its data"),
    (broken(GENERATE, "DATA", "/no/such.jsonl"), "Unable to find .*such.jsonl.*relative to the folder"),
    (broken(GENERATE, "DATA", "DATA.broken"), "its data can't be read"),
    (broken(GENERATE, "DATA", "DATA.empty"), "its data holds no records"),
    (broken(GENERATE, "{{question}}", "{{query}}"), "'query' is undefined in its data"),
    (broken(GENERATE, "{{question}}", "{{question"), "a template is broken"),
    (broken(GENERATE, "output_type", "output_typ"), "knows no key 'output_typ'"),
    (broken(GENERATE, "metric: exact_match", "metric: exact_mach"), "did you mean 'exact_match'"),
    (broken(GENERATE, "aggregation: mean", "aggregation: mean, hf_evaluate: true"), "--trust-remote-code"),
    (broken(GENERATE, "metric: exact_match", "name: exact_match"), "has no key 'metric'"),
    (
        broken(GENERATE, "data_files", "trust_remote_code: true, data_files"),
        "may bring code of its own.*--trust-remote-code",
    ),
    (f"{GENERATE}unsafe_code: true\n", "--confirm-run-unsafe-code"),
    (f"{GENERATE}process_docs: !function nowhere.f\n", "Cannot import module 'nowhere'"),
    (f"{GENERATE}doc_to_image: picture\n", "asks about images or sound"),
    ("group: own\ntask: [own_answr]\n", "names the task 'own_answr'"),
    (broken(GENERATE, "dataset_path: json", "dataset_path: nobody/nothing"), "is not on this machine"),
]


@pytest.mark.parametrize(("text", "says"), MISTAKES, ids=[says[:30] for _, says in MISTAKES])
def test_a_broken_task_is_said_in_one_line(
    text: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ropewalk.harness import tasks as module
    from ropewalk.harness.loading import load_tasks

    write_tasks(tmp_path, "choice")
    (tmp_path / "records.jsonl.broken").write_text('{"a": 1}\n{"a": \n')
    (tmp_path / "records.jsonl.empty").write_text("")
    if text.startswith("group"):  # reading lm-eval's own 14,000 files takes long; the slow test does
        real = module.TaskManager
        monkeypatch.setattr(module, "TaskManager", lambda **named: real(**(named | {"include_defaults": False})))
    with pytest.raises(RopewalkError, match=says) as error:
        load_tasks(module.find_tasks([str(write_yaml(tmp_path, "own.yaml", text))]))
    assert "\n" not in str(error.value)


def test_paths_that_lead_nowhere_are_said(tmp_path: Path) -> None:
    from ropewalk.harness.tasks import find_tasks

    with pytest.raises(DataError, match="no such file"):
        find_tasks([str(tmp_path / "none.yaml")])
    with pytest.raises(DataError, match="holds no task"):
        find_tasks([str(tmp_path)])
    (tmp_path / "part.yaml").write_text("test_split: test\n")
    with pytest.raises(DataError, match="holds no task"):
        find_tasks([str(tmp_path)])


def test_two_tasks_of_one_name_are_refused(tmp_path: Path) -> None:
    from ropewalk.harness.tasks import find_tasks

    write_tasks(tmp_path, "choice")
    write_yaml(tmp_path, "same.yaml", CHOICE)
    with pytest.raises(DataError, match=r"own_choice.*is also the name of"):
        find_tasks([str(tmp_path)])


def test_code_runs_only_from_files_that_were_named(tmp_path: Path) -> None:
    from ropewalk.harness.loading import load_tasks
    from ropewalk.harness.tasks import find_tasks

    (named, _) = write_tasks(tmp_path, "choice", "answer")
    stranger = f"{CHOICE}process_docs: !function stranger.f\n".replace("own_choice", "stranger")
    write_yaml(tmp_path, "stranger.yaml", stranger)
    (tmp_path / "stranger.py").write_text(
        f"from pathlib import Path\nPath({str(tmp_path / 'ran')!r}).touch()\ndef f(docs):\n    return docs\n"
    )
    found = find_tasks([named])
    load_tasks(found)
    assert found.python == ()
    assert not (tmp_path / "ran").exists()
    found = find_tasks([str(tmp_path)])
    assert found.python == (tmp_path / "stranger.py",)
    assert not (tmp_path / "ran").exists()  # finding and checking runs nothing
    load_tasks(found)
    assert (tmp_path / "ran").exists()


def test_a_part_that_is_included_counts_as_named(tmp_path: Path) -> None:
    from ropewalk.harness.tasks import find_tasks

    write_tasks(tmp_path, "choice")
    (tmp_path / "code.py").write_text("def f(docs):\n    return docs\n")
    (tmp_path / "part.yaml").write_text("process_docs: !function code.f\n")
    file = write_yaml(tmp_path, "own.yaml", CHOICE.replace("own_choice", "own") + "include: part.yaml\n")
    assert find_tasks([str(file)]).python == (tmp_path / "code.py",)


@pytest.mark.parametrize(
    ("change", "max_length", "says"),
    [
        ({"max_gen_toks: 6": "max_gen_toks: 60"}, 50, "asks for 60 new tokens of a model that takes 50"),
        ({"max_gen_toks: 6": "max_gen_toks: 6, do_sample: false"}, 6, "asks for 6 new tokens"),
    ],
)
def test_requests_that_no_model_of_this_length_takes_are_refused(
    network: tuple[Any, Any], tmp_path: Path, change: dict[str, str], max_length: int, says: str
) -> None:
    write_tasks(tmp_path, "answer")
    text = GENERATE
    for old, new in change.items():
        text = broken(text, old, new)
    arms = arms_of(network, [str(write_yaml(tmp_path, "own.yaml", text))], max_length=max_length)
    with pytest.raises(DataError, match=f"task own_answer, record 0: .*{says}"):
        arms.plan()


def test_an_answer_that_is_too_long_is_refused(network: tuple[Any, Any], tmp_path: Path) -> None:
    arms = arms_of(network, write_tasks(tmp_path, "cloze"), max_length=3)
    with pytest.raises(DataError, match=r"an answer has . tokens"):
        arms.plan()


def test_factors_of_another_model_are_refused(network: tuple[Any, Any], tmp_path: Path) -> None:
    arms = arms_of(network, write_tasks(tmp_path, "cloze"), limit=2)
    with pytest.raises(FactorsError):
        arms.score(ScalingFactors.uniform(1.1, 7))


# Sentences ------------------------------------------------------------------------------------------------------------


def row(task: str, value: float, p: float, *, higher: bool | None = True, low: float = -0.2) -> dict[str, Any]:
    difference = {"value": value, "low": low, "high": 0.1, "p": p, "p_holm": p, "test": "McNemar"}
    names = {"task": task, "metric": "acc", "filter": "none", "asked": True, "higher_is_better": higher}
    return names | {"difference": difference}


def test_the_closing_sentence_says_what_is_worse() -> None:
    from ropewalk.harness.verdict import verdict_sentence

    worse, better = row("a", -0.1, 0.001), row("b", 0.2, 0.002)
    assert verdict_sentence([worse]) == "a (acc) by 0.1 is worse (p < 0.05)."
    assert "a (acc) by 0.1 is worse; b (acc) by 0.2 is better" in verdict_sentence([worse, better])
    text = verdict_sentence([row("c", -0.05, 0.3), better])
    assert text.startswith("No task is worse beyond the noise; b (acc) by 0.2 is better (p < 0.05 after Holm's")
    assert text.endswith("but losses of up to 0.200 in c (acc) are within its interval.")
    assert verdict_sentence([row("d", 0.1, 0.001, higher=False)]).startswith("d (acc) by 0.1 is worse")
    assert "d (acc) by 0.1 is different" in verdict_sentence([row("d", 0.1, 0.001, higher=None)])
    many = verdict_sentence([row(name, -0.1, 0.001) for name in "abcde"])
    assert "and 2 more are worse" in many
