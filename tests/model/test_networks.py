from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from ablation.errors import UsageError
from ablation.model.base import Detector, DetectorConfig
from ablation.model.blocks import ConvBNAct
from ablation.model.yolov4 import YOLOv4
from ablation.model.yolov4_tiny import YOLOv4Tiny

CONF = Path(__file__).parents[2] / "conf" / "model"
CONFIGS = {"YOLOv4": YOLOv4, "YOLOv4Tiny": YOLOv4Tiny}


def small_config(cls: type[DetectorConfig], **settings: Any) -> DetectorConfig:
    return cls(**{"width": 0.125, "depth": 0.33, "anchors_at_px": 416, **settings})


def parameters(detector: Detector) -> int:
    return sum(parameter.numel() for parameter in detector.parameters())


@pytest.mark.parametrize(
    ("cls", "expected", "convs"), [(YOLOv4, 63_948_456, 110), (YOLOv4Tiny, 5_878_736, 21)]
)
def test_full_size_counts(cls: type[DetectorConfig], expected: int, convs: int) -> None:
    config = cls()
    with torch.device("meta"):
        detector = config.network(config.head_layout(3, 416))
    assert parameters(detector) == expected
    assert len(detector.darknet_convs()) == convs


@pytest.mark.parametrize("cls", [YOLOv4, YOLOv4Tiny])
@pytest.mark.parametrize("depth", [0.33, 1.0, 1.6])
def test_every_tensor_belongs_to_exactly_one_listed_convolution(
    cls: type[DetectorConfig], depth: float
) -> None:
    detector = small_config(cls, depth=depth).build(2, 64, 0)
    listed = [live.data_ptr() for slot in detector.darknet_convs() for _, live in slot.tensors()]
    keys = [key for slot in detector.darknet_convs() for key, _ in slot.tensors()]
    assert sorted(listed) == sorted(tensor.data_ptr() for tensor in detector.state_dict().values())
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("cls", [YOLOv4, YOLOv4Tiny])
def test_head_shapes(cls: type[DetectorConfig]) -> None:
    config = small_config(cls)
    detector = config.build(4, 96, 0)
    outputs = detector(torch.rand(2, 3, 96, 160))
    expected = [(2, anchors * 9, rows, columns) for anchors, rows, columns in detector.layout.shapes(96, 160)]
    assert [tuple(output.shape) for output in outputs] == expected
    assert list(config.strides) == [96 // output.shape[2] for output in outputs]


def test_layout_of_the_published_networks() -> None:
    layout = YOLOv4().head_layout(3, 416)
    assert layout.masks == ((6, 7, 8), (3, 4, 5), (0, 1, 2))
    assert layout.anchors_px[0] == (12, 16) and layout.anchors_px[8] == (459, 401)
    tiny = YOLOv4Tiny().head_layout(3, 416)
    assert tiny.masks == ((3, 4, 5), (1, 2, 3)) and tiny.anchors_px[3] == (81, 82)


def test_anchors_scale_with_the_input_only_when_asked() -> None:
    assert YOLOv4(anchors_at_px=416).head_layout(1, 832).anchors_px[1] == (38, 72)
    assert YOLOv4(anchors_at_px=None).head_layout(1, 832).anchors_px[1] == (19, 36)


def test_activations_are_mish_in_the_backbone_and_leaky_elsewhere() -> None:
    for slot in small_config(YOLOv4).build(1, 64, 0).darknet_convs():
        if isinstance(slot.block, ConvBNAct):
            assert slot.block.activation == ("mish" if slot.key.startswith("backbone.") else "leaky")
    for slot in small_config(YOLOv4Tiny).build(1, 64, 0).darknet_convs():
        assert not isinstance(slot.block, ConvBNAct) or slot.block.activation == "leaky"


@pytest.mark.parametrize("cls", [YOLOv4, YOLOv4Tiny])
def test_initial_weights_are_a_function_of_the_seed(cls: type[DetectorConfig]) -> None:
    config = small_config(cls)
    torch.manual_seed(1)
    first = config.build(3, 64, 5).state_dict()
    torch.manual_seed(2)
    before = torch.random.get_rng_state()
    again, other = config.build(3, 64, 5).state_dict(), config.build(3, 64, 6).state_dict()
    assert torch.equal(before, torch.random.get_rng_state()), "the global generator was used"
    assert all(torch.equal(first[key], again[key]) for key in first)
    kernels = [key for key, value in first.items() if value.ndim == 4]
    assert not any(torch.equal(first[key], other[key]) for key in kernels)
    assert all(value.isfinite().all() for value in first.values())


def test_networks_of_other_classes_share_all_but_the_last_layers() -> None:
    one, two = (small_config(YOLOv4).build(classes, 64, 0).state_dict() for classes in (1, 2))
    different = {key for key in one if not torch.equal(one[key], two[key])}
    assert different == {f"heads.{i}.predict.{name}" for i in range(3) for name in ("weight", "bias")}


def test_initial_scale() -> None:
    """He's scale for the kernels, a small one for the heads' last layers, nothing in batch norm."""
    for slot in YOLOv4Tiny().build(3, 96, 0).darknet_convs():
        weight = slot.conv.weight
        expected = 0.01 if slot.ends_head else (2 / weight[0].numel()) ** 0.5
        # The sample's standard deviation of n normal numbers is off by 1 / sqrt(2 n); five times that.
        assert weight.std().item() == pytest.approx(expected, rel=5 / (2 * weight.numel()) ** 0.5)
        if slot.norm is not None:
            assert (slot.norm.weight == 1).all() and (slot.norm.bias == 0).all()
            tensors = dict(slot.tensors())
            assert (tensors[f"{slot.key}.bn.running_mean"] == 0).all()
            assert (tensors[f"{slot.key}.bn.running_var"] == 1).all()
            assert slot.norm.eps == 1e-5 and slot.norm.momentum == 0.1


@pytest.mark.parametrize("prior", [0.01, 0.3, None])
def test_prior_is_the_objectness_that_every_cell_starts_with(prior: float | None) -> None:
    for slot in small_config(YOLOv4, prior=prior).build(2, 64, 0).darknet_convs():
        if slot.ends_head:
            assert slot.conv.bias is not None
            bias = slot.conv.bias.detach().view(3, 7)
            expected = 0.5 if prior is None else prior
            assert bias[:, 4].sigmoid().tolist() == pytest.approx([expected] * 3)
            assert (bias[:, [0, 1, 2, 3, 5, 6]] == 0).all()


@pytest.mark.parametrize("cls", [YOLOv4, YOLOv4Tiny])
def test_images_of_a_batch_do_not_see_each_other_in_eval_mode(cls: type[DetectorConfig]) -> None:
    detector = small_config(cls, width=0.25).build(3, 64, 0).eval()
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        both, single = detector(images), detector(images[1:])
    for a, b in zip(both, single, strict=True):
        torch.testing.assert_close(a[1:], b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("cls", [YOLOv4, YOLOv4Tiny])
def test_every_parameter_gets_a_gradient(cls: type[DetectorConfig]) -> None:
    detector = small_config(cls).build(3, 64, 0)
    outputs = detector(torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    torch.stack([output.square().sum() for output in outputs]).sum().backward()
    for name, parameter in detector.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0 or name.endswith("bn.bias"), name


@pytest.mark.parametrize("cls", [YOLOv4, YOLOv4Tiny])
def test_a_frozen_backbone_does_not_move_and_thaws(cls: type[DetectorConfig]) -> None:
    detector = small_config(cls).build(3, 64, 0)
    detector.freeze_backbone(True)
    detector.train()
    backbone, neck = (copy.deepcopy(part.state_dict()) for part in (detector.backbone, detector.neck))

    def step() -> None:
        optimizer = torch.optim.SGD([p for p in detector.parameters() if p.requires_grad], lr=0.1)
        outputs = detector(torch.rand(2, 3, 64, 64))
        torch.stack([output.square().mean() for output in outputs]).sum().backward()
        optimizer.step()

    step()
    assert all(torch.equal(value, backbone[key]) for key, value in detector.backbone.state_dict().items())
    assert not any(
        torch.equal(value, neck[key])
        for key, value in detector.neck.state_dict().items()
        if key.endswith(("running_mean", "conv.weight"))
    )
    detector.eval()
    detector.freeze_backbone(False)
    assert not detector.training and not detector.backbone.training
    detector.train()
    step()
    moved = detector.backbone.state_dict()
    assert all(not torch.equal(moved[key], backbone[key]) for key in moved if key.endswith("running_mean"))


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"width": 0.0}, "width"),
        ({"depth": -1.0}, "depth"),
        ({"prior": 1.0}, "prior"),
        ({"prior": 0.0}, "prior"),
        ({"anchors_at_px": 0}, "anchors_at_px"),
        ({"anchors_px": [1.0, 2.0]}, "18 numbers"),
        ({"anchors_px": [1.0] * 17 + [0.0]}, "above 0"),
        ({"anchors_px": [1.0] * 17 + [float("nan")]}, "above 0"),
        ({"scale_xy": [1.0, 1.0]}, "scale_xy"),
        ({"scale_xy": [1.0, 1.0, 0.5]}, "scale_xy"),
    ],
)
def test_settings_out_of_range_are_named(settings: dict[str, Any], names: str) -> None:
    with pytest.raises(ValueError, match=names) as caught:
        YOLOv4(**settings)
    assert str(caught.value).startswith(next(iter(settings))) and "\n" not in str(caught.value)


@pytest.mark.parametrize(("classes", "size_px", "names"), [(3, 100, "multiple of 32"), (0, 96, "class")])
def test_impossible_inputs_are_refused(classes: int, size_px: int, names: str) -> None:
    with pytest.raises(UsageError, match=names):
        YOLOv4().build(classes, size_px, 0)


@pytest.mark.parametrize("path", sorted(CONF.glob("*.yaml")), ids=lambda path: path.stem)
def test_configuration_files_name_every_setting(path: Path) -> None:
    values = dict(OmegaConf.load(path).items())
    cls = CONFIGS[values.pop("_target_").rpartition(".")[2]]
    assert set(values) == {field.name for field in dataclasses.fields(cls)}
    config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(cls), values))
    assert isinstance(config, cls)
    assert config.anchors_px == cls().anchors_px and config.prior == 0.01
    if path.stem in ("yolov4", "yolov4_tiny"):
        assert config == cls()
    for line in path.read_text().splitlines():
        assert not line[:1].isalpha() or "#" in line, f"no comment: {line}"
