"""Sources that name their own code, written by the packages that people write them with."""

import copy
import importlib
import json
import logging
import shutil
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn
from torch.export import Dim

from benchmarks.torchvision_operators import register_torchvision
from conversion.sources import named_code
from conversion.sources.packages import quiet
from unet_core import CheckpointError
from unet_core.checkpoints import torch_file
from unet_core.errors import MissingFrameworkError, UNetError
from unet_torch.contents import opened


class Small(nn.Module):
    """Every kind of tensor: parameters, statistics, a counter, a buffer, one that is not saved, one that is unused."""

    def __init__(self):
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Dropout2d(0.3))
        self.out = nn.Conv2d(6, 3, 1)
        self.unused = nn.Linear(2, 2)
        self.register_buffer("scale", torch.tensor([1.5]))
        self.register_buffer("shift", torch.tensor([0.25]), persistent=False)

    def forward(self, x):
        y = nn.functional.max_pool2d(torch.relu(self.down(x)), 2)
        y = nn.functional.interpolate(y, size=x.shape[2:], mode="bilinear", align_corners=True)
        return self.out(torch.cat([y * self.scale + self.shift, x], 1))


def disturbed(module):
    """The module in eval mode, with weights and statistics that no constructor gives."""
    generator = torch.Generator().manual_seed(1)
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point():
            noise = torch.rand(tensor.shape, generator=generator)
            tensor.add_(noise if name.endswith("running_var") else (noise - 0.5) / 4)
        elif name.endswith("num_batches_tracked"):
            tensor.fill_(7)
    return module.eval()


def same(named, module, sizes=(), batch=2):
    """The module of a source answers bit for bit as the one that was saved, and has its tensors in their order."""
    mine, theirs = named.module.state_dict(), module.state_dict()
    assert list(mine) == list(theirs)
    assert all(torch.equal(mine[name], theirs[name]) and mine[name].dtype == theirs[name].dtype for name in theirs)
    parameters = [name for name, _ in named.module.named_parameters(remove_duplicate=False)]
    assert parameters == [name for name, _ in module.named_parameters(remove_duplicate=False)]
    for size in (named.size, *sizes):
        x = torch.randn(batch, named.in_channels, *size)
        with torch.no_grad():
            x = x.to(named.example().dtype)
            answer, wanted = named.module(x), module(x)
        assert torch.equal(answer, wanted)
    assert not named.module.training
    assert all(path.is_file() for path in named.files)
    return True


def one_line(caught):
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def refused(path, match, **options):
    with pytest.raises(UNetError, match=match) as caught:
        named_code(path, **options)
    assert str(path) in one_line(caught)


def edited(path, change):
    """Change the settings in a JSON file."""
    settings = json.loads(path.read_text())
    change(settings)
    path.write_text(json.dumps(settings))


# segmentation_models_pytorch


@pytest.fixture(scope="module")
def smp():
    register_torchvision()
    with quiet():
        return pytest.importorskip("segmentation_models_pytorch")


@pytest.fixture(scope="module")
def smp_saved(smp, tmp_path_factory):
    options = {"encoder_weights": None, "decoder_channels": (8, 8, 4, 4, 4), "in_channels": 2, "classes": 3}
    module = disturbed(smp.Unet("tu-test_efficientnet", **options))
    folder = tmp_path_factory.mktemp("smp") / "unet"
    module.save_pretrained(folder)
    return folder, module


@pytest.fixture
def smp_folder(smp_saved, tmp_path):
    folder, module = smp_saved
    return shutil.copytree(folder, tmp_path / "unet"), module


def test_a_folder_of_segmentation_models(smp_folder):
    folder, module = smp_folder
    named = named_code(folder)
    assert same(named, module, [(32, 96)])
    assert (named.in_channels, named.dimensions) == (2, 2)
    assert named.source.startswith("segmentation_models_pytorch.Unet, segmentation-models-pytorch ")


def test_its_file_of_weights_is_as_good(smp_folder):
    folder, module = smp_folder
    assert same(named_code(folder / "model.safetensors"), module)


def test_its_weights_in_a_pickle(smp_folder):
    folder, module = smp_folder
    (folder / "model.safetensors").unlink()
    torch.save(module.state_dict(), folder / "pytorch_model.bin")
    assert same(named_code(folder), module)


def test_dtypes_are_kept(smp_folder):
    folder, module = smp_folder
    module = copy.deepcopy(module).to(torch.bfloat16)
    module.save_pretrained(folder)
    assert same(named_code(folder), module)


def test_the_encoders_own_weights_are_not_fetched(smp_folder, monkeypatch):
    import socket

    folder, module = smp_folder
    edited(folder / "config.json", lambda config: config.update(encoder_weights="imagenet"))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: pytest.fail("somebody asks the network"))
    assert same(named_code(folder), module)


def test_a_random_state_is_left_as_it_was(smp_folder):
    before = torch.get_rng_state()
    named_code(smp_folder[0])
    assert torch.equal(before, torch.get_rng_state())


BAD_CONFIGS = {
    "no JSON": (lambda path: path.write_text("{"), "not sound"),
    "a list": (lambda path: path.write_text("[]"), "holds a list"),
    "nested without end": (lambda path: path.write_text('{"a":' * 100_000), "not sound"),
    "no class": (lambda path: edited(path, lambda config: config.pop("_model_class")), "names no class"),
    "a class that is a number": (lambda path: edited(path, lambda config: config.update(_model_class=3)), "not a str"),
    "a class of nobody": (
        lambda path: edited(path, lambda config: config.update(_model_class="Net")),
        "has no network",
    ),
    "a function": (lambda path: edited(path, lambda config: config.update(_model_class="create_model")), "no network"),
    "a module": (lambda path: edited(path, lambda config: config.update(_model_class="encoders")), "has no network"),
    "an encoder elsewhere": (
        lambda path: edited(path, lambda config: config.update(encoder_name="tu-hf-canonical:some/one")),
        "is no name of an encoder",
    ),
    "an unknown encoder": (
        lambda path: edited(path, lambda config: config.update(encoder_name="vgg99")),
        "cannot be built",
    ),
    "a file to load": (
        lambda path: edited(path, lambda config: config.update(checkpoint_path="evil.pth")),
        "checkpoint_path is no argument of Unet",
    ),
    "a huge width": (
        lambda path: edited(path, lambda config: config.update(decoder_channels=[10**6] * 5)),
        "far larger than its weights",
    ),
    "a number beyond all": (lambda path: edited(path, lambda config: config.update(classes=10**9)), "no network has"),
    "a wrong width": (
        lambda path: edited(path, lambda config: config.update(decoder_channels=[8, 8, 4, 4, 5])),
        r"wrong shape: decoder.blocks.4.conv1.0.weight is \(4, 4, 3, 3\), not \(5, 4, 3, 3\)",
    ),
    "another encoder": (
        lambda path: edited(path, lambda config: config.update(encoder_name="tu-test_efficientnet_gn")),
        "not of this network: encoder.model.blocks.0.0.bn1.num_batches_tracked",
    ),
}


@pytest.mark.parametrize(("spoil", "match"), BAD_CONFIGS.values(), ids=BAD_CONFIGS)
def test_a_bad_config(smp_folder, spoil, match):
    folder, _ = smp_folder
    spoil(folder / "config.json")
    refused(folder, match)


def test_no_weights_beside_a_config_is_no_source(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    assert named_code(tmp_path) is None


def test_a_fold_is_for_nnunet(smp_folder):
    refused(smp_folder[0], "has no folds", nnunet_fold=1)


# nnU-Net


@pytest.fixture(scope="module")
def architectures():
    return pytest.importorskip("dynamic_network_architectures.architectures.unet")


def plans(dimensions, network="PlainConvUNet", stages=3):
    """Plans of today's format; the same numbers in the old one."""
    patch, kernel = [32, 32, 32][:dimensions], [3] * dimensions
    strides = [[1] * dimensions] + [[2] * dimensions] * (stages - 1)
    features = [min(4 * 2**stage, 8) for stage in range(stages)]
    per_stage = "n_conv_per_stage" if network == "PlainConvUNet" else "n_blocks_per_stage"
    arguments = {
        "n_stages": stages,
        "features_per_stage": features,
        "conv_op": f"torch.nn.modules.conv.Conv{dimensions}d",
        "kernel_sizes": [kernel] * stages,
        "strides": strides,
        per_stage: [2] * stages,
        "n_conv_per_stage_decoder": [1] * (stages - 1),
        "conv_bias": True,
        "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dimensions}d",
        "norm_op_kwargs": {"eps": 1e-05, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }
    new = {
        "patch_size": patch,
        "architecture": {
            "network_class_name": f"dynamic_network_architectures.architectures.unet.{network}",
            "arch_kwargs": arguments,
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
    }
    old = {
        "patch_size": patch,
        "UNet_class_name": network,
        "UNet_base_num_features": 4,
        "unet_max_num_features": 8,
        "n_conv_per_stage_encoder": [2] * stages,
        "n_conv_per_stage_decoder": [1] * (stages - 1),
        "pool_op_kernel_sizes": strides,
        "conv_kernel_sizes": [kernel] * stages,
    }
    return new, old, arguments


LABELS = {"background": 0, "edge": 1, "core": 2}
REGIONS = {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3}


def nnunet_folder(folder, architectures, *, dimensions=2, network="PlainConvUNet", old=False, classes=3, channels=2):
    """A model folder of the layout of nnU-Net v2, and the network as its predictor builds it."""
    from pydoc import locate

    new, old_plans, arguments = plans(dimensions, network)
    folder.mkdir()
    configuration = old_plans if old else new
    written = {"plans_name": "nnUNetPlans", "configurations": {"2d": configuration, "small": {"inherits_from": "2d"}}}
    (folder / "plans.json").write_text(json.dumps(written))
    dataset = {"channel_names": {str(index): "CT" for index in range(channels)}, "labels": LABELS}
    (folder / "dataset.json").write_text(json.dumps(dataset))
    located = {
        name: locate(value) if isinstance(value, str) and value.startswith("torch.") else value
        for name, value in arguments.items()
    }
    ends = {"input_channels": channels, "num_classes": classes, "deep_supervision": False}
    module = disturbed(getattr(architectures, network)(**ends, **located))
    for fold in range(2):
        nnunet_fold(folder, fold, module, written, dataset)
    return module


def nnunet_fold(folder, fold, module, written, dataset, name="checkpoint_final.pth", **more):
    (folder / f"fold_{fold}").mkdir(exist_ok=True)
    optimizer = torch.optim.SGD(module.parameters(), 0.01, momentum=0.99, nesterov=True)
    losses = [np.float32(0.5), np.float64(0.25)]
    checkpoint = {
        "network_weights": module.state_dict(),
        "optimizer_state": optimizer.state_dict(),
        "grad_scaler_state": None,
        "logging": {"train_losses": losses, "dice_per_class_or_region": [losses], "array": np.zeros(3)},
        "_best_ema": np.float64(0.5),
        "current_epoch": 1000,
        "init_args": {"plans": written, "configuration": "2d", "fold": fold, "device": torch.device("cuda")},
        "trainer_name": "nnUNetTrainer",
        "inference_allowed_mirroring_axes": (0, 1),
    }
    torch.save(checkpoint | more, folder / f"fold_{fold}" / name)


@pytest.mark.parametrize("old", [False, True], ids=["plans of today", "plans of before"])
@pytest.mark.parametrize(
    ("dimensions", "network"), [(2, "PlainConvUNet"), (3, "PlainConvUNet"), (2, "ResidualEncoderUNet")]
)
def test_a_folder_of_nnunet(tmp_path, architectures, dimensions, network, old):
    folder = tmp_path / "nnUNetTrainer__nnUNetPlans__2d"
    module = nnunet_folder(folder, architectures, dimensions=dimensions, network=network, old=old)
    named = named_code(folder)
    assert same(named, module)
    assert (named.in_channels, named.dimensions, named.usual) == (2, dimensions, (32,) * dimensions)
    assert named.name == f"dynamic_network_architectures.architectures.unet.{network}"
    assert "fold 0 of 2, checkpoint_final.pth; --nnunet-fold chooses" in named.notes


@pytest.fixture(scope="module")
def nnunet_saved(tmp_path_factory, architectures):
    folder = tmp_path_factory.mktemp("nnunet") / "nnUNetTrainer__nnUNetPlans__2d"
    return folder, nnunet_folder(folder, architectures)


@pytest.fixture
def nnunet(nnunet_saved, tmp_path):
    folder, module = nnunet_saved
    return shutil.copytree(folder, tmp_path / folder.name), module


@pytest.mark.parametrize("fold", [1, "1", "fold_1"])
def test_another_fold(nnunet, fold):
    folder, module = nnunet
    module = copy.deepcopy(module)
    nn.init.constant_(module.decoder.seg_layers[-1].bias, 3.0)
    nnunet_fold(folder, 1, module, {}, {})
    assert same(named_code(folder, nnunet_fold=fold), module)
    assert not torch.equal(named_code(folder).module.decoder.seg_layers[-1].bias, module.decoder.seg_layers[-1].bias)


def test_a_file_in_a_fold(nnunet):
    folder, module = nnunet
    named = named_code(folder / "fold_1" / "checkpoint_final.pth")
    assert same(named, module)
    assert "fold_1, checkpoint_final.pth" in named.notes


def test_the_best_checkpoint_where_there_is_no_final_one(nnunet):
    folder, _ = nnunet
    (folder / "fold_0" / "checkpoint_final.pth").rename(folder / "fold_0" / "checkpoint_best.pth")
    assert any("checkpoint_best.pth" in note for note in named_code(folder).notes)


def test_the_folders_name_tells_the_configuration(nnunet):
    folder, module = nnunet
    nnunet_fold(folder, 0, module, {}, {}, init_args={})
    assert "configuration 2d" in named_code(folder).notes


def test_a_configuration_that_inherits(nnunet):
    folder, module = nnunet
    nnunet_fold(folder, 0, module, {}, {}, init_args={"configuration": "small"})
    assert same(named_code(folder), module)


def test_numpys_numbers_are_read(nnunet):
    path = nnunet[0] / "fold_0" / "checkpoint_final.pth"
    with torch.serialization.safe_globals([]):
        wanted = torch.load(path, weights_only=False)["_best_ema"]
    assert isinstance(wanted, np.generic)
    assert opened(path)["_best_ema"] == wanted.item()


def test_a_trainer_of_ones_own_is_told(nnunet):
    folder, module = nnunet
    nnunet_fold(folder, 0, module, {}, {}, trainer_name="nnUNetTrainerMine")
    assert any("trained by nnUNetTrainerMine" in note for note in named_code(folder).notes)


def test_regions_count_without_the_background_and_what_is_ignored(nnunet, architectures, tmp_path):
    module = nnunet_folder(tmp_path / "a__b__2d", architectures, classes=2)
    edited(tmp_path / "a__b__2d" / "dataset.json", lambda dataset: dataset.update(labels=REGIONS))
    assert same(named_code(tmp_path / "a__b__2d"), module)


def test_the_second_stage_of_a_cascade_takes_the_firsts_labels(architectures, tmp_path):
    folder = tmp_path / "a__b__2d"
    module = nnunet_folder(folder, architectures, channels=4)
    edited(folder / "dataset.json", lambda dataset: dataset.update(channel_names={"0": "CT", "1": "PET"}))
    edited(folder / "plans.json", lambda plans: plans["configurations"]["2d"].update(previous_stage="low"))
    named = named_code(folder)
    assert same(named, module)
    assert named.in_channels == 4


def architecture(**given):
    return lambda plans: plans["configurations"]["2d"]["architecture"].update(given)


def argument(**given):
    return lambda plans: plans["configurations"]["2d"]["architecture"]["arch_kwargs"].update(given)


BAD_PLANS = {
    "no configurations": (lambda plans: plans.pop("configurations"), "lacks configurations"),
    "not this one": (lambda plans: plans["configurations"].pop("2d"), "has no configuration 2d; it has small"),
    "inherits from itself": (lambda plans: plans["configurations"]["2d"].update(inherits_from="2d"), "for ever"),
    "inherits from a list": (lambda plans: plans["configurations"]["2d"].update(inherits_from=[]), "for ever"),
    "a class of one's own": (architecture(network_class_name="mine.Net"), "not of dynamic_network_architectures"),
    "a class of Python": (architecture(network_class_name="os.system"), "not of dynamic_network_architectures"),
    "a path that is none": (architecture(network_class_name="a/../b.Net"), "is no name of a class"),
    "no such module": (
        architecture(network_class_name="dynamic_network_architectures.nowhere.Net"),
        "has no module dynamic_network_architectures.nowhere",
    ),
    "a module beside the class": (
        architecture(network_class_name="dynamic_network_architectures.architectures.unet.torch"),
        "there is no",
    ),
    "a function to import": (argument(conv_op="builtins.exec"), "builtins.exec is not of"),
    "a class of torch that is none": (argument(conv_op="torch.nn.init"), "there is no torch.nn.init"),
    "an import of nothing": (architecture(_kw_requires_import=["nowhere"]), "nowhere is to be imported"),
    "an import that is a number": (argument(norm_op=3), "is no name of a class"),
    "no arguments": (architecture(arch_kwargs=[]), "arch_kwargs is .*, not a dict"),
    "an unknown argument": (argument(wings=2), "cannot be built"),
    "stages without end": (argument(n_stages=10**12), "n_stages is 1000000000000, such as no network has"),
    "a stage too many": (argument(n_stages=4), "cannot be built"),
    "blocks without end": (argument(n_conv_per_stage=[10**6] * 3), "far larger than its weights"),
    "wide beyond all": (argument(features_per_stage=[10**6] * 3), "far larger than its weights"),
    "a width too many": (
        argument(features_per_stage=[4, 8, 9]),
        "wrong shape: .*encoder.stages.2.0.convs.0.conv.weight",
    ),
    "a stride that is none": (argument(strides=[[1, 1], [2, 2], [2, None]]), r"the stride \[2, None\] is none in 2-D"),
    "a stride of another dimension": (argument(strides=[[1] * 3, [2] * 3, [2] * 3]), "is none in 2-D"),
    "a patch of one axis": (lambda plans: plans["configurations"]["2d"].update(patch_size=[3]), "not a size in 2-D"),
}


@pytest.mark.parametrize(("spoil", "match"), BAD_PLANS.values(), ids=BAD_PLANS)
def test_bad_plans(nnunet, monkeypatch, spoil, match):
    monkeypatch.setattr("conversion.sources.building._MOST_STEPS", 1000)  # the network has 100
    folder, _ = nnunet
    edited(folder / "plans.json", spoil)
    with pytest.raises(CheckpointError, match=match) as caught:
        named_code(folder)
    assert str(folder) in one_line(caught)


BAD_DATASETS = {
    "no channels": ({"channel_names": {}}, "lacks channel_names"),
    "no labels": ({"labels": {}}, "has no labels"),
    "labels that are none": ({"labels": {"a": "b"}}, "the label a is 'b'"),
    "another number of labels": ({"labels": {"background": 0, "a": 1}}, "wrong shape: decoder.seg_layers"),
}


@pytest.mark.parametrize(("given", "match"), BAD_DATASETS.values(), ids=BAD_DATASETS)
def test_a_bad_dataset(nnunet, given, match):
    folder, _ = nnunet
    edited(folder / "dataset.json", lambda dataset: dataset.update(given))
    refused(folder, match)


def test_a_fold_that_is_not_there(nnunet):
    refused(nnunet[0], "has no fold 7; there are: 0, 1", nnunet_fold=7)
    refused(nnunet[0], "has no fold ../0; there are: 0, 1", nnunet_fold="../0")


def test_a_folder_of_nnunet_that_lacks_a_part(nnunet):
    folder, module = nnunet
    nnunet_fold(folder, 0, module, {}, {}, init_args={})
    renamed = folder.rename(folder.with_name("mine"))
    refused(renamed, "neither its checkpoint nor its name tells which configuration it is")
    (renamed / "fold_0" / "checkpoint_final.pth").unlink()
    refused(renamed, "fold_0: has no checkpoint_final.pth or checkpoint_best.pth", nnunet_fold=0)
    for fold in renamed.glob("fold_*"):
        shutil.rmtree(fold)
    refused(renamed, "has no fold_0 or other fold beside its plans")


def test_a_tensor_that_is_two_in_the_file(nnunet):
    folder, module = nnunet
    state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    state["encoder.stages.0.0.convs.0.conv.weight"] += 1
    nnunet_fold(folder, 0, module, {}, {}, network_weights=state)
    refused(folder, "one tensor in the network, but two in the file: .*encoder.stages.0.0.convs.0.all_modules.0.weight")


@pytest.mark.parametrize(
    ("more", "match"),
    [
        ({"network_weights": 3}, "lacks network_weights"),
        ({"network_weights": {}}, "holds no weights"),
        ({"network_weights": {"a": 1}}, "holds no weights, or others beside them: a"),
        ({"init_args": {"configuration": "x"}}, "has no configuration x"),
    ],
)
def test_a_bad_checkpoint_of_nnunet(nnunet, more, match):
    folder, module = nnunet
    nnunet_fold(folder, 0, module, {}, {}, **more)
    refused(folder, match)


# MONAI


@pytest.fixture(scope="module")
def nets():
    with quiet():
        pytest.importorskip("monai")
        from monai.networks import nets
    return nets


def described(**given):
    network = {
        "_target_": "UNet",
        "spatial_dims": "@dims",
        "in_channels": 1,
        "out_channels": "@classes::number",
        "channels": [4, 8, "@widths#1"],
        "strides": [2, 2],
        "num_res_units": 1,
        "norm": "batch",
    }
    return {
        "imports": ["$import glob"],
        "dims": 2,
        "widths": [4, 8],
        "classes": {"number": "@count"},
        "count": 3,
        "network_def": network | given,
        "network": "$@network_def.to(@device)",
    }


def bundle_folder(folder, module, config, metadata=None, file="inference.json"):
    for name in ("configs", "models"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "configs" / file).write_text(json.dumps(config))
    (folder / "configs" / "metadata.json").write_text(json.dumps(metadata or {}))
    torch.save(module.state_dict(), folder / "models" / "model.pt")
    return folder


@pytest.fixture
def monai_unet(nets):
    return disturbed(nets.UNet(2, 1, 3, channels=(4, 8, 8), strides=(2, 2), num_res_units=1, norm="batch"))


METADATA = {
    "monai_version": "1.2.0",
    "network_data_format": {"inputs": {"image": {"num_channels": 1, "spatial_shape": [96, 96]}}},
}


@pytest.mark.parametrize(
    ("target", "file"),
    [
        ("UNet", "inference.json"),
        ("monai.networks.nets.UNet", "train.json"),
        ("monai.networks.nets.unet.UNet", "inference.yaml"),
    ],
)
def test_a_bundle(tmp_path, monai_unet, target, file):
    folder = bundle_folder(tmp_path / "bundle", monai_unet, described(_target_=target), METADATA, file)
    named = named_code(folder)
    assert same(named, monai_unet)
    assert (named.in_channels, named.dimensions, named.usual) == (1, 2, (96, 96))
    assert f"as {file} describes it" in named.notes
    assert any(note.startswith("written with monai 1.2.0; ") for note in named.notes)


def test_a_bundle_in_three_dimensions(tmp_path, nets):
    module = disturbed(nets.SegResNet(3, 8, 2, 3, blocks_down=(1, 1), blocks_up=(1,)))
    network = {"_target_": "SegResNet", "init_filters": 8, "in_channels": 2, "out_channels": 3}
    network |= {"blocks_down": [1, 1], "blocks_up": [1]}
    named = named_code(bundle_folder(tmp_path / "bundle", module, {"network_def": network}))
    assert same(named, module)
    assert (named.in_channels, named.dimensions) == (2, 3)


def test_the_weights_of_a_bundle(tmp_path, monai_unet):
    folder = bundle_folder(tmp_path / "bundle", monai_unet, described())
    torch.save({"model": monai_unet.state_dict()}, folder / "models" / "other.pt")
    assert same(named_code(folder / "models" / "other.pt"), monai_unet)


class Pretrained(Small):
    def __init__(self, pretrained=True, weights="IMAGENET", pretrained_url=None):
        assert (pretrained, weights, pretrained_url) == (False, None, None)
        super().__init__()


@pytest.mark.parametrize("given", [{}, {"pretrained": True, "weights": "COCO", "pretrained_url": "elsewhere"}])
def test_what_a_class_would_download_is_off(tmp_path, nets, monkeypatch, given):
    monkeypatch.setattr(nets, "Pretrained", Pretrained, raising=False)
    config = {"network_def": {"_target_": "Pretrained"} | given}
    module = disturbed(Small())
    assert same(named_code(bundle_folder(tmp_path / "bundle", module, config)), module)


BAD_BUNDLES = {
    "no network": (lambda config: config.pop("network_def"), "lacks network_def"),
    "no class": (lambda config: config["network_def"].pop("_target_"), "lacks _target_"),
    "a class of Python": (lambda config: config["network_def"].update(_target_="os.system"), "is no network of monai"),
    "a function": (lambda config: config["network_def"].update(_target_="monai.networks.nets.resnet50"), "no network"),
    "an expression": (lambda config: config.update(count="$1 + 2"), r"needs \$1 \+ 2, which is code: .* --trust"),
    "a macro": (lambda config: config.update(count="%other.json::count"), "which is code"),
    "a component": (
        lambda config: config["network_def"].update(act={"_target_": "torch.nn.ReLU"}),
        "needs an object of torch.nn.ReLU, which is code",
    ),
    "a reference to nothing": (lambda config: config.pop("widths"), "refers to @widths#1, which is not there"),
    "a reference to itself": (lambda config: config.update(count="@classes::number"), "refers to itself"),
    "references without end": (
        lambda config: config.update({"count": ["@a0"] * 9} | {f"a{n}": [f"@a{n + 1}"] * 9 for n in range(9)}, a9=1),
        "more values than any network has",
    ),
    "a wrong width": (lambda config: config.update(widths=[4, 9]), "wrong shape: model.1.submodule"),
    "an unknown argument": (lambda config: config["network_def"].update(wings=2), "UNet cannot be built"),
}


@pytest.mark.parametrize(("spoil", "match"), BAD_BUNDLES.values(), ids=BAD_BUNDLES)
def test_a_bad_bundle(tmp_path, monai_unet, spoil, match):
    config = described()
    spoil(config)
    refused(bundle_folder(tmp_path / "bundle", monai_unet, config), match)


def test_an_expression_runs_for_those_who_trust_it(tmp_path, monai_unet):
    folder = bundle_folder(tmp_path / "bundle", monai_unet, described() | {"count": "$1 + 2"})
    assert same(named_code(folder, trust=True), monai_unet)


def test_a_bundle_without_weights(tmp_path, monai_unet):
    folder = bundle_folder(tmp_path / "bundle", monai_unet, described())
    (folder / "models" / "model.pt").unlink()
    refused(folder, "is missing")


# torch.export

DYNAMIC = ({0: Dim.AUTO, 2: Dim.AUTO, 3: Dim.AUTO},)


def export(path, module, dynamic=DYNAMIC, size=(24, 16), batch=2):
    program = torch.export.export(module, (torch.randn(batch, 2, *size),), dynamic_shapes=dynamic, strict=False)
    torch.export.save(program, path)
    return program


@pytest.fixture(scope="module")
def exported_saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "net.pt2"
    module = disturbed(Small())
    export(path, module)
    return path, module


@pytest.fixture
def exported(exported_saved, tmp_path):
    path, module = exported_saved
    return Path(shutil.copy(path, tmp_path)), module


@pytest.fixture(scope="module")
def exported_named(exported_saved):
    """The archive as it is read, by tests that leave it as it is."""
    return named_code(exported_saved[0])


def test_an_archive_of_torch_export(exported_saved, exported_named):
    _, module = exported_saved
    named = exported_named
    assert same(named, module, [(17, 31), (40, 8)], batch=3)
    assert (named.in_channels, named.size) == (2, (24, 16))


def test_a_tensor_with_two_names_keeps_both(tmp_path):
    module = Small()
    module.again = module.down
    module = disturbed(module)
    export(tmp_path / "net.pt2", module)
    named = named_code(tmp_path / "net.pt2")
    assert same(named, module)


def test_an_archive_can_be_exported_again(exported_saved, exported_named):
    (_, module), named = exported_saved, exported_named
    again = torch.export.export(named.module, (named.example(2),), dynamic_shapes=DYNAMIC, strict=False)
    assert sorted(again.state_dict) == sorted(module.state_dict())
    x = torch.randn(1, 2, 20, 37)
    assert torch.equal(again.module()(x), module(x))


def test_an_archive_in_double_precision(exported_saved, exported_named):
    x = torch.randn(1, 2, 20, 37, dtype=torch.float64)
    mine, theirs = copy.deepcopy(exported_named.module).double(), copy.deepcopy(exported_saved[1]).double()
    assert torch.equal(mine(x), theirs(x))
    with pytest.raises(AssertionError, match="Guard failed"):
        mine(torch.randn(1, 2, 2, 2, dtype=torch.float64))


@pytest.mark.parametrize("batch", [1, 2])
def test_sizes_that_were_fixed_stay_fixed_and_the_batch_does_not(tmp_path, batch):
    module = disturbed(Small())
    export(tmp_path / "net.pt2", module, dynamic=None, batch=batch)
    named = named_code(tmp_path / "net.pt2")
    assert same(named, module, batch=3)
    assert any(note.startswith(f"recorded for a batch of {batch}; ") for note in named.notes)
    with pytest.raises(AssertionError, match="Guard failed"):
        named.module(torch.randn(2, 2, 30, 16))


class Mixing(Small):
    def forward(self, x):
        return super().forward(x - x.mean(0, keepdim=True))


class Numbered(Small):
    def forward(self, x):
        return super().forward(x.reshape(2 * x.shape[0], 1, *x.shape[2:]).reshape(x.shape))


@pytest.mark.parametrize("kind", [Mixing, Numbered])
def test_a_batch_that_is_in_the_graph_stays_fixed(tmp_path, kind):
    export(tmp_path / "net.pt2", disturbed(kind()), dynamic=None)
    refused(tmp_path / "net.pt2", "takes batches of 2 only")


class Branching(Small):
    def forward(self, x):
        return super().forward(x if x.shape[2] % 8 == 0 else -x)


def test_a_branch_on_the_size_stays_guarded(tmp_path):
    module = disturbed(Branching())
    export(tmp_path / "net.pt2", module)
    named = named_code(tmp_path / "net.pt2")
    assert same(named, module, [(32, 10)])
    with pytest.raises(AssertionError, match="Guard failed"):
        named.module(torch.randn(2, 2, 30, 16))


def test_an_archive_of_training_is_refused(tmp_path):
    export(tmp_path / "net.pt2", Small().train())
    refused(tmp_path / "net.pt2", r"exported in training mode; export model.eval\(\)")


def test_an_archive_of_two_inputs_is_refused(tmp_path):
    class Two(nn.Module):
        def forward(self, x, y):
            return x + y

    x = torch.randn(1, 2, 8, 8)
    torch.export.save(torch.export.export(Two(), (x, x)), tmp_path / "net.pt2")
    refused(tmp_path / "net.pt2", "takes x, y, not one")


def rewritten(path, change):
    """An archive with some members changed: `change(name, content)` returns the new content."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, change(name, content))


def replaced(old, new, count=-1):
    def change(name, content):
        return content.replace(old.encode(), new.encode(), count) if name.endswith(".json") else content

    return change


EVIL = "__import__('os').system('touch evil')"

EVIL_ARCHIVES = {
    "a size that is code": (replaced("Symbol('s", f"{EVIL}+Symbol('s", 1), "the expression"),
    "a size of any length": (replaced("Symbol('s", "Symbol('s'*2000000000+'", 1), "the expression"),
    "a power of a power": (replaced("Symbol('s", "9**9**9**9**9+Symbol('s", 1), "the expression"),
    "a guard that is code": (replaced('"guards_code": [', f'"guards_code": ["{EVIL}", '), "the expression"),
    "a name that is code": (replaced('"relu"', f'"{EVIL}"'), "the name"),
    "a name with a line": (replaced('"relu"', '"relu\\nimport os"'), "the name"),
    "a parameter that is code": (replaced("down.0.weight", EVIL), "(a key|the name of a tensor|as parameter_name)"),
    "a call of Python": (replaced("torch.ops.aten.relu.default", "torch.os.system"), "a call of torch.os.system"),
    "a call of torch": (replaced("torch.ops.aten.relu.default", "torch.load"), "a call of torch.load"),
    "a file that is read": (replaced("torch.ops.aten.relu.default", "torch.ops.aten.from_file.default"), "a call of"),
    "weights in a pickle": (replaced('"use_pickle": false', '"use_pickle": true'), "pickled weights"),
    "weights elsewhere": (replaced('"weight_0"', '"../../weight_0"'), "weights of another kind"),
    "an object": (replaced('"tensor_0"', '"opaque_obj_0"'), "constants of another kind"),
    "a structure of its own": (replaced("builtins.tuple", "mine.tuple"), "a structure of mine.tuple"),
}


@pytest.mark.parametrize(("change", "match"), EVIL_ARCHIVES.values(), ids=EVIL_ARCHIVES)
def test_an_archive_that_could_run_code_is_refused(tmp_path, exported, monkeypatch, caplog, change, match):
    monkeypatch.chdir(tmp_path)
    rewritten(exported[0], change)
    refused(exported[0], f"loading it could run code: it has {match}.*add --trust")
    assert [path.name for path in tmp_path.iterdir()] == ["net.pt2"]
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_the_inputs_that_an_archive_recorded_are_not_unpickled(exported):
    path, module = exported
    rewritten(path, lambda name, content: b"evil" if "sample_inputs" in name else content)
    assert same(named_code(path), module)


BAD_ARCHIVES = {
    "cut short": (lambda content: content[: len(content) // 2], "is no torch.export archive"),
    "empty": (lambda content: b"", "is no torch.export archive"),
    "something else": (lambda content: b"not a zip" * 99, "is no torch.export archive"),
}


@pytest.mark.parametrize(("spoil", "match"), BAD_ARCHIVES.values(), ids=BAD_ARCHIVES)
def test_a_damaged_archive(exported, spoil, match):
    path, _ = exported
    path.write_bytes(spoil(path.read_bytes()))
    refused(path, match)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (replaced('"as_int": 4}', '"as_int": 400000000}'), "claims more numbers than the file holds"),
        (replaced('"as_int": 4}', '"as_int": -4}'), "claims more numbers than the file holds"),
        (replaced('"major": 8', '"major": 99'), "cannot load it"),
        (replaced('"nodes": [', '"nodes": 3, "others": ['), "not a sound torch.export archive"),
        (replaced("upsample_bilinear2d.vec", "upsample_bilinear9d.vec"), "cannot load it"),
        (lambda name, content: b"{" if name.endswith("model.json") else content, "not a sound torch.export archive"),
    ],
)
def test_an_archive_that_contradicts_itself(exported, caplog, change, match):
    rewritten(exported[0], change)
    refused(exported[0], match)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert logging.root.manager.disable == 0


def test_an_archive_of_another_torch_is_told(exported):
    path, _ = exported
    rewritten(path, replaced(f'"torch_version": "{torch.__version__}"', '"torch_version": "2.99"'))
    named = named_code(path)
    assert named.source == "net.pt2, exported by torch 2.99"
    assert f"written by torch 2.99; this is {torch.__version__}" in named.notes


def test_an_archive_is_loaded_as_it_is_for_those_who_trust_it(exported):
    path, module = exported
    assert same(named_code(path, trust=True), module)


# What runs code of its own

WAYS = {
    "whole": lambda module, path: torch.save(module, path),
    "whole, in the old format": lambda module, path: torch.save(module, path, _use_new_zipfile_serialization=False),
    "among others": lambda module, path: torch.save({"epoch": 3, "model": module}, path),
    "wrapped": lambda module, path: torch.save(nn.DataParallel(module), path),
}


def tensors_in(path):
    """All that a file holds without being run, by name, wrappers taken off, and the class that it names."""
    contents = torch_file.contents(path)
    ((group, shapes),) = contents.groups.items()
    found = contents.fetch(group, list(shapes))
    return {name.removeprefix("module."): value for name, value in found.items()}, contents.code[group]


def is_state_of(found, module):
    state = module.state_dict()
    return list(found) == list(state) and all(same_bits(found[name], value) for name, value in state.items())


def same_bits(array, tensor):
    return array.tobytes() == tensor.numpy().tobytes() and array.shape == tuple(tensor.shape)


@pytest.mark.parametrize("save", WAYS.values(), ids=WAYS)
@pytest.mark.filterwarnings("ignore")
def test_a_pickled_module(tmp_path, save):
    module = disturbed(Small())
    save(module, tmp_path / "net.pt")
    assert named_code(tmp_path / "net.pt") is None
    found, name = tensors_in(tmp_path / "net.pt")
    assert is_state_of(found, module)
    assert not is_state_of(found, disturbed(Small()))
    assert name in (f"{Small.__module__}.Small", "torch.nn.parallel.data_parallel.DataParallel")
    named = named_code(tmp_path / "net.pt", trust=True)
    assert same(named, module)
    assert named.name.endswith("test_sources.Small")
    assert (named.in_channels, named.dimensions) == (2, 2)


def test_a_pickled_module_is_not_run_without_trust(tmp_path):
    class Evil(Small):
        def __reduce__(self):
            return exec, (f"open({str(tmp_path / 'evil')!r}, 'w')",), {"_modules": 1, "_parameters": 2, "_buffers": 3}

    torch.save(Evil(), tmp_path / "net.pt")
    assert named_code(tmp_path / "net.pt") is None
    with pytest.raises(CheckpointError, match=r"holds builtins\.exec, which is never run"):
        torch_file.read(tmp_path / "net.pt")
    assert [path.name for path in tmp_path.iterdir()] == ["net.pt"]


def test_several_pickled_modules(tmp_path):
    torch.save({"model": Small(), "ema": Small()}, tmp_path / "net.pt")
    refused(tmp_path / "net.pt", "several modules: model, ema", trust=True)


NET = """
import torch
class Net(torch.nn.Conv2d):
    def __init__(self):
        super().__init__(2, 3, 1)
"""


def test_a_pickled_module_and_its_code(tmp_path, monkeypatch):
    (tmp_path / "net_of_theirs.py").write_text(NET)
    with monkeypatch.context() as patch:
        patch.syspath_prepend(tmp_path)
        torch.save(importlib.import_module("net_of_theirs").Net(), tmp_path / "net.pt")
    sys.modules.pop("net_of_theirs")
    with pytest.raises(CheckpointError, match=r"those of net_of_theirs\.Net: name its code with --module .* --trust"):
        torch_file.read(tmp_path / "net.pt")
    refused(tmp_path / "net.pt", "is in the module net_of_theirs, which is not found", trust=True)
    monkeypatch.chdir(tmp_path)
    assert named_code(Path("net.pt"), trust=True).name == "net_of_theirs.Net"
    assert str(tmp_path) not in sys.path
    sys.modules.pop("net_of_theirs")


@pytest.mark.filterwarnings("ignore")
def test_a_traced_module(tmp_path):
    module = disturbed(Small())
    torch.jit.trace(module, torch.randn(1, 2, 16, 24)).save(tmp_path / "net.pt")
    assert named_code(tmp_path / "net.pt") is None
    found, name = tensors_in(tmp_path / "net.pt")
    assert name.endswith("Small of TorchScript")
    shift = found.pop("shift")  # TorchScript saves all buffers
    assert is_state_of({key: found[key] for key in module.state_dict()}, module)
    assert same_bits(shift, module.shift)
    named = named_code(tmp_path / "net.pt", trust=True)
    state = module.state_dict()
    named.module.load_state_dict(state | {"shift": module.shift}, strict=True)  # TorchScript saves all buffers
    mine = [name for name in named.module.state_dict() if name in state]
    assert mine == list(state)
    assert {name for name, _ in named.module.named_parameters()} == {name for name, _ in module.named_parameters()}
    for size in ((16, 24), (21, 9)):
        x = torch.randn(2, 2, *size)
        assert torch.equal(named.module(x), module(x))


@pytest.mark.filterwarnings("ignore")
def test_a_frozen_module_has_no_names(tmp_path):
    frozen = torch.jit.freeze(torch.jit.trace(disturbed(Small()), torch.randn(1, 2, 16, 24)))
    frozen.save(tmp_path / "net.pt")
    refused(tmp_path / "net.pt", "no kernels by name, as after torch.jit.freeze", trust=True)


@pytest.mark.filterwarnings("ignore")
def test_a_script_that_cannot_be_followed(tmp_path):
    torch.jit.script(disturbed(Small())).save(tmp_path / "net.pt")
    refused(tmp_path / "net.pt", "torch.export cannot follow its TorchScript", trust=True)


# What names no code

PLAIN = {
    "a state_dict": lambda path: torch.save(Small().state_dict(), path),
    "one with its optimiser": lambda path: torch.save({"model": Small().state_dict(), "epoch": 3}, path),
    "one of before": lambda path: torch.save(Small().state_dict(), path, _use_new_zipfile_serialization=False),
    "no checkpoint": lambda path: path.write_bytes(b"\x80\x02garbage"),
    "an empty file": lambda path: path.write_bytes(b""),
    "a zip of something else": lambda path: zipfile.ZipFile(path, "w").close(),
    "a folder": lambda path: path.mkdir(),
    "nothing": lambda path: None,
}


@pytest.mark.parametrize("write", PLAIN.values(), ids=PLAIN)
@pytest.mark.parametrize("trust", [False, True])
def test_what_names_no_code(tmp_path, write, trust):
    write(tmp_path / "net.pt")
    assert named_code(tmp_path / "net.pt", trust=trust) is None


# Packages that are not there


class Failing:
    """Finds one package, and fails at its import."""

    def __init__(self, package):
        self.package = package

    def find_spec(self, name, path=None, target=None):
        if name == self.package:
            raise RuntimeError("operator torchvision::nms does not exist")


SOURCES = {
    "segmentation_models_pytorch": {"config.json": '{"_model_class": "Unet"}', "model.safetensors": ""},
    "monai": {"configs/inference.json": '{"network_def": {"_target_": "UNet"}}', "models/model.pt": ""},
}


def written(folder, package):
    for name, content in SOURCES[package].items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    return folder


@pytest.mark.parametrize(
    ("package", "install"),
    [("segmentation_models_pytorch", "segmentation-models-pytorch"), ("monai", "monai")],
)
def test_a_package_that_is_not_installed(tmp_path, monkeypatch, package, install):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingFrameworkError, match=rf"is in {package}, which needs {install}: pip install {install}$"):
        named_code(written(tmp_path / "net", package))


def test_architectures_that_are_not_installed(nnunet, monkeypatch):
    monkeypatch.setitem(sys.modules, "dynamic_network_architectures", None)
    with pytest.raises(MissingFrameworkError, match=r"pip install dynamic-network-architectures$"):
        named_code(nnunet[0])


def test_a_package_that_needs_another(nnunet, monkeypatch):
    for name in ("timm", "timm.layers"):
        monkeypatch.setitem(sys.modules, name, None)
    folder, _ = nnunet
    name = "dynamic_network_architectures.architectures.primus.Primus"
    edited(folder / "plans.json", architecture(network_class_name=name))
    for module in [module for module in sys.modules if module.startswith("dynamic_network_architectures.")]:
        monkeypatch.delitem(sys.modules, module)
    with pytest.raises(MissingFrameworkError, match=r"which needs timm: pip install timm$"):
        named_code(folder)


def test_a_package_that_does_not_import(tmp_path, monkeypatch):
    package = "segmentation_models_pytorch"
    monkeypatch.delitem(sys.modules, package, raising=False)
    monkeypatch.setattr(sys, "meta_path", [Failing(package), *sys.meta_path])
    with pytest.raises(MissingFrameworkError, match="but does not import: operator torchvision::nms does not exist"):
        named_code(written(tmp_path / "net", package))
