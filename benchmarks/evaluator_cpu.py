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
    parser.set_defaults(device="cpu", candidates=4)
    parser.add_argument("--keys", type=int, default=10)
    parser.add_argument("--records", type=int, default=4, help="each at every position")
    parser.add_argument("--many-records", type=int, default=1, help="records that several candidates are scored on")
    parser.add_argument("--single", type=int, default=4, help="prompts a repeat of generation one by one")
    parser.add_argument("--batched", type=int, default=4, help="prompts a repeat of the batched baselines")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 2, 4, 8], help="batch sizes to try")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    plan = Plan(
        args.keys, args.positions, args.records, args.seed, args.candidates, args.many_records,
        args.single, args.batched, tuple(args.sizes), args.repeats,
    )  # fmt: skip
    found = run(args, plan, args.model or demo_model())
    report("evaluator-cpu", args.seed, measure.device_of("cpu"), found, args.out)


if __name__ == "__main__":
    main()
