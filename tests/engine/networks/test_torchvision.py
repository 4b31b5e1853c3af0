"""slim == masked on torchvision's BatchNorm networks, auxiliary heads, segmentation and detection included."""

import pytest
import torchvision
from torchvision.ops.misc import FrozenBatchNorm2d

import netslim

FAST = [
    "mobilenet_v2",
    "mobilenet_v3_small",
    "mnasnet1_0",
    "regnet_y_400mf",
    "regnet_x_400mf",
    "shufflenet_v2_x1_0",
    "googlenet",
]
SLOW = [
    *("vgg11_bn", "vgg13_bn", "vgg19_bn", "resnext50_32x4d", "wide_resnet50_2", "densenet121"),
    *("mobilenet_v3_large", "efficientnet_b0", "efficientnet_v2_s"),
]


def build(name):
    options = {"init_weights": False} if name == "googlenet" else {}
    model = torchvision.models.get_model(name, num_classes=10, **options)
    if name.startswith("vgg"):  # the two hidden layers of 4096 would only cost time
        model.classifier = model.classifier[-1].__class__(25088, 10)
    return model


@pytest.mark.parametrize("name", [*FAST, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_classification(name, oracle, images):
    x = images(64)
    model = oracle.lively(build(name), x)
    before = sum(p.numel() for p in model.parameters())
    left = {}
    for coupling in ("keep", "group", "scatter"):
        keep = netslim.select_channels(model, 0.5, x, coupling=coupling)
        small = oracle.prove(model, keep, x, train=coupling != "group")
        left[coupling] = sum(p.numel() for p in small.parameters()) / before
        assert keep.removed <= keep.prunable / 2
    assert left["group"] <= left["keep"] < 0.75
    assert left["scatter"] <= left["keep"]
    assert keep.prunable == sum(len(bn.weight) for bn in netslim.bn_layers(model).values())


@pytest.mark.slow
def test_inception_with_its_auxiliary_head(oracle, images):
    x = images(299, 3)  # of two images, batch statistics magnify rounding
    model = oracle.lively(torchvision.models.inception_v3(num_classes=10, init_weights=False), x)
    keep = netslim.select_channels(model, 0.5, x)
    small = oracle.prove(model, keep, x)
    masked = netslim.mask(model, keep).train()
    y, aux = small.train()(x)
    expected, expected_aux = masked(x)
    assert (y - expected).abs().max() < 1e-9 * expected.std()
    assert (aux - expected_aux).abs().max() < 1e-9 * expected_aux.std()


@pytest.mark.parametrize("name", ["mobilenet_v2", pytest.param("shufflenet_v2_x0_5", marks=pytest.mark.slow)])
def test_quantizable_networks_that_are_not_quantised_yet(name, oracle, images):
    """They add and concatenate through modules of torch.ao that only observe."""
    x = images(64)
    model = oracle.lively(getattr(torchvision.models.quantization, name)(num_classes=10), x)
    keep = netslim.select_channels(model, 0.5, x)
    oracle.prove(model, keep, x)


@pytest.mark.slow
def test_segmentation(oracle, images):
    x = images(64)
    model = torchvision.models.segmentation.deeplabv3_resnet50(
        weights=None, weights_backbone=None, num_classes=5, aux_loss=True
    )
    oracle.lively(model, x)
    oracle.prove(model, netslim.select_channels(model, 0.5, x, coupling="group"), x)


@pytest.mark.slow
def test_detection_backbone(oracle, images):
    x = images(64)
    model = torchvision.models.detection.fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None).backbone
    oracle.lively(model, x)
    oracle.prove(model, netslim.select_channels(model, 0.5, x), x)


def test_frozen_batchnorm_is_left_alone(images):
    """With pretrained weights torchvision's detectors hold FrozenBatchNorm2d: it has no γ to rank."""
    model = torchvision.models.resnet18(norm_layer=FrozenBatchNorm2d)
    with pytest.raises(ValueError, match="no BatchNorm layer with γ"):
        netslim.select_channels(model, 0.5, images(32).float())
