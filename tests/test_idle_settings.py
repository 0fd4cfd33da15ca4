"""Overrides that the values of other options leave without effect are told before any work."""

from collections.abc import Callable

import pytest

from runner.pipeline import run
from runner.plan import Plan
from runner.plan.idle import idle_settings
from tests.conftest import plan_of

Quick = Callable[..., Plan]

# A schedule whose only step comes after the method's `epochs`.
STEPPED = "method.epochs=1 method.schedule=step method.milestones=[2]"

GUIDED = "method=distillation_guided method.distillation=0"
STILL = "method=unsir method.repair_epochs=0"
TAME = "method=scrub method.ascent_epochs=0 method.kl_weight=0"
QUIET = "method=noisy_finetune method.epsilon=null method.noisy_epochs=0"
EXPLICIT = "method=distruction recorder=[bayesian] method.step=explicit"
SHARED = "method.shared_momentum=false"


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("scenario=random scenario.count=9 scenario.fraction=0.2", "scenario.fraction=0.2"),
        ("scenario=poisoned scenario.count=9 scenario.fraction=0.2", "scenario.fraction=0.2"),
        ("training.milestones=[2]", "training.milestones=[2]"),
        ("method.gamma=0.5", "method.gamma=0.5"),
        ("training.schedule=step training.milestones=[50]", "training.schedule=step"),
        ("method.optimizer=adam method.momentum=0.5", "method.momentum=0.5"),
        ("evaluation=quick evaluation.references=8", "evaluation.references=8"),
        ("evaluation=quick reference.weights=null", "reference.weights=null"),
        ("reference.sha256=0", "reference.sha256=0"),
        ("pretrained.limit=9", "pretrained.limit=9"),
        ("pretrained.training.lr=0.1", "pretrained.training.lr=0.1"),
        (
            "pretrained=digits_parity pretrained.training.gamma=0.5",
            "pretrained.training.gamma=0.5",
        ),
        ("evaluation.shadows=16", "evaluation.shadows=16"),
        ("method=retrain evaluation.every=1", "evaluation.every=1"),
        ("method=ssd evaluation.every=1", "evaluation.every=1"),
        ("method=sisa evaluation.every=1", "evaluation.every=1"),
        ("method=amnesiac recorder=[batch_updates] evaluation.every=1", "evaluation.every=1"),
        ("evaluation.curve_batches=9", "evaluation.curve_batches=9"),
        ("shadow=1 evaluation.shadows=16 metric=[ulira]", "shadow=1"),
        ("method=distruction recorder=[bayesian] method.pull_rate=0.1", "method.pull_rate=0.1"),
        ("method=hessian_free recorder=[leave_one_out] method.epsilon=2", "method.epsilon=2"),
        ("method=hessian_free recorder=[leave_one_out] method.delta=0.1", "method.delta=0.1"),
        ("method=noisy_finetune method.delta=0.1 method.epsilon=null", "method.delta=0.1"),
        ("method=sfron method.forget_every=2 method.forget_weight=0", "method.forget_every=2"),
        ("method=sfron method.forget_clip=2 method.forget_weight=0", "method.forget_clip=2"),
        ("method=sfron method.loss_power=2 method.forget_weight=0", "method.loss_power=2"),
        ("method=sfron method.gamma=0.5", "method.gamma=0.5"),
        ("method=scrub method.forget_batch_size=9 method.ascent_epochs=0", "method.forget_batch_size=9"),
        ("method=l1_sparse method.free_epochs=1 method.strength=0", "method.free_epochs=1"),
        (f"{GUIDED} method.temperature=1", "method.temperature=1"),
        (f"{GUIDED} method.direction=code", "method.direction=code"),
        ("method=msg method.factor=0.5 method.share=1", "method.factor=0.5"),
        (f"method=unsir {STEPPED} method.repair_epochs=2", "method.schedule=step"),
        ("method.lr=0.1 method.epochs=0", "method.lr=0.1"),
        ("repair=epochs repair.lr=0.1 repair.epochs=0", "repair.lr=0.1"),
        (f"{STILL} method.clip=1 method.epochs=0", "method.clip=1"),
        (f"{STILL} method.repair_lr=0.1", "method.repair_lr=0.1"),
        (f"{STILL} method.repair_batch_size=9", "method.repair_batch_size=9"),
        ("method=unsir method.batch_size=9 method.epochs=0", "method.batch_size=9"),
        ("method=unsir method.lr=0.1 method.epochs=0", "method.lr=0.1"),
        ("method=unsir method.noise_lr=1 method.noise_steps=0", "method.noise_lr=1"),
        ("method=unsir method.noise_penalty=1 method.noise_steps=0", "method.noise_penalty=1"),
        ("method=reverse_kl method.strength=1 method.strengthen_epochs=0", "method.strength=1"),
        (f"{TAME} method.temperature=1", "method.temperature=1"),
        ("method=l1_sparse method.strength=1 method.epochs=3 method.free_epochs=3", "method.strength=1"),
        (
            "method=negative_gradient_plus method.penalty=1 method.retain_weight=0",
            "method.penalty=1",
        ),
        ("method=uniform_labels method.shared_momentum=false method.momentum=0", SHARED),
        ("method=amnesiac recorder=[batch_updates] method.target=0.1", "method.target=0.1"),
        ("method=rewind recorder=[checkpoints] method.epsilon=2", "method.epsilon=2"),
        ("method=rewind recorder=[checkpoints] method.delta=0.1", "method.delta=0.1"),
        (f"{QUIET} method.noisy_lr=0.001", "method.noisy_lr=0.001"),
        (f"{QUIET} method.noisy_weight_decay=1", "method.noisy_weight_decay=1"),
        (f"{QUIET} method.gradient_norm=9", "method.gradient_norm=9"),
        (f"{EXPLICIT} method.pull_rate=0.1 method.penalty=0", "method.pull_rate=0.1"),
        (f"{EXPLICIT} method.eta=2 method.penalty=1", "method.eta=2"),
        ("method=fisher_forgetting method.cap=9 method.alpha=0", "method.cap=9"),
        ("method=fisher_forgetting method.head_cap=9 method.alpha=0", "method.head_cap=9"),
        ("method=fisher_forgetting method.head_cap=9 method.boost=0", "method.head_cap=9"),
        ("method=fisher_forgetting method.gone_variance=9 method.boost=0", "method.gone_variance=9"),
        (
            "method=sisa method.sharding=by_class method.shards=1 method.slices=1",
            "method.sharding=by_class",
        ),
        ("recorder=[per_sample] recorder.per_sample.mask=fixed", "recorder.per_sample.mask=fixed"),
    ],
)
def test_an_override_without_effect_is_told(command: str, told: str) -> None:
    overrides = command.split()
    first, *_ = idle_settings(plan_of(*overrides), overrides)
    assert first.startswith(f"{told} has no effect: ")


@pytest.mark.parametrize(
    "command",
    [
        "scenario=random scenario.fraction=0.2",
        "experiment=paper003_table1 variant=retrain",  # whose count stands above the default fraction
        # which the method takes over
        "method=exact_k training.optimizer=adam training.momentum=0.5 method.optimizer=sgd",
        "training.schedule=step training.milestones=[2] training.gamma=0.5",
        "evaluation=privacy evaluation.shadows=8 evaluation.references=5",
        "method=retrain evaluation=quick evaluation.every=1",
        "method=ssd repair=epochs evaluation.every=1",  # whose passes are scored
        "pretrained=digits_parity pretrained.limit=9 pretrained.seed=1 pretrained.training.lr=0.1",
        "method=hessian_free recorder=[leave_one_out] method.epsilon=2 method.error=1",
        "method=distruction recorder=[bayesian] method.step=explicit method.pull_rate=0.1",
        "method=sfron method.forget_every=2 method.loss_power=0",
        # a schedule that another phase of the method steps by
        f"method=unsir {STEPPED} method.repair_epochs=3",
        f"method=reverse_kl {STEPPED} method.strengthen_epochs=3",
        f"method=distillation_guided {STEPPED} method.teacher_epochs=3",
        # whose other phase takes steps
        f"{STILL} method.lr=0.1",
        "method=unsir method.repair_lr=0.1 method.epochs=0",
        "method=unsir method.weight_decay=0.1 method.epochs=0",
        "method=salun method.batch_size=9 method.epochs=0",  # which measures in batches
        "training.epochs=0 training.lr=0.1",  # the rate of curves, too
        "method=amnesiac recorder=[batch_updates] method.strength=auto method.target=0.1",
        "method=scrub method.kl_weight=0 method.temperature=1",
        "method=uniform_labels method.shared_momentum=false",
        "recorder=[per_sample] recorder.per_sample.mask=fixed recorder.per_sample.form=masked",
    ],
)
def test_an_override_with_an_effect_is_not(command: str) -> None:
    assert idle_settings(plan_of(*command.split()), command.split()) == []


def test_what_has_no_effect_is_told_before_any_work(
    quick: Quick, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["scenario=random", "scenario.count=9", "scenario.fraction=0.2", "until=pretrain"]
    run(quick(*command), command)
    assert capsys.readouterr().err.startswith("scenario.fraction=0.2 has no effect: count=9 is set\n")
