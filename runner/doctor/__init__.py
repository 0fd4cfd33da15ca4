"""The doctor: what a sweep will cost, and what its numbers will be able to tell, before it begins.

    python -m runner.doctor method=amnesiac recorder=[batch_updates] seed=0,1,2

accepts the options of a sweep, and examines its first cell. It trains a few steps to tell the time, and
stores no model: only the request, and the predictions of an original that is stored already.
"""
