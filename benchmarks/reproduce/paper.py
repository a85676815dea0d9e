"""The paper's own setting (arXiv 2503.04355), for whoever has the weights: Vicuna-7B, 10 documents, 418 candidates.

    python benchmarks/reproduce/paper.py --model lmsys/vicuna-7b-v1.5 --out runs/paper
    python benchmarks/reproduce/paper.py --model FOLDER --data nq-open-10_total_documents_gold_at_0.jsonl.gz

Vicuna's prompt format (vicuna.jinja; every prompt is checked to have the very ids that FastChat's text has), the
paper's genetic algorithm as its code has it (18 candidates, 12 parents, 16 mutations and 4 crossovers in each of 20
later generations, the first two layers left alone, accuracy of generated answers as fitness) on 200 prompts: 40
questions with the gold document at five places. Then 500 other questions: vanilla, the factors found, the uniform
factor of the same mean, and the two published curves, in pairs.

Other than in the paper: no test question is a search question, the identity is in the first population, and λ is 0.8,
1, 1.2, for the paper's is unknown. Its table names the places 1, 3, 5, 7 and 10. Its code counts them from 0, where 10
is off the end and lands last, so the default is 1,3,5,7,9; `--positions 0,2,4,6,9` reads them as 1st to 10th.

The hub's lmsys/vicuna-7b-v1.5 is pickled, which ropewalk does not read: the error says how to convert it once. The same
command continues a search that was stopped; `--out` gets a run as `ropewalk search` leaves it, and paper.json.
`ropewalk search --method paper --chat-template-file vicuna.jinja --task mdqa --data FILE` is the same by hand. How long
it takes on random weights of that shape: benchmarks/paper_search.py.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from reporting import progress, report, table
from ropewalk.cli.invocation import remember
from ropewalk.cli.mix import MixedTask
from ropewalk.cli.options import ModelOptions, TaskChoice
from ropewalk.cli.search_options import SearchOptions
from ropewalk.cli.work import Asked, Work
from ropewalk.cli.workflow import search_and_test
from ropewalk.errors import FactorsError, RopewalkError
from ropewalk.evaluate import Evaluator
from ropewalk.factors import ScalingFactors
from ropewalk.patch import check_factors
from ropewalk.zoo import load_factors

TEMPLATE = Path(__file__).with_name("vicuna.jinja")
SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
DATA = "nq-open-10_total_documents_gold_at_0"
SEARCH = {
    "population": 18,
    "parents": 12,
    "mutations": 16,
    "crossovers": 4,
    "mutation_probability": 0.4,
}
PUBLISHED = {  # of Vicuna-7B on 500 examples, in %
    "places": [1, 3, 5, 7, 10],
    "vanilla": [59.4, 58.2, 55.6, 55.4, 60.2],
    "found": [64.0, 59.2, 58.0, 60.0, 60.2],
}
CURVES = {"published_mdqa": "vicuna-7b-v1.5/mdqa", "published_kv": "vicuna-7b-v1.5/kv"}  # arm: name in the zoo


def asked(args: argparse.Namespace, data: Path) -> Asked:
    """The search as `ropewalk search` would be asked for it."""
    template = None if args.own_template else TEMPLATE
    model = ModelOptions(args.model, dtype=args.dtype, device=args.device, chat_template_file=template, overflow="skip")
    choice = TaskChoice("mdqa", positions=args.positions, data=str(data), limit=args.records, seed=args.seed)
    options = SearchOptions(method="paper", finalists=0, control_budget=0, test_limit=args.test, racing=args.racing)
    knobs = SEARCH | {"generations": args.generations}
    return Asked.of(model, options, knobs, (MixedTask("mdqa", choice),), args.seed)


def official_file(out: Path) -> Path:
    """The official file of questions with 10 documents, fetched into `out` unless it is there."""
    from ropewalk.data.official import choose, fetch

    (file,) = choose((DATA,))
    progress(f"{out / file.name}: {fetch(file, out)}")
    return out / file.name


def published_curves(model: Any) -> dict[str, ScalingFactors]:
    """The published curves that fit the model; for the others a line says why they are left out."""
    found = {}
    for arm, name in CURVES.items():
        factors = load_factors(name, say=progress)
        try:
            check_factors(model, factors)
        except FactorsError as error:
            progress(f"without the published curve {name}: {error}")
            continue
        found[arm] = factors
    return found


def check_prompts(evaluator: Evaluator, tokenizer: Any) -> int:
    """How many prompts end in a token more than FastChat's text of the same question, a space of the answer's.

    Raises `RopewalkError` for one that does not begin with the ids of that text.
    """
    longer = 0
    for number, example in enumerate(evaluator.examples):
        text = f"{SYSTEM} USER: {example.prompt} ASSISTANT:"
        expected = [tokenizer.bos_token_id, *tokenizer(text, add_special_tokens=False)["input_ids"]]
        given = list(evaluator.prompt_ids(number))
        if given[: len(expected)] != expected:
            raise RopewalkError(
                f"example {example.id}: its ids are not those of FastChat's prompt, so this is not Vicuna's tokenizer; "
                "for a model with a chat template of its own say --own-template"
            )
        longer += len(given) > len(expected)
    return longer


def show(summary: Mapping[str, Any], arms: Mapping[str, str]) -> None:
    """Our figures beside the published ones."""
    places = [str(place) for place in summary["positions"]]
    rows = [
        {"%": f"published: {name}", **dict(zip(places, PUBLISHED[name], strict=True))}
        for name in ("vanilla", "found")
        if len(places) == len(PUBLISHED["places"])
    ]
    rows += [
        {"%": label, **dict(zip(places, (100 * one for one in summary[arm]["accuracy"]), strict=True))}
        for arm, label in arms.items()
    ]
    table("accuracy (best-subspan EM) by place of the gold document, from 0", rows)
    for arm, gain in summary["gain"].items():
        row = gain["average"]
        size = " ".join(f"{100 * row[key]:+.1f}" for key in ("difference", "low", "high"))
        print(f"{arms[arm]} over vanilla, points and 95 % interval: {size}, p = {row['p']:.2g}")


def run(args: argparse.Namespace) -> None:
    data = args.data or official_file(args.out)
    wanted = asked(args, data)
    model, tokenizer = wanted.model.load()
    curves = published_curves(model)
    work: Work = replace(wanted.work(model, tokenizer), others=curves)
    longer = 0
    if not args.own_template:
        longer = sum(check_prompts(on.tasks[0], tokenizer) for on in (work.search, work.test))
    summary = search_and_test(work, args.out)
    arms = {name: name.replace("_", " ") for name in ("vanilla", *summary["gain"])}
    show(summary, arms)
    content = {
        "model": summary["provenance"]["model"],
        "published": PUBLISHED,
        "positions": summary["positions"],
        "prompts_with_a_token_more_than_fastchat": longer,
        "search": summary["search"],
        "accuracy": {arm: {key: summary[arm][key] for key in ("accuracy", "interval", "average")} for arm in arms},
        "gain": summary["gain"],
    }
    report("reproduce-paper", args.seed, model.device, content, args.out / "paper.json")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="lmsys/vicuna-7b-v1.5", help="hub id or folder with safetensors")
    parser.add_argument("--data", type=Path, help=f"{DATA}.jsonl.gz; without it it is fetched")
    parser.add_argument("--out", type=Path, default=Path("runs/paper"), help="run directory")
    parser.add_argument("--positions", default="1,3,5,7,9", help="places of the gold document, from 0")
    parser.add_argument("--records", type=int, default=40, help="search questions, each at every place")
    parser.add_argument("--test", type=int, default=500, help="test questions, each at every place")
    parser.add_argument("--generations", type=int, default=21, help="21: 418 candidates")
    parser.add_argument("--racing", action="store_true", help="stop candidates early that are clearly behind")
    parser.add_argument("--own-template", action="store_true", help="ask by the model's own chat template")
    parser.add_argument("--dtype")
    parser.add_argument("--device")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    remember(())  # the command in result.json would be another program's; paper.json has this one's
    try:
        run(args)
    except RopewalkError as error:
        progress(f"paper.py: {error}")
        raise SystemExit(2) from None
    except KeyboardInterrupt as stop:
        progress(str(stop))
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
