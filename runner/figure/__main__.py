"""python -m runner.figure name=digits_small_cnn_whole_class [figure=[scores,curves]]

Draw the stored results of a name, and write the pictures to <paths.root>/figures.
"""

from data.disk import replacing
from data.sources import Source
from runner.errors import run_command
from runner.figure.drawing import Drawing
from runner.figure.runs import Runs
from runner.naming import folder_of, run_name
from runner.report import Report
from runner.results import Results


def main(overrides: list[str]) -> None:
    """Compose the configuration, draw its figures, and print the path of every file written."""
    from runner.plan import build, build_chosen
    from runner.reading import FIGURES, TABLE, composed_for

    cfg, names = composed_for(overrides, *TABLE, *FIGURES)
    name, root = run_name(cfg.name, names), folder_of("paths.root", cfg.paths.root)
    source = build(cfg.dataset, Source, "dataset")
    drawings = build_chosen(cfg.figure, Drawing, "figure", source)
    runs = Runs(Report(Results(root / "results").named(name), list(cfg.table.columns)), root)
    (root / "figures").mkdir(parents=True, exist_ok=True)
    for kind, drawing in drawings.items():
        figure = drawing.draw(runs)
        for suffix in ("png", "svg"):
            path = root / "figures" / f"{name}_{kind}.{suffix}"
            with replacing(path) as scratch:
                figure.savefig(scratch, dpi=150, format=suffix)
            print(path)


if __name__ == "__main__":
    run_command(main, __doc__)
