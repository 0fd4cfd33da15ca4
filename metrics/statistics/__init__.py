"""Mathematics that several metrics share: functions of tensors, without names of scores."""
