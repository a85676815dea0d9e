"""What needs no cluster: a worker's answers and facts, agreement, how many workers there are, pieces of work."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ropewalk.elsewhere import Facts
from ropewalk.errors import PrerequisiteError, RopewalkError
from ropewalk.workers import ModelSource, Worker
from ropewalk.workers.agreement import check_agreement
from ropewalk.workers.cluster import WorkerSettings, cluster, sized
from ropewalk.workers.crew import Needs
from ropewalk.workers.errors import ScoringError
from ropewalk.workers.units import PoolJob
from ropewalk.workers.worker import Done, Failed, digest
from small_search import SPACE, evaluator


@pytest.fixture(scope="module")
def worker(tiny_path: Path) -> Worker:
    return Worker(ModelSource(str(tiny_path), "float32"))


@pytest.fixture(scope="module")
def facts(worker: Worker) -> Facts:
    return worker.facts()


def test_it_answers_what_the_evaluator_answers(worker: Worker, loaded: tuple[Any, Any]) -> None:
    on = evaluator(*loaded)
    questions = on._source.questions
    worker.take(7, questions)
    assert worker.knows(7)
    assert not worker.knows(8)
    candidates = [None, SPACE.factors(SPACE.level(1.1))]
    found = worker.answers(7, (2, 3), candidates, False)
    assert isinstance(found, Done)
    assert found.reason is None
    assert found.memory_gib > 0
    assert found.answers == on._source.answers([(2, 3)], candidates, False, lambda count: None)


def test_it_raises_nothing(worker: Worker, loaded: tuple[Any, Any]) -> None:
    found = worker.answers(99, (0,), [None], False)
    assert isinstance(found, Failed)
    assert found.error is None
    assert "KeyError: 99" in found.text
    worker.take(1, evaluator(*loaded)._source.questions)
    wrong = worker.answers(1, (0,), [SPACE.factors(SPACE.identity()).__class__([1.0])], False)
    assert isinstance(wrong, Failed)
    assert isinstance(wrong.error, RopewalkError)


def test_workers_of_one_model_agree(worker: Worker, facts: Facts) -> None:
    check_agreement(facts, None, "worker 1")
    check_agreement(worker.facts(), facts, "worker 2")


@pytest.mark.parametrize("package", ["ropewalk", "torch", "transformers"])
def test_another_version_is_refused(facts: Facts, package: str) -> None:
    versions = {**facts.provenance["versions"], package: "0.0.7"}
    other = replace(facts, provenance={**facts.provenance, "versions": versions})
    with pytest.raises(
        RopewalkError, match=rf"worker 3 on a has {package} 0\.0\.7, this command has .*the same version"
    ):
        check_agreement(other, None, "worker 3 on a")


def test_another_build_of_the_same_version_is_not(facts: Facts) -> None:
    own = facts.provenance["versions"]
    built = {**own, "torch": own["torch"].split("+")[0] + "+cu999"}
    check_agreement(replace(facts, provenance={**facts.provenance, "versions": built}), facts, "worker 2")


@pytest.mark.parametrize(
    ("what", "changed"),
    [
        ("dtype", {"provenance": {"dtype": "float16"}}),
        ("kind of device", {"provenance": {"device_type": "cuda"}}),
        ("model", {"identity": {"fingerprint": "sha256:other"}}),
        ("base rope scheme", {"base": {"rope_theta": 7.0}}),
        ("model digest", {"digest": "other"}),
    ],
)
def test_another_model_is_refused(facts: Facts, what: str, changed: dict[str, Any]) -> None:
    merged = {
        name: value if isinstance(value, str) else {**getattr(facts, name), **value} for name, value in changed.items()
    }
    with pytest.raises(RopewalkError, match=f"worker 2 has another {what} than the first one"):
        check_agreement(replace(facts, **merged), facts, "worker 2")


def test_the_digest_sees_a_weight_that_the_fingerprint_does_not(tiny_path: Path) -> None:
    changed = Worker(ModelSource(str(tiny_path), "float32"))
    before, known = digest(changed.model, changed.tokenizer), changed.facts().identity
    assert before == digest(changed.model, changed.tokenizer)
    with torch.no_grad():
        changed.model.model.layers[2].mlp.down_proj.weight *= 1.001
    assert changed.facts().identity == known
    assert digest(changed.model, changed.tokenizer) != before


def test_a_job_is_put_together_by_number() -> None:
    job = PoolJob(0, [(0, 1), (2,)], [None], False, lambda count: None)
    second, first = reversed(job.units())
    assert (first.block, second.block) == ((0, 1), (2,))
    assert not job.is_done
    job.found[1] = Failed("Traceback …\nValueError: on purpose", None)
    job.found[0] = Done([], None, 0.0)
    assert job.is_done
    with pytest.raises(ScoringError, match="ValueError: on purpose") as raised:
        job.answers()
    assert raised.value.found_elsewhere.startswith("Traceback")
    job.found[0] = Failed("Traceback …\nropewalk …", RopewalkError("say so"))
    with pytest.raises(RopewalkError, match="say so"):
        job.answers()


NODES = [{"CPU": 8.0, "GPU": 4.0}, {"CPU": 16.0, "GPU": 2.0}, {"CPU": 4.0}]


@pytest.mark.parametrize(
    ("settings", "on_cpu", "expected"),
    [
        (WorkerSettings(), False, (6, Needs(1, 1))),
        (WorkerSettings(count=3), False, (3, Needs(1, 1))),
        (WorkerSettings(gpus_each=2), False, (3, Needs(1, 2))),
        (WorkerSettings(gpus_each=4), False, (1, Needs(1, 4))),
        (WorkerSettings(gpus_each=0), False, (1, Needs(16, 0))),
        (WorkerSettings(count=2), True, (2, Needs(8, 0))),
        (WorkerSettings(count=5), True, (5, Needs(4, 0))),
        (WorkerSettings(count=28), True, (28, Needs(1, 0))),
    ],
)
def test_how_many_workers(settings: WorkerSettings, on_cpu: bool, expected: tuple[int, Needs]) -> None:
    assert sized(settings, NODES, on_cpu=on_cpu) == expected


@pytest.mark.parametrize(
    ("settings", "on_cpu", "words"),
    [
        (WorkerSettings(count=7), False, "asked for: 7, of 1 GPU each.*room for 6 .6 GPUs"),
        (WorkerSettings(gpus_each=5), False, "asked for: 1, of 5 GPUs each.*room for 0"),
        (WorkerSettings(count=29), True, "29 workers were asked for, and the nodes have 28 cores"),
    ],
)
def test_more_than_there_is(settings: WorkerSettings, on_cpu: bool, words: str) -> None:
    with pytest.raises(RopewalkError, match=words):
        sized(settings, NODES, on_cpu=on_cpu)


def test_without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ropewalk.workers.cluster.find_spec", lambda name: None)
    with pytest.raises(PrerequisiteError, match=r"pip install 'ropewalk\[ray\]'"), cluster(WorkerSettings()):
        pass
