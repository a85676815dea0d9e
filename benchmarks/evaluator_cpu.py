"""The evaluator benchmark on a CPU: SmolLM2-135M-Instruct, kv with 10 keys, bf16.

    python benchmarks/evaluator_cpu.py --out evaluator_cpu.json

The arms are those of evaluator.py. The ceiling is the fastest of several bf16 matrix products (large squares and the
model's own shapes) on the same threads; the report names its shape. The share of the ceiling is executed FLOPs a second
(flops.py) over that of the same product, run in turns with the arms: on shared machines both move together.
"""

from __future__ import annotations

import argparse

import measure
from evaluator import run
from kv_comparison import Plan, add_options
from reporting import report
from ropewalk.demo import demo_model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    parser.set_defaults(device="cpu", candidates=4, keys=10, records=4, many_records=1, single=4, batched=4)
    parser.set_defaults(sizes=[1, 2, 4, 8])
    args = parser.parse_args()
    found = run(args, Plan.of(args), args.model or demo_model())
    report("evaluator-cpu", args.seed, measure.device_of("cpu"), found, args.out)


if __name__ == "__main__":
    main()
