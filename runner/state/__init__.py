"""The state of cells: what the store, the results and the notes of sweeps say of them, without any work.

A cell is one run of a sweep, or a run alone. Nothing here trains or waits. The begin of a sweep writes
its manifest and notes the cells whose results are stored; a report exports manifests.
"""
