"""Metrics of stored logits, beside the least that they must compute and beside other ways to it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

import conf
from metrics.evidence import Evidence, Needs
from metrics.metric import Metric, scored
from metrics.predictions import Predictions, by_part, predict
from metrics.statistics import rmia
from runner.bench import Figure, seconds
from runner.compose import composed
from runner.plan import Plan
from runner.process import prepare
from tests.bench.record import noise

# A support vector machine is fitted in them: their time is quadratic in the rows.
QUADRATIC = {"mia_bad_teacher_official", "mia_efficacy_official", "trade_off_official"}

# The evidence of one model's logits and those of three others on the same rows.
LOGITS = (Needs.PREDICTIONS, Needs.REFERENCE, Needs.ORIGINAL, Needs.RANDOM)

REFERENCES = 4

FEW = 1000  # rows in the slow loop

BATCH = 1024  # rows of a forward pass


def figures() -> Iterator[Figure]:
    """Measure the metrics of logits, the comparisons, the margins, SSD's attack and RMIA."""
    prepare(torch.device("cpu"), threads=2)
    large = [drawn(seed, train=50_000, forget=5_000, classes=100) for seed in range(len(LOGITS))]
    yield from all_metrics(large)
    yield margins(large[0])
    small = [drawn(seed, train=50_000, forget=5_000, classes=10) for seed in range(REFERENCES + 1)]
    yield attack_by_ratio(small)
    # two threads wait for each other in batches of one: 70 times as long if others use the cores
    prepare(torch.device("cpu"), threads=1)
    yield attack_of_ssd()


def drawn(seed: int, train: int, forget: int, classes: int) -> Predictions:
    """Return random predictions of a request for random rows, with 10,000 test rows.

    The logits lean towards the label, on training rows more.
    """
    random = torch.Generator().manual_seed(seed)
    splits = {}
    for split, n, lean in (("train", train, 6.0), ("test", 10_000, 4.0)):
        labels = torch.arange(n) % classes
        logits = torch.randn(n, classes, generator=random)
        logits[torch.arange(n), labels] += lean
        splits[split] = (logits, labels, torch.arange(n))
    return by_part(splits, {"train": torch.arange(forget), "test": torch.arange(0)}, None)


def fresh(predictions: Predictions) -> Predictions:
    """Return predictions of which nothing is computed yet."""
    return replace(predictions, _computed={})


def of_logits() -> dict[str, Metric]:
    """Return by name the metrics that the logits suffice for, but those of `QUADRATIC`."""
    names = sorted(path.stem for path in (Path(conf.__file__).parent / "metric").glob("[!_]*.yaml"))
    enough = Needs.PREDICTIONS | Needs.REFERENCE | Needs.ORIGINAL | Needs.RANDOM
    built = {
        name: Plan.of(*composed([f"metric=[{name}]", "evaluation.shadows=16"])).metrics[0]
        for name in names
    }
    return {
        name: metric
        for name, metric in built.items()
        if metric.needs in enough and name not in QUADRATIC
    }


def all_metrics(models: Sequence[Predictions]) -> Iterator[Figure]:
    """Measure all metrics of logits together, and the comparison with the retrained model alone."""
    metrics = of_logits()

    def score(*chosen: Metric) -> None:
        given = dict(zip(LOGITS, map(fresh, models), strict=True))
        assert scored(chosen, Evidence(given))

    def logprobs(*each: Predictions) -> None:
        for model in each:
            for logits in model.logits.values():
                logits.double().log_softmax(1)

    least = "log-softmax in float64 of every part of these models"
    together, alone = seconds(lambda: score(*metrics.values()), lambda: logprobs(*models), repeats=3)
    name = f"{len(metrics)} metrics of four models, 60,000 x 100 logits"
    yield Figure(name, together, "s", least, alone)
    closeness, two = seconds(
        lambda: score(metrics["closeness"]), lambda: logprobs(*models[:2]), repeats=3
    )
    yield Figure("closeness of two models, 60,000 x 100 logits", closeness, "s", least, two)


def margins(model: Predictions) -> Figure:
    """Measure the margins of all rows."""

    def ours() -> None:
        again = fresh(model)
        for part in ("train", "test"):
            again.margins(part)

    def confidences() -> None:
        for part in ("train", "test"):
            p = model.logits[part].double().softmax(1).gather(1, model.labels[part][:, None])
            p.log() - (1 - p + 1e-45).log()

    mine, theirs = seconds(ours, confidences)
    plain = "ln p − ln(1 − p + 1e-45) of a softmax in float64, which saturates"
    return Figure("margins, 60,000 x 100 logits", mine, "s", plain, theirs)


def attack_of_ssd() -> Figure:
    """Measure SSD's attack from the images on, and its code's way to the same entropies: a DataLoader of
    batches of one, of which a part is timed and scaled to all rows."""
    (metric,) = Plan.of(*composed(["metric=[mia_ssd_official]"])).metrics
    model = Plan.of(*composed(["model=small_cnn"])).architecture.fresh(1, 28, 10, 0).eval()
    splits = {"train": noise(1, 28, 50_000), "test": noise(1, 28, 10_000)}
    forget = {"train": torch.arange(5_000), "test": torch.arange(0)}

    def ours() -> None:
        predicted = {
            name: (predict(model, split, BATCH, False), split.labels, split.rows)
            for name, split in splits.items()
        }
        assert metric(Evidence({Needs.PREDICTIONS: by_part(predicted, forget, None)}))

    few = splits["train"]
    images = few.pixels.normalise(few.images[:FEW])
    loader = DataLoader(TensorDataset(images, few.labels[:FEW]), batch_size=1, shuffle=False)

    @torch.no_grad()
    def one_by_one() -> None:
        p = torch.cat([F.softmax(model(image), dim=-1) for image, _ in loader])
        -torch.where(p > 0, p * p.log(), p.new_zeros(1)).sum(1)

    whole, part = seconds(ours, one_by_one, repeats=1)  # a turn passes 60,000 rows forward
    rows = sum(map(len, splits.values()))
    name = (
        "mia_ssd_official of small_cnn, 28 px, one thread: forward passes of 60,000 rows, fit on "
        "45,000 + 10,000"
    )
    how = f"batches of one by a DataLoader, {FEW:,} rows timed and scaled to all, without the fit"
    return Figure(name, whole, "s", how, part * rows / FEW)


def attack_by_ratio(models: Sequence[Predictions]) -> Figure:
    """Measure RMIA on 5,000 rows, and a comparison of all pairs of rows."""
    (metric,) = Plan.of(*composed(["metric=[rmia]"])).metrics

    def ours() -> None:
        scored_model, *references = map(fresh, models)
        given: Mapping[Needs, object] = {Needs.PREDICTIONS: scored_model, Needs.REFERENCES: references}
        assert metric(Evidence(given))

    def ratios(part: str) -> Tensor:
        target, *refs = (model.own_logprobs(part).exp() for model in map(fresh, models))
        return target / rmia.expected(torch.stack(refs), 0.3)

    def pairs() -> None:
        x, held_out = ratios("train_forget"), ratios("test")
        for rows in (x, held_out[::2]):
            (rows[:, None] / held_out[1::2] > 1).double().mean(1)

    mine, matrix = seconds(ours, pairs)
    name = f"rmia, {REFERENCES} references, 5,000 rows to forget, 10,000 test rows"
    return Figure(
        name, mine, "s", "the same ratios, all pairs of rows and z, without the report", matrix
    )
