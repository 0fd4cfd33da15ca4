"""The report of an attack on membership, which several metrics share."""
