"""Sweeps: their cells in this process, in several processes of this machine, as tasks of Ray, or as
jobs of Slurm.

`hydra_plugins.unlearn_launchers` holds the classes that Hydra sees. A cell is one configuration of a
sweep. It leaves notes in its folder, so that any process can tell how it stands.
"""
