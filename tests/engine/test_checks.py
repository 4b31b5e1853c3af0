"""What cannot be slimmed is refused in one line that names it and the remedy, and the model is left as it was."""

import math
import warnings

import pytest
import torch
import torchvision
from torch import nn
from torch.distributed import fsdp
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor.parallel import ColwiseParallel, parallelize_module
from torch.nn.utils import parametrizations, parametrize, prune

import netslim

KEEP = {"1": torch.arange(8) % 2 == 0}
X = torch.zeros(2, 3, 8, 8)


def toy(norm=nn.BatchNorm2d, **options):
    return nn.Sequential(nn.Conv2d(3, 8, 3), norm(8, **options), nn.ReLU(), nn.Dropout(), nn.Conv2d(8, 4, 3))


@pytest.fixture
def refused(refused):
    """By all three functions, if no call is given."""

    def check(model, match, *calls):
        three = (
            lambda: netslim.select_channels(model, 0.5, X),
            lambda: netslim.slim(model, KEEP, X),
            lambda: netslim.mask(model, KEEP),
        )
        refused(model, match, *(calls or three))

    return check


def within(change):
    """A network whose first layer is changed into something that cannot be slimmed."""
    model = toy()
    model[0] = change(model[0])
    return model


def changed(change, index=1):
    model = toy()
    change(model[index])
    return model


def set_gamma(value):
    return lambda bn: bn.weight.data.__setitem__(3, value)


def two_norms():
    return nn.Sequential(*toy()[:3], nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 3))


def shared(key):
    model = two_norms()
    setattr(model[4], key, getattr(model[1], key))
    return model


class Doubled(nn.Module):
    def forward(self, x):
        return 2 * x


def doubled(key):
    return changed(lambda bn: parametrize.register_parametrization(bn, key, Doubled()))


MODELS = {
    "data-parallel": (lambda: nn.DataParallel(toy()), "the model is a DataParallel wrapper: slim its .module"),
    "inner data-parallel": (lambda: within(nn.DataParallel), "Sequential.0 is a DataParallel wrapper"),
    "compiled": (lambda: torch.compile(toy()), "the model is compiled: slim the original"),
    "lazy": (lambda: within(lambda _: nn.LazyConv2d(8, 3)), "Sequential.0.weight is lazy.*run the model once"),
    "lazy norm": (lambda: nn.Sequential(nn.LazyBatchNorm2d()), "Sequential.0.weight is lazy"),
    "meta": (lambda: toy().to("meta"), "Sequential.0.weight is on the meta device.*load weights"),
    "half meta": (lambda: changed(lambda conv: conv.to("meta"), 4), "Sequential.4.weight is on the meta device"),
    "no norm": (lambda: nn.Sequential(nn.Conv2d(3, 4, 1)), "no BatchNorm layer with γ .*nothing to slim"),
    "other norm": (lambda: toy(lambda n: nn.GroupNorm(2, n)), "no BatchNorm layer with γ"),
    "norm without γ": (lambda: toy(affine=False), "no BatchNorm layer with γ"),
    "frozen norm": (lambda: toy(torchvision.ops.FrozenBatchNorm2d), "no BatchNorm layer with γ .frozen"),
    "NaN": (lambda: changed(set_gamma(math.nan)), "γ of '1' holds NaN or infinity: the training diverged"),
    "infinite": (lambda: changed(set_gamma(-math.inf)), "γ of '1' holds NaN or infinity"),
    "pruned γ": (lambda: changed(lambda bn: prune.identity(bn, "weight")), "γ of '1' is computed.*make it permanent"),
    "parametrised γ": (lambda: doubled("weight"), "γ of '1' is computed.*remove_parametrizations"),
    "parametrised β": (lambda: doubled("bias"), "β of '1' is computed"),
    "shared γ": (lambda: shared("weight"), "γ of '4' is also that of '1': give each layer its own"),
    "shared β": (lambda: shared("bias"), "β of '4' is also that of '1'"),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_models(name, refused):
    build, match = MODELS[name]
    refused(build(), match)


@pytest.fixture
def quiet():
    """TorchScript and torch.ao.quantization warn that they are deprecated, FSDP that one process shards nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.mark.usefixtures("quiet")
def test_torchscript(refused):
    """Of layers without settings: torch.jit.script now and then takes a list that a layer remembers for a function."""
    refused(torch.jit.script(nn.ReLU()), "the model is a TorchScript module: slim the Python module")
    refused(torch.jit.trace(toy().eval(), X), "the model is a TorchScript module")
    refused(toy().append(torch.jit.script(nn.ReLU())), "Sequential.5 is a TorchScript module")


@pytest.mark.usefixtures("quiet")
def test_quantised(refused):
    ao = pytest.importorskip("torch.ao.quantization")
    if "fbgemm" not in torch.backends.quantized.supported_engines:
        pytest.skip("no backend to quantise with")

    def prepared(model, how, prepare):
        model.qconfig = how("fbgemm")
        return prepare(model)

    qat = prepared(ao.fuse_modules_qat(toy().train(), [["0", "1", "2"]]), ao.get_default_qat_qconfig, ao.prepare_qat)
    refused(qat, "Sequential.0 is quantised .*: slim before quantising")
    observed = prepared(
        nn.Sequential(ao.QuantStub(), toy(), ao.DeQuantStub()).eval(), ao.get_default_qconfig, ao.prepare
    )
    refused(observed, "can lose channels .8 by", lambda: netslim.select_channels(observed, 0.5, X))
    observed(X)
    refused(ao.convert(observed), "Sequential.0 is quantised")
    dynamic = ao.quantize_dynamic(nn.Sequential(*toy(), nn.Flatten(), nn.Linear(64, 5)), {nn.Linear})
    refused(dynamic, "Sequential.6 is quantised")
    refused(ao.fuse_modules(toy().eval(), [["0", "1", "2"]]), "no BatchNorm layer with γ .*fused")


def test_exported(refused):
    refused(torch.export.export(toy().eval(), (X,)).module(), "no BatchNorm layer with γ .*exported")


@pytest.fixture
def group(tmp_path):
    """A group of one process, really there."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("quiet")
def test_distributed(group, refused):
    wrapped = nn.parallel.DistributedDataParallel(toy())
    refused(wrapped, "the model is a DistributedDataParallel wrapper: slim its .module, then wrap again")
    whole = fsdp.FullyShardedDataParallel(toy(), device_id=torch.device("cpu"))
    refused(whole, r"the model is sharded \(FSDP\): slim the whole network before")
    for part in (lambda model: model, lambda model: model[0]):
        model = toy()
        fsdp.fully_shard(part(model), mesh=group)
        refused(model, r"(the model|Sequential\.0) is sharded \(FSDP\): slim the whole network before")
    parallel = parallelize_module(nn.Sequential(toy(), nn.Flatten(), nn.Linear(64, 5)), group, {"2": ColwiseParallel()})
    refused(parallel, "Sequential.2.weight is a DTensor: slim before sharding")


REPARAMETRISED = {
    "weight_norm": parametrizations.weight_norm,
    "spectral_norm": parametrizations.spectral_norm,
    "pruned": lambda conv: prune.l1_unstructured(conv, "weight", 0.3),
}


@pytest.mark.parametrize("name", REPARAMETRISED)
def test_a_reparametrised_convolution_stays_whole_and_right(name, oracle, images):
    x = images(9)
    model = oracle.lively(nn.Sequential(*two_norms(), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 3, 1)), x)
    REPARAMETRISED[name](model[3])
    keep = {name: torch.arange(len(bn.weight)) % 3 > 0 for name, bn in netslim.bn_layers(model).items()}
    small = oracle.prove(model, keep, x)
    assert small[3].weight.shape == (8, 8, 3, 3)  # held
    assert small[5].weight.shape == (2, 5, 3, 3)
    assert netslim.select_channels(model, 0.5, x).held_back == {"convolution": 8}


def test_a_pruned_slim_network_survives_the_disk(tmp_path):
    model = toy().eval()
    prune.l1_unstructured(model[0], "weight", 0.3)
    small = netslim.slim(model, KEEP, X)
    netslim.save(small, tmp_path / "small.pt")
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(netslim.load(tmp_path / "small.pt", model)(x), small(x))


def test_norms_without_scales_beside_others(oracle, images):
    x = images(9)
    model = two_norms()
    model[4] = nn.BatchNorm2d(8, affine=False)
    model.append(torchvision.ops.FrozenBatchNorm2d(4))
    small = oracle.prove(oracle.lively(model, x), KEEP, x)
    assert small[0].out_channels == 4


def test_a_compiled_in_place_network_stays_a_plain_one(oracle, images):
    """module.compile() changes no class; what comes out is not compiled."""
    x = images(9)
    model = oracle.lively(toy(), x)
    model.compile(backend="eager")
    assert oracle.prove(model, KEEP, x)._compiled_call_impl is None
