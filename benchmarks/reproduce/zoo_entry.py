"""An entry of the zoo out of a quality run: its factors, and all of their tests, those that they lose among them.

    python benchmarks/reproduce/zoo_entry.py runs/quality/qwen2.5-coder-0.5b-instruct/kv \
        qwen2.5-coder-0.5b-instruct/kv --by "ropewalk contributors" --hub-id Qwen/Qwen2.5-Coder-0.5B-Instruct

Reads FOLDER/factors.json, FOLDER/../model.json (which weights they were) and FOLDER/../tests/TEST/{vanilla,NAME OF
FOLDER}.json as quality.py leaves them, compares the arms in pairs, and writes factors/NAME through the same checks as
`ropewalk zoo --add`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # what the benchmarks share

from reporting import progress
from ropewalk import files
from ropewalk.comparison import compare, verdict_sentence
from ropewalk.errors import DataError, RopewalkError
from ropewalk.factors import ScalingFactors
from ropewalk.results import TaskResult
from ropewalk.zoo.adding import add_entry

SHORT = "short-"  # tests of short texts, which the card has as sentences


def test_document(folder: Path) -> dict[str, Any]:
    """The figures of all tests of a search's factors, as a run's result.json has them."""
    factors = ScalingFactors.load(folder / "factors.json")
    blocks, devices = {}, [factors.found["device"]]
    for test in sorted((folder.parent / "tests").iterdir()):
        arms = [test / f"{arm}.json" for arm in ("vanilla", folder.name)]
        if all(path.is_file() for path in arms):
            progress(f"comparing {test.name}")
            before, after = map(files.read_json, arms)
            blocks[test.name] = block(before, after, factors)
            devices.append(after["found"].get("provenance", factors.found)["device"])
    tasks = {name: one for name, one in blocks.items() if not name.startswith(SHORT)}
    if not tasks:
        raise DataError(f"{folder.parent / 'tests'}: holds no test with vanilla.json and {folder.name}.json")
    facts = ("versions", "dtype")
    return {
        "tasks": tasks,
        "short_texts": {
            name.removeprefix(SHORT): one | {"gain": one["gain"]["factors"]}
            for name, one in blocks.items()
            if name.startswith(SHORT)
        },
        "search": {},
        "factor_values": list(factors),
        "provenance": {
            "model": factors.model,
            "command": factors.found["by"],
            "device": " and ".join(dict.fromkeys(devices)),
            **{key: factors.found[key] for key in facts},
        },
    }


def weights(folder: Path) -> str | None:
    """What the weights were, where they were not those that were asked for."""
    source = str(files.read_json(folder.parent / "model.json")["source"])
    return None if source == "as given" else source


def block(before: dict[str, Any], after: dict[str, Any], factors: ScalingFactors) -> dict[str, Any]:
    """One test: both arms, the paired comparison, the sentence. Raises `DataError` if it is of other factors."""
    if after["asked"]["factors"] != list(factors) or after["asked"]["model"] != factors.model.get("fingerprint"):
        raise DataError("a test is of other factors or another model: run quality.py again")
    vanilla, other = (TaskResult.from_dict(one["found"]["result"]) for one in (before, after))
    gain = compare(vanilla, other)
    return {
        "task": after["asked"]["task"],
        "engine": after["found"]["engine"],
        "positions": list(vanilla.positions),
        "vanilla": vanilla.summary(),
        "factors": other.summary(),
        "gain": {"factors": gain},
        "sentence": verdict_sentence(gain),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="OUT/MODEL/SEARCH of quality.py")
    parser.add_argument("name", help="of the entry: MODEL/NAME")
    parser.add_argument("--by", required=True, help="who found them")
    parser.add_argument("--hub-id", required=True, help="the model on the hub")
    parser.add_argument("--out", type=Path, default=Path("factors"))
    args = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory() as scratch:
            test = Path(scratch) / "test.json"
            files.write_json(test, test_document(args.folder))
            what = weights(args.folder)
            add_entry(args.name, args.folder, args.out, by=args.by, hub_id=args.hub_id, weights=what, test=test)
    except RopewalkError as error:
        progress(str(error))
        raise SystemExit(2) from None
    progress(f"{args.out / args.name}: written and checked")


if __name__ == "__main__":
    main()
