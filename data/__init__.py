"""Data sets as tensors, the batches drawn from them, and the requests to forget some of their rows.

This package is also the kernel that the others build on:

    component    components, and the identities that name their results
    annotations  what the annotations of fields say: bounds of numbers, classes of the data set
    bounds       bounds of numbers, checked before any work
    errors       the exception for mistakes of the user
    streams      named random streams
    disk         full disks, and the files that carry their own checksums
"""
