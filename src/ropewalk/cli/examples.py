"""Examples under each verb's --help. tests/cli/test_help.py runs those that need no large model."""

from __future__ import annotations

SMALL = "--model demo --no-chat-template --keys 3"
EXAMPLES: dict[str, tuple[str, ...]] = {
    "": (
        "ropewalk demo",
        "ropewalk mend Qwen/Qwen2.5-0.5B-Instruct --out mended",
    ),
    "demo": ("ropewalk demo --out runs/demo",),
    "mend": (
        "ropewalk mend Qwen/Qwen2.5-0.5B-Instruct --out mended",
        "ropewalk mend Qwen/Qwen2.5-0.5B-Instruct --out mended --dry-run",
    ),
    "profile": (
        "ropewalk profile --model Qwen/Qwen2.5-0.5B-Instruct --keys 75 --positions 5",
        f"ropewalk profile {SMALL} --limit 10",
    ),
    "search": (
        "ropewalk search --model Qwen/Qwen2.5-0.5B-Instruct --keys 75 --out runs/kv",
        f"ropewalk search {SMALL} --dry-run",
    ),
    "eval": (
        "ropewalk eval --model Qwen/Qwen2.5-0.5B --factors runs/kv/factors.json",
        "ropewalk eval --model mended/model --keys 75 --json -",
        "ropewalk eval --model Qwen/Qwen2.5-0.5B --against ms-poe,uniform:1.1",
    ),
    "extrapolate": ("ropewalk extrapolate --model Qwen/Qwen2.5-0.5B --lengths 32k,64k --text DIR",),
    "lm-eval": (
        "ropewalk lm-eval --model mended/model --tasks arc_easy,hellaswag --limit 200",
        "ropewalk lm-eval --model mended/model --tasks own.yaml --dry-run",
    ),
    "analyze": (
        "ropewalk analyze layers --model Qwen/Qwen2.5-0.5B-Instruct --keys 75",
        f"ropewalk analyze layers {SMALL} --limit 2",
    ),
    "report": ("ropewalk report runs/kv", "ropewalk report runs/kv runs/paper --out both.html"),
    "dashboard": ("ropewalk dashboard runs/kv",),
    "studio": ("ropewalk studio runs/kv", "ropewalk studio --model Qwen/Qwen2.5-0.5B-Instruct --keys 75"),
    "export": (
        "ropewalk export --model Qwen/Qwen2.5-0.5B --factors runs/kv --out kv",
        "ropewalk export --model kv --to remote-code --out kv-remote",
    ),
    "push": ("ropewalk push kv me/kv --dry-run", "ropewalk push kv me/kv --private"),
    "data": ("ropewalk data official --list",),
    "data official": (
        "ropewalk data official --list",
        "ropewalk data official nq-open-oracle --out official",
    ),
    "data mdqa": ("ropewalk data mdqa --questions own.jsonl --documents 10 --out mdqa.jsonl.gz",),
    "zoo": (
        "ropewalk zoo",
        "ropewalk zoo vicuna-7b-v1.5/mdqa",
        "ropewalk zoo my-model/kv --add runs/kv --by Ann --hub-id me/my-model",
    ),
    "show": ("ropewalk show --model demo --keys 3 --index 1",),
    "doctor": ("ropewalk doctor --model demo --keys 10",),
}


def epilogue(verb: str) -> str:
    """What stands under a verb's --help."""
    examples = EXAMPLES[verb]
    return "\n".join([f"Example{'s' if len(examples) > 1 else ''}:", *(f"  {line}" for line in examples), ""])
