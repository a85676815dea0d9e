"""`ropewalk search`: find per-layer factors for a model, and test them on held-out records."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from ropewalk import files
from ropewalk.bezier import Mode
from ropewalk.cli.options import JsonFile, ModelOptions, TaskChoice, described
from ropewalk.errors import RopewalkError
from ropewalk.objectives import DEFAULT_WEIGHTS, Measure, Utilisation

if TYPE_CHECKING:
    from ropewalk.cli.estimate import Speed
    from ropewalk.run import SearchPlan

SEARCH_RECORDS = 24


@Parameter(name="*")
@dataclass(frozen=True)
class SearchOptions:
    """How to search."""

    method: Annotated[str, described("Search method.")] = "bezier-ga"
    population: Annotated[int, described("Candidates of the first generation.")] = 24
    parents: Annotated[int, described("Best candidates so far that children are made of.")] = 8
    mutations: Annotated[int, described("Children by mutation in each later generation.")] = 8
    crossovers: Annotated[int, described("Children by crossover in each later generation.")] = 8
    generations: Annotated[int, described("Generations, the first one counted.")] = 10
    mutation_probability: Annotated[float, described("That a control point is redrawn in a mutation.")] = 0.3
    initial_probability: Annotated[float, described("The same in the first generation; 0: one point each.")] = 1.0
    radius: Annotated[float, described("How far a redrawn factor may lie from the parent's.")] = 0.2
    initial_factor: Annotated[float, described("Level around which the first generation is drawn.")] = 1.0
    low: Annotated[float, described("Smallest factor.")] = 0.8
    high: Annotated[float, described("Largest factor.")] = 1.3
    step: Annotated[float, described("Grid of the factors.")] = 0.05
    control_points: Annotated[int, described("Control points of the curve.")] = 4
    mode: Annotated[Mode, described("How the curve is read; uniform: as in the paper's code.")] = "depth"
    skip_first: Annotated[int, described("Rotary layers left alone from the front (the paper: 2).")] = 0
    measure: Annotated[Measure, described("What U is taken over.")] = "likelihood"
    weights: Annotated[str, described("Weights of first, middle and last position, or one each.")] = ",".join(
        map(str, DEFAULT_WEIGHTS)
    )
    finalists: Annotated[int, described("Best candidates that meet vanilla on validation records; 0: none.")] = 4
    validation_limit: Annotated[int, described("Validation records, each at every position.")] = 24
    test_limit: Annotated[int, described("Test records, each at every position.")] = 100

    def plan(self, model: Any, seed: int) -> SearchPlan:
        """The search for a loaded model as `ropewalk.run` takes it."""
        from ropewalk.layers import decoder_layers
        from ropewalk.patch import rotary_layers
        from ropewalk.run import SearchPlan
        from ropewalk.search import make_method
        from ropewalk.search.space import SearchSpace

        num_layers, rotary = len(decoder_layers(model)), rotary_layers(model)
        space = SearchSpace(
            num_layers,
            None if len(rotary) == num_layers else tuple(rotary),
            self.skip_first,
            self.control_points,
            self.low,
            self.high,
            self.step,
            self.mode,
        )
        names = ("population", "parents", "mutations", "crossovers", "generations", "mutation_probability", "radius")
        options = {name: getattr(self, name) for name in (*names, "initial_probability", "initial_factor")}
        method = make_method(self.method, space, seed, **options)
        objective = Utilisation(self.measure, parse_weights(self.weights))
        return SearchPlan(space, method, objective, method.candidates_in_all, self.finalists)


def search(
    *,
    model: ModelOptions,
    task: TaskChoice | None = None,
    options: SearchOptions | None = None,
    out: Annotated[Path, described("Run directory; the same command continues what is there.")] = Path("runs/search"),
    json: JsonFile = None,
    dry_run: Annotated[bool, described("Say what would run, how long and in how much memory.", negative="")] = False,
) -> None:
    """Search per-layer scaling factors, choose among finalists on validation records, test on held-out ones.

    Example: ropewalk search --model Qwen/Qwen2.5-0.5B-Instruct --keys 75 --positions 5 --out runs/kv
    """
    from ropewalk.cli.estimate import speed
    from ropewalk.cli.workflow import search_and_test
    from ropewalk.patch import remove

    choice, settings = task or TaskChoice(), options or SearchOptions()
    tasks = {
        "search": choice.make(choice.limit or SEARCH_RECORDS),
        "validation": choice.make(settings.validation_limit),
        "test": choice.make(settings.test_limit),
    }
    loaded, tokenizer = model.load()
    remove(loaded)  # a checkpoint's own factors are not what the search starts from
    plan = settings.plan(loaded, choice.seed)
    on = {
        split: model.evaluator(
            loaded,
            tokenizer,
            made,
            split,  # type: ignore[arg-type]
            search_by=None if split == "test" else settings.measure,
            candidates={"search": plan.candidates, "validation": settings.finalists + 1}.get(split, 3),
        )
        for split, made in tasks.items()
        if split != "validation" or settings.finalists
    }
    if dry_run:
        record = choice.make(1)
        measured = speed(model.evaluator(loaded, tokenizer, record, "search", search_by=settings.measure))
        same = on["search"].generated == on["test"].generated
        _estimate(plan, on, measured, measured if same else speed(model.evaluator(loaded, tokenizer, record, "search")))
        return
    short = model.short_evaluator(loaded, tokenizer, tasks["test"], "test")
    summary = search_and_test(plan, on["search"], on.get("validation"), on["test"], out, short_on=short)
    if json:
        files.write_json(json, summary)


def parse_weights(text: str) -> tuple[float, ...]:
    """Numbers separated by commas."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise RopewalkError(f"--weights {text!r}: expected numbers separated by commas, such as 0.8,1,1.2") from None


def _estimate(plan: SearchPlan, on: dict[str, Any], measured: Speed, of_test: Speed) -> None:
    """What `--dry-run` says, from a measured pass over the first record; the test's prompts may be answered too."""
    from ropewalk.cli import console
    from ropewalk.cli.estimate import seconds

    prompts = {
        "search": plan.candidates * len(on["search"].examples),
        "finalists": (plan.finalists + 1) * len(on["validation"].examples) if "validation" in on else 0,
        "test": 3 * len(on["test"].examples),
    }
    out = console.output()
    out.print(f"{plan.candidates} candidates on {len(on['search'].examples)} prompts; " + _counts(prompts))
    scored = prompts["search"] + prompts["finalists"]
    total = scored * measured.seconds_per_prompt + prompts["test"] * of_test.seconds_per_prompt
    out.print(
        f"About {seconds(total)} on {measured.device} "
        f"({measured.seconds_per_prompt:.2g} s a prompt of {measured.tokens_per_prompt:.0f} tokens), "
        f"{measured.memory_gib:.1f} GiB of {measured.memory_kind}."
    )
    out.print("Nothing was written.")


def _counts(prompts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count} prompts" for name, count in prompts.items())
