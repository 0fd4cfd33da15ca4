"""Methods that relabel and freeze most weights: selective fine-tuning and guided distillation."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from methods.distillation_guided import DIVERGENCES, Beside, Direction, DistillationGuided
from methods.selective_finetune import SelectiveFinetune, classes_of, masks_of
from methods.weights.heads import head_of, hidden_of
from methods.weights.masks import only
from runner.plan import Plan
from tests.conftest import (
    LEARNED,
    original_of,
    plan_of,
    problem_of,
    result_of,
    stages_of,
    unlearned_of,
)

Quick = Callable[..., Plan]


OPTIMIZERS = [
    ["method.optimizer=sgd", "method.momentum=0.9", "method.weight_decay=0.1", "method.lr=0.05"],
    ["method.optimizer=adamw", "method.weight_decay=0.1"],
    ["method.optimizer=adam", "method.weight_decay=0.1"],
]


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=["sgd", "adamw", "adam"])
@pytest.mark.parametrize("importance", ["gradient", "weight"])
@pytest.mark.parametrize("method", ["selective_finetune", "distillation_guided"])
def test_what_is_frozen_keeps_every_bit(
    quick: Quick, method: str, importance: str, optimizer: list[str]
) -> None:
    chosen = [f"method={method}", f"method.importance={importance}", "method.batch_size=50"]
    stages = stages_of(quick("scenario=relabel", *chosen, *optimizer))
    problem = problem_of(stages)
    asked = stages.plan.method
    assert isinstance(asked, SelectiveFinetune | DistillationGuided)
    masks = masks_of(problem, asked.importance, asked.share, asked.batch_size)
    original, unlearned = original_of(stages), unlearned_of(stages)
    for name, value in original.items():
        frozen = ~masks.get(name, torch.zeros_like(value, dtype=torch.bool))
        assert torch.equal(unlearned[name][frozen], value[frozen]), name
    assert not torch.equal(unlearned["8.weight"][[3, 6]], original["8.weight"][[3, 6]])


def test_the_free_coordinates_are_those_that_the_paper_and_its_code_name(quick: Quick) -> None:
    stages = stages_of(quick(*LEARNED, "scenario=relabel", "method=selective_finetune"))
    problem = problem_of(stages)
    assert classes_of(problem) == (6, 3)
    method = stages.plan.method
    assert isinstance(method, SelectiveFinetune)
    ((_, free),) = masks_of(problem, type(method.importance).gradient, 0.25, 50).items()
    assert free.sum(1).tolist() == [0, 0, 0, 16, 0, 0, 4, 0, 0, 0]
    masks = masks_of(problem, type(method.importance).weight, 0.25, 50)
    units = problem.model.state_dict()["8.weight"][6].abs().topk(4).indices
    assert masks.keys() == {"8.weight", "8.bias", "6.weight", "6.bias"}
    assert masks["8.bias"].nonzero()[:, 0].tolist() == [3, 6]
    assert set(masks["6.bias"].nonzero()[:, 0].tolist()) == set(units.tolist())
    assert masks["6.weight"][units].all() and masks["6.weight"].sum() == 4 * masks["6.weight"].shape[1]


def test_training_is_as_ever_where_everything_is_free_and_the_model_comes_back_whole() -> None:
    torch.manual_seed(0)
    a = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    b = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    b.load_state_dict(a.state_dict())
    x, y = torch.randn(8, 4), torch.randint(2, (8,))

    def learn(model: nn.Module) -> None:
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1)
        for _ in range(3):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()

    learn(a)
    with only(b, {name: torch.ones_like(p, dtype=torch.bool) for name, p in b.named_parameters()}):
        learn(b)
    assert a.state_dict().keys() == b.state_dict().keys()
    assert all(torch.equal(value, b.state_dict()[name]) for name, value in a.state_dict().items())
    assert all(parameter.requires_grad for parameter in b.parameters())


@pytest.mark.parametrize(
    ("model", "head", "hidden"),
    [
        ("small_cnn", "8", "6"),
        ("resnet18", "fc", None),
        ("vit", "head", "blocks.5.mlp.2"),
        ("alexnet", "model.classifier.6", "model.classifier.4"),
    ],
)
def test_heads_are_found_in_every_model(model: str, head: str, hidden: str | None) -> None:
    plan = plan_of(f"model={model}", "dataset=cifar10")
    built = plan.architecture.fresh(3, 32, 10, 0)
    assert head_of(built, 10)[0] == head
    found = hidden_of(built)
    assert (None if found is None else found[0]) == hidden


def test_a_class_becomes_another(quick: Quick) -> None:
    learned = ["training.epochs=60", "training.lr=0.05", "model.hidden=64", "data.limit=40"]
    for method in ("selective_finetune", "distillation_guided"):
        more = ["method.lr=0.01", "method.epochs=15", "method.batch_size=50"]
        result = result_of(quick(*learned, "scenario=relabel", f"method={method}", *more))
        scores = result.scores["unlearned"]
        assert scores["train_forget_accuracy"] < 0.1
        assert scores["train_retain_accuracy"] > 0.8


def test_the_two_directions_of_the_divergence_are_the_papers_and_its_codes() -> None:
    ours, theirs = torch.tensor([[1.0, 0.0, 2.0]]), torch.tensor([[0.0, 0.5, 0.0]])
    p, q = ((logits / 2).softmax(1) for logits in (ours, theirs))
    paper = DIVERGENCES[Direction.paper](ours, theirs, 2.0)
    code = DIVERGENCES[Direction.code](ours, theirs, 2.0)
    assert torch.allclose(paper, (p * (p / q).log()).sum())
    assert torch.allclose(code, 4 * (q * (q / p).log()).sum())


def test_a_teacher_beside_a_student_does_not_learn() -> None:
    student, teacher = nn.Linear(3, 2), nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.9))
    pair = Beside(student, teacher.requires_grad_(False)).train()
    assert student.training and not teacher.training
    pair(torch.ones(4, 3)).sum().backward()
    assert student.weight.grad is not None and teacher[0].weight.grad is None
