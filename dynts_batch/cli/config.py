"""Print a configuration that comes with the package, or list them all.

dynts-batch config                        their names
dynts-batch config hub-model > my.yaml    one, to change it
dynts-batch config --keys                 every key: its type, default and meaning
"""

from __future__ import annotations

from collections.abc import Sequence

from dynts_batch.cli.arguments import command_parser
from dynts_batch.config_reference import page
from dynts_batch.errors import ConfigError, choices_hint
from dynts_batch.exit_status import EXIT_OK
from dynts_batch.shipped import shipped_configs


def main(arguments: Sequence[str]) -> int:
    parser = command_parser("config", __doc__)
    parser.add_argument("name", metavar="NAME", nargs="?", help="default: list them")
    parser.add_argument("--keys", action="store_true", help="print the page of all keys")
    args = parser.parse_args(arguments)
    name, configs = args.name, shipped_configs()
    if args.keys:
        from dynts_batch.kvcache.policies import POLICIES

        print(page(POLICIES), end="")
    elif name is None:
        print("\n".join(configs))
    elif name in configs:
        print(configs[name].read_text(encoding="utf-8"), end="")
    else:
        raise ConfigError(
            f"no configuration {name} is shipped. {choices_hint(name, list(configs))}"
        )
    return EXIT_OK
