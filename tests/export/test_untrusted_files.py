"""Files that were made to run code: they do in PyTorch's own readers, and are refused here."""

import contextlib
import io
import json
import logging
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn
from torch._export.serde.serialize import serialize
from torch.export import Dim

from wpl_d2.export import open_model
from wpl_d2.export.torch_export_check import is_arithmetic
from wpl_d2.modeling.model_metadata import metadata_to_texts
from wpl_d2.utils.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
METADATA = {
    "config": "VERSION: 2\n",
    "classes": ["ground", "box"],
    "colors": [[0, 0, 0], [9, 9, 9]],
    "objects": [1],
    "preprocessing": {"format": "RGB", "mean": [0.0] * 3, "std": [1.0] * 3},
}
# Where PyTorch 2.9 and later keep things.
MODEL, SAMPLES = "models/model.json", "data/sample_inputs/model.pt"
WEIGHTS, CONSTANTS = "data/weights/model_weights_config.json", "data/constants/model_constants_config.json"


class Tiny(nn.Module):
    """With a parameter, a constant, and sizes that are computed."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 3, padding=1)
        self.register_buffer("mean", torch.ones(3, 1, 1), persistent=False)

    def forward(self, images):
        half = self.conv(images - self.mean)[..., ::2, ::2]
        return nn.functional.interpolate(half, images.shape[-2:])


@pytest.fixture(scope="module")
def program():
    torch.manual_seed(0)
    sizes = {"images": {0: Dim.AUTO, 2: Dim.AUTO, 3: Dim.AUTO}}
    made = torch.export.export(Tiny().eval(), (torch.rand(2, 3, 16, 24),), dynamic_shapes=sizes, strict=False)
    made._guards_code = []
    return made


@pytest.fixture(scope="module")
def entries(program, tmp_path_factory):
    """An export's entries, by their name without the folder that has the file's name."""
    file = tmp_path_factory.mktemp("harmless") / "good.pt2"
    torch.export.save(program, file, extra_files=metadata_to_texts(METADATA))
    with zipfile.ZipFile(file) as archive:
        return {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}


def write(file, entries, folder="good/", compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, data in entries.items():
            archive.writestr(folder + name, data)
    return file


class Opens:
    """Makes a file when it is unpickled."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return open, (str(self.file), "w")


def saved(content):
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


class Attack:
    """Changes to a file's entries, and the code that they smuggle in: it makes the file `mark`."""

    def __init__(self, entries, folder):
        self.entries, self.mark = dict(entries), folder / "it_ran"
        self.code = f"open({str(self.mark)!r}, 'w')"
        self.pickle = saved(((Opens(self.mark),), {}))

    def edit(self, name, change):
        content = json.loads(self.entries[name])
        change(content)
        self.entries[name] = json.dumps(content).encode()

    def rename(self, old, new):
        text = self.entries[MODEL].decode()
        assert json.dumps(old) in text
        self.entries[MODEL] = text.replace(json.dumps(old), json.dumps(new)).encode()

    def unpickled(self, config):
        def change(content):
            first = next(iter(content["config"].values()))
            first["use_pickle"] = True
            self.entries[f"{config.rpartition('/')[0]}/{first['path_name']}"] = self.pickle

        self.edit(config, change)

    def graph(self, change):
        self.edit(MODEL, lambda content: change(content["graph_module"]["graph"]))

    def call(self, **changes):
        self.edit(MODEL, lambda content: content["graph_module"]["module_call_graph"][0]["signature"].update(**changes))


def pickled_weight(attack):
    attack.unpickled(WEIGHTS)


def pickled_constant(attack):
    attack.unpickled(CONSTANTS)


def pickled_samples(attack):
    attack.entries[SAMPLES] = attack.pickle


def bare_pickle_for_samples(attack):
    attack.entries[SAMPLES] = pickle.dumps(((Opens(attack.mark),), {}), protocol=2)


def weights_of_2_8(attack):
    attack.entries["data/weights/model.pt"] = attack.pickle


def constants_of_2_8(attack):
    attack.entries["data/constants/model.pt"] = attack.pickle


def expression_of_a_number(attack):
    code = f"__import__('os').system({f'touch {attack.mark}'!r})"
    attack.graph(lambda graph: next(iter(graph["sym_int_values"].values()))["as_expr"].update(expr_str=code))


def expression_of_a_size(attack):
    def change(graph):
        sizes = [size for tensor in graph["tensor_values"].values() for size in tensor["sizes"]]
        next(size for size in sizes if "as_expr" in size)["as_expr"]["expr_str"] = attack.code

    attack.graph(change)


def guard(attack):
    attack.edit(MODEL, lambda content: content.update(guards_code=[f"{attack.code} is None"]))


def name_of_the_input(attack):
    attack.rename("images", f"images={attack.code}")


def type_of_a_tree(attack):
    folder = attack.mark.parent
    (folder / "smuggled.py").write_text(f"{attack.code}\nfactory = dict")
    sys.path.insert(0, str(folder))
    context = {"default_factory_module": "smuggled", "default_factory_name": "factory", "dict_context": []}
    tree = {"type": "collections.defaultdict", "context": context, "children_spec": []}
    attack.call(out_spec=json.dumps([1, tree]))


RUN_IN_PYTORCH = [
    pickled_weight,
    pickled_constant,
    pickled_samples,
    bare_pickle_for_samples,
    weights_of_2_8,
    constants_of_2_8,
    expression_of_a_number,
    expression_of_a_size,
    guard,
    name_of_the_input,
    type_of_a_tree,
]


@pytest.fixture
def attack(entries, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "smuggled", raising=False)
    logging.disable(logging.CRITICAL)
    yield Attack(entries, tmp_path)
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("change", RUN_IN_PYTORCH, ids=lambda change: change.__name__)
def test_what_pytorch_runs_is_refused_and_does_not_run(attack, tmp_path, change):
    if WEIGHTS not in attack.entries:
        pytest.skip("PyTorch 2.8 and older have no such entries")
    change(attack)
    file = write(tmp_path / "evil.pt2", attack.entries)
    with pytest.raises(InputError, match=r"evil.pt2: good/.*; it was not loaded") as error:
        open_model(file)
    assert not attack.mark.exists() and "\n" not in str(error.value)
    # PyTorch's own reader says in the end that the file is odd, or nothing at all; by then the code has run.
    with contextlib.suppress(Exception):
        torch.export.load(file).module()(torch.rand(1, 3, 18, 20))
    assert attack.mark.exists()


@pytest.mark.parametrize("part", ["state_dict", "constants", "example_inputs"])
def test_the_same_of_the_old_layout(program, attack, tmp_path, part):
    entry = f"serialized_{part}.pt"
    artifact = serialize(program)
    old = {
        "version": b"8.1",
        "serialized_exported_program.json": artifact.exported_program,
        "serialized_state_dict.pt": artifact.state_dict,
        "serialized_constants.pt": artifact.constants,
        "serialized_example_inputs.pt": artifact.example_inputs,
        **{f"extra_files/{key}": text for key, text in metadata_to_texts(METADATA).items()},
    }
    images = torch.rand(1, 3, 18, 20)
    read = open_model(write(tmp_path / "old.pt2", old, folder=""))
    assert torch.equal(read.segment(images), program.module()(images)) and read.metadata == METADATA
    file = write(tmp_path / "evil.pt2", {**old, entry: attack.pickle}, folder="")
    with pytest.raises(InputError, match=rf"evil.pt2: {entry} holds more than tensors"):
        open_model(file)
    assert not attack.mark.exists()
    with contextlib.suppress(Exception):
        torch.export.load(file)
    assert attack.mark.exists()


def test_both_layouts_in_one_file_are_both_checked(attack, tmp_path):
    """PyTorch tries the old layout where it fails on the new one, and another reader of the archive with it."""
    attack.entries["archive_version"] = b"99"
    file = write(tmp_path / "evil.pt2", attack.entries)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("serialized_state_dict.pt", attack.pickle)
    with pytest.raises(InputError, match=r"evil.pt2: serialized_state_dict.pt holds more than tensors"):
        open_model(file)
    assert not attack.mark.exists()


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("data/aotinductor/model/compiled.so", "is not an entry of such a file"),
        ("data/executorch/program.pte", "is not an entry of such a file"),
        ("data/constants/custom_obj_0", "is not an entry of such a file"),
        ("data/constants/opaque_obj_0", "is not an entry of such a file"),
        ("data/weights/second.pt", "is not an entry of such a file"),
        ("models/second.json", "is not an entry of such a file"),
        ("Models/model.json", "is not an entry of such a file"),
        ("models/model.json/more", "is not an entry of such a file"),
        ("extra/deeper/config", "is not an entry of such a file"),
        ("../../outside", "is not an entry of such a file"),
    ],
)
def test_unknown_entries_are_refused_by_name(entries, tmp_path, entry, words):
    file = write(tmp_path / "odd.pt2", {**entries, entry: b"x"})
    with pytest.raises(InputError, match=rf"odd.pt2: good/{entry} {words}"):
        open_model(file)


def node(content):
    return content["graph_module"]["graph"]["nodes"][0]


def size(content):
    return next(iter(content["graph_module"]["graph"]["sym_int_values"].values()))["as_expr"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: node(c).update(target="torch.ops.aten.save.str"), "has target 'torch.ops.aten.save.str'"),
        (lambda c: node(c).update(target="torch.ops.aten.from_file.default"), "has target .*from_file"),
        (lambda c: node(c).update(target="torch.ops.higher_order.cond"), "has target 'torch.ops.higher"),
        (lambda c: node(c).update(target="torch.ops.mine.op.default"), "has target 'torch.ops.mine"),
        (lambda c: node(c).update(target="torch.hub.load"), "has target 'torch.hub.load'"),
        (lambda c: node(c).update(target="#mine:op"), "has target '#mine:op'"),
        (lambda c: node(c)["inputs"][0].update(arg={"as_operator": "torch.hub.load"}), "has as_operator"),
        (lambda c: node(c)["inputs"][0].update(arg={"as_graph": {"name": "a", "graph": {}}}), "has as_graph"),
        (lambda c: node(c)["inputs"][0].update(arg={"as_custom_obj": {"name": "a"}}), "has as_custom_obj"),
        (lambda c: node(c)["inputs"][0].update(arg={"as_int": "os.getcwd()"}), "has as_int 'os.getcwd"),
        (lambda c: node(c)["inputs"][0].update(arg={"as_ints": [{"as_string": "x"}]}), "has as_ints"),
        (lambda c: node(c).update(name="a=1; b"), "has name 'a=1; b'"),
        (lambda c: node(c).update(name={"as_string": "a"}), "has name"),
        (lambda c: node(c).update(outputs=[{"as_tensor": {"name": "torch.load"}}]), "has name 'torch.load'"),
        (lambda c: node(c).update(inputs="x"), "has 'x' in place of a part"),
        (lambda c: size(c).update(expr_str=["open('x')"]), "has expr_str"),
        (lambda c: size(c).update(expr_str={"as_string": "open('x')"}), "has expr_str"),
        (lambda c: c.update(later_code=["x"]), "has later_code"),
        (lambda c: c.update(guards_code=True), "has guards_code 'True'"),
        (lambda c: c.update(range_constraints={"s0'": {}}), "has range_constraints"),
        (lambda c: c["graph_module"].update(treespec_namedtuple_fields={"a": {}}), "has treespec_namedtuple_fields"),
        (lambda c: c["graph_module"]["graph"].update(custom_obj_values={"a": {}}), "has custom_obj_values"),
        (lambda c: c["graph_module"]["signature"]["input_specs"][0].update(token={}), "has token"),
        (lambda c: c["graph_module"]["module_call_graph"][0].update(fqn='a"), x, ("'), "has fqn"),
        (
            lambda c: c["graph_module"]["module_call_graph"][0]["signature"].update(forward_arg_names=["a=1"]),
            "has forward_arg_names",
        ),
        (
            lambda c: c["graph_module"]["signature"]["input_specs"][0]["parameter"].update(parameter_name='a")+("'),
            "has parameter_name",
        ),
    ],
)
def test_what_a_graph_must_not_have(attack, tmp_path, change, words):
    attack.edit(MODEL, change)
    with pytest.raises(InputError, match=rf"odd.pt2: good/models/model.json {words}"):
        open_model(write(tmp_path / "odd.pt2", attack.entries))


@pytest.mark.parametrize(
    "change",
    [
        lambda attack: attack.rename("images", "lambda"),
        lambda attack: attack.graph(lambda graph: graph["outputs"].clear()),
        lambda attack: attack.edit(MODEL, lambda content: content.pop("graph_module")),
        lambda attack: attack.edit(MODEL, lambda content: content["graph_module"]["signature"]["input_specs"].pop()),
        lambda attack: attack.entries.update({MODEL: b"[" * 10**5}),
        lambda attack: attack.entries.update({MODEL: b"7"}),
        lambda attack: attack.entries.update({"archive_version": b"99"}),
        lambda attack: attack.entries.update({"extra/config": b"\xff"}),
        lambda attack: attack.entries.pop(SAMPLES),
        lambda attack: attack.edit(WEIGHTS, lambda c: c["config"].pop("conv.weight")),
        lambda attack: attack.edit(
            WEIGHTS, lambda c: c["config"]["conv.weight"]["tensor_meta"].update(sizes=[{"as_int": 10**6}] * 4)
        ),
    ],
)
def test_a_damaged_file_is_refused_in_a_line(attack, tmp_path, change):
    change(attack)
    file = write(tmp_path / "odd.pt2", attack.entries)
    with pytest.raises(InputError, match=r"odd.pt2: "):
        open_model(file)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(InputError, match=r"odd.pt2: is not a torch.export file that PyTorch .* reads; export it anew"):
        open_model(file)


def test_a_compressed_file_is_refused(entries, tmp_path):
    file = write(tmp_path / "small.pt2", {**entries, "data/weights/weight_7": bytes(10**6)}, compression=8)
    with pytest.raises(InputError, match="is compressed"):
        open_model(file)


def test_the_only_operators_with_files_are_known():
    schemas = (schema for schema in torch._C._jit_get_all_schemas() if schema.name.startswith("aten::"))
    texts = {(schema.name, given.name) for schema in schemas for given in schema.arguments if str(given.type) == "str"}
    found = {operator for operator, name in texts if any(word in name for word in ("file", "path", "url"))}
    assert found == {"aten::save", "aten::from_file"}


@pytest.mark.parametrize(
    "text",
    [
        "s0",
        "s34 + 1",
        "-u0*(s1 + 15)//16 % 3",
        "Max(1, s0) >= 2",
        "Add(FloorDiv(Add(Symbol('s14', positive=True, integer=True), Integer(1)), Integer(2)), Integer(-1))",
        "Float('1.5e-3', precision=53)",
        "StrictLessThan(Mod(s0, 2), Rational(1, 2))",
        "true",
    ],
)
def test_arithmetic(text):
    assert is_arithmetic(text)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "().__class__",
        "s0.real",
        "[s0][0]",
        "lambda: 1",
        "(s0 := 1)",
        "f'{s0}'",
        "'s0'",
        "Symbol(open('x'))",
        "Symbol('s0', **{})",
        "Symbol('s0', integer=open)",
        "Symbol('s0; x')",
        "Float('open(1)')",
        "Integer(*s0)",
        "Max(s0, key=open)",
        "eval(1)",
        "open",
        "Max",
        "sympify('x')",
        "lambdify(s0, s0)",
        "s0 if s1 else s2",
        "{s0}",
        "s0\nimport os",
        "s0 # x\n.real",
        "\u017f0",  # a long s, which becomes s0 where Python reads it
        "",
        "(" * 500 + "s0" + ")" * 500,
    ],
)
def test_no_arithmetic(text):
    assert not is_arithmetic(text)


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("config", "!!python/object/apply:os.system ['touch it_ran']"),
        ("config", "just text"),
        ("colors", [[0, 0, 0]]),
        ("colors", 3),
        ("objects", [2]),
        ("classes", 7),
    ],
)
def test_what_a_file_says_of_itself_is_only_read(entries, tmp_path, monkeypatch, key, text):
    monkeypatch.chdir(tmp_path)
    file = write(tmp_path / "odd.pt2", {**entries, f"extra/{key}": json.dumps(text).encode()})
    with pytest.raises(InputError, match=r"odd.pt2: its (metadata|config) "):
        open_model(file)
    assert not (tmp_path / "it_ran").exists()
    if "python/object" in str(text):
        yaml.unsafe_load(text)
        assert (tmp_path / "it_ran").exists()


class Writes(nn.Module):
    """A program that makes a file."""

    def __init__(self, file: str):
        super().__init__()
        self.file = file

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.from_file(self.file, shared=True, size=4) + images.mean()


def test_a_program_runs_only_where_it_is_trusted(tmp_path, images):
    file, mark = tmp_path / "program.pt", tmp_path / "it_ran"
    torch.jit.save(torch.jit.script(Writes(str(mark))), str(file), _extra_files=metadata_to_texts(METADATA))
    with pytest.raises(InputError, match=r"program.pt: is a program.*add --trust-code.*trust_code=True"):
        open_model(file)
    command = [sys.executable, "-W", "ignore", str(ROOT / "tools/predict.py"), "--weights", str(file)]
    command += ["--input", str(images), "--output", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "--trust-code" in done.stderr and "Traceback" not in done.stderr
    assert not mark.exists()
    open_model(file, trust_code=True).segment(torch.rand(1, 3, 4, 4))
    assert mark.exists()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".pkl", ".onnx", ".pt2"])
def test_a_program_by_another_name_is_no_program(tmp_path, suffix):
    file, mark = tmp_path / f"program{suffix}", tmp_path / "it_ran"
    torch.jit.save(torch.jit.script(Writes(str(mark))), str(tmp_path / "program.pt"))
    (tmp_path / "program.pt").rename(file)
    with pytest.raises(InputError, match="program"):
        open_model(file)
    assert not mark.exists()


def onnx_model(domain="", location="", constant=False):
    import onnx
    from onnx import helper

    weight = helper.make_tensor("w", onnx.TensorProto.FLOAT, [1, 1, 4, 4], [0.0] * 16)
    if location:
        weight.ClearField("float_data")
        weight.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", location), ("offset", "0"), ("length", "64")):
            weight.external_data.add(key=key, value=value)
    nodes = [helper.make_node("Add", ["images", "w"], ["logits"], domain=domain)]
    if constant:
        nodes.insert(0, helper.make_node("Constant", [], ["w"], value=weight))
    tensors = (
        [helper.make_tensor_value_info("images", 1, ["b", 3, "h", "w"])],
        [helper.make_tensor_value_info("logits", 1, None)],
    )
    graph = helper.make_graph(nodes, "graph", *tensors, [] if constant else [weight])
    domains = [helper.make_opsetid("", 18)] + [helper.make_opsetid(domain, 1)] * bool(domain)
    model = helper.make_model(graph, opset_imports=domains, ir_version=9)
    helper.set_model_props(model, metadata_to_texts(METADATA))
    return model.SerializeToString()


@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("location", ["../secret.bin", "/{}/secret.bin", "link.bin", "inside.bin"])
def test_onnx_files_read_no_others(tmp_path, location, constant):
    (tmp_path / "model").mkdir()
    for name in ("secret.bin", "model/inside.bin"):
        (tmp_path / name).write_bytes(bytes(64))
    (tmp_path / "model/link.bin").symlink_to(tmp_path / "secret.bin")
    file = tmp_path / "model/odd.onnx"
    file.write_bytes(onnx_model(location=location.format(tmp_path), constant=constant))
    with pytest.raises(InputError, match=r"odd.onnx: the tensor 'w' is in another file"):
        open_model(file)
    file.write_bytes(onnx_model(constant=constant))
    assert open_model(file).segment(torch.ones(1, 3, 4, 4)).sum() == 48


def test_onnx_files_have_onnx_operators(tmp_path):
    (tmp_path / "odd.onnx").write_bytes(onnx_model(domain="com.mine"))
    with pytest.raises(InputError, match=r"odd.onnx: has the operator com.mine.Add"):
        open_model(tmp_path / "odd.onnx")
