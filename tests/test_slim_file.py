"""A slim network's file: loads as what was saved, also with another head; is refused in one line, or not written."""

import copy
import json
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import netslim
from netslim.nets import VGG

FILES = Path(__file__).parent / "files"
X = torch.linspace(-1, 1, 128).reshape(2, 1, 8, 8)


def lively(model):
    torch.manual_seed(0)
    for layer in netslim.bn_layers(model).values():
        layer.weight.data.uniform_(0.3, 1.3)
        layer.running_mean.normal_()
    return model.eval()


def slimmed(model, x=X, coupling="keep", ratio=0.5):
    return netslim.slim(model, netslim.select_channels(model, ratio, x, coupling=coupling), x)


def vgg(classes=5):
    return lively(VGG([8, 8, "M", 16], in_channels=1, num_classes=classes))


# edited files -----------------------------------------------------------------------------------------------------


class Split(nn.Module):
    """Remembers sizes, groups channels, and writes and reads parts of a stream."""

    def __init__(self):
        super().__init__()
        self.stem, self.bn = nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.grouped, self.after = nn.Conv2d(8, 8, 3, padding=1, groups=4), nn.BatchNorm2d(8)
        self.second, self.third = nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8)
        self.pre, self.out = nn.BatchNorm2d(8), nn.Conv2d(8, 4, 1)
        self.widths = [4, 4]
        self.rate, self.width = 0.5, 8

    def forward(self, x):
        x = F.relu(self.after(self.grouped(F.relu(self.bn(self.stem(x))))))
        a, b = torch.split(x, self.widths, 1)
        x = F.relu(torch.cat([a, b], 1))
        x = x + self.third(self.second(x))
        return self.out(F.relu(self.pre(x)))


def keep(plan, name):
    return next(entry for entry in plan["passes"][0]["keep"] if entry[0] == name)


def put(entry, at, value):
    entry[2][at] = value


EDITS = {  # what is done to the plan -> what the message says
    "out of range": (lambda p: put(keep(p, "pre.bias"), 0, 10**6), "no channel .1000000"),
    "one too far": (lambda p: put(keep(p, "pre.bias"), 0, 8), "no channel .8"),
    "negative": (lambda p: put(keep(p, "pre.bias"), 0, -1), "no channel .-1"),
    "twice": (lambda p: put(keep(p, "pre.bias"), 0, keep(p, "pre.bias")[2][1]), "keeps a channel twice"),
    "float": (lambda p: put(keep(p, "pre.bias"), 0, 1.0), r"Expected `int \| array`, got `float`"),
    "bool": (lambda p: put(keep(p, "pre.bias"), 0, True), r"Expected `int \| array`, got `bool`"),
    "word": (lambda p: put(keep(p, "pre.bias"), 0, "1"), "got `str`"),
    "nested too deep": (lambda p: put(keep(p, "pre.bias"), 0, [[1]]), "got `array`"),
    "mixed": (lambda p: put(keep(p, "pre.bias"), 1, [1]), "holds no list of indices"),
    "none": (lambda p: keep(p, "pre.bias")[2].clear(), "holds no list of indices"),
    "fewer": (lambda p: keep(p, "pre.bias")[2].pop(), r"holds \(5,\) for pre.bias, its plan wants \(4,\)"),
    "no tensor": (lambda p: keep(p, "pre.bias").__setitem__(0, "no.weight"), "no tensor 'no.weight'"),
    "no dimension": (lambda p: keep(p, "pre.bias").__setitem__(1, 1), "pre.bias has no dimension 1"),
    "negative dimension": (lambda p: keep(p, "pre.bias").__setitem__(1, -1), "pre.bias has no dimension -1"),
    "the same again": (lambda p: p["passes"][0]["keep"].append(keep(p, "pre.bias")), "cut twice"),
    "rows": (lambda p: keep(p, "out.weight").__setitem__(2, [[0], [1], [2]]), "out.weight is not in 3 groups"),
    "uneven rows": (lambda p: keep(p, "out.weight").__setitem__(2, [[0, 1], [2]]), "out.weight is cut unevenly"),
    "no group": (lambda p: p["passes"][0]["groups"].update({"grouped.weight": 0}), "cannot have 0 groups"),
    "more groups": (lambda p: p["passes"][0]["groups"].update({"grouped.weight": 8}), "cannot have 8 groups"),
    "odd groups": (lambda p: p["passes"][0]["groups"].update({"grouped.weight": 3}), "channels of grouped.weight in 3"),
    "other groups": (lambda p: p["passes"][0]["groups"].update({"grouped.weight": 1}), "grouped is Conv2d .*groups"),
    "groups of none": (lambda p: p["passes"][0]["groups"].update({"no.weight": 1}), "no.weight cannot have 1 groups"),
    "selects of none": (lambda p: p["passes"][0]["select"].update({"stem": [0]}), "'stem' is no BatchNorm layer"),
    "selects too far": (
        lambda p: put([0, 0, p["passes"][0]["select"]["pre"]], 0, 8),
        "selection of pre has no channel",
    ),
    "selects another": (lambda p: p["passes"][0]["select"]["pre"].reverse(), "pre.channel_index is not what its plan"),
    "selects fewer": (lambda p: p["passes"][0]["select"]["pre"].pop(), "pre selects"),
    "scatters nowhere": (lambda p: p["passes"][0]["scatter"].update(third=["no", [0], 8]), "no module 'no'"),
    "scatters twice": (lambda p: p["passes"][0]["scatter"].update(third=["third", [0, 0], 8]), "keeps a channel twice"),
    "scatters too wide": (lambda p: p["passes"][0]["scatter"].update(third=["third", [0], 99]), "scatters to 99"),
    "another size": (lambda p: p["passes"][0]["sizes"].append(["", "width", 7]), ".width is missing in the saved"),
    "a larger size": (lambda p: p["passes"][0]["sizes"].append(["", "width", 9]), ".width cannot become 9"),
    "a size of a layer": (lambda p: p["passes"][0]["sizes"].append(["stem", "padding", [0, 0]]), "remembers no sizes"),
    "eps": (lambda p: p["passes"][0]["sizes"].append(["bn", "eps", 1e9]), r"got `float`"),
    "a rate": (lambda p: p["passes"][0]["sizes"].append(["", "rate", 1]), ".rate cannot become 1"),
    "a mode": (lambda p: p["passes"][0]["sizes"].append(["", "training", 1]), ".training cannot become 1"),
    "code": (lambda p: p["passes"][0]["sizes"].append(["", "forward", 1]), ".forward cannot become 1"),
    "its class": (lambda p: p["passes"][0]["sizes"].append(["", "__class__", 1]), ".__class__ cannot become 1"),
    "its children": (lambda p: p["passes"][0]["sizes"].append(["", "_modules", 1]), "._modules cannot become 1"),
    "nobody's size": (lambda p: p["passes"][0]["sizes"].append(["no", "width", 1]), "'no' remembers no sizes"),
    "no passes": (lambda p: p.pop("passes"), "missing required field `passes`"),
    "passes of none": (lambda p: p.update(passes={}), "Expected `array`, got `object`"),
    "no signature": (lambda p: p.pop("dense"), "missing required field `dense`"),
    "another signature": (lambda p: p["dense"].update(stem="Linear"), "stem is Linear in the file"),
    "another result": (lambda p: p["slim"].update(stem="Linear"), "stem is Linear in the saved network"),
    "a class outside": (lambda p: p["replaced"].update(out={"kind": "DataParallel"}), "is no layer of torch.nn"),
    "a function": (lambda p: p["replaced"].update(out={"kind": "factory_kwargs"}), "is no layer of torch.nn"),
    "arguments of none": (lambda p: p["replaced"].update(out={"kind": "Linear"}), "make no Linear"),
    "a huge layer": (
        lambda p: p["replaced"].update(out={"kind": "Linear", "arguments": {"in_features": 1, "out_features": 10**12}}),
        "holds .* for out.weight",
    ),
    "without everything": (lambda p: p["removed"].append(""), "'' lies in no module"),
}


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    path = tmp_path_factory.mktemp("split") / "small.pt"
    small = slimmed(lively(Split()))
    assert small.netslim_plan["passes"][0]["select"].keys() == {"pre"}
    netslim.save(small, path)
    return torch.load(path, weights_only=True)


def refusal(path, content, dense):
    torch.save(content, path)
    before = copy.deepcopy(dense.state_dict())
    with pytest.raises(ValueError, match=str(path)) as error:
        netslim.load(path, dense)
    assert all(torch.equal(tensor, before[name]) for name, tensor in dense.state_dict().items())
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("name", EDITS)
def test_edited_plans_are_refused(name, split, tmp_path):
    edit, match = EDITS[name]
    plan = json.loads(split["plan"])
    edit(plan)
    with pytest.raises(ValueError, match=match):
        raise ValueError(refusal(tmp_path / "small.pt", {**split, "plan": json.dumps(plan)}, Split()))


CONTENTS = {
    "no plan": (lambda c: c.pop("plan"), "no plan"),
    "a tensor for a plan": (lambda c: c.update(plan=torch.zeros(3)), "no plan"),
    "a list for a plan": (lambda c: c.update(plan="[]"), "Expected `object`, got `array`"),
    "a plan without end": (lambda c: c.update(plan="[" * 10**5), "no plan"),
    "a plan cut off": (lambda c: c.update(plan=c["plan"][:50]), "truncated"),
    "no tensors": (lambda c: c.pop("state"), "no tensors beside its plan"),
    "a list of tensors": (lambda c: c.update(state=[torch.zeros(1)]), "no tensors beside its plan"),
    "a tensor less": (lambda c: c["state"].pop("bn.weight"), "nothing for bn.weight"),
    "a tensor more": (lambda c: c["state"].update(more=torch.zeros(1)), "Unexpected key.*more"),
    "a number for a tensor": (lambda c: c["state"].update({"bn.weight": 1.0}), "nothing for bn.weight"),
    "another shape": (lambda c: c["state"].update({"bn.weight": torch.zeros(9)}), r"holds \(9,\) for bn.weight"),
    "half": (lambda c: c["state"].update({"bn.weight": c["state"]["bn.weight"].half()}), "another dtype: bn.weight"),
    "another selection": (lambda c: c["state"]["pre.channel_index"].zero_(), "pre.channel_index is not what its plan"),
}


@pytest.mark.parametrize("name", CONTENTS)
def test_edited_contents_are_refused(name, split, tmp_path):
    edit, match = CONTENTS[name]
    content = copy.deepcopy(split)
    edit(content)
    with pytest.raises(ValueError, match=match):
        raise ValueError(refusal(tmp_path / "small.pt", content, Split()))


# networks that compute something else -----------------------------------------------------------------------------


class Settings(nn.Module):
    def __init__(self, padding_mode="zeros", bias=True, eps=1e-5, momentum=0.1, slope=0.1, p=0.2, act=F.relu, rate=0.3):
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3, padding=1, padding_mode=padding_mode, bias=bias)
        self.bn = nn.BatchNorm2d(8, eps=eps, momentum=momentum)
        self.leaky, self.drop = nn.LeakyReLU(slope), nn.Dropout(p)
        self.out = nn.Conv2d(8, 4, 1)
        self.act, self.rate, self.calls = act, rate, 0

    def forward(self, x):
        self.calls += 1
        return self.out(self.drop(self.act(self.leaky(self.bn(self.conv(x))))))


OTHERS = {
    "padding_mode": ("circular", "setting of conv is .*padding_mode=circular"),
    "bias": (False, "conv.bias is shape .8,. in the file, missing in dense_model"),
    "eps": (1e-3, "setting of bn is .*eps=1e-05.* in the file, .*eps=0.001"),
    "momentum": (None, "setting of bn is .*momentum=0.1.* in the file, .*momentum=None"),
    "slope": (0.2, "setting of leaky is .*0.1.* in the file, .*0.2"),
    "p": (0.5, "setting of drop is p=0.2.* in the file, p=0.5"),
    "act": (F.silu, "setting of the network is .*act=relu.* in the file, .*act=silu"),
    "rate": (0.5, "setting of the network is .*rate=0.3.* in the file, .*rate=0.5"),
}


@pytest.fixture(scope="module")
def with_settings(tmp_path_factory):
    path = tmp_path_factory.mktemp("settings") / "small.pt"
    small = slimmed(lively(Settings()))
    netslim.save(small, path)
    return path, small


@pytest.mark.parametrize("name", OTHERS)
def test_a_network_that_computes_something_else_is_refused(name, with_settings):
    value, match = OTHERS[name]
    with pytest.raises(ValueError, match=match):
        netslim.load(with_settings[0], Settings(**{name: value}))


def test_counters_do_not_matter(with_settings):
    path, small = with_settings
    used = Settings()
    used(X)
    assert torch.equal(netslim.load(path, used.eval())(X), small(X))


def test_another_dtype_is_refused_and_the_same_loads(with_settings, tmp_path):
    path, small = with_settings
    with pytest.raises(ValueError, match=r"another dtype: conv.weight is torch.float32 in the file, torch.float64"):
        netslim.load(path, Settings().double())
    half = copy.deepcopy(small).bfloat16()
    netslim.save(half, tmp_path / "half.pt")
    with pytest.raises(ValueError, match="another dtype"):
        netslim.load(tmp_path / "half.pt", Settings())
    assert torch.equal(
        netslim.load(tmp_path / "half.pt", Settings().bfloat16().eval())(X.bfloat16()), half(X.bfloat16())
    )


# what was put into a slim network ---------------------------------------------------------------------------------


# files and code of before -----------------------------------------------------------------------------------------
