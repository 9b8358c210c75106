"""Every mistake of a user is an error in one line, with exit code 2, that leaves nothing behind."""

import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import zoo
from zoo import cli, testing


@pytest.fixture(scope="module")
def made(making):
    """A folder with a run, its exported artifact, damaged copies of it, and data of several kinds."""
    random = np.random.default_rng(0)
    with making as folder:
        run = zoo.train("mlp_784_30_10", testing.example_data("classification"), out="run", epochs=1)
        zoo.export(run, "saved_models/mlp_784_30_10.ex")
        shutil.copytree("saved_models/mlp_784_30_10.ex", "broken/mlp_784_30_10.ex")
        os.truncate("broken/mlp_784_30_10.ex/1/variables/variables.data-00000-of-00001", 99)
        shutil.copytree("run", "unfinished")
        record = json.loads(Path("run/run.json").read_text())
        Path("unfinished/run.json").write_text(
            json.dumps({key: value for key, value in record.items() if key != "metrics"})
        )
        images = random.integers(0, 256, (12, 28, 28, 1), dtype=np.uint8)
        np.savez("unlabeled.npz", x_train=images)
        np.savez("floats.npz", x_train=images / np.float32(128) - 1, y_train=np.arange(len(images)) % 2)
        np.savez("masks.npz", x_train=images, y_train=(images[..., 0] > 100).astype(np.int64))
        np.savez("channels.npz", x_train=images.repeat(2, -1), y_train=np.arange(12) % 2)
        for name in ("images/cat", "images/dog"):
            Path(name).mkdir(parents=True)
        Path("images/cat/1.png").write_bytes(tf.io.encode_png(images[0]).numpy())
        Path("image.png").write_bytes(tf.io.encode_png(images[0]).numpy())
        Path("image.txt").write_text("no image")
        Path("text.txt").write_text("a text\n" * 100)
        Path("empty").mkdir()
        Path("photos").mkdir()
        shutil.copy("image.png", "photos/good.png")
        Path("photos/broken.png").write_text("no image")
        Path("file").write_text("a file")
        Path("list.json").write_text("[1, 2]")
        Path("search.json").write_text('{"model": "lenet5", "recipe": 3}')
        Path("short.json").write_text('{"epochs": 1}')
        Path("typo.json").write_text('{"epochs": 1, "bach_size": 8, "learning_rate": 1.0}')
    return folder


@pytest.fixture
def folder(made, tmp_path, monkeypatch):
    monkeypatch.delenv("ZOO_DATA_DIR", raising=False)
    return Path(shutil.copytree(made, tmp_path, dirs_exist_ok=True))


TRAIN = "train mlp_784_30_10 --data digits --epochs 1"
TUNE = "fine-tune mlp_784_30_10.ex --epochs 1 --data"

WRONG = {
    # names
    "info mlp_784_30_10.exx": "unknown artifact 'mlp_784_30_10.exx': did you mean mlp_784_30_10.ex",
    "train mlp": "did you mean mlp_784_10 or mlp_784_100_10 or mlp_784_30_10 or ciresan_mlp?",
    "list --sort size": "unknown order 'size'",
    "info lenet_5": "unknown model 'lenet_5': did you mean lenet5",
    "train lenet_5": "unknown model 'lenet_5': did you mean lenet5",
    "predict mlp_784_30_10.exx image.png": "unknown artifact 'mlp_784_30_10.exx': did you mean mlp_784_30_10.ex",
    "predict nowhere/at.all image.png": "unknown artifact 'nowhere/at.all'",
    "verify mlp_784_30_10.ex lenet5.nothing": "unknown artifact 'lenet5.nothing'",
    "serve gan_mlp.nothing": "unknown artifact 'gan_mlp.nothing'",
    "evaluate gan_mlp --data digits": "unknown artifact 'gan_mlp'",
    "train mlp_784_30_10 --data digit": "unknown data set 'digit': did you mean digits",
    "train mlp_784_30_10 --data imags": "unknown data set 'imags'",
    # recipes
    f"{TRAIN} --recipe papper": "unknown recipe of mlp_784_30_10 'papper': did you mean paper",
    f"{TRAIN} --set bach_size=8": "unknown recipe key 'bach_size': did you mean batch_size",
    f"{TRAIN} --set seed=8": "unknown recipe key 'seed'",
    f"{TRAIN} --set batch_size": "--set needs KEY=VALUE, not 'batch_size'",
    f"{TRAIN} --set batch_size=many": 'wrong value type for field "batch_size"',
    f"{TRAIN} --set batch_size=8.5": 'wrong value type for field "batch_size"',
    f"{TRAIN} --set batch_size=0": "recipe key batch_size must be at least 1, not 0",
    f"{TRAIN} --set learning_rate=-1": "learning_rate must be above 0 and finite, not -1",
    f"{TRAIN} --set learning_rate=NaN": "learning_rate must be above 0 and finite, not nan",
    f"{TRAIN} --set augmentation=5": 'wrong value type for field "augmentation"',
    f'{TRAIN} --set \'schedule={{"kind":"round"}}\'': 'wrong value type for field "schedule.kind"',
    f'{TRAIN} --set \'schedule={{"kin":"step"}}\'': "unknown schedule key 'kin'",
    "train mlp_784_30_10 --data digits --epochs 0": "recipe key epochs must be at least 1, not 0",
    f"{TRAIN} --set label_smoothin=0.1": "unknown recipe key 'label_smoothin': did you mean label_smoothing",
    f"{TRAIN} --set border=5": "unknown recipe key 'border'",  # an option of another task
    f"{TRAIN} --set out=there": "unknown recipe key 'out'",  # a parameter of zoo.train, but no key
    f"{TUNE} digits --set only_class=a": "unknown recipe key 'only_class'",
    f"{TRAIN} --lr 0.1 --set learning_rate=0.2": "learning_rate has two values, 0.1 and 0.2: give one",
    f"{TRAIN} --set epochs=2": "epochs has two values, 1 and 2: give one",
    f"{TRAIN} --set patience=2 --set patience=3": "patience has two values, 2 and 3: give one",
    f"{TRAIN} --lr 0": "recipe key learning_rate must be above 0 and finite, not 0",
    f"{TRAIN} --batch-size 0": "recipe key batch_size must be at least 1, not 0",
    f"{TUNE} digits --batch-size 8 --set batch_size=9": "batch_size has two values, 8 and 9: give one",
    "tune mlp_784_30_10 --set-range hidden": "--set-range needs KEY=RANGE, not 'hidden'",
    "tune mlp_784_30_10 --set-range learning_rate=3..1": "a range from 3 to 1 is empty",
    # builder arguments and files with recipes
    f"{TRAIN} --arg hiden=[50]": "unknown argument of mlp_784_30_10 'hiden': did you mean hidden",
    f"{TRAIN} --arg data=mnist": "unknown argument of mlp_784_30_10 'data'",
    f"{TRAIN} --arg hidden=50,20": "argument hidden of mlp_784_30_10 must be a list such as [30], not '50,20'",
    f"{TRAIN} --arg hidden=[0]": "model mlp_784_30_10 cannot be built",
    "train network3_relu --arg hidden=[0]": "model network3_relu cannot be built",
    "train dcgan_small --arg widths=[]": "model dcgan_small cannot be built",
    f"{TRAIN} --set label_smoothing=10": "label_smoothing must be from 0 to below 1, not 10",
    f"{TRAIN} --set weight_decay=-1": "recipe key weight_decay must be at least 0, not -1",
    f"{TRAIN} --arg hidden": "--arg needs KEY=VALUE, not 'hidden'",
    f"{TRAIN} --config nothing.json": "no nothing.json in .",
    f"{TRAIN} --config image.png": "image.png is damaged",
    f"{TRAIN} --config list.json": "list.json is damaged: it holds no JSON object",
    f"{TRAIN} --config typo.json": "typo.json: unknown recipe key 'bach_size': did you mean batch_size",
    f"{TRAIN} --config search.json": "search.json: recipe: a mapping of keys is needed, not 3",
    f"{TRAIN} --set options=3": "recipe key options must be a mapping of keys, not 3",
    f'{TRAIN} --set \'deviations={{"x":1}}\'': "recipe: ",
    f"{TRAIN} --set learning_rate=1{'0' * 309}": "recipe: ",
    f"{TRAIN} --config short.json": 'short.json: recipe: missing value for field "batch_size"',
    f"{TRAIN} --config run/run.json --recipe paper": "--config and --recipe both give a recipe: give one",
    # devices
    f"{TRAIN} --devices tpu": "unknown devices 'tpu': use auto, cpu, cpu:2 (logical CPUs) or gpu:0,1",
    f"{TRAIN} --devices cpu:0": "unknown devices 'cpu:0'",
    f"{TRAIN} --devices gpu:98,99": "no GPU:98 or GPU:99 on this machine",
    # data
    "evaluate mlp_784_30_10.ex --data digits": "digits has the classes ('0', '1', ",
    "evaluate mlp_784_30_10.ex --data unlabeled.npz": "needs a label for each image as targets",
    "train mlp_784_30_10 --data unlabeled.npz": "needs a label for each image as targets",
    "train mlp_784_30_10 --data masks.npz": "needs a label for each image as targets",
    "train mlp_784_30_10 --data text.txt": "data set text contains texts, the network takes images",
    "train mlp_784_30_10 --data floats.npz": "data set floats has float32 images, the network takes uint8",
    "train mlp_784_30_10 --data images": "class folder 'dog' is empty",
    "train mlp_784_30_10 --data image.png": "image.png has an unknown format",
    "train unet_tiny --data digits": "needs a mask for each image as targets",
    "train lstm_char --data digits": "data set digits contains images, the network takes texts",
    f"{TUNE} masks.npz": "needs a label for each image as targets",
    f"{TUNE} images": "class folder 'dog' is empty",
    f"{TUNE} nothing": "unknown data set 'nothing'",
    # shapes
    "train lenet5 --data digits --input-shape 16,16,1": "lenet5 takes images of 32 x 32, not 16 x 16",
    f"{TRAIN} --input-shape 32x32": "--input-shape needs numbers with commas, such as 32,32,3, not '32x32'",
    f"{TUNE} digits --input-shape 8,8,1": "weights do not fit: hidden1/kernel",
    # images
    "predict mlp_784_30_10.ex nowhere.png": "no file nowhere.png",
    "predict mlp_784_30_10.ex image.txt file": "2 of 2 inputs cannot be read: image.txt (unreadable or truncated)",
    "predict mlp_784_30_10.ex image.png nowhere list.json": "no file nowhere",
    "predict mlp_784_30_10.ex empty": "no file in empty",
    "predict mlp_784_30_10.ex --strict photos": "1 of 2 inputs cannot be read: photos/broken.png (unreadable",
    "predict mlp_784_30_10.ex 'photos/b*.png'": "1 of 1 inputs cannot be read: photos/broken.png",
    # artifacts
    "verify broken/mlp_784_30_10.ex": "variables.data-00000-of-00001 has 99 bytes, not",
    "predict broken/mlp_784_30_10.ex image.png": "is damaged: variables/variables.data-00000-of-00001 has 99 bytes",
    "fine-tune broken/mlp_784_30_10.ex --data digits": "is damaged: variables/variables.data",
    "verify images": "images is not an artifact of zoo: it has no assets.extra/manifest.json",
    "verify image.png": "unknown artifact 'image.png'",
    # places
    f"{TRAIN} --out file/run": "cannot write the run to file/run: Not a directory",
    f"{TRAIN} --out run": "run contains another run (different model, data): choose another --out",
    "export nowhere saved_models/mlp_784_30_10.new": "unknown artifact 'nowhere'",
    "export file saved_models/mlp_784_30_10.new": "unknown artifact 'file'",
    "export unfinished saved_models/mlp_784_30_10.new": "the run in unfinished is not finished",
    "export run saved_models/other.new": "the directory must be named mlp_784_30_10.TAG",
    "export run saved_models/mlp_784_30_10": "the directory must be named mlp_784_30_10.TAG",
    "export run file/mlp_784_30_10.new": "cannot write file/mlp_784_30_10.new/1: Not a directory",
    "export run new.onx --format onx": "unknown format 'onx': did you mean onnx",
    "export run saved_models/mlp_784_30_10.new --storage int8": "unknown storage 'int8'",
}  # fmt: skip


@pytest.mark.parametrize("line", WRONG)
def test_one_line_and_nothing_written(line, folder, refused):
    refused(line, WRONG[line])


LATE = {
    f"{TRAIN} --set optimizer=sdg": "optimizer 'sdg' with",
    f"{TRAIN} --set loss=quadric": "unknown loss of classification 'quadric': did you mean quadratic",
    f"{TRAIN} --set ema=5": "optimizer 'sgd' with",
    "train mlp_784_30_10 --data channels.npz --epochs 1": "images have 2 channels, the network takes 1",
}


@pytest.mark.parametrize("line", LATE)
def test_one_line(line, folder, command):
    code, out, err = command(line)
    assert code == 2, err
    assert err.splitlines()[-1].startswith("error: ")
    assert LATE[line] in err.splitlines()[-1]
    assert "Traceback" not in out + err
    assert not Path("runs").exists()  # nothing is left of a training that cannot begin


def test_a_wrong_name_is_an_error_before_the_training(folder, command):
    code, _, err = command(f"{TRAIN} --export saved_models/other.new")
    assert code == 2
    assert "must be named" in err
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("trian lenet5", "No such command"),
        ("train", "Missing argument"),
        ("train lenet5 --epochs many", "Invalid value"),
        ("fine-tune lenet5.mnist", "Missing option"),
        ("predict lenet5.mnist", "Missing argument"),
        ("list --max-params", "requires an argument"),
    ],
)
def test_words_out_of_place(line, word, folder, command):
    code, out, err = command(line)
    assert code == 2
    assert word in err
    assert "Traceback" not in out + err


def test_debug_shows_the_traceback(folder, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["zoo", "--debug", "info", "lenet_5"])
    with pytest.raises(zoo.ZooError, match="unknown model 'lenet_5'"):
        cli.main()


def test_a_stop_by_the_keyboard_is_no_error(folder, monkeypatch, command):
    def stop(*names):
        raise KeyboardInterrupt

    monkeypatch.setattr(zoo, "get_spec", stop)
    code, _, err = command("info lenet5")
    assert code == 130
    assert "Traceback" not in err
