"""From a flat set of option values to the stages that they ask for, with everything that is wrong told at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from llmrepair.pipeline.errors import Problem, RequestError
from llmrepair.pipeline.stage import Runtime, Stage, StageConfig
from llmrepair.stages.compress.config import CompressConfig
from llmrepair.stages.compress.stage import Compress
from llmrepair.stages.conjecture.roles import DAMAGED, DENSE, Role
from llmrepair.stages.conjecture.stage import Conjecture, ConjectureConfig, anchors, arms, controls_of, null_arms
from llmrepair.stages.controls import CONTROLS
from llmrepair.stages.controls.stage import Control, ControlConfig
from llmrepair.stages.diagnostics import DIAGNOSTICS
from llmrepair.stages.diagnostics.base import Asked, Diagnostic, Made
from llmrepair.stages.diagnostics.probe import PROBE
from llmrepair.stages.evaluate.stage import Evaluate, EvaluateConfig, RecoveryConfig
from llmrepair.stages.repairs import MEASURED, REPAIRS, TUNINGS
from llmrepair.stages.repairs.base import Repair, Tuning
from llmrepair.stages.repairs.options import TunedOptions
from llmrepair.stages.repairs.tuning.config import TuningConfig
from llmrepair.stages.repairs.tuning.stage import Tune
from llmrepair.stages.sources.defaults import own_defaults, own_group_size
from llmrepair.stages.sources.fields import ModelConfig
from llmrepair.stages.sources.gguf.stage import Import, ImportConfig
from llmrepair.stages.sources.lab import LAB_MODELS, world_of
from llmrepair.stages.sources.texts import LAB_TEXT
from llmrepair.stages.sources.weights import Weights

Values = Mapping[str, Any]
"""Options as they were given, by name; those of `Runtime` are checked too, so that all that is wrong is told at once."""
Panels = Mapping[str, Sequence[type[BaseModel]]]
"""Headings of options -> the configs whose fields they are."""
AnyConfig = TypeVar("AnyConfig", bound=BaseModel)

COMPRESSION: Panels = {"Compression": [CompressConfig]}
WEIGHTS: Panels = {**COMPRESSION, "Control": [ControlConfig]}


def tuning_panels(tunings: Iterable[Tuning]) -> Panels:
    """What all tunings share, and the options of each."""
    every = dict.fromkeys(each for tuning in tunings for each in (*tuning.others, tuning))
    return {"Tuning": [TuningConfig], **{tuning.panel: [tuning.config()] for tuning in every}}


def measuring_panels(repair: Repair) -> Panels:
    """Options of the stage that measures what was tuned."""
    tunings = [repair.tuning] if repair.tuning is not None else []
    return {**tuning_panels(tunings), repair.title: [repair.options()], **WEIGHTS}


def repair_panels() -> Panels:
    """Options of every repair: how it is tuned, and how it is put in place."""
    panels: dict[str, list[type[BaseModel]]] = {"Tuning": [TuningConfig]}
    for repair in REPAIRS.values():
        tuning = repair.tuning
        panel = panels.setdefault(tuning.panel if tuning is not None else repair.title.capitalize(), [])
        panel += [repair.options()] if tuning is None else [tuning.config(), repair.options()]
    return panels


def diagnostic_panels(diagnostic: Diagnostic) -> Panels:
    if (asks := diagnostic.asks()) is not None:
        return {diagnostic.panel: [diagnostic.config()], **EVALUATION, "Evaluation": [asks]}
    tunings = _tunings_of(diagnostic)
    return {diagnostic.panel: [diagnostic.config()], **(tuning_panels(tunings) if tunings else {}), **WEIGHTS}


def options_of(diagnostic: Diagnostic) -> frozenset[str]:
    """Names of the options that one who asks for it can give."""
    known = frozenset(name for config in configs_of(diagnostic_panels(diagnostic)) for name in config.model_fields)
    return known - SET_BY_DIAGNOSTICS


def configs_of(panels: Panels) -> list[type[BaseModel]]:
    """Each once."""
    return list(dict.fromkeys(config for configs in panels.values() for config in configs))


REPAIRED: Panels = {"Repair": [RecoveryConfig], **repair_panels(), **WEIGHTS}
EVALUATION: Panels = {"Evaluation": [EvaluateConfig], **repair_panels(), **WEIGHTS}
TEST: Panels = {"Test": [ConjectureConfig], **EVALUATION}


def compress_stage(values: Values) -> Compress:
    return Compress(_read(values, COMPRESSION)(CompressConfig))


def import_stage(values: Values) -> Import:
    return Import(*validated(values, ImportConfig))


def control_stage(values: Values) -> Control:
    read = _read(values, WEIGHTS)
    if read(ControlConfig).control == "none":
        hint = f"give --control: {', '.join(CONTROLS)}"
        raise RequestError(Problem("it is not said which control is wanted", hint, "control"))
    return _control(read(CompressConfig), read(ControlConfig))


def tuning_stage(tuning: Tuning, values: Values) -> Tune:
    return _tuned(tuning, _read(values, {**tuning_panels([tuning]), **WEIGHTS}))


def _tuned(tuning: Tuning, read: Callable[[type[Any]], Any]) -> Tune:
    compress: CompressConfig = read(CompressConfig)
    made_for = _with_method(compress) if tuning.others else compress
    return tuning.make(read, _weights(made_for, read(ControlConfig)), _dense(compress))


def evaluate_stage(values: Values) -> Evaluate:
    read = _read(values, EVALUATION)
    config, compress, control = read(EvaluateConfig), read(CompressConfig), read(ControlConfig)
    repair = REPAIRS[config.recovery]
    placing, weights = read(repair.options()), _weights(compress, control)
    if repair.tuning is None:
        return Evaluate(config, weights, repair, placing)
    tuned = _tuned(repair.tuning, read)
    if isinstance(placing, TunedOptions) and placing.on_dense:
        tuned.compressed = _weights(_with_method(compress), control)
        weights = _dense(compress)
    measuring = repair.measuring
    measured = measuring.stage()(placing, tuned) if measuring is not None and measuring.is_needed(placing) else None
    return Evaluate(config, weights, repair, placing, tuned, measured)


def compared_evaluations(values: Values) -> dict[str, Evaluate]:
    """The evaluation that is asked for, and in front of it those without its repair and of the dense model, as far as they are
    other ones."""
    asked = evaluate_stage(values)
    unrepaired = {name: value for name, value in values.items() if name != "recovery"}
    plain = evaluate_stage(unrepaired)
    found = {"dense": evaluate_stage({**_without_control(unrepaired), "method": "none"})}
    if isinstance(plain.compressed, Control):
        found["control"] = plain
    elif plain.compressed.config.identity() != found["dense"].compressed.config.identity():
        found["compressed"] = plain
    return found if asked.repair.name == plain.repair.name else {**found, "repaired": asked}


def measuring_stage(repair: Repair, values: Values) -> Stage:
    assert repair.measuring is not None and repair.tuning is not None
    read = _read(values, measuring_panels(repair))
    tuned = _tuned(repair.tuning, read)
    return repair.measuring.stage()(read(repair.options()), tuned)


def diagnostic_stage(diagnostic: Diagnostic, values: Values) -> Stage:
    """
    Raises:
        RequestError: it compares with the dense model, and no compression and no control is asked for.
    """
    read = _read(values, diagnostic_panels(diagnostic))
    compress, control = read(CompressConfig), read(ControlConfig)
    if diagnostic.needs_compression and compress.method == "none" and control.control == "none":
        raise RequestError(Problem("there is nothing to compare: no compression is asked for", "give --method", "method"))
    weights = _weights(_with_method(compress), control)
    tunings = {tuning.name: tuning.stage()(read(tuning.config()), weights) for tuning in _tunings_of(diagnostic)}
    config: Any = read(diagnostic.config())
    asks = diagnostic.asks()
    asked = _asked({**values, "tasks": read(asks).tasks}, config.recoveries) if asks is not None else None
    return diagnostic.stage(config, Made(weights, _dense(compress), tunings, asked))


def _asked(values: Values, recoveries: Sequence[str]) -> Asked:
    """The evaluations of a compressed model, of the dense one, and of repairs.

    Raises:
        RequestError: `values` hold an option that differs among them.
    """
    if taken := sorted(SET_BY_DIAGNOSTICS & values.keys()):
        hint = "leave it out; the repairs are given by --recoveries"
        raise RequestError(*(Problem(f"the diagnostic itself sets --{n.replace('_', '-')}", hint, n) for n in taken))
    dense = evaluate_stage({**_without_control(values), "method": "none"})
    repaired = {name: evaluate_stage({**values, "recovery": name}) for name in recoveries}
    parts = {
        name: [evaluate_stage({**values, **options}) for options in tuning.parts(evaluation.tuned.config)]
        for name, evaluation in repaired.items()
        if evaluation.tuned is not None and (tuning := evaluation.repair.tuning) is not None
    }
    return Asked(dense, evaluate_stage(values), repaired, {name: each for name, each in parts.items() if each})


SET_BY_DIAGNOSTICS = frozenset({"recovery", "on_dense"})
"""Options that what they evaluate differs in, or that would make it another model."""


def _tunings_of(diagnostic: Diagnostic) -> list[Tuning]:
    found = {repair.tuning.name: repair.tuning for repair in diagnostic.repairs() if repair.tuning is not None}
    return list(found.values())


def conjecture_stage(values: Values) -> Conjecture:
    """The evaluations of a model, of each control, and of every repair of theirs with every seed.

    Raises:
        RequestError: `values` hold an option that differs among them.
    """
    read = _read(values, TEST)
    config, compress = read(ConjectureConfig), read(CompressConfig)
    if taken := sorted(SET_BY_CONJECTURE & values.keys()):
        hint = "leave it out; the tuning seeds are given by --seeds"
        raise RequestError(*(Problem(f"the conjecture test itself sets --{n.replace('_', '-')}", hint, n) for n in taken))
    if compress.method == "none" and _is_compressed(values):
        raise RequestError(Problem("there is nothing to test: no compression is asked for", "give --method", "method"))
    controls = config.controls if config.controls is not None else controls_of(compress.model, _is_compressed(values))
    evaluations = _evaluations(values, controls, config)
    requested = config.model_dump(mode="json", exclude_unset=True)
    for _, arm in arms():
        options = evaluations[Role(DAMAGED, arm.name, config.seeds[0])].options()
        requested |= {name: value for name, value in options.items() if name not in {*arm.options, *SET_BY_CONJECTURE}}
    probe, floor = None, None
    if world_of(compress.model) is not None:
        probe, never_told = diagnostic_stage(PROBE, values), anchors()["forgotten"]
        floor = diagnostic_stage(PROBE, _beside(values, never_told)) if never_told in controls else None
    return Conjecture(config, evaluations, {arm.name: arm for _, arm in arms()}, probe, floor, requested)


def _evaluations(values: Values, controls: Sequence[str], config: ConjectureConfig) -> dict[Role, Evaluate]:
    """Of the dense model, of the one under test behind every arm, and of its controls behind those that tell fates; of all but
    the dense one behind what knows nothing."""
    models = {DAMAGED: values, **{name: _beside(values, name) for name in controls}}
    evaluations = {Role(DENSE): evaluate_stage({**_without_control(values), "method": "none"})}
    for model, of_model in models.items():
        evaluations[Role(model)] = evaluate_stage(of_model)
        for repair, arm in arms():
            for seed in config.seeds if model == DAMAGED or arm.role in _ARMS_OF_CONTROLS else ():
                repaired = {**of_model, "recovery": repair.name, **arm.options, "seed": seed}
                evaluations[Role(model, arm.name, seed)] = evaluate_stage(repaired)
        for repair, arm in null_arms(config):
            evaluations[Role(model, arm.name)] = evaluate_stage({**of_model, "recovery": repair.name, **arm.options})
    return evaluations


_ARMS_OF_CONTROLS = ("displaced", "latent")
"""Roles of the arms that controls go through too."""
SET_BY_CONJECTURE = frozenset({"recovery", "seed", "on_dense"}).union(*(repair.set_by_arms for repair in REPAIRS.values()))
"""Options that its evaluations differ in, or that would make them another test."""
_CONTROL_OPTIONS = ControlConfig.model_fields.keys() - ModelConfig.model_fields.keys()


def _without_control(values: Values) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in _CONTROL_OPTIONS}


def _is_compressed(values: Values) -> bool:
    """Whether the model under test is a compressed one, and no control."""
    return bool(values.get("control", "none") == "none")


def _beside(values: Values, control: str) -> dict[str, Any]:
    """A control beside the model under test: it loses what that one lost. Where the model under test is itself a control, it
    takes all facts."""
    return {**_without_control(values), "control": control, "control_matched": _is_compressed(values)}


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


MAKERS: Mapping[str, Callable[[Values], Stage]] = {
    Import.name: import_stage,
    Compress.name: compress_stage,
    Control.name: control_stage,
    **{name: partial(tuning_stage, tuning) for name, tuning in TUNINGS.items()},
    **{name: partial(measuring_stage, repair) for name, repair in MEASURED.items()},
    Evaluate.name: evaluate_stage,
    Conjecture.name: conjecture_stage,
    **{name: partial(diagnostic_stage, diagnostic) for name, diagnostic in DIAGNOSTICS.items()},
}
"""Name of a stage -> what makes it from its `Stage.options()`."""


def _read(values: Values, panels: Panels) -> Callable[[type[AnyConfig]], AnyConfig]:
    """Reads all options of some panels, with defaults for the model; gives the config of each class."""
    classes: list[type[BaseModel]] = [*configs_of(panels), Runtime]
    configs = dict(zip(classes, validated({**_of_the_model(values), **values, **_fitted(values)}, *classes), strict=True))

    def config(wanted: type[AnyConfig]) -> AnyConfig:
        found = configs[wanted]
        assert isinstance(found, wanted)
        return found

    return config


def _of_the_model(values: Values) -> Values:
    return own_defaults(str(values.get("model", LAB_MODELS[0])), values.get("revision"))


def _fitted(values: Values) -> Values:
    """The group size that `auto` stands for."""
    if values.get("group_size") != "auto":
        return {}
    model, revision = str(values.get("model", LAB_MODELS[0])), values.get("revision")
    return {"group_size": own_group_size(model, revision, bool(values.get("trust_remote_code")))}


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
    is_pattern = details["type"] == "string_pattern_mismatch"  # of which the description says more than the pattern
    reason = "" if is_pattern else f": {details['msg'][0].lower()}{details['msg'][1:]}"
    return Problem(
        f"`{details['input']}` is no value of {option}{reason}", f"{option}: {config.model_fields[name].description}", name
    )


def notes(stage: Stage, values: Values) -> list[str]:
    """What a user may not have meant: options that change nothing, and the lab's text on another model."""
    weights = _weights_of(stage)
    texts = _without_effect(weights.config, values, "method" if isinstance(weights, Compress) else "control")
    texts += _of_the_other_weights(weights, values)
    if isinstance(stage, Evaluate):
        texts += _of_other_repairs(stage, values)
    if world_of(weights.config.model) is not None:
        return texts
    lab_texts = []
    config = weights.config
    if isinstance(config, CompressConfig) and "calibration" not in config.without_effect() and config.calibration == LAB_TEXT:
        lab_texts.append("--calibration")
    tuned = stage.tuned if isinstance(stage, Evaluate) else stage
    if isinstance(tuned, Tune) and tuned.config.tuning_data == LAB_TEXT:
        lab_texts.append("--tuning-data")
    return texts + [f"{option} is the lab's synthetic text; give a real model text of its kind" for option in lab_texts]


def _weights_of(stage: Stage) -> Weights:
    """The compressed model, or a control in its place, that a stage works on."""
    weights = stage if isinstance(stage, Weights) else stage.inputs()["compressed"]
    assert isinstance(weights, Weights)
    return weights


def _of_other_repairs(stage: Evaluate, values: Values) -> list[str]:
    """Options that say how another repair is put in place."""
    others = {name for repair in REPAIRS.values() for name in repair.options().model_fields}
    used = type(stage.placing).model_fields.keys() | (stage.tuned.config.model_fields.keys() if stage.tuned else set())
    unused = sorted(values.keys() & others - used - {"size"})
    return [_no_effect(name, "recovery", stage.repair.name) for name in unused]


def _of_the_other_weights(weights: Weights, values: Values) -> list[str]:
    """Options of a compression beside a control, or of a control where there is none."""
    control = weights.config.control if isinstance(weights, Control) else "none"
    if isinstance(weights, Control) and weights.compressed is not None:
        return []
    other = CompressConfig if isinstance(weights, Control) else ControlConfig
    unused = sorted(values.keys() & other.model_fields.keys() - ModelConfig.model_fields.keys() - {"control"})
    return [_no_effect(name, "control", control) for name in unused]


def _without_effect(config: StageConfig, values: Values, decided_by: str) -> list[str]:
    unused = sorted(config.given & values.keys() & config.without_effect())
    return [_no_effect(name, decided_by, getattr(config, decided_by)) for name in unused]


def _no_effect(option: str, decided_by: str, value: str) -> str:
    return f"--{option.replace('_', '-')} has no effect with --{decided_by} {value}"
