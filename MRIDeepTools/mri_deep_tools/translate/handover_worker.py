"""The child process in which nnU-Net runs; the only place that imports ``nnunetv2``.

It reads one JSON object from standard input, does what it asks, and reports with lines that begin with the token of
:mod:`mri_deep_tools.progress`. Standard input stays open as long as the parent lives; when it closes, this process
ends itself and all that nnU-Net started.

Source of the method: Isensee et al., nnU-Net, Nature Methods 18, 2021, 203-211.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import InputError, MRIDeepToolsError, WeightsError
from ..progress import EVENT_TOKEN

__all__ = ["main"]

Options = dict[str, Any]


def main() -> int:
    """Do one job; returns the exit status."""
    first = _first_line()
    if not first:
        return 1
    threading.Thread(target=_end_with_parent, name="lifeline", daemon=True).start()
    options: Options = json.loads(first)
    try:
        result = _ACTIONS[options["action"]](options)
    except Exception as error:  # noqa: BLE001 everything goes to the log, and one sentence to the parent
        traceback.print_exc()
        told = error if isinstance(error, MRIDeepToolsError) else None
        message = told.message if told else f"{type(error).__name__}: {error}"
        _tell("error", kind=type(error).__name__, message=message, hint=told.hint if told else "")
        return 1
    _tell("done", **result)
    return 0


def _first_line() -> bytes:
    """Read one line byte by byte: a buffered reader could hold its lock while nnU-Net forks."""
    line = bytearray()
    while piece := os.read(0, 1):
        if piece == b"\n":
            break
        line += piece
    return bytes(line)


def _end_with_parent() -> None:
    while os.read(0, 1):
        pass
    import psutil

    for descendant in psutil.Process().children(recursive=True):
        try:
            descendant.kill()
        except psutil.Error:
            continue
    os._exit(1)


def _tell(event: str, **fields: Any) -> None:
    """Write one event as one line, in one piece, since nnU-Net's processes write to the same pipe."""
    sys.stdout.flush()
    line = f"\n{EVENT_TOKEN} {json.dumps({'event': event, **fields})}\n".encode()
    os.write(1, line)


# ------------------------------------------------------------------------------------------------------------- prepare


def _prepare(options: Options) -> Options:
    """Check, measure, plan and preprocess a data set, and write its split into five folds."""
    from batchgenerators.utilities.file_and_folder_operations import save_json
    from nnunetv2.experiment_planning.plan_and_preprocess_api import extract_fingerprints, plan_experiments, preprocess
    from nnunetv2.utilities.crossval_split import generate_crossval_split

    number, processes = options["number"], options["processes"]
    extract_fingerprints(
        [number], num_processes=processes, check_dataset_integrity=options["verify"], show_progress_bar=False
    )
    _tell("part", done=0.3)
    plans = plan_experiments([number], options["planner"])
    if plans != options["plans"]:
        raise InputError(f"the planner {options['planner']} writes {plans}", f"set plans={plans}")
    _tell("part", done=0.4)
    preprocess([number], plans, [options["configuration"]], [processes], show_progress_bar=False)
    splits = Path(options["splits"])
    if not splits.exists() and options["split"]:  # here, since folds that run side by side would write it twice
        save_json(generate_crossval_split(sorted(options["cases"]), seed=12345, n_splits=5), str(splits))
    return {}


# --------------------------------------------------------------------------------------------------------------- train


def _train(options: Options) -> Options:
    """Train or continue one fold, then validate it."""
    import torch
    from nnunetv2.run.run_training import get_trainer_from_args, maybe_load_checkpoint

    torch.set_num_threads(options["threads"])
    if options["seed"] is not None:
        import numpy as np

        torch.manual_seed(options["seed"])
        np.random.seed(options["seed"])
    trainer = get_trainer_from_args(
        options["dataset"],
        options["configuration"],
        options["fold"],
        options["trainer"],
        options["plans"],
        continue_training=options["resume"],
        device=torch.device(options["device"]),
    )
    if options["epochs"] is not None:
        trainer.num_epochs = options["epochs"]
    if options["iterations"] is not None:
        trainer.num_iterations_per_epoch = options["iterations"]
        trainer.num_val_iterations_per_epoch = max(1, options["iterations"] // 5)  # 250 and 50 in nnU-Net
    trainer.save_every = options["save_every"]
    _write_whole(trainer)
    _report_epochs(trainer)
    maybe_load_checkpoint(trainer, options["resume"], False)
    begun = trainer.current_epoch
    _tell("epoch", epoch=begun, epochs=trainer.num_epochs)
    if begun < trainer.num_epochs:
        trainer.run_training()
    elif not trainer.was_initialized:
        trainer.initialize()
    trainer.perform_actual_validation(False)
    return {"begun": begun, "epochs": trainer.num_epochs, "iterations": trainer.num_iterations_per_epoch}


def _write_whole(trainer: Any) -> None:
    """Let a checkpoint take its name only when it is complete: nnU-Net writes over the one before."""
    save = trainer.save_checkpoint

    def save_checkpoint(filename: str) -> None:
        partial = f"{filename}.part"
        save(partial)
        if Path(partial).exists():
            Path(partial).replace(filename)

    trainer.save_checkpoint = save_checkpoint


def _report_epochs(trainer: Any) -> None:
    end = trainer.on_epoch_end

    def on_epoch_end() -> None:
        end()
        fields = {}
        for name in ("train_losses", "val_losses", "mean_fg_dice"):
            value = float(trainer.logger.get_value(name, step=-1))
            fields[name] = value if value == value else None  # not a number is not JSON
        _tell("epoch", epoch=trainer.current_epoch, epochs=trainer.num_epochs, **fields)

    trainer.on_epoch_end = on_epoch_end


# ------------------------------------------------------------------------------------------------------------- segment


def _segment(options: Options) -> Options:
    """Segment pictures one after the other with the mean of the chosen folds."""
    import torch

    torch.set_num_threads(options["threads"])
    predictor = _predictor(options)
    _tell("ready")
    reader = predictor.plans_manager.image_reader_writer_class()
    channels = len(predictor.dataset_json["channel_names"])
    failed = 0
    for index, case in enumerate(options["cases"]):
        try:
            _segment_case(predictor, reader, channels, case)
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 the other pictures are segmented all the same
            traceback.print_exc()
            failed += 1
            message = str(error) if isinstance(error, MRIDeepToolsError) else f"{type(error).__name__}: {error}"
            _tell("failed", name=Path(case["inputs"][0]).name, message=message, index=index)
        else:
            _tell("segmented", index=index)
    return {"failed": failed}


def _predictor(options: Options) -> Any:
    """Return nnU-Net's predictor with the weights of the folds; nothing in a checkpoint is run."""
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
    from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    folder = Path(options["model"])
    plans = PlansManager(json.loads((folder / "plans.json").read_text(encoding="utf-8")))
    dataset = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    files = [folder / f"fold_{fold}" / options["checkpoint"] for fold in options["folds"]]
    checkpoints = [_checkpoint(path) for path in files]
    first = checkpoints[0]
    configuration = plans.get_configuration(first["init_args"]["configuration"])
    predictor = nnUNetPredictor(
        tile_step_size=options["step"],
        use_mirroring=options["mirroring"],
        device=torch.device(options["device"]),
        allow_tqdm=False,
    )
    network = recursive_find_trainer_class_by_name(first["trainer_name"]).build_network_architecture(
        plans,
        configuration,
        determine_num_input_channels(plans, configuration, dataset),
        plans.get_label_manager(dataset).num_segmentation_heads,
        enable_deep_supervision=False,
    )
    weights = [checkpoint["network_weights"] for checkpoint in checkpoints]
    for path, state in zip(files, weights, strict=True):
        try:
            network.load_state_dict(state)
        except RuntimeError as error:
            raise WeightsError(
                f"{path.parent.name}/{path.name} belongs to another network", "check --weights"
            ) from error
    predictor.manual_initialization(
        network,
        plans,
        configuration,
        weights,
        dataset,
        first["trainer_name"],
        first.get("inference_allowed_mirroring_axes"),
    )
    return predictor


def _checkpoint(path: Path) -> Options:
    """Read a checkpoint; numbers of NumPy, which nnU-Net keeps in its log, are allowed, anything else is refused."""
    import pickle

    import numpy as np
    import torch

    kinds = [np.dtype, *(getattr(np.dtypes, name) for name in ("Float64DType", "Float32DType", "Int64DType"))]
    multiarray = getattr(np, "_core", None) or np.core
    scalar = multiarray.multiarray.scalar
    names = ("numpy._core.multiarray.scalar", "numpy.core.multiarray.scalar")  # of NumPy 2 and 1
    try:
        with torch.serialization.safe_globals([*kinds, *((scalar, name) for name in names)]):
            found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path.parent.name}/{path.name} holds more than numbers, or is damaged",
            "train it again, or segment with nnU-Net's own nnUNetv2_predict if you trust its source",
        ) from error
    except (OSError, RuntimeError, EOFError) as error:
        raise WeightsError(f"{path.parent.name}/{path.name} is damaged", "train or copy it again") from error
    wanted = {"network_weights", "init_args", "trainer_name"}
    if not isinstance(found, dict) or not wanted <= set(found):
        raise WeightsError(f"{path.parent.name}/{path.name} is no checkpoint of nnU-Net", "check --weights")
    return found


def _segment_case(predictor: Any, reader: Any, channels: int, case: Options) -> None:
    from .._atomic import atomic_path

    data, properties = _read(reader, channels, case["inputs"])
    labels = predictor.predict_single_npy_array(data, properties)
    with atomic_path(case["output"]) as temporary:
        reader.write_seg(labels, str(temporary), properties)


def _read(reader: Any, channels: int, paths: list[str]) -> tuple[Any, Options]:
    """Read the channels of a case as nnU-Net does in training; colours become grey where the model knows grey only."""
    import numpy as np

    from .pictures import is_picture_path, read_picture

    try:
        data, properties = reader.read_images(paths)
    except (AssertionError, OSError, ValueError, SyntaxError, RuntimeError):
        data, properties = None, {"spacing": (999, 1, 1)}
    if data is not None and data.shape[0] == channels:
        return data, properties
    if channels != 1 or not is_picture_path(paths[0]):
        found = "nothing that can be read" if data is None else f"{data.shape[0]} channels"
        raise InputError(f"{Path(paths[0]).name} has {found}, the model needs {channels}", "check the pictures")
    grey = read_picture(paths[0], on_warning=lambda message: _tell("warning", message=message))
    return np.asarray(grey, np.float32)[None, None], properties


_ACTIONS: dict[str, Callable[[Options], Options]] = {"prepare": _prepare, "train": _train, "segment": _segment}

if __name__ == "__main__":  # nnU-Net spawns processes that import this file again
    sys.exit(main())
