"""The tuner: search the options of methods on a validation request, which no table reports.

    python -m runner.tune experiment=shelf_class 'tune.validation={classes:[5]}'

takes the command of a table, and tries `tune.trials` points for each of its methods: first the method's
own options, then those that Optuna's TPE sampler proposes in the space of conf/search/<method>.yaml. A
trial is a run on the validation request, the table's scenario with the options of `tune.validation`; its
result is named <name>_tuning. The best options are written to
<tune.folder>/<dataset>_<model>/<method>.yaml, and runs that are told to by
'tuned=${dataset}_${model}/${method}' take them up. The same command proposes the same points, so that a
search which was stopped goes on from the store. It needs `pip install -e ".[tuner]"`.
"""
