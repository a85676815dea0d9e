"""The open questions on real models: longer inputs, other methods, and why factors help. One GPU, some 15 minutes.

    python benchmarks/reproduce/science.py run --models FOLDER --data FOLDER --out runs/science [--steps NAME…]
    python benchmarks/reproduce/science.py collect --out runs/science --results benchmarks/results

FOLDER of the models has `smol` (SmolLM2-135M-Instruct), `qwen` (Qwen2.5-Coder-0.5B-Instruct) and `gemma`
(Gemma-3-270M); that of the data what `ropewalk data official` gets, and books/*.txt.gz. Each step is one `ropewalk`
command, so it goes on where it was stopped, and a step that is done is not made again. A step that fails is said, and
the next one begins.

Factors of Qwen are those of quality.py (`--found` is its folder of the model); where it has none, and for SmolLM2,
those of benchmarks/results/search-efficiency-*.jsonl. `collect` copies the results under their names in the
documentation, without the folders of the machine; `python benchmarks/doc_tables.py` then writes them into its pages.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # what the benchmarks share

from reporting import progress
from ropewalk import files
from ropewalk.cli import run as ropewalk
from ropewalk.factors import ScalingFactors

RESULTS = Path(__file__).parents[1] / "results"
HOME: dict[str, list[dict[str, Any]]] = {
    "kv": [{"task": "kv", "keys": 75}],
    "mdqa": [{"task": "mdqa"}],
    "mix": [{"task": "kv", "keys": 75}, {"task": "mdqa"}],
}
MODELS = {"smol": "SmolLM2-135M-Instruct", "qwen": "Qwen2.5-Coder-0.5B-Instruct", "gemma": "Gemma-3-270M"}
ABSOLUTE = re.compile(r"(?<![\w.:/])/(?:[^\s'\",:/]+/)+([^\s'\",:/]*)")


@dataclass(frozen=True)
class Step:
    """One command. result: the file that it leaves, under --out. target: its name among the benchmarks' results.

    few: what replaces options for `--small`. shares: the step whose readings of attention are this one's too.
    """

    command: str
    result: str
    target: str
    few: dict[str, str] = field(default_factory=dict)
    shares: str | None = None


def analysis(name: str, command: str, few: dict[str, str], *, shares: str | None = None) -> Step:
    """An analysis of Qwen by its name."""
    given = f"analyze {name} --out {{out}}/{name} {command}"
    return Step(given, f"{name}/analysis.json", f"analysis/{name}-qwen-h200.json", few, shares)


def test(name: str, command: str, few: dict[str, str]) -> Step:
    """`eval`: a point of the question of posttraining."""
    return Step(f"eval {command} --json {{out}}/points/{name}.json", f"points/{name}.json", "", few)


QWEN, SMOL = "--model {models}/qwen", "--model {models}/smol --no-chat-template"
FOUND, FOUND_SMOL = f"{QWEN} --factors {{out}}/factors/kv.json", f"{SMOL} --factors {{out}}/factors/smol.json"
KV = f"{FOUND} --keys 75"
SHORT = {"--keys": "3", "--limit": "3"}
FEW = {**SHORT, "--positions": "3"}
BEYOND = {"--lengths": "256,320", "--trained-length": "256", "--limit": "2", "--budget": "24"}
EXTRAPOLATE = "extrapolate --text {data}/books --rope linear,dynamic --limit 12"
STEPS = {
    "beyond-smollm2": Step(
        EXTRAPOLATE + " --model {models}/smol --lengths 2k,4k,6k,8k,16k --budget 480 --out {out}/beyond-smollm2",
        "beyond-smollm2/extrapolation.json", "extrapolate-smollm2-h200.json", BEYOND,
    ),
    "layers": analysis("layers", f"{KV} --positions 5 --limit 24 --scales 1.1,0.9", FEW),
    "against-fused": Step(
        f"eval {KV} --positions 5 --limit 100 --against uniform:1.05,uniform:1.1,ntk:2,yarn:2,query-first"
        " --json {out}/against-fused.json", "against-fused.json", "against-fused-qwen-kv75-h200.json", FEW,
    ),
    "decay": analysis("decay", f"{KV} --positions 3 --limit 12", FEW),
    "entropy": analysis("entropy", f"{KV} --positions 3 --limit 12", {**FEW, "--limit": "4"}, shares="decay"),
    "beyond-gemma": Step(
        EXTRAPOLATE + " --model {models}/gemma --lengths 8k,32k,40k --budget 160 --out {out}/beyond-gemma",
        "beyond-gemma/extrapolation.json", "extrapolate-gemma3-270m-h200.json", BEYOND,
    ),
    "against-own": Step(
        f"eval {KV} --positions 5 --limit 20 --against "
        "ms-poe,ms-poe:order=released:rotated=false,self-extend,attention-buckets,uniform:1.1"
        " --json {out}/against-own.json", "against-own.json", "against-own-qwen-kv75-h200.json", FEW,
    ),
    "sensitivity": analysis("sensitivity", f"{KV} --positions 5 --limit 24", FEW),
    "transfer": analysis(
        "transfer",
        f"{QWEN} {{every}} --positions 5 --limit 60 --task kv:keys=25 --task kv:keys=75 --task kv:keys=140 "
        "--task mdqa:data={data}/mdqa-10_total_documents.jsonl.gz",
        {"--limit": "2", "--positions": "3", "--task": "kv:keys=3"},
    ),
    "point-qwen-kv25": test("qwen-kv-25", f"{FOUND} --keys 25 --positions 5 --limit 100", FEW),
    "point-qwen-kv75": test("qwen-kv-75", f"{FOUND} --keys 75 --positions 5 --limit 100", FEW),
    "point-qwen-kv140": test("qwen-kv-140", f"{FOUND} --keys 140 --positions 5 --limit 60", FEW),
    "point-smol-kv5": test("smol-kv-5", f"{FOUND_SMOL} --keys 5 --limit 100", SHORT),
    "point-smol-kv10": test("smol-kv-10", f"{FOUND_SMOL} --keys 10 --limit 100", SHORT),
    "point-smol-kv20": test("smol-kv-20", f"{FOUND_SMOL} --keys 20 --limit 100", SHORT),
    "point-qwen-mdqa": test(
        "qwen-mdqa-10",
        f"{QWEN} --factors {{out}}/factors/mdqa.json --task mdqa --data {{data}}/mdqa-10_total_documents.jsonl.gz "
        "--positions 5 --limit 100", {"--limit": "2", "--positions": "3"},
    ),
    "posttraining": Step(
        "analyze posttraining {out}/points --out {out}/posttraining",
        "posttraining/analysis.json", "analysis/posttraining-h200.json",
    ),
    "frequencies": analysis("frequencies", f"{KV} --positions 3 --limit 12 --scales 1.1", FEW),
    "beyond-smollm2-4k": Step(
        EXTRAPOLATE + " --model {models}/smol --trained-length 4096 --lengths 4k,6k,8k --budget 480"
        " --out {out}/beyond-smollm2-4k",
        "beyond-smollm2-4k/extrapolation.json", "extrapolate-smollm2-4k-h200.json", BEYOND,
    ),
}  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """All steps, or those asked for; returns how many failed."""
    write_factors(args.out / "factors", args.found)
    sets = " ".join(f"--factors {path}" for path in sorted((args.out / "factors").glob("[!s]*.json")))
    places = {"models": args.models, "data": args.data, "out": args.out, "every": sets}
    failed = []
    for number, name in enumerate(args.steps, 1):
        step = STEPS[name]
        if (args.out / f"{name}.done").exists():
            continue
        if step.shares:
            shutil.copytree(args.out / step.shares / "kept", args.out / name / "kept", dirs_exist_ok=True)
        words = shortened(step.command.format(**places).split(), step.few if args.small else {})
        progress(f"\n=== {number}/{len(args.steps)} {name}: ropewalk {' '.join(words)}")
        started = time.monotonic()
        code = attempted([*words, *(["--device", args.device] if args.device and "--model" in words else [])])
        progress(f"=== {name}: {'done' if code == 0 else 'FAILED'} after {time.monotonic() - started:.0f} s")
        if code == 0:
            files.write_text(args.out / f"{name}.done", "")
        else:
            failed.append(name)
    progress(f"failed: {', '.join(failed)}" if failed else "all steps done")
    return len(failed)


def attempted(words: list[str]) -> int:
    """The command's exit code; 1 with its traceback where it fails otherwise."""
    try:
        return ropewalk(words)
    except Exception:
        traceback.print_exc()
        return 1


def shortened(words: list[str], few: dict[str, str]) -> list[str]:
    """The command with other values of some options, those that it has several times once; new ones at the end."""
    left, made = dict(few), []
    known = {option for option in few if option in words}
    for place, word in enumerate(words):
        option = words[place - 1] if place else ""
        if word in known or option in known:
            chosen = word if word in known else option
            if word == chosen and chosen in left:
                made += [chosen, left.pop(chosen)]
            continue
        made.append(word)
    return made + [part for pair in left.items() for part in pair]


def write_factors(folder: Path, found: Path | None) -> None:
    """OUT/factors: of quality.py as far as it has them, else of the runs in the repository."""
    earlier = {"kv": "search-efficiency-qwen-kv75-h200.jsonl", "smol": "search-efficiency-smollm2-h200.jsonl"}
    for name in ("kv", "mdqa", "mix", "smol"):
        there = None if found is None else found / name / "factors.json"
        known = ScalingFactors.load(there) if there is not None and there.exists() else None
        home = HOME.get(name, [{"task": "kv", "keys": 10}])
        if known is not None and not known.is_identity:
            made = known.with_provenance(model=known.model, base=known.base, found={**known.found, "tasks": home})
        elif name in earlier:
            rows = map(json.loads, (RESULTS / earlier[name]).read_text().splitlines())
            row = next(row for row in rows if row["arm"] == "default")
            made = ScalingFactors(row["factors"], found={"tasks": home, "run": earlier[name], "by": row["command"]})
        else:
            continue
        made.save(folder / f"{name}.json")
        progress(f"factors {name}: of {earlier[name] if 'run' in made.found else there}")


def collect(args: argparse.Namespace) -> int:
    """Copy what is there to its name in the documentation, without this machine's folders."""
    for name, step in STEPS.items():
        source = args.out / step.result
        if step.target and source.exists():
            text = ABSOLUTE.sub(r"\1", source.read_text())
            for folder, model in MODELS.items():
                text = re.sub(rf'("(?:name|model)": "|--model ){folder}\b', rf"\g<1>{model}", text)
            files.write_json(args.results / step.target, json.loads(text))
            progress(f"{name}: {step.target}")
    return 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    runs = verbs.add_parser("run")
    runs.add_argument("--models", type=Path, required=True)
    runs.add_argument("--data", type=Path, required=True)
    runs.add_argument("--found", type=Path, help="quality.py's folder of Qwen: NAME/factors.json of kv, mdqa, mix")
    runs.add_argument("--out", type=Path, required=True)
    runs.add_argument("--steps", nargs="+", choices=list(STEPS), default=list(STEPS), metavar="NAME")
    runs.add_argument("--device")
    runs.add_argument("--small", action="store_true", help="the same commands with a few short prompts: do they run?")
    collects = verbs.add_parser("collect")
    collects.add_argument("--out", type=Path, required=True)
    collects.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    raise SystemExit(1 if {"run": run, "collect": collect}[args.verb](args) else 0)


if __name__ == "__main__":
    main()
