"""From a flat set of option values to the stages that they ask for, with everything that is wrong told at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from llmrepair.pipeline.errors import Problem, RequestError
from llmrepair.pipeline.stage import Runtime, Stage, StageConfig
from llmrepair.stages.compress import Compress, CompressConfig
from llmrepair.stages.conjecture import Conjecture, ConjectureConfig
from llmrepair.stages.conjecture.stage import CONTROL_REPAIRS, CONTROLS, DAMAGED, DENSE, LAB_CONTROLS, REPAIRS, Role
from llmrepair.stages.control import Control, ControlConfig
from llmrepair.stages.control.texts import ControlName
from llmrepair.stages.evaluate import Evaluate, EvaluateConfig
from llmrepair.stages.fields import ModelConfig
from llmrepair.stages.probe import Probes, ProbesConfig
from llmrepair.stages.regimes import Regimes, RegimesConfig
from llmrepair.stages.sources import LAB_MODELS, LAB_TEXT
from llmrepair.stages.tune_lora import TuneLora, TuneLoraConfig
from llmrepair.stages.tune_prompts import TunePrompts, TunePromptsConfig
from llmrepair.stages.tune_ptune import TunePtune, TunePtuneConfig
from llmrepair.stages.tuning import Tune
from llmrepair.stages.weights import Weights

Values = Mapping[str, Any]
"""Options as they were given, by name; those of `Runtime` are checked too, so that all that is wrong is told at once."""


def compress_stage(values: Values) -> Compress:
    config, _ = validated(values, CompressConfig, Runtime)
    return Compress(config)


def control_stage(values: Values) -> Control:
    compress, control, _ = validated(values, CompressConfig, ControlConfig, Runtime)
    if control.control == "none":
        kinds = ", ".join(get_args(ControlName)[1:])
        raise RequestError(Problem("it is not said which control is wanted", f"give --control: {kinds}", "control"))
    return _control(compress, control)


def tune_prompts_stage(values: Values) -> TunePrompts:
    compress, control, prompts, _ = validated(values, CompressConfig, ControlConfig, TunePromptsConfig, Runtime)
    return TunePrompts(prompts, _weights(compress, control))


def tune_lora_stage(values: Values) -> TuneLora:
    compress, control, lora, _ = validated(values, CompressConfig, ControlConfig, TuneLoraConfig, Runtime)
    return TuneLora(lora, _weights(compress, control))


def tune_ptune_stage(values: Values) -> TunePtune:
    compress, control, ptune, _ = validated(values, CompressConfig, ControlConfig, TunePtuneConfig, Runtime)
    return TunePtune(ptune, _weights(compress, control))


def evaluate_stage(values: Values) -> Evaluate:
    compress, control, prompts, lora, ptune, evaluate, _ = validated(
        values, CompressConfig, ControlConfig, TunePromptsConfig, TuneLoraConfig, TunePtuneConfig, EvaluateConfig, Runtime
    )
    compressed = _weights(compress, control)
    repair: Tune | None = None
    if evaluate.recovery in ("prompt", "idp"):
        repair = TunePrompts(prompts, compressed)
    elif evaluate.recovery == "lora":
        repair = TuneLora(lora, compressed)
    elif evaluate.recovery == "ptune":
        repair = TunePtune(ptune, compressed)
    if evaluate.on_dense and repair is not None:
        repair.compressed = _weights(_with_method(compress), control)
        return Evaluate(evaluate, _dense(compress), repair)
    return Evaluate(evaluate, compressed, repair)


def probe_stage(values: Values) -> Probes:
    compress, control, probes, _ = validated(values, CompressConfig, ControlConfig, ProbesConfig, Runtime)
    return Probes(probes, _weights(compress, control))


def regimes_stage(values: Values) -> Regimes:
    """The dense and the compressed model, and the latter's prompts and LoRA.

    Raises:
        RequestError: no compression and no control is asked for.
    """
    regimes, compress, control, prompts, lora, _ = validated(
        values, RegimesConfig, CompressConfig, ControlConfig, TunePromptsConfig, TuneLoraConfig, Runtime
    )
    if compress.method == "none" and control.control == "none":
        raise RequestError(Problem("there is nothing to compare: no compression is asked for", "give --method", "method"))
    compressed = _weights(_with_method(compress), control)
    return Regimes(regimes, _dense(compress), TunePrompts(prompts, compressed), TuneLora(lora, compressed))


def conjecture_stage(values: Values) -> Conjecture:
    """The evaluations of a model, of each control, and of every repair of theirs with every seed.

    Raises:
        RequestError: `values` hold an option that differs among them.
    """
    config, compress, *_ = validated(
        values, ConjectureConfig, CompressConfig, ControlConfig, TunePromptsConfig, TuneLoraConfig, EvaluateConfig, Runtime
    )
    if taken := sorted(SET_BY_CONJECTURE & values.keys()):
        hint = "leave it out; the tuning seeds are given by --seeds"
        raise RequestError(*(Problem(f"the conjecture test itself sets --{n.replace('_', '-')}", hint, n) for n in taken))
    if compress.method == "none" and values.get("control", "none") == "none":
        raise RequestError(Problem("there is nothing to test: no compression is asked for", "give --method", "method"))
    controls = config.controls if config.controls is not None else _controls_of(compress.model, values)
    models = {DAMAGED: values, **{name: _beside(values, name) for name in controls}}
    evaluations = {Role(DENSE): evaluate_stage({**_without_control(values), "method": "none"})}
    for model, of_model in models.items():
        evaluations[Role(model)] = evaluate_stage(of_model)
        for recovery in REPAIRS if model == DAMAGED else CONTROL_REPAIRS:
            for seed in config.seeds:
                repaired = {**of_model, **REPAIRS[recovery], "seed": seed}
                evaluations[Role(model, recovery, seed)] = evaluate_stage(repaired)
    requested = config.model_dump(mode="json", exclude_unset=True)
    for recovery in CONTROL_REPAIRS:
        requested |= evaluations[Role(DAMAGED, recovery, config.seeds[0])].options()
    requested = {name: value for name, value in requested.items() if name not in SET_BY_CONJECTURE}
    return Conjecture(config, evaluations, probe_stage(values) if compress.model in LAB_MODELS else None, requested)


def _without_control(values: Values) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in _CONTROL_OPTIONS}


def _is_compressed(values: Values) -> bool:
    """Whether the model under test is a compressed one, and no control."""
    return bool(values.get("control", "none") == "none")


def _controls_of(model: str, values: Values) -> tuple[str, ...]:
    """Those that stand beside it if nothing is said; of a model other than the lab's they need a compressed one to imitate."""
    if model in LAB_MODELS:
        return LAB_CONTROLS
    return CONTROLS if _is_compressed(values) else ()


def _beside(values: Values, control: str) -> dict[str, Any]:
    """A control beside the model under test: it loses what that one lost. Where the model under test is itself a control, it
    takes all facts."""
    return {**_without_control(values), "control": control, "control_matched": _is_compressed(values)}


_CONTROL_OPTIONS = ControlConfig.model_fields.keys() - ModelConfig.model_fields.keys()
SET_BY_CONJECTURE = frozenset({"recovery", "select", "seed", "on_dense"})
"""Options that its evaluations differ in, or that would make them another test."""


def _weights(compress: CompressConfig, control: ControlConfig) -> Weights:
    """What is tuned for and evaluated: the compressed model, or a control in its place."""
    return Compress(compress) if control.control == "none" else _control(compress, control)


def _control(compress: CompressConfig, control: ControlConfig) -> Control:
    """
    Raises:
        RequestError: it is to be matched to a compression, and none is asked for.
    """
    if control.is_matched and compress.method == "none":
        message = "the control cannot be matched: no compression is asked for"
        raise RequestError(Problem(message, "give --method, or leave --control-matched out", "control_matched"))
    return Control(control, Compress(compress) if control.is_matched else None)


def _with_method(compress: CompressConfig) -> CompressConfig:
    """The same with its method as if it had been given: of a stage that also has the dense model as an input, `options()`
    would have that one's.
    """
    return compress.model_copy(update={"method": compress.method})


def _dense(compress: CompressConfig) -> Compress:
    """The model that was compressed, as it was."""
    same = {name: getattr(compress, name) for name in ModelConfig.model_fields}
    return Compress(CompressConfig(**same, method="none"))


_STAGES: Mapping[str, Callable[[Values], Stage]] = {
    Compress.name: compress_stage,
    Control.name: control_stage,
    TunePrompts.name: tune_prompts_stage,
    TuneLora.name: tune_lora_stage,
    TunePtune.name: tune_ptune_stage,
    Evaluate.name: evaluate_stage,
    Conjecture.name: conjecture_stage,
    Probes.name: probe_stage,
    Regimes.name: regimes_stage,
}


def make_stage(name: str, values: Values) -> Stage:
    """The stage with a name, from its `Stage.options()`."""
    return _STAGES[name](values)


def validated(values: Values, *classes: type[Any]) -> list[Any]:
    """One config of each class, from the values that it knows.

    Raises:
        RequestError: with every problem of every config.
    """
    configs, problems = [], []
    for each in classes:
        try:
            configs.append(each(**{name: value for name, value in values.items() if name in each.model_fields}))
        except ValidationError as error:
            problems += [_problem(details, each) for details in error.errors(include_url=False)]
    if problems:
        raise RequestError(*dict.fromkeys(problems))
    return configs


def _problem(details: Any, config: type[BaseModel]) -> Problem:
    name = str(details["loc"][0])
    if details["type"] == "problem":
        return Problem(details["ctx"]["message"], details["ctx"]["hint"], name)
    option = f"--{name.replace('_', '-')}"
    if details["type"] == "literal_error":
        return Problem(
            f"`{details['input']}` is no value of {option}", f"give one of {details['ctx']['expected']}".replace("'", "`"), name
        )
    reason = details["msg"][0].lower() + details["msg"][1:]
    return Problem(
        f"`{details['input']}` is no value of {option}: {reason}", f"{option}: {config.model_fields[name].description}", name
    )


def device_problems(runtime: Runtime) -> list[Problem]:
    """Says so if the device that was asked for is not there."""
    if runtime.device in ("auto", "cpu"):
        return []
    import torch

    try:
        torch.empty(0, device=runtime.device)
    except (RuntimeError, AssertionError) as error:  # the latter from a torch without CUDA
        reason = str(error).splitlines()[0].rstrip(".")
        return [Problem(f"device `{runtime.device}` cannot be used: {reason}", "give --device auto or --device cpu")]
    return []


def free_device_memory(runtime: Runtime) -> int | None:
    """Bytes left of the GPU that the stages would use; None where they would use none."""
    from llmrepair.models.loading import pick_device

    device = pick_device(runtime.device)
    if device.type != "cuda":
        return None
    import torch

    return torch.cuda.mem_get_info(device)[0]


def notes(stage: Weights | Tune | Evaluate | Probes | Regimes, values: Values) -> list[str]:
    """What a user may not have meant: options that change nothing, and the lab's text on another model."""
    weights = stage if isinstance(stage, Weights) else stage.compressed
    tuned = stage.repair if isinstance(stage, Evaluate) else stage
    texts = _without_effect(weights.config, "method" if isinstance(weights, Compress) else "control")
    texts += _of_the_other_weights(weights, values)
    if isinstance(stage, Evaluate):
        texts += _without_effect(stage.config, "recovery")
    if weights.config.model in LAB_MODELS:
        return texts
    lab_texts = []
    config = weights.config
    if isinstance(config, CompressConfig) and "calibration" not in config.without_effect() and config.calibration == LAB_TEXT:
        lab_texts.append("--calibration")
    if isinstance(tuned, Tune) and tuned.config.tuning_data == LAB_TEXT:
        lab_texts.append("--tuning-data")
    return texts + [f"{option} is the lab's synthetic text; give a real model text of its kind" for option in lab_texts]


def _of_the_other_weights(weights: Weights, values: Values) -> list[str]:
    """Options of a compression beside a control, or of a control where there is none."""
    control = weights.config.control if isinstance(weights, Control) else "none"
    if isinstance(weights, Control) and weights.compressed is not None:
        return []
    other = CompressConfig if isinstance(weights, Control) else ControlConfig
    unused = sorted(values.keys() & other.model_fields.keys() - ModelConfig.model_fields.keys() - {"control"})
    return [_no_effect(name, "control", control) for name in unused]


def _without_effect(config: StageConfig, decided_by: str) -> list[str]:
    return [
        _no_effect(name, decided_by, getattr(config, decided_by)) for name in sorted(config.given & config.without_effect())
    ]


def _no_effect(option: str, decided_by: str, value: str) -> str:
    return f"--{option.replace('_', '-')} has no effect with --{decided_by} {value}"
