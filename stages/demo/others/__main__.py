"""draw-others: birds of looks that no species of the demo has, for the toy LVLM to learn to see on."""

from __future__ import annotations

import argparse
from pathlib import Path

from stages.common.errors import UserError, run
from stages.common.locks import hold
from stages.demo.others.draw import draw_others


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m stages.demo.others", description=__doc__)
    parser.add_argument("--count", type=int, required=True, help="how many drawings")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder of the drawings and drawings.jsonl")
    options = parser.parse_args()
    if options.count < 1 or options.seed < 0:
        raise UserError(f"--count {options.count} --seed {options.seed}: the count is at least 1, the seed at least 0")
    hold("demo.others", str(options.out))
    draw_others(options.out, options.seed, options.count)
    print(f"draw-others: {options.count} drawings in {options.out}")


if __name__ == "__main__":
    run(main)
