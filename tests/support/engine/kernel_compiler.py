"""Compiles Triton's kernels for GPUs that are not here, in a process of its own: in a test's the
interpreter has taken the compiler's place.

    python tests/kernel_compiler.py MODULE '[["KERNEL", {"NAME": TYPE OR CONSTANT, ...}], ...]'

Arguments whose types are not given are pointers to bfloat16; capital names are constants.
"""

import importlib
import json
import os
import re
import subprocess
import sys
from typing import Any

COMPUTE_CAPABILITIES = (80, 90)
TYPES = {
    "tops": "*fp32", "totals": "*fp32", "last_slots": "*i64", "positions": "*i64", "stored": "*i32",
    "lanes": "*i64", "slots": "*i64", "ternary": "*u8", "scale": "fp32", "window": "i32",
    "num_groups": "i32", "num_splits": "i32",
    "lengths": "*i64", "cache_len": "*i64", "num_slots": "i32", "num_tokens": "i32", "first": "i32",
}  # fmt: skip


def check_compiles(module: str, *kernels: tuple[str, dict[str, Any]]) -> None:
    """Kernels by name and arguments, for every compute capability of `COMPUTE_CAPABILITIES`."""
    done = subprocess.run(
        [sys.executable, __file__, module, json.dumps(kernels)],
        env={**os.environ, "TRITON_INTERPRET": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def compile_kernel(kernel: Any, arguments: dict[str, Any]) -> None:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    constants = {name: arguments.pop(name) for name in kernel.arg_names if name.isupper()}
    strides = {name: "i64" for name in kernel.arg_names if name.endswith("_stride")}
    given = TYPES | strides | arguments | dict.fromkeys(constants, "constexpr")
    source = ASTSource(
        fn=kernel,
        signature={name: given.get(name, "*bf16") for name in kernel.arg_names},
        constexprs={(kernel.arg_names.index(name),): value for name, value in constants.items()},
    )
    for compute_capability in COMPUTE_CAPABILITIES:
        done = triton.compile(source, target=GPUTarget("cuda", compute_capability, 32))
        assert done.asm["cubin"]
        assert done.metadata.shared < 100_000
        # The packed formats rely on small numbers, which a flush to zero would lose.
        assert not re.search(r"\bmul\S*\.ftz", done.asm["ptx"])


if __name__ == "__main__":
    found = importlib.import_module(sys.argv[1])
    for kernel, arguments in json.loads(sys.argv[2]):
        compile_kernel(getattr(found, kernel), arguments)
