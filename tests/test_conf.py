"""Every option builds, every preset runs, and one meaning has one key."""

from functools import cache
from pathlib import Path

import pytest
from hydra.errors import HydraException
from omegaconf import OmegaConf

from data.errors import UserError
from runner.arguments import arranged, typed
from runner.compose import composed, jobs
from runner.naming import SEARCHED
from runner.plan import Plan, identities
from tests.composing import composed_once
from tests.conftest import CONF, QUICK, needs_record, options, plan_of, result_of, stages_of

PRESETS = options("experiment")

# The overrides that a choice cannot do without.
NEEDS = {
    ("scenario", "given_rows"): ["scenario.file={rows}"],
    ("dataset", "digits_parity"): ["scenario.classes=odd"],
    ("scenario", "part_of_class"): ["dataset=cifar20"],
    # their own settings begin at a public checkpoint, a file that nothing downloads
    **{("experiment", name): ["scale=quick"] for name in options("experiment") if "paper001" in name},
}


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    file = tmp_path / "rows.txt"
    file.write_text("1\n2\n3\n")
    return file


@pytest.mark.parametrize(
    ("group", "name"),
    [
        (group, name)
        for group in (
            "dataset", "model", "training", "scenario", "method", "recorder", "repair",
            "evaluation", "figure", "tracking", "experiment",
        )
        for name in options(group)
    ],
)  # fmt: skip
def test_every_option_builds(group: str, name: str, rows: Path) -> None:
    extra = [text.format(rows=rows) for text in NEEDS.get((group, name), [])]
    extra += needs_record(name) if group == "method" else []
    chosen = f"[{name}]" if group in ("recorder", "figure") else name
    plan = plan_of(f"{group}={chosen}", *extra)
    if group == "recorder":
        assert plan.recorders
    elif group not in ("experiment", "figure"):
        assert plan.names.get(group, "none") == name


@cache
def cells(preset: str, scale: str) -> list[list[str]]:
    """Return the options of every cell of a preset at a scale, for the first seed."""
    found = jobs([f"experiment={preset}", f"scale={scale}"])
    first = next((option for option in found[0] if option.startswith("seed=")), "seed=0")
    return [job for job in found if first in job or not any(o.startswith("seed=") for o in job)]


# The presets and the scales at which they have other settings.
SCALED = [
    (preset, scale)
    for preset in PRESETS
    for scale in options("scale")
    if scale in ("paper", "quick") or (CONF / f"scale/experiment/{preset}/{scale}.yaml").exists()
]


@pytest.mark.parametrize(("preset", "scale"), SCALED)
def test_every_cell_of_every_preset_builds_at_every_scale(preset: str, scale: str) -> None:
    """A cell is one of each swept value, and another result than every other cell."""
    plans = []
    for job in cells(preset, scale):
        cfg, _ = composed_once(*job)
        missing = ["model.weights=null"] if cfg.model.weights is not None else []
        plans.append(plan_of(*job, *missing))
    assert len({plan.key for plan in plans}) == len(plans)
    for plan in {plan.architecture: plan for plan in plans if not _is_listed(plan)}.values():
        assert sum(value.numel() for value in plan.outline().parameters())


def _is_listed(plan: Plan) -> bool:
    """Return whether the architecture has a list among its fields, and so cannot be a key."""
    return any(isinstance(value, list) for value in vars(plan.architecture).values())


def test_every_variant_is_a_cell_of_a_preset() -> None:
    """So the test above builds it."""
    swept = "hydra.sweeper.params.variant"
    files = [*CONF.glob("experiment/*.yaml"), *CONF.glob("scale/experiment/**/*.yaml")]
    used = {
        name
        for file in files
        for name in (OmegaConf.select(OmegaConf.load(file), swept) or "").split(",")
    }
    assert set(options("variant")) == used - {""}


# Two methods relabel, and the record of the third takes a product per row and step.
ABSENT = {"selective_finetune", "distillation_guided", "hessian_free"}


@pytest.mark.parametrize(
    ("preset", "absent"),
    [
        ("shelf_class", ABSENT),
        ("shelf_random", {*ABSENT, "lotus", "unsir"}),
        ("shelf_part", {*ABSENT, "lotus", "unsir"}),
    ],
)
def test_the_shelf_has_every_method(preset: str, absent: set[str]) -> None:
    """The heads of the presets say why some methods are absent."""
    swept = {option for job in jobs([f"experiment={preset}"]) for option in job}
    assert {name for name in options("method") if f"method={name}" not in swept} == absent
    head, _, _ = (CONF / f"experiment/{preset}.yaml").read_text().partition("defaults:")
    assert all(name in head for name in absent)


@pytest.mark.parametrize("preset", PRESETS)
def test_the_shelf_alone_takes_searched_numbers(preset: str) -> None:
    """Those of a search on few rows would replace the numbers of a paper."""
    chosen = [composed_once(*job)[1].get("tuned") for job in cells(preset, "paper")]
    assert any(chosen) == preset.startswith("shelf")


@pytest.mark.parametrize("preset", PRESETS)
def test_no_preset_refuses_its_own_retrainings(preset: str) -> None:
    """They are asked for by its name, however slow the machine is."""
    first, *_ = cells(preset, "paper")
    assert composed_once(*first)[0].evaluation.confirm


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_runs_shrunk_to_digits(preset: str, tmp_path: Path) -> None:
    """The first cell runs, and its table asks for no part that its request has not. Every other one
    begins: its method can serve the request."""
    shrunk = cells(preset, "quick")
    first, *others = (plan_of(*job, *_smaller(job), f"paths.root={tmp_path}") for job in shrunk)
    for plan in others:
        assert len(stages_of(plan).request.rows)
    result = result_of(first)
    assert result.status == "done" and result.name.endswith("_quick")
    columns = composed_once(*shrunk[0])[0].table.columns
    assert {name for name in columns if "_forget" in name} <= result.scores["unlearned"].keys()


def _smaller(job: list[str]) -> list[str]:
    """Return the options that shrink a cell further, of those that its model has."""
    cfg, _ = composed_once(*job)
    small = [*QUICK, "model.dim=24", "model.depth=1"]
    # QUICK leaves 20 rows of a class
    small += ["data.rare=3:10"] if cfg.data.rare else []
    return [o for o in small if not o.startswith("model.") or o.split(".")[1].split("=")[0] in cfg.model]


def test_the_scale_of_the_paper_is_the_preset_as_it_is_written() -> None:
    preset = ["experiment=paper003_table1", "variant=retrain"]
    assert plan_of(*preset, "scale=paper") == plan_of(*preset)
    assert plan_of(*preset).name == "paper003_table1"
    small = plan_of(*preset, "scale=cpu")
    assert small.name == "paper003_table1_cpu" and small.recipe.epochs == 40


@pytest.mark.parametrize(
    "given",
    [
        ["-m", "experiment=paper003_table1", "scale=cpu", "seed=0,1"],
        ["-m", "experiment=paper003_table1", "scale=cpu", "scale/experiment=paper004_table1/cpu"],
        ["-m", "method=ssd,scrub", "method.alpha=1", "seed=0"],
        ["-m", "model=small_cnn,resnet18", "model.input_size=choice(16,32)"],
        ["-m", "model=small_cnn,vit", "model.weights='a,b'", "experiment=shelf", "scale=quick"],
        ["method=ssd", "method.alpha=1"],
    ],
)
def test_a_command_is_said_as_it_was_typed(given: list[str]) -> None:
    assert typed(arranged(given)) == given


def test_the_command_line_beats_a_scale() -> None:
    given = ["experiment=paper003_table1", "variant=retrain", "scale=cpu", "training.epochs=7"]
    assert plan_of(*given, "training.milestones=[3]").recipe.epochs == 7


@pytest.mark.parametrize("path", sorted(CONF.glob("experiment/[!_]*.yaml")), ids=lambda path: path.stem)
def test_presets_say_how_to_run_them_what_it_costs_and_what_to_expect(path: Path) -> None:
    head = path.read_text()
    assert f"python -m runner -m experiment={path.stem}" in head and "# expect:" in head
    assert "# unknown:" in head or not path.stem.startswith("paper")
    assert "# cost:" in head or "results/" not in head, "a preset with a page of results says its cost"
    assert "mode:" not in head, "presets choose no Hydra mode"


def test_one_value_has_one_key() -> None:
    written = [plan_of("method.lr=1"), plan_of("method.lr=1.0"), plan_of("method.lr=1e0")]
    assert len({plan.key for plan in written}) == 1


def test_a_strength_may_be_written_in_any_way() -> None:
    record = ["method=per_sample_amnesiac", "recorder=[per_sample]"]
    assert (
        len({plan_of(*record, f"method.strength={text}").key for text in ("64", "64.0", "6.4e1")}) == 1
    )
    assert plan_of(*record, "method.strength=auto").key != plan_of(*record).key
    with pytest.raises(UserError, match="set a number, or auto"):
        plan_of(*record, "method.strength=much")
    with pytest.raises(UserError, match=r"method\.strength=-1: it must be 0, or at least"):
        plan_of(*record, "method.strength=-1")


def test_what_decides_nothing_is_not_in_the_key() -> None:
    plain = plan_of()
    other = plan_of(
        "name=x", "device=cpu", "threads=1", "paths.root=y", "data.root=z", "tracking=off",
        "evaluation=quick", "until=pretrain",
    )  # fmt: skip
    assert plain.key == other.key


@pytest.mark.parametrize(
    "override",
    [
        "seed=1", "method.lr=0.5", "training.epochs=3", "scenario.classes=[4]", "data.limit=9",
        "model.hidden=64", "budget.gradient_examples=10", "dataset.mean=[0.5]",
        "training.precision=bf16",
    ],
)  # fmt: skip
def test_what_decides_a_result_is_in_the_key(override: str) -> None:
    assert plan_of(override).key != plan_of().key


@pytest.mark.parametrize(
    ("overrides", "rows"),
    [
        (["data.rare=[3:5,4:7]"], {3: 5, 4: 7}),
        (["experiment=paper004_table1", "variant=factored"], {3: 100}),
        (["experiment=paper004_table1", "variant=factored", "data.rare=[]"], {}),
    ],
)
def test_classes_are_made_rare_and_whole_again(overrides: list[str], rows: dict[int, int]) -> None:
    assert plan_of(*overrides).rare == rows


def test_keys_change_on_purpose_only() -> None:
    """Golden keys of the default run. If they change, every stored result is computed anew: raise
    the version of the stage that changed its meaning, and then change them here."""
    from runner.store import fingerprint

    plan = plan_of()
    assert {
        "request": fingerprint(identities.request(plan)),
        "pretrain": fingerprint(identities.pretrain(plan)),
        "unlearn": plan.key,
    } == GOLDEN


GOLDEN = {
    "request": "42896a5d6076feeb",
    "pretrain": "85718aebd1000b62",
    "unlearn": "a1a4052d1e5bb4be",
}


TUNED = sorted(CONF.glob("tuned/*/*.yaml"))


def test_the_tuned_folder_is_part_of_the_configuration() -> None:
    assert TUNED


@pytest.mark.parametrize("path", TUNED, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_tuned_numbers_are_taken_if_asked_for_and_the_command_line_beats_them(path: Path) -> None:
    pair, method = path.parent.name, path.stem
    dataset = next(d for d in options("dataset") if pair.startswith(d + "_"))
    usual_choice = [f"method={method}", *needs_record(method)]
    choice = [f"dataset={dataset}", f"model={pair[len(dataset) + 1 :]}", *usual_choice, SEARCHED]
    tuned = OmegaConf.load(path).method
    default, found = vars(plan_of(*usual_choice).method), vars(plan_of(*choice).method)
    assert all(found[option] == value != default[option] for option, value in tuned.items())
    usual = {option: default[option] for option in tuned}
    back = plan_of(*choice, *(f"method.{option}={value}" for option, value in usual.items()))
    assert usual.items() <= vars(back.method).items()


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["method.lr=fast"], "method.lr"),
        (["+method.typo=1"], "method.typo is no parameter of Finetune"),
        (["training.epochs=-1"], "training.epochs=-1"),
        (["method.epochs=-1"], "method.epochs=-1"),
        (["training.optimizer=sdg"], "expected one of [sgd, adam, adamw]"),
        (["scenario=given_rows"], "add scenario.file="),
        (
            ["method._target_=os.system"],
            "method._target_=os.system: a configuration may name",
        ),
        (["method._target_=data.sources.MNIST"], "is no method"),
        (["method._target_=nowhere.Method"], "cannot import nowhere.Method"),
        (["threads=0"], "threads=0"),
        (["name=a/b"], "plain folder name"),
        (["device=tpu9"], "use device="),
        (["data.limit=0"], "data.limit=0"),
        (["evaluation.every=0"], "evaluation.every=0"),
        (["budget.gradient_examples=-5"], "budget.gradient_examples=-5"),
        (["training.momentum=-1"], "training.momentum=-1"),
        (["training.lr=nan"], "training.lr=nan"),
        (["training.clip=-1"], "training.clip=-1"),
        (["method=negative_gradient", "method.stop_loss=nan"], "method.stop_loss=nan"),
        (["variant=factored"], "name the experiment= of this variant"),
        (["dataset=mnist", "tuned=mnist_small_cnn/nope"], "conf/tuned has no such file"),
        (["dataset.mean=[0.1,0.2]"], "dataset.mean has 2 numbers for 1 channels"),
    ],
)
def test_mistakes_are_refused_before_any_work(overrides: list[str], words: str) -> None:
    with pytest.raises(UserError) as refused:
        plan_of(*overrides)
    assert words in str(refused.value)


@pytest.mark.parametrize("override", ["typo=1", "method=nope", "seed=x", "until=never", "method.typo=1"])
def test_hydra_refuses_what_is_no_option(override: str) -> None:
    with pytest.raises(HydraException):
        plan_of(override)


def test_options_may_refer_to_others() -> None:
    plan = plan_of("method.lr=${training.lr}", "training.lr=0.77")
    assert plan.method.lr == 0.77  # type: ignore[attr-defined]


def test_the_order_of_classes_is_no_other_request() -> None:
    keys = {plan_of(f"scenario.classes={c}").key for c in ("[3,5]", "[5,3]", "[3,5,5]")}
    assert len(keys) == 1


def test_the_plan_is_a_value() -> None:
    assert isinstance(plan_of(), Plan) and plan_of() == plan_of()


@pytest.mark.parametrize("extra", [[], ["method=ssd", "method.alpha=7", "seed=3"], ["scale=quick"]])
def test_values_that_are_set_without_hydra_are_those_that_it_sets(extra: list[str]) -> None:
    given = [*QUICK, *extra]
    (once, names), (hydras, chosen) = composed_once(*given), composed(given)
    assert once == hydras and names == chosen
