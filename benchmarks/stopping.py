"""When to stop, without tuning per model: `python -m benchmarks.stopping [--n 20] [--smol 4] [--json]`.

Runs in small steps end once attention in the region, against that elsewhere, is so many times what it was. The gain is
chosen on the first half of the embedded model's scenes, and shown on the other half and on `smol`, beside the fixed number
of steps that is best on those very scenes.
"""

import argparse
import json
from collections.abc import Iterable

from cmllm_tools.bench.stopping import WAYS, rule_beside_fixed


def main(arguments: Iterable[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--n", type=int, default=20, help="scenes of the embedded model, half of them to choose on")
    parser.add_argument("--smol", type=int, default=0, help="scenes of smol, after the first 4")
    parser.add_argument("--methods", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(None if arguments is None else list(arguments))
    result = {name: rule_beside_fixed(options.n, options.smol, way=name) for name in options.methods}
    if options.json:
        print(json.dumps(result))
        return
    for name, models in result.items():
        for model, each in models.items():
            print(f"{name:<16} {model:<10} {each}")


if __name__ == "__main__":
    main()
