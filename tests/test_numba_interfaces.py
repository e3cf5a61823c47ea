"""The interfaces of Numba and llvmlite that the compiled twin uses and that no documentation promises, by name.

When one of them changes, this says so before a kernel fails to compile; pyproject.toml admits no version that nobody
has tried.
"""

import ast
import re
from pathlib import Path

import pytest

import idl_ref

numba = pytest.importorskip("numba")
from llvmlite import binding, ir  # noqa: E402
from numba import types  # noqa: E402
from numba.core import caching, cgutils, compiler, config, cpu  # noqa: E402
from numba.core.registry import cpu_target  # noqa: E402
from numba.extending import intrinsic, models  # noqa: E402

from idl_ref.backends.numba import compiling, kernels  # noqa: E402

ROOM = Path(idl_ref.__file__).parent / "backends" / "numba"
BOUND = "numba>=0.60,<0.70"
USED = {  # the name of an object in simd.py and compiling.py, what it is, and the attributes that are used there
    "builder": (
        ir.IRBuilder,
        "add and_ bitcast call extract_element fadd fcmp_ordered fdiv fmul fneg fpext fptrunc fsub function gep "
        "icmp_signed icmp_unsigned insert_element load load_atomic mul module neg ptrtoint select shl "
        "shuffle_vector store trunc udiv",
    ),
    "context": (cpu_target.target_context, "get_dummy_value get_value_type make_array"),
    "ir": (ir, "Constant FloatType FunctionType IntType Undefined VectorType VoidType"),
    "binding": (binding, "get_host_cpu_features"),
    "cgutils": (cgutils, "get_or_insert_function"),
    "config": (config, "CPU_FEATURES CPU_NAME DISABLE_JIT"),
    "types": (types, "Type float64 int64 intp void"),
    "models": (models, "PrimitiveModel"),
    "kernel": (numba.njit(lambda: 0), "compile _cache"),
    "self": (compiling.Cache(lambda: 0), "_cache_file _impl _index_key flush"),
    "self._cache_file": (compiling.Cache(lambda: 0)._cache_file, "load save"),
    "self._impl": (compiling.Cache(lambda: 0)._impl, "check_cachable locator rebuild reduce"),
    "self._impl.locator": (compiling.Cache(lambda: 0)._impl.locator, "ensure_cache_path"),
    "super()": (caching.FunctionCache, "_load_overload _save_overload load_overload save_overload"),
}
EXTENDING = ("intrinsic", "models", "register_model")


def attributes(name):
    """What is taken from an object of this name, as `name.attribute` or by getattr(name, "attribute")."""
    found = set()
    for file in ("compiling.py",) if name.startswith(("self", "super")) else ("simd.py", "compiling.py"):
        for node in ast.walk(ast.parse((ROOM / file).read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == name:
                found.add(node.attr)
            elif (
                isinstance(node, ast.Call) and ast.unparse(node.func) == "getattr" and ast.unparse(node.args[0]) == name
            ):
                found.add(ast.literal_eval(node.args[1]))
    return found


@pytest.mark.parametrize("name", USED)
def test_every_attribute_is_named_here_and_exists(name):
    owner, known = USED[name]
    used = attributes(name)
    assert used
    assert used <= set(known.split())
    assert {attribute for attribute in used if not hasattr(owner, attribute)} == set()


def test_what_is_imported_is_named_here():
    """Nothing else comes from numba and llvmlite into the twin."""
    found = set()
    for file in ROOM.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            module = node.module if isinstance(node, ast.ImportFrom) else None
            found |= {f"{module}.{name}" if module else name for name in names}
    public = {"numba", "numba.njit", "numba.types", *(f"numba.extending.{name}" for name in EXTENDING)}
    private = {"llvmlite.binding", "llvmlite.ir", "numba.config", "numba.core.cgutils", "numba.core.config"}
    private |= {"numba.core.caching.FunctionCache", "numba.core.serialize.dumps"}
    assert {name for name in found if name.split(".")[0] in ("numba", "llvmlite")} == public | private


def test_the_options_of_the_compiler():
    """no_cpython_wrapper, no_cfunc_wrapper and _nrt are not documented; an unknown option is refused by Numba."""
    known = set(vars(cpu.CPUTargetOptions)) | set(cpu._options_mixin.__dict__)
    assert {"no_cpython_wrapper", "no_cfunc_wrapper", "_nrt", "error_model", "nogil"} <= known
    assert {"no_cpython_wrapper", "no_cfunc_wrapper"} <= set(dir(compiler.Flags))
    with pytest.raises(KeyError, match="no_such_option"):
        numba.njit(no_such_option=True)(lambda: 1).compile(())


def test_an_intrinsic_sees_a_literal():
    """`simd.down` takes the lanes of its shuffle from the type of an argument."""

    @intrinsic(prefer_literal=True)
    def value(typing, count):
        return types.intp(count), lambda context, builder, signature, arguments: ir.IntType(64)(count.literal_value)

    assert numba.njit(lambda: value(8))() == 8


def test_the_dispatcher_compiles_by_the_method_that_entry_replaces():
    """`compiling.entry` replaces `compile` on the dispatcher; the arguments of a call must come by it."""
    seen = []
    kernel = numba.njit(lambda x: x + 1)
    compile_signature = kernel.compile
    kernel.compile = lambda signature: seen.append(signature) or compile_signature(signature)
    assert (kernel(1), kernel(2), kernel(1.5)) == (2, 3, 2.5)
    assert seen == [(types.intp,), (types.float64,)]


def test_compiled_code_on_disk_is_named_by_qualname():
    """The fingerprint in `__qualname__` keeps code of other sources apart only as long as Numba names files by it."""
    cache = kernels.picard._cache
    if not hasattr(cache, "_cache_file"):
        pytest.skip("no directory can be written here")
    assert compiling.FINGERPRINT in cache._cache_file._index_name


def test_a_branch_for_none_is_pruned():
    """`guarded` has Lt = None for Anderson, and its Newton branch could not be typed then."""

    def first(x, y):
        if y is not None:
            return y[0]
        return x

    assert numba.njit(first)(1.0, None) == 1.0


def test_the_package_admits_no_version_that_nobody_tried():
    text = (Path(idl_ref.__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    asked = re.findall(r'"(numba[<>=][^"]*)"', text)
    assert len(asked) == 4
    assert set(asked) == {BOUND}
    version = tuple(int(part) for part in numba.__version__.split(".")[:2])
    assert (0, 60) <= version < (0, 70)
